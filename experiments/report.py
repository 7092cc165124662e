"""Report: turns results folders into one self-contained HTML page, which opens without a network.

`python experiments/report.py DIR` takes the folder of a script, or one that holds such folders.
"""

import base64
import html
import json
import shlex
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from rich.console import Console

from plantjax.jobs import chunks, cli, summary
from plantjax.jobs.job import METRICS, checking_input
from plantjax.metrics import TAKEN

PAGE = Path(__file__).with_name("report.html")
SHORT = {"task", "depth", "width", "noise", "scope", "rounds", "rescale"}
"""Columns that are left out of the summary where they have one value."""
MOST_ROWS = 2_000
"""Of results.csv that a page shows; the summary always counts all."""


@dataclass(frozen=True)
class Settings:
    """Write an HTML page of a results folder: figures, tables, settings, how to reproduce."""

    folder: tyro.conf.Positional[Path]
    """A folder with results of a script, or one whose subfolders have some."""
    out: Path | None = None
    """The page (default: report.html in the folder)."""

    def parts(self) -> list[Path]:
        """The folders with results.

        Raises:
          ValueError: if there are none, or the page cannot be written where it should be.
        """
        if not self.folder.is_dir():
            raise ValueError(f"FOLDER must be a folder with results, got {self.folder}.")
        found = [
            path
            for path in (self.folder, *sorted(self.folder.iterdir()))
            if (path / "results.csv").is_file() and (path / "config.json").is_file()
        ]
        if not found:
            raise ValueError(
                "FOLDER must hold results.csv and config.json, or folders that do, "
                f"got {self.folder}."
            )
        if not self.page.parent.is_dir() or self.page.is_dir():
            raise ValueError(f"--out must be a file in a folder that exists, got {self.page}.")
        return found

    @property
    def page(self) -> Path:
        """Where the page goes."""
        return self.folder / "report.html" if self.out is None else self.out


def page(folders: Sequence[Path], title: str) -> str:
    """The whole page.

    Args:
      folders: with config.json, results.csv and pictures.
      title: of the page, plain text.

    Raises:
      ValueError: if a file of a folder cannot be read as what it should be.
    """
    sections = [_section(folder, len(folders) > 1) for folder in folders]
    template = string.Template(PAGE.read_text())
    return template.substitute(title=html.escape(title), sections="\n".join(sections))


def _section(folder: Path, named: bool) -> str:
    config, table = _read(folder)
    parts = [f"<h2>{html.escape(folder.name)}</h2>"] if named else []
    parts += [_figure(path) for path in sorted(folder.glob("*.png"))]
    if set(summary.CASE) <= set(table):
        cases = summary.aggregate(table, _metrics(config, table))
        same = [name for name in SHORT if name in cases and cases[name].nunique() <= 1]
        common = ", ".join(f"{name} {cases[name].iloc[0]}" for name in summary.CASE if name in same)
        parts.append(f"<h3>Summary</h3><p>{html.escape(common)}</p>")
        parts.append(_table(cases.drop(columns=same)))
    shown = f", the first {MOST_ROWS}" if len(table) > MOST_ROWS else ""
    parts.append(f"<details><summary>All {len(table)} rows{shown}</summary>")
    parts.append(_table(table.head(MOST_ROWS)) + "</details>")
    parts.append("<h3>How to reproduce</h3>")
    parts.append(f"<pre>{html.escape(_command(config))}</pre>")
    parts.append(_facts(_origin(config)))
    parts.append("<h3>Settings</h3>")
    parts.append(_facts({k: _words(v) for k, v in config["settings"].items() if v is not None}))
    return "<section>" + "\n".join(parts) + "</section>"


def _read(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    try:
        config = json.loads((folder / "config.json").read_text())
        if not isinstance(config, dict) or not isinstance(config.get("settings"), dict):
            raise ValueError("config.json has no settings")
        table = pd.read_csv(folder / "results.csv", dtype={"density_name": str})
    except ValueError as error:
        raise ValueError(f"FOLDER must hold results of plantjax, got {folder}: {error}") from None
    return config, table


def _metrics(config: Mapping[str, Any], table: pd.DataFrame) -> list[str]:
    """The columns of metrics that not every table has, as the settings name them."""
    named = config["settings"].get(METRICS)
    named = named if isinstance(named, list) else []
    names = [str(name) for name in table if name in named and name not in TAKEN]
    return [name for name in names if pd.api.types.is_numeric_dtype(table[name])]


def _figure(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    name = html.escape(path.stem)
    return f'<figure><img alt="{name}" src="data:image/png;base64,{data}"></figure>'


def _table(table: pd.DataFrame) -> str:
    """A sortable table; every cell carries the whole value, and shows four digits of it."""
    numeric = [pd.api.types.is_numeric_dtype(table[name]) for name in table]
    numeric = [n and table[name].dtype != bool for n, name in zip(numeric, table, strict=True)]
    head = "".join(
        f'<th scope="col"{" class=n" * number}><button>{html.escape(str(name))}</button></th>'
        for name, number in zip(table, numeric, strict=True)
    )
    rows = "\n".join(
        "<tr>" + "".join(_cell(v, n) for v, n in zip(row, numeric, strict=True)) + "</tr>"
        for row in table.itertuples(index=False)
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(value: Any, number: bool) -> str:
    if not number:
        return f"<td>{'' if pd.isna(value) else html.escape(str(value))}</td>"
    shown = "" if pd.isna(value) else f"{value:.4g}" if isinstance(value, float) else str(value)
    return f'<td class="n" data-v="{value}">{shown}</td>'


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(words)}</dd>"
        for name, words in facts.items()
    )
    return f"<dl>{rows}</dl>"


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _command(config: Mapping[str, Any]) -> str:
    """The command as it was given, without where its results went."""
    words = ["python", *map(str, config.get("command", []))]
    words = [word for word in words if not word.startswith("--out=")]
    if "--out" in words:
        where = words.index("--out")
        del words[where : where + 2]
    return shlex.join(words)


def _origin(config: Mapping[str, Any]) -> dict[str, str]:
    names = ("device", "python", "platform", "commit")
    facts = {name: str(config[name]) for name in names if config.get(name)}
    versions = config.get("versions")
    if isinstance(versions, dict):
        facts["versions"] = ", ".join(f"{name} {number}" for name, number in versions.items())
    return facts


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "report.py")
        folders = settings.parts()
        content = page(folders, f"plantjax: {settings.folder.absolute().name}")
    with chunks.replacing(settings.page) as file:
        file.write(content.encode())
    Console().print(f"Page: {settings.page}", soft_wrap=True)


if __name__ == "__main__":
    cli.run(main)
