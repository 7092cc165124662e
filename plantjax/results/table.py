"""The release's table: one compressed CSV, whose first lines say how it was made."""

import gzip
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ASSET = Path(__file__).with_name("results.csv.gz")
"""The table that is part of the package."""
COMMAND = "python experiments/leaderboard.py page RESULTS --publish"
"""What makes the table of a results folder."""
NEEDED = ("task", "finder", "seed", "density_name", "stage", "metric", "value", "ticket_value")
"""Columns without which a table is no table of results."""


def load(path: str | Path | None = None) -> Any:
    """Reads a table of results, by default the release's.

    Args:
      path: a CSV file, compressed if its name ends in ".gz"; by default the one of the package.

    Returns:
      A pandas DataFrame, one row per cell and stage; `density_name` is text. Its `attrs` say how
      the table was made, by name: "command", "device", "versions".

    Raises:
      ModuleNotFoundError: without pandas, naming the extra that brings it.
      FileNotFoundError: if there is no such file, or the package was built without the table.
      ValueError: if the file is no table of results.

    >>> import tempfile, pandas as pd
    >>> row = dict.fromkeys(NEEDED, 1.0) | {"task": "relu", "density_name": "0.50"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(pd.DataFrame([row]), Path(folder) / "a.csv.gz", {"command": "python a.py"})
    ...     table = load(Path(folder) / "a.csv.gz")
    >>> table["density_name"].tolist(), table.attrs
    (['0.50'], {'command': 'python a.py'})
    """
    pandas = _pandas()
    file = ASSET if path is None else Path(path)
    if not file.is_file():
        where = "this version has no table of its own" if path is None else f"there is no {file}"
        raise FileNotFoundError(f"{where}: `{COMMAND}` writes one, and load(path) reads it.")
    try:
        raw = file.read_bytes()
        text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode()
        about, body = _parted(text)
        table = pandas.read_csv(io.StringIO(body), dtype={"density_name": str}, low_memory=False)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"path must be a table of results, got {file}: {error}") from None
    missing = [name for name in NEEDED if name not in table]
    if missing:
        raise ValueError(f"path must be a table of results, got {file} without {missing[0]}.")
    table.attrs.update(about)
    return table


def write(table: Any, path: Path, about: Mapping[str, str]) -> None:
    """Writes a table for `load`; the same table makes the same bytes.

    Args:
      table: tidy results, a pandas DataFrame.
      path: where to write the compressed CSV.
      about: how the table was made, a line of text for each name.

    Raises:
      ValueError: if a name or text has a line break, or a name a colon.
    """
    for name, words in about.items():
        if "\n" in name + words or ":" in name:
            raise ValueError(f"about must have names and texts of one line, got {name}: {words!r}.")
    lines = "".join(f"# {name}: {words}\n" for name, words in about.items())
    text = lines + table.to_csv(index=False, lineterminator="\n")
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _parted(text: str) -> tuple[dict[str, str], str]:
    """The first lines, which begin with "# ", and the CSV after them."""
    about = {}
    while text.startswith("# "):
        line, _, text = text.partition("\n")
        name, _, words = line.removeprefix("# ").partition(": ")
        about[name] = words
    return about, text


def _pandas() -> Any:
    """pandas, which only tables need."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "tables need pandas: pip install plantjax[experiments]", name="pandas"
        ) from error
    return pandas
