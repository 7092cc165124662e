"""Entries: masks that others found, read from a folder and checked before anything is scored.

Nothing that an entry says is believed: names, shapes, dtypes, counts and worlds are compared with
our own, and files are read without unpickling anything.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from plantjax import checks, interchange, masks
from plantjax.finders import FINDERS, REFERENCES
from plantjax.jobs.chunks import DAMAGES
from plantjax.jobs.grids import HALF, TICKET, Tickets
from plantjax.tasks import TASKS
from ranking.open_worlds import WORLD, Sheet

ABOUT = "entry.toml"
FIELDS = {
    "name": "of the method",
    "source": "paper or code",
    "cost": "what the masks took, in the authors' words",
    "looked_at": "what the method was told or saw",
}
"""What entry.toml says, all in one line of text each."""
LONGEST, LARGEST = 1_000, 32_000
"""The most characters of a field, and bytes of the file."""
NAME = re.compile(r"(?=.{1,50}$)[A-Za-z0-9]+([ _.:-][A-Za-z0-9]+)*")
BESIDE = (ABOUT, "README.md")
"""Files that an entry may hold beside its masks."""

Flat: TypeAlias = Mapping[tuple[str, int], np.ndarray]
"""Masks of one task by (name of the density, seed), bool [P] with the leaves in tree order."""


@dataclass(frozen=True)
class Entry:
    """A checked entry.

    Attributes:
      about: the fields of entry.toml.
      masks: by task, in the order of TASKS.
      densities: their values, by task and name, the highest first.
    """

    about: Mapping[str, str]
    masks: Mapping[str, Flat]
    densities: Mapping[str, Mapping[str, float]]

    def digest(self) -> str:
        """A hash of all masks."""
        digest = hashlib.sha256()
        for task, found in self.masks.items():
            for place, mask in sorted(found.items()):
                digest.update(json.dumps([task, *place]).encode() + np.packbits(mask).tobytes())
        return digest.hexdigest()


class _File(NamedTuple):
    """A file of a mask, and what its name says."""

    path: Path
    task: str
    seed: int
    density: str


def read(folder: Path, sheet: Sheet) -> Entry:
    """Reads an entry and checks all of it.

    Args:
      folder: with entry.toml and masks TASK/SEED/DENSITY.npz.
      sheet: the worlds that the masks must be of.

    Raises:
      ValueError: if anything is missing, damaged, unknown, over budget or of another world.
    """
    if not folder.is_dir():
        raise ValueError(f"FOLDER must be a folder with an entry, got {folder}.")
    try:
        about = _about(folder / ABOUT)
        files = list(_files(folder))
    except OSError as error:
        raise ValueError(f"FOLDER must be an entry that can be read, got {error}.") from error
    if not files:
        raise ValueError(f"FOLDER must hold masks TASK/SEED/DENSITY.npz, got none in {folder}.")
    tickets, found, densities = Tickets(), {}, {}
    for task in (name for name in TASKS if any(file.task == name for file in files)):
        own = [file for file in files if file.task == task]
        values = sheet.densities(task, [file.density for file in own], tickets)
        densities[task] = dict(sorted(values.items(), key=lambda pair: -pair[1]))
        found[task] = _of_task(own, sheet, values)
    return Entry(about, found, densities)


def _about(path: Path) -> dict[str, str]:
    """The fields of entry.toml."""
    if not path.is_file():
        raise ValueError(f"FOLDER must hold {ABOUT}, got {path.parent} without it.")
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"{path} must have at most {LARGEST} bytes.")
    try:
        given = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be TOML, got a file with an error: {error}.") from error
    checks.options(ABOUT, given, FIELDS)
    for name, meaning in FIELDS.items():
        text = given.get(name)
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            raise ValueError(f"{path} must have one line of text as {name}: {meaning}.")
        if len(text) > LONGEST:
            raise ValueError(f"{name} in {path} must have at most {LONGEST} characters.")
    name = given["name"]
    if not NAME.fullmatch(name):
        raise ValueError(
            f"name in {path} must be up to 50 letters and digits, with single spaces or _.:- "
            f"between them, got {name!r}."
        )
    if name.lower() in FINDERS or name.lower() in REFERENCES:
        raise ValueError(f"name in {path} must not be that of a finder here, got {name!r}.")
    return given


def _files(folder: Path) -> Iterator[_File]:
    """All files of masks, after a look at their names; hidden files are passed over."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        folder_here = path.is_dir() and not path.is_symlink()
        if folder_here or any(part.startswith(".") for part in parts) or parts[0] in BESIDE:
            continue
        if len(parts) not in (3, 4) or path.suffix != ".npz" or not path.is_file():
            raise ValueError(f"{path} must be a mask, TASK/SEED/DENSITY.npz; leave others out.")
        task, seed, density = parts[0], parts[1], "/".join(parts[2:]).removesuffix(".npz")
        checks.choice(f"{path}: task", task, TASKS)
        if not re.fullmatch(r"0|[1-9][0-9]{0,9}", seed) or int(seed) >= 2**31:
            raise ValueError(f"{path} must have as seed an integer from 0 to 2^31 - 1, got {seed}.")
        if density not in (TICKET, HALF) and not _is_decimal(density):
            raise ValueError(
                f"{path} must be named after its density, a decimal in (0, 1] such as 0.1, "
                f"{TICKET} or {HALF}, got {density}."
            )
        yield _File(path, task, int(seed), density)


def _is_decimal(name: str) -> bool:
    """Whether a density is written in the one way that tables use: "0.1", not "0.10" or "1e-1"."""
    try:
        value = float(name)
    except ValueError:
        return False
    return 0.0 < value <= 1.0 and np.format_float_positional(value, trim="-") == name


def _of_task(files: list[_File], sheet: Sheet, values: Mapping[str, float]) -> Flat:
    """The masks of one task."""
    forms = sheet.forms(files[0].task)
    like = {**forms, WORLD: jax.ShapeDtypeStruct((32,), np.uint8)}
    n = masks.size(forms)
    found, stamps = {}, {}
    for file in files:
        try:
            tree = interchange.load(file.path, like)
        except DAMAGES as error:
            words = str(error)
            known = isinstance(error, ValueError) and words.startswith(str(file.path))
            words = words.rstrip(".") if known else f"{file.path} cannot be read: {words}"
            shape = f"depth {sheet.depth} and width {sheet.width}"
            raise ValueError(
                f"{words}; it must be a mask of {file.task} at {shape}, with its array {WORLD}."
            ) from error
        stamps[file] = np.asarray(tree.pop(WORLD))
        mask = np.asarray(ravel_pytree(tree)[0])
        most = int(masks.number_kept(values[file.density], n))
        if mask.sum() > most:
            raise ValueError(
                f"{file.path} must keep at most {most} of {n} parameters, got {mask.sum()}."
            )
        found[file.density, file.seed] = mask
    seeds = sorted({file.seed for file in files})
    for seed, world in sheet.worlds(files[0].task, seeds):
        wanted = sheet.stamp(files[0].task, seed, world.planted.params)
        for file in (file for file in files if file.seed == seed):
            if not np.array_equal(stamps[file], wanted):
                raise ValueError(
                    f"{file.path} must be for the world {seed} of {file.task} with depth "
                    f"{sheet.depth}, width {sheet.width} and {sheet.samples} samples, got another "
                    f"one: its array {WORLD} differs."
                )
    return found
