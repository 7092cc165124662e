"""Report: turns results folders into one self-contained HTML page, which opens without a network.

`python experiments/report.py DIR` takes the folder of a script, or one that holds such folders.
"""

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import tyro
from rich.console import Console

from plantjax.jobs import chunks, cli, summary
from plantjax.jobs.job import METRICS, checking_input
from plantjax.metrics import TAKEN

TEMPLATE = Path(__file__).with_name("report.html")
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
    """The whole page; the template escapes every word that it is given.

    Args:
      folders: with config.json, results.csv and pictures.
      title: of the page, plain text.

    Raises:
      ValueError: if a file of a folder cannot be read as what it should be.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = _shown
    template = environment.from_string(TEMPLATE.read_text())
    sections = [_section(folder) for folder in folders]
    return template.render(title=title, sections=sections, most_rows=MOST_ROWS)


def _section(folder: Path) -> dict[str, Any]:
    """What the template shows of one folder."""
    config, table = _read(folder)
    pictures = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    section = {
        "name": folder.name,
        "pictures": {name: base64.b64encode(data).decode() for name, data in pictures.items()},
        "summary": None,
        "rows": len(table),
        "table": _columns_and_rows(table.head(MOST_ROWS)),
        "command": _command(config),
        "origin": _origin(config),
        "settings": {k: _words(v) for k, v in config["settings"].items() if v is not None},
    }
    if set(summary.CASE) <= set(table):
        cases = summary.aggregate(table, _metrics(config, table))
        same = [n for n in summary.CASE if n in SHORT and n in cases and cases[n].nunique() <= 1]
        section["common"] = ", ".join(f"{name} {cases[name].iloc[0]}" for name in same)
        section["summary"] = _columns_and_rows(cases.drop(columns=same))
    return section


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


def _columns_and_rows(table: pd.DataFrame) -> dict[str, Any]:
    """The columns of a table, each with whether it holds numbers, and its rows."""
    is_number = pd.api.types.is_numeric_dtype
    numbers = [is_number(column) and column.dtype != bool for _, column in table.items()]
    columns = list(zip(table, numbers, strict=True))
    return {"columns": columns, "rows": table.itertuples(index=False)}


def _shown(value: Any, number: bool) -> str:
    """A cell as it is shown: four digits of a number, and nothing where there is no value."""
    if pd.isna(value):
        return ""
    return f"{value:.4g}" if number and isinstance(value, float) else str(value)


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
