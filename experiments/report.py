"""Report: turns results folders into one self-contained HTML page, which opens without a network.

`python experiments/report.py DIR` takes the folder of a script, or one that holds such folders.
"""

import base64
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import tyro
from markupsafe import Markup
from rich.console import Console

from plantjax.jobs import chunks, cli, summary
from plantjax.jobs.job import METRICS, checking_input
from plantjax.metrics import TAKEN

TEMPLATE = Path(__file__).with_name("report.html")
FILTERS = ("task", "stage", "finder", "density_name", *summary.FURTHER)
"""Columns by whose values a page can be filtered."""
MOST_ROWS = 2_000
"""Of results.csv that a page shows; the summary always counts all."""
ASIDE = ["mask", "dead_value"]
"""Columns that are for programs, and would make a page too wide."""


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
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
    )
    environment.filters |= {"shown": _shown, "breakable": _breakable}
    template = environment.from_string(TEMPLATE.read_text())
    sections = [_section(folder) for folder in folders]
    return template.render(title=title, sections=sections, most_rows=MOST_ROWS)


def _section(folder: Path) -> dict[str, Any]:
    """What the template shows of one folder."""
    config, table = _read(folder)
    pictures = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    section: dict[str, Any] = {
        "name": folder.name,
        "pictures": {name: base64.b64encode(data).decode() for name, data in pictures.items()},
        "pivots": [],
        "marks": [],
        "filters": {},
        "summary": None,
        "rows": len(table),
        "table": _columns_and_rows(table.head(MOST_ROWS).drop(columns=ASIDE, errors="ignore")),
        "command": _command(config),
        "origin": _origin(config),
        "settings": {k: _words(v) for k, v in config["settings"].items() if v is not None},
    }
    if set(summary.CASE) <= set(table):
        section["summary"] = _columns_and_rows(summary.aggregate(table, _metrics(config, table)))
        if {"ticket_density", "target_value"} <= set(table):
            section["pivots"] = summary.pivots(table)
        told = summary.troubles(table).items()
        section["marks"] = [f"n{summary.MARKS[k][0]}: {summary.MARKS[k][2]}" for k, n in told if n]
        section["filters"] = {n: _values(table[n]) for n in FILTERS if n in table}
    return section


def _values(column: pd.Series) -> list[str]:
    """The values of a column as they are shown; none if there is but one."""
    number = pd.api.types.is_numeric_dtype(column)
    values = list(dict.fromkeys(_shown(value, number) for value in column))
    return values if len(values) > 1 else []


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
    """A table without its columns of one value, which are put in words: it fits on a page.

    Returns:
      The columns, each with whether it holds numbers; the rows; and the other columns in words.
    """
    is_number = pd.api.types.is_numeric_dtype
    same = [name for name in table if len(table) > 1 and table[name].nunique(dropna=False) <= 1]
    common = {name: _shown(table[name].iloc[0], is_number(table[name])) for name in same}
    table = table.drop(columns=same)
    numbers = [is_number(column) and column.dtype != bool for _, column in table.items()]
    columns = list(zip(table, numbers, strict=True))
    words = ", ".join(f"{name} {value}" for name, value in common.items() if value)
    return {"columns": columns, "rows": table.itertuples(index=False), "common": words}


def _shown(value: Any, number: bool) -> str:
    """A cell as it is shown: four digits of a number, and nothing where there is no value."""
    if pd.isna(value):
        return ""
    if not (number and isinstance(value, float)):
        return str(value)
    return f"{value:.4g}".replace("e-0", "e-")


def _breakable(text: str) -> Markup:
    """A text in which lines may also break between the parts of a name."""
    parts = re.split(r"(?<=[_+/])", text)
    return Markup("<wbr>").join(parts)


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
