"""The tables of README and docs, written from the registries and their docstrings.

`python tools/readme.py` writes every table between its markers, `<!-- begin NAME -->` and
`<!-- end NAME -->`. A row holds the first paragraph of a docstring and the sources it links to.
"""

import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from docstrings import paragraphs, unwrapped
from plantjax import finders, masks
from plantjax.data import DATASETS
from plantjax.finders import CONTROLS, FINDERS, REFERENCES
from plantjax.finders.entries import space_of
from plantjax.jobs import chunks, cli
from plantjax.jobs.job import checking_input
from plantjax.jobs.summary import markdown
from plantjax.metrics import METRICS
from plantjax.scores import SCORES
from plantjax.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ("tasks.md", "finders.md", "results.md", "paper.md", "performance.md")
FILES = (ROOT / "README.md", *(ROOT / "docs" / name for name in DOCS))
BENCHMARK = ROOT / "experiments" / "results" / "benchmark-cpu.json"
DEPTH = 5
"""Of the targets whose parameters are counted."""
COLUMNS = 80
"""Of a terminal on which the README's table is to be read."""
LINK = r"[^;()]*?(?P<url>https?://[^\s,;)]+)"
AUTHORS = r"(?:de )?[A-Z][\w-]+(?: et al\.| and [A-Z][\w-]+)? \d{4}"
SOURCE = re.compile(rf"(?P<name>paper|{AUTHORS}){LINK}")
"""A source in a docstring: "Lee et al. 2019, https://..."."""
MARKER = re.compile(r"<!-- (begin|end) (\w+) -->")

FAMILIES: dict[str, tuple[Callable[..., Any], ...]] = {
    "Singleshot": (finders.singleshot, finders.layer_budgets, finders.phew),
    "Multishot": (finders.multishot, finders.aligned),
    "Edge-popup": (finders.edge_popup, finders.edge_popup_levels, finders.iterand),
    "Gates": (
        finders.gem_miner,
        finders.continuous_sparsification,
        finders.hard_concrete,
        finders.bernoulli_gates,
        finders.concrete_ticket,
    ),
    "Sparse training": (finders.sparse_training, finders.ac_dc, finders.sign_in, finders.ham),
    "Search": (finders.genetic, finders.seek),
}
"""Functions that make finders, by family; those that are not here are of the family OTHERS."""
OTHERS = "Others"


@dataclass(frozen=True)
class Settings:
    """Write the tables of README and docs from the registries."""

    files: tyro.conf.Positional[tuple[Path, ...]] = FILES
    """Markdown files with markers."""


def filled(text: str) -> str:
    """The text with every table that it has markers for made anew.

    Raises:
      ValueError: if a marker is unknown, missing, there twice or out of order.
    """
    found = MARKER.findall(text)
    for name in dict.fromkeys(name for _, name in found):
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if name not in TABLES:
            raise ValueError(f"Markers must name one of {', '.join(TABLES)}, got {name!r}.")
        if [kind for kind, other in found if other == name] != ["begin", "end"]:
            raise ValueError(f"The file must have {begin} and then {end}, once each.")
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n\n{TABLES[name]()}\n\n{end}{after}"
    return text


def overview() -> str:
    """The names of all tasks, and of all finders by family, in lines of 80 columns."""
    groups = {"tasks": list(TASKS)}
    for family, makers in families():
        names = [name for entries in makers.values() for name in entries]
        groups[family.lower()] = _without_scores(names)
    first = max(map(len, groups))
    room = COLUMNS - first - len("|  |  |")
    rows = []
    for group, names in groups.items():
        words = ", ".join(f"`{name}`" for name in names)
        lines = textwrap.wrap(words, room, break_long_words=False, break_on_hyphens=False)
        rows += [[group if not number else "", line] for number, line in enumerate(lines)]
    second = max(len(line) for _, line in rows)
    aligned = [[group.ljust(first), line.ljust(second)] for group, line in [("", "names"), *rows]]
    return markdown(aligned[0], aligned[1:])


def tasks() -> str:
    """Sizes, metric and target of every task."""
    rows = []
    for name, task in TASKS.items():
        target = task.target(DEPTH)
        kept = int(masks.count(masks.live(target, masks.nonzero(target))))
        words = summary(task.target) + options_of(task.target)
        rows.append([f"`{name}`", f"{task.n_in}, {task.n_out}", task.metric, str(kept), words])
    return markdown(["task", "inputs, outputs", "metric", "kept", "target"], rows)


def scores() -> str:
    """The formula of every score."""
    rows = [
        [f"`{name}`", summary(make).removeprefix("Scores "), sources(make)]
        for name, make in SCORES.items()
    ]
    return markdown(["score", "the highest are kept of", "source"], rows)


