"""Chaos: kills and damages a running sweep, and checks that its table never changes.

Each trial disturbs a run of the main job in its own way, lets it finish, and compares table and
masks with those of an undisturbed run. It only uses this machine, and every wait has a timeout.
"""

import contextlib
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from plantjax import checks
from plantjax.jobs import cli
from plantjax.jobs.job import checking_input
from subject import SWEEP, WAIT_SECONDS, ChaosError, Job, chunks, compare, descendants, finish, wait

NOTICE_SECONDS = 60.0
"""Time in which a process must notice that another one died."""
TMPFS_KILOBYTES = 96


@dataclass(frozen=True)
class Settings:
    """Disturb a sweep in several ways, and compare its table with that of an undisturbed run."""

    out: Path = Path("results/chaos")
    """Folder for the runs, new or empty."""
    trials: tuple[str, ...] = ()
    """Trials to run: ways, sizes, kill, distributed, ray, damage, full (default: all)."""
    kills: int = 20
    """Kills of the single process; other trials have a fifth of that."""
    seed: int = 0
    """Seed of the times and places of the disturbances."""
    sweep: str = SWEEP
    """The sweep to disturb, as options of seek.py: --sweep="--tasks helix --seeds 5"."""

    def check(self) -> None:
        """Raises ValueError naming the option if a setting is out of range."""
        for name in self.trials:
            checks.choice("--trials", name, TRIALS)
        checks.integer("--kills", self.kills, 1)
        checks.integer("--seed", self.seed, 0)
        if self.out.exists() and any(self.out.iterdir()):
            raise ValueError(f"--out must be a new or empty folder, got {self.out}.")


def ways(job: Job, folder: Path, kills: int, rng: random.Random) -> str:
    """Varies devices, processes, workers and order; the table must stay the same."""
    del kills, rng
    alone = {
        "1 device": ["--devices", "1"],
        "8 devices": ["--devices", "8"],
        "2 Ray workers": ["--executor", "ray", "--ray-cpus", "0.5"],
    }
    pairs = {f"2 processes of {devices}": devices for devices in (1, 4)}
    for name, words in alone.items():
        finish(job.start(_at(folder, name), *words))
    for name, devices in pairs.items():
        finish(*job.pair(_at(folder, name), devices))
    finish(job.backwards().start(_at(folder, "finders backwards")))
    return _same(folder, [*alone, *pairs, "finders backwards"])


def sizes(job: Job, folder: Path, kills: int, rng: random.Random) -> str:
    """Varies the size of chunks, also on an accelerator; the table must stay the same."""
    del kills, rng
    varied = {"chunks of 2": "2", "chunks of 7": "7", "one chunk": "1000000"}
    for name, size in varied.items():
        finish(job.start(_at(folder, name), "--chunk", size))
    return _same(folder, list(varied))


def kill(job: Job, folder: Path, kills: int, rng: random.Random) -> str:
    """Sends SIGKILL at random times; no finished chunk may be lost, written again or changed."""
    finished: dict[str, str] = {}
    killed = 0
    for _ in range(kills):
        process = job.start(folder)
        more = rng.randrange(2)  # 1 kills soon after a chunk, 0 while the process starts
        wait(folder, len(finished) + more, process)
        time.sleep(rng.uniform(0.0, 0.1 if more else 3.0))
        killed += process.poll() is None
        process.kill()
        process.communicate()
        now = chunks(folder)
        if not finished.items() <= now.items():
            raise ChaosError("a finished chunk was lost or computed again")
        finished = now
    finish(job.start(folder))
    if not finished.items() <= chunks(folder).items():
        raise ChaosError("a finished chunk was lost or computed again")
    return f"{killed} kills, {len(finished)} chunks finished under fire"


