"""The results folder: settings, a lock, one file per finished chunk, and the tables.

A chunk file that is damaged or edited is set aside with a warning, and its cells are computed
again. Reading needs no JAX device.
"""

import contextlib
import hashlib
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from plantjax.jobs import chunks, locks
from plantjax.jobs.chunks import Chunk, StoreError
from plantjax.jobs.fingerprint import differences
from plantjax.jobs.processes import Team

FORMAT = 2
CODE = "code"
"""Name of the setting that is the fingerprint of all code."""
CONFIG, DONE = "config.json", "done.json"
SAVED = "What is done is saved; the same command goes on."
VERSIONS = ("plantjax", "jax", "jaxlib", "flax", "optax", "numpy")


def check(folder: Path, settings: Mapping[str, Any], force: bool) -> None:
    """Checks that results with these settings can go to the folder; leaves no trace there.

    Raises:
      ValueError: if the folder is a file or a link to nothing, cannot be written, or holds
        results with other settings (unless `force`), or of another format.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        what = "a file" if existing.exists() else "a link to nothing"
        raise ValueError(f"--out must be a folder, got {folder}, and {existing} is {what}.")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(
            f"--out must be a folder that can be written, got {folder}: {error.strerror}."
        ) from error
    if force or not (folder / CONFIG).exists():
        return
    try:
        config = json.loads((folder / CONFIG).read_text())
        old, version = config["settings"], config["format"]
    except (ValueError, KeyError, TypeError, OSError):
        raise ValueError(
            f"--out must hold results of plantjax or nothing, got {folder}, whose config.json "
            "cannot be read; name another folder, or --force to start afresh."
        ) from None
    if version != FORMAT:
        written = config.get("versions", {}).get("plantjax", "unknown")
        raise ValueError(
            f"--out must hold results of format {FORMAT}, got {folder} with format {version}, of "
            f"plantjax {written}; name another folder, or --force to start afresh."
        )
    differ = _differences(old, settings)
    if differ:
        raise ValueError(
            f"--out must hold results with the same settings and code, got {folder} with others "
            f"({'; '.join(differ)}); name another folder, or --force to start afresh."
        )


def _differences(old: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """How the settings of a folder differ from those of this job, in words."""
    new = json.loads(json.dumps(dict(settings)))
    names = [name for name in {**new, **old} if old.get(name) != new.get(name)]
    differ = [f"{n}: {old.get(n)} there, {new.get(n)} here" for n in names if n != CODE]
    if CODE in new and CODE not in old:
        return [*differ, "the code that made those is not recorded there"]
    return differ + differences(old.get(CODE, {}), new.get(CODE, {}))


@contextlib.contextmanager
def opened(
    folders: Mapping[Path, Mapping[str, Any]],
    command: Sequence[str],
    force: bool,
    team: Team,
) -> Iterator[None]:
    """Locks the folders for a job, and creates those that do not exist.

    The leading process locks every folder and tells the others the job's number, by which they are
    admitted. A folder that is lost, or a process of the job that dies, ends this process at once:
    what was written stays valid, and the same command goes on.

    Args:
      folders: settings by folder.
      command: the command line.
      force: clear the folders first.
      team: the processes of the job.

    Raises:
      ValueError: if another job holds a folder, or this process cannot see it.
    """
    with contextlib.ExitStack() as stack:
        if team.size > 1 and team.leads:
            stack.push(_let_others_notice)
        job = 1 + secrets.randbelow(2**31 - 2)
        if team.leads:
            try:
                _take(stack, folders, job, team)
                for folder, settings in folders.items():
                    _make(folder, settings, command, force)
            except BaseException:
                team.broadcast(0)
                raise
        job = team.broadcast(job)
        if not team.leads:
            if not job:
                raise ValueError("--out was refused to the first process of this job; see there.")
            for folder, settings in folders.items():
                holder = locks.holder(folder)
                if holder is None or holder.job != job:
                    raise ValueError(
                        f"--out must be a folder that all processes of the job share, got {folder},"
                        " where this process does not find the first one's lock."
                    )
                check(folder, settings, force=False)  # it may run other code than the first
            _take(stack, folders, job, team)
        team.broadcast(1)  # none goes on before all are in
        yield


def _take(stack: contextlib.ExitStack, folders: Mapping[Path, Any], job: int, team: Team) -> None:
    mine = locks.myself(job, team.process)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locks.held(folder, mine, watched=team.size > 1))

    def trouble() -> str | None:
        found = (locks.trouble(folder, mine) for folder in folders)
        return next((message for message in found if message is not None), None)

    stack.enter_context(locks.watched(trouble, _give_up))


def _let_others_notice(kind: type[BaseException] | None, *_: Any) -> None:
    """Waits after a failure, as JAX aborts the others, before they say why, once this one ends."""
    if kind is not None:
        time.sleep(1.5 * locks.BEAT)


def _give_up(message: str) -> None:
    """Ends the process at once, even if it is waiting."""
    print(f"error: {message}. {SAVED}", file=sys.stderr, flush=True)
    os._exit(1)


def _make(folder: Path, settings: Mapping[str, Any], command: Sequence[str], force: bool) -> None:
    """Creates the folder and its config.json if they do not exist; `force` clears it first."""
    if force:
        for name in ("chunks", "levels"):
            shutil.rmtree(folder / name, ignore_errors=True)
        notes = (folder / CONFIG, folder / DONE, folder / "spent.json")
        for path in (*folder.glob("*.csv"), *folder.glob("*.png"), *notes):
            path.unlink(missing_ok=True)
    (folder / "chunks").mkdir(parents=True, exist_ok=True)
    for leftover in [*folder.glob("*.tmp"), *(folder / "chunks").glob("*.tmp")]:
        leftover.unlink(missing_ok=True)
    if not (folder / CONFIG).exists():
        config = {"format": FORMAT, "settings": dict(settings), **origin(command)}
        chunks.write_json(folder / CONFIG, config)


def origin(command: Sequence[str]) -> dict[str, Any]:
    """Command, versions, device and commit that results come from."""
    import jax

    device = jax.devices()[0]
    return {
        "command": list(command),
        "versions": {name: metadata.version(name) for name in VERSIONS},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{device.platform}: {device.device_kind} ({jax.device_count()})",
        "commit": _commit(),
    }


def finished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the folder holds the finished results of these settings.

    Looks at files only: neither at a device nor at what the settings mean.
    """
    try:
        config = json.loads((folder / CONFIG).read_text())
        ids = done_ids(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if config.get("format") != FORMAT or _differences(config.get("settings", {}), settings):
        return False
    return {name for chunk in load(folder) for name in chunk.ids}.issuperset(ids)


def done_ids(folder: Path) -> list[str]:
    """The ids of the cells of a finished folder, in the order of its table."""
    ids: list[str] = json.loads((folder / DONE).read_text())["ids"]
    return ids


def finish(folder: Path, ids: Sequence[str]) -> None:
    """Notes that all cells of the folder's settings are saved, and their order in the table."""
    chunks.write_json(folder / DONE, {"ids": list(ids)})


def save(folder: Path, chunk: Chunk) -> None:
    """Writes a finished chunk; its name follows from its cells.

    Raises:
      StoreError: if the disk is full, or the folder gone or read-only.
    """
    path = folder / "chunks" / f"{name_of(chunk.ids)}.npz"
    chunks.write(path, chunk, _settings_hash(folder))


def name_of(ids: Sequence[str]) -> str:
    """A file name made from the ids of some cells."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]


def load(folder: Path) -> Iterator[Chunk]:
    """Yields all intact chunks; sets damaged or edited ones aside with a warning on stderr."""
    wanted = _settings_hash(folder) if (folder / "chunks").exists() else ""
    for path in sorted((folder / "chunks").glob("*.npz")):
        try:
            yield chunks.read(path, wanted)
        except chunks.DAMAGES as error:
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                path.rename(path.with_suffix(".damaged"))
            print(
                f"warning: {path} is damaged ({error}); its cells are computed again.",
                file=sys.stderr,
            )


class SavedCells:
    """The ids of the cells that are saved in a folder; reads every chunk file once."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet."""
        self._chunks = folder / "chunks"
        self._read: dict[tuple[str, int, int], list[str]] = {}

    def ids(self) -> set[str]:
        """The ids as of now; only files that are new or have changed are read."""
        settings = _settings_hash(self._chunks.parent)
        found = {}
        for path in self._chunks.glob("*.npz"):
            with contextlib.suppress(*chunks.DAMAGES):  # those of damaged ones are not saved
                status = path.stat()
                file = (path.name, status.st_size, status.st_mtime_ns)
                known = self._read.get(file)
                found[file] = chunks.read(path, settings).ids if known is None else known
        self._read = found
        return {name for ids in found.values() for name in ids}


def write_table(
    folder: Path, table: Any, name: str = "results.csv", numbers: str | None = None
) -> Path:
    """Writes a table as CSV, with all digits or in a format such as "%.6g"."""
    path = folder / name
    with chunks.replacing(path) as file:
        file.write(table.to_csv(index=False, float_format=numbers).encode())
    return path


def _settings_hash(folder: Path) -> str:
    try:
        settings = json.loads((folder / CONFIG).read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the results folder {folder} is gone or damaged: {error}") from error
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _commit() -> str | None:
    """The git commit of the source, if it is a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
