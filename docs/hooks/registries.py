"""Registries as Markdown: whatever is registered is described by its own docstring.

A page names a registry by where it is found, `<!-- registry plantjax.FINDERS -->`; so a new entry
appears in the site without an edit, and a new registry is one line of a page.
"""

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from experiments.docstrings import paragraphs, unwrapped

import plantjax as pj

OPTIONS: dict[str, Mapping[str, Any]] = {
    "score": pj.SCORES,
    "allocation": pj.allocations.ALLOCATIONS,
}
"""Options of entries that name an entry of another registry, which is then described, too."""


def find(path: str) -> Mapping[str, Any]:
    """The registry at `package.module.NAME`."""
    module, _, name = path.rpartition(".")
    registry = getattr(import_module(module), name)
    if not isinstance(registry, Mapping) or not registry:
        raise ValueError(f"{path} must be a registry with at least one entry, got {registry!r}.")
    return registry


def sections(path: str) -> str:
    """A table of all entries, then for each a heading and what its docstrings say."""
    parts = [table(path, linked=True)]
    for name, entry in find(path).items():
        parts.append(f"### `{name}` {{ #{_anchor(path, name)} }}")
        parts += described(entry)
    return "\n\n".join(parts)


def table(path: str, linked: bool = False) -> str:
    """A table of all entries, with the first sentence on each.

    Args:
      path: of the registry.
      linked: whether every entry has a section of its own, to which its name leads.
    """
    rows = ["| name | what |", "| --- | --- |"]
    if linked:
        rows = ["| name | what | function |", "| --- | --- | --- |"]
    for name, entry in find(path).items():
        first = next(iter(described(entry)), "").replace("\n", " ").replace("|", "&#124;")
        if linked:
            call = next((f"`{call}`" for call, _ in _calls(entry)), "")
            rows.append(f"| [`{name}`](#{_anchor(path, name)}) | {first} | {call} |")
        else:
            rows.append(f"| `{name}` | {first} |")
    return "\n".join(rows)


def described(entry: Any) -> list[str]:
    """The paragraphs on an entry: what it computes, its source, and the function that makes it."""
    if isinstance(entry, pj.types.Task):
        return [*_task(entry)]
    if isinstance(about := getattr(entry, "about", None), str):
        return [f"{about[:1].upper()}{about[1:]}."]
    maker, options = unwrapped(entry)
    body, source = paragraphs(maker)
    named = [known[options[key]] for key, known in OPTIONS.items() if options.get(key) in known]
    if named:  # that is what tells such entries apart
        parts = [part for other in named for part in (*paragraphs(other)[0], *paragraphs(other)[1])]
        body = parts + body[:1]
    return [*body, *source, *(f"Function: [`{call}`][{path}]." for call, path in _calls(entry))]


def _anchor(path: str, name: str) -> str:
    return f"{path.rpartition('.')[2].lower()}-{name}"


def _task(task: Any) -> Iterator[str]:
    """Sizes and metric of a task, what it samples, and its target."""
    yield f"Inputs: {task.n_in}. Outputs: {task.n_out}. Metric: {task.metric}."
    for role, thing in (("Data", task.sample), ("Target", task.target)):
        maker, options = unwrapped(thing)
        body, _ = paragraphs(maker)
        told = ", ".join(f"{key} = {value}" for key, value in options.items() if _plain(value))
        if body:
            yield f"{role}{f' ({told})' if told else ''}: {' '.join(body)}"


def _calls(entry: Any) -> Iterator[tuple[str, str]]:
    """The call that makes an entry, and the path of its function, if plantjax has one."""
    maker, options = unwrapped(entry)
    path = f"{maker.__module__}.{maker.__qualname__}" if inspect.isfunction(maker) else ""
    if path.startswith("plantjax.") and "<" not in path:
        told = ", ".join(f"{key}={value!r}" for key, value in options.items())
        yield f"{maker.__name__}{f'({told})' if told else ''}", path


def _plain(value: Any) -> bool:
    return isinstance(value, int | float | str | tuple)
