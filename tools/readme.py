"""The README's tables of tasks, scores, finders and metrics, from the registries and docstrings.

`python tools/readme.py` writes them between their markers, `<!-- begin NAME -->` and
`<!-- end NAME -->`. What a row says is the first paragraph of a docstring; its sources are the
links that the docstring gives.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from docstrings import paragraphs, unwrapped
from plantjax import masks
from plantjax.finders import FINDERS
from plantjax.jobs import chunks, cli
from plantjax.jobs.job import checking_input
from plantjax.jobs.summary import markdown
from plantjax.metrics import METRICS
from plantjax.scores import SCORES
from plantjax.tasks import TASKS

README = Path(__file__).parent.parent / "README.md"
DEPTH = 5
"""Of the targets whose parameters are counted."""
LINK = r"[^;()]*?(?P<url>https?://[^\s,;)]+)"
AUTHORS = r"(?:de )?[A-Z][\w-]+(?: et al\.| and [A-Z][\w-]+)? \d{4}"
SOURCE = re.compile(rf"(?P<name>paper|{AUTHORS}){LINK}")
"""A source in a docstring: "Lee et al. 2019, https://..."."""


@dataclass(frozen=True)
class Settings:
    """Write the README's tables from the registries."""

    readme: tyro.conf.Positional[Path] = README
    """The file."""


def filled(text: str) -> str:
    """The text with every table made anew.

    Raises:
      ValueError: if the markers of a table are not there, once and in order.
    """
    for name, table in TABLES.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        if text.count(begin) != 1 or text.count(end) != 1 or rest.count(end) != 1:
            raise ValueError(f"README must have {begin} and then {end}, once each.")
        text = f"{before}{begin}\n\n{table()}\n\n{end}{after}"
    return text


def tasks() -> str:
    """Sizes, metric and target of every task."""
    rows = []
    for name, task in TASKS.items():
        target = task.target(DEPTH)
        kept = int(masks.count(masks.live(target, masks.nonzero(target))))
        words = f"{kept}: {summary(task.target)}{options_of(task.target)}"
        rows.append([f"`{name}`", f"{task.n_in}, {task.n_out}", task.metric, words])
    heads = ["task", "inputs, outputs", "metric", f"target at depth {DEPTH}: kept parameters"]
    return markdown(heads, rows)


def scores() -> str:
    """What every score is."""
    rows = [
        [f"`{name}`", summary(make).removeprefix("Scores "), sources(make)]
        for name, make in SCORES.items()
    ]
    return markdown(["score", "the highest are kept of", "source"], rows)


def finders() -> str:
    """What every finder does, and how those that share a function differ."""
    names: dict[tuple[str, str], list[str]] = {}
    for name, make in FINDERS.items():
        names.setdefault((summary(make), sources(make)), []).append(
            f"`{name}`{options_of(make, but=('score',))}"
        )
    rows = [[", ".join(alike), *words] for words, alike in names.items()]
    return markdown(["finder", "what it does", "source"], rows)


def metrics() -> str:
    """What every metric tells."""
    rows = [[f"`{name}`", summary(metric)] for name, metric in METRICS.items()]
    return markdown(["metric", "what it tells"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "tasks": tasks,
    "scores": scores,
    "finders": finders,
    "metrics": metrics,
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


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "readme.py")
        text = filled(settings.readme.read_text())
    with chunks.replacing(settings.readme) as file:
        file.write(text.encode())
    Console().print(f"Tables: {settings.readme}", soft_wrap=True)


if __name__ == "__main__":
    cli.run(main)