def distributed(job: Job, folder: Path, kills: int, rng: random.Random) -> str:
    """Sends SIGKILL to one of two processes; the other one must end soon and say why."""
    kills, slowest = max(1, kills // 5), 0.0
    for _ in range(kills):
        pair = job.pair(folder)
        wait(folder, len(chunks(folder)) + 1, *pair)
        victim = rng.randrange(2)
        pair[victim].kill()
        pair[victim].communicate()
        clock = time.monotonic()
        _, error = pair[1 - victim].communicate(timeout=WAIT_SECONDS)
        slowest = max(slowest, time.monotonic() - clock)
        if pair[1 - victim].returncode == 0:  # it had nothing left to do
            continue
        if "died" not in error:
            raise ChaosError(f"the other process did not say why it ended: {error[-300:]}")
    if slowest > NOTICE_SECONDS:
        raise ChaosError(f"the other process noticed only after {slowest:.0f} seconds")
    finish(*job.pair(folder))
    return f"{kills} kills, noticed within {slowest:.1f} seconds"


def ray(job: Job, folder: Path, kills: int, rng: random.Random) -> str:
    """Sends SIGKILL to busy Ray workers; Ray must restart their tasks."""
    process = job.start(folder, "--executor", "ray", "--ray-cpus", "0.5")
    killed = 0
    while killed < max(1, kills // 5) and process.poll() is None:
        wait(folder, len(chunks(folder)) + 1, process)
        workers = descendants(process.pid, "ray::_task")  # without the agents of the node
        if workers and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                killed += 1
        time.sleep(0.05)
    finish(process)
    return f"{killed} workers killed"


def damage(job: Job, folder: Path, kills: int, rng: random.Random) -> str:
    """Truncates chunk files, flips a bit or deletes them; these chunks must be computed again."""
    finish(job.start(folder))
    paths = sorted((folder / "chunks").glob("*.npz"))
    chosen = rng.sample(paths, min(len(paths), 3 * max(1, kills // 5)))
    for index, path in enumerate(chosen):
        content = bytearray(path.read_bytes())
        if index % 3 == 0:
            path.write_bytes(content[: rng.randrange(len(content))])
        elif index % 3 == 1:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            path.write_bytes(content)
        else:
            path.unlink()
    finish(job.start(folder))
    return f"{len(chosen)} chunks damaged"


def full(job: Job, folder: Path, kills: int, rng: random.Random) -> str:
    """Fills the disk; there must be a clear error, and the job must resume once there is room."""
    del kills, rng
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_KILOBYTES}k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        raise PermissionError("mounting a small tmpfs takes root")
    try:
        process = job.start(folder)
        _, error = process.communicate(timeout=WAIT_SECONDS)
        lines = [line for line in error.splitlines() if line.startswith("error: ")]
        if process.returncode != 1 or len(lines) != 1 or "cannot be written" not in lines[0]:
            raise ChaosError(f"a full disk gave exit code {process.returncode}: {error[-300:]}")
        before = chunks(folder)
        larger = ["mount", "-o", "remount,size=100m", str(folder)]
        subprocess.run(larger, capture_output=True, check=True)
        finish(job.start(folder))
        if not before.items() <= chunks(folder).items():
            raise ChaosError("a chunk from before the disk was full was computed again")
        compare(folder, folder.with_name("undisturbed"))
    finally:
        subprocess.run(["umount", str(folder)], capture_output=True, check=False)
    return f"full after {len(before)} chunks"


def _at(folder: Path, name: str) -> Path:
    return folder / name.replace(" ", "-")


def _same(folder: Path, names: Sequence[str]) -> str:
    """The names of the runs; raises ChaosError, naming all that differ, unless they are equal."""
    wrong = []
    for name in names:
        try:
            compare(_at(folder, name), folder.with_name("undisturbed"))
        except ChaosError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        raise ChaosError("\n".join(wrong))
    return ", ".join(names)


Trial = Callable[[Job, Path, int, random.Random], str]
TRIALS: dict[str, Trial] = {
    trial.__name__: trial for trial in (ways, sizes, kill, distributed, ray, damage, full)
}
"""The registry of trials."""


def run(settings: Settings, console: Console) -> None:
    """Runs all trials.

    Raises:
      ChaosError: if a trial ended with a different table, or not as it should.
    """
    undisturbed, job = settings.out / "undisturbed", Job(tuple(shlex.split(settings.sweep)))
    finish(job.start(undisturbed))
    console.print(f"undisturbed: {len(chunks(undisturbed))} chunks")
    for name in settings.trials or TRIALS:
        clock = time.monotonic()
        folder = settings.out / name
        rng = random.Random(f"{settings.seed} {name}")
        try:
            words = TRIALS[name](job, folder, settings.kills, rng)
        except PermissionError as error:
            console.print(f"{name}: left out, {error}")
            continue
        if (folder / "results.csv").exists():
            compare(folder, undisturbed)
        console.print(f"{name}: {words}; the same table ({time.monotonic() - clock:.0f} s)")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "chaos.py")
        settings.check()
    try:
        run(settings, Console())
    except ChaosError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    cli.run(main)