def families() -> Iterator[tuple[str, dict[Any, list[str]]]]:
    """Every family that has finders, with the names of its finders by their function."""
    made_by: dict[Any, list[str]] = {}
    for name, make in FINDERS.items():
        made_by.setdefault(unwrapped(make)[0], []).append(name)
    members = {f: tuple(unwrapped(maker)[0] for maker in FAMILIES[f]) for f in FAMILIES}
    known = {maker for makers in members.values() for maker in makers}
    others = {OTHERS: tuple(maker for maker in made_by if maker not in known)}
    for family, makers in (members | others).items():
        if found := {maker: made_by[maker] for maker in makers if maker in made_by}:
            yield family, found


def all_finders() -> str:
    """A heading and a table for each family of finders."""
    parts = []
    for family, makers in families():
        rows = []
        for maker, names in makers.items():
            for name in names:
                options = options_of(FINDERS[name])
                if name == names[0]:
                    rows.append([f"`{name}`", summary(maker) + options, sources(maker)])
                else:
                    rows.append([f"`{name}`", f"the same{options}", ""])
        parts += [f"### {family}", markdown(["finder", "what it does", "source"], rows)]
    return "\n\n".join(parts)


def described(registry: Mapping[str, Any], kind: str) -> Callable[[], str]:
    """A table of the names in a registry, with the first paragraph on each."""

    def table() -> str:
        rows = [[f"`{name}`", summary(entry)] for name, entry in registry.items()]
        return markdown([kind, "what it is"], rows)

    return table


def figures() -> str:
    """The figures of `experiments/paper.py`."""
    sys.path.append(str(ROOT / "experiments"))
    from figures.protocols import PROTOCOLS

    rows = [[f"`{name}`", protocol.about] for name, protocol in PROTOCOLS.items()]
    return markdown(["name", "what it shows"], rows)


def spaces() -> str:
    """The options of every finder that are tuned, and where they are drawn from."""
    finders_of: dict[str, list[str]] = {}
    for name, make in FINDERS.items():
        words = "; ".join(f"`{option}` {space}" for option, space in space_of(make).items())
        finders_of.setdefault(words or "nothing", []).append(name)
    rows = [
        [", ".join(f"`{name}`" for name in _without_scores(names)), words]
        for words, names in finders_of.items()
    ]
    return markdown(["finder", "what is tuned"], rows)


def peers() -> str:
    """The peers that `experiments/benchmark.py` measured training against."""
    rows = []
    for row in json.loads(BENCHMARK.read_text()):
        if "times_ours" in row:
            low, high = row["times_ours_spread"]
            seconds, own = row["seconds_per_network"], row["our_seconds_per_network"]
            ratio = f"{row['times_ours']:.2f} ({low:.2f}-{high:.2f})"
            losses = f"{row['loss']:.3f}, {row['our_loss']:.3f}"
            name = f"{row['about']}; networks at once: {row['networks']}"
            rows.append([name, f"{1e3 * seconds:.0f}, {1e3 * own:.0f}", ratio, losses])
    return markdown(["training by", "ms, ours", "times ours", "loss, ours"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "overview": overview,
    "tasks": tasks,
    "datasets": described(DATASETS, "data set"),
    "finders": all_finders,
    "references": described(REFERENCES, "reference"),
    "scores": scores,
    "spaces": spaces,
    "controls": described(CONTROLS, "control"),
    "metrics": described(METRICS, "metric"),
    "figures": figures,
    "peers": peers,
}
"""The tables by the names of their markers."""


def summary(function: Callable[..., Any]) -> str:
    """The first paragraph of a docstring as a cell of a table, without its sources."""
    body, _ = paragraphs(unwrapped(function)[0])
    paragraph = " ".join(" ".join(body[:1]).split())
    words = re.sub(r" \([^()]*https?://[^()]*\)", "", paragraph)
    return words.removesuffix(".").replace("|", "\\|")


def sources(function: Callable[..., Any]) -> str:
    """The sources that a docstring gives as links."""
    body, source = paragraphs(unwrapped(function)[0])
    links = SOURCE.finditer(" ".join(" ".join(source or body).split()))
    return ", ".join(f"[{found['name']}]({found['url'].rstrip('.')})" for found in links)


def options_of(function: Callable[..., Any], but: Sequence[str] = ()) -> str:
    """The options that a registry has set, as in " (rounds=100)"."""
    _, given = unwrapped(function)
    words = ", ".join(f"{name}={value}" for name, value in given.items() if name not in but)
    return f" ({words})" if words else ""


def _without_scores(names: Sequence[str]) -> list[str]:
    """The names with one for all finders that exist once for each score, as "multishot_SCORE"."""
    stems = [name.removesuffix(next(iter(SCORES))) for name in names]
    whole = {s for s in stems if s and s not in names and {s + n for n in SCORES} <= {*names}}
    short = {stem + score: f"{stem}SCORE" for stem in whole for score in SCORES}
    return list(dict.fromkeys(short.get(name, name) for name in names))


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "readme.py")
        texts = {path: filled(path.read_text()) for path in settings.files}
    for path, text in texts.items():
        with chunks.replacing(path) as file:
            file.write(text.encode())
        Console().print(f"Tables: {path}", soft_wrap=True)


if __name__ == "__main__":
    cli.run(main)
