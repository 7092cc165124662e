"""Compiles all programs of a sweep for a device that need not be there, and says what they need.

`python experiments/compile_for.py h100` compiles for an NVIDIA H100, `v5e` for a TPU v5e, `cpu` for
this machine. Where the device is there, `--run` measures it as well.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # read when JAX is imported

import jax
import tyro
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import Progress

from compiling import program_text, running, targets
from compiling.running import Inputs
from compiling.targets import TARGETS
from images import plan
from plantjax import checks, sweeps
from plantjax.finders import FINDERS
from plantjax.jobs import chunks, cli, folder, terminal
from plantjax.jobs.job import Operation, checking_input, job
from plantjax.sweeps.compiling import Program, fitting, program
from plantjax.sweeps.programs import example, resized
from plantjax.tasks import TASKS

IMAGES = "vgg"
HEADS = ("program", "networks", "compile s", "MB", "+ results", "kernels in loops", "networks/s")


@dataclass(frozen=True)
class Settings(Operation):
    """Compile for an accelerator without one: time, memory, kernels in each loop, a rough speed."""

    target: tyro.conf.Positional[Literal["h100", "v4", "v5e", "v6e", "cpu"]] = "h100"
    """The device. Its compiler is in an extra of its own: cuda12 for h100, tpu for v4, v5e, v6e."""
    out: Path = Path("results/compile_TARGET")
    """Folder for results, named after the target; it goes on where it stopped."""
    tasks: Annotated[tuple[str, ...], cli.known(TASKS)] = ("circle", "helix")
    """Tasks."""
    finders: Annotated[tuple[str, ...], cli.known(FINDERS)] = tuple(FINDERS)
    """Finders whose searches are compiled."""
    depth: int = 5
    """Layers of neurons, the input included."""
    width: int = 100
    """Neurons per hidden layer."""
    networks: int = 512
    """Networks of a program, on each chip; fewer where those need over 4 GB besides results."""
    chips: int = 1
    """Chips that share the networks."""
    epochs: int = 10
    """Epochs of weak training."""
    vgg: Literal["smoke", "quick", "full"] | None = None
    """Also the programs of vgg.py with this budget: world, SynFlow's ticket, training, edge-popup.
    """
    run: bool = False
    """Compile for this machine's own device, which is the target, and time every program on it."""
    profile: bool = False
    """With --run: the time of each kernel, in programs.json."""

    def check(self) -> None:
        """Raises ValueError, naming the option, if a setting is out of range."""
        if self.profile and not self.run:
            raise ValueError("--profile goes with --run, got it alone.")
        checks.integer("--networks", self.networks, 2)
        checks.integer("--chips", self.chips, 1)
        checks.integer("--epochs", self.epochs, 1)
        checks.integer("--depth", self.depth, 3)
        for name in self.tasks:
            checks.choice("--tasks", name, TASKS)
            sweeps.mother_widths(TASKS[name], self.depth, self.width)
        for name in self.finders:
            checks.choice("--finders", name, FINDERS)


class Made(NamedTuple):
    """A program: its name, how to trace it for some networks, and how many are wanted."""

    name: str
    at: Callable[[int], Program]
    networks: int


def programs(settings: Settings, mesh: Mesh, done: set[str]) -> Iterator[Made]:
    """The programs of each task: world, evaluation, training, and a search for each finder."""
    cells = jax.eval_shape(lambda: example(settings.chips))

    def made(name: str, function: Any, *arguments: Any) -> Made:
        def at(networks: int) -> Program:
            return program(function, mesh, *resized(arguments, networks * settings.chips))

        return Made(name, at, settings.networks)

    for task in settings.tasks:
        shape = (task, settings.depth, settings.width)
        first = sweeps.make_run(*shape, "magnitude", epochs=settings.epochs)
        drawn = jax.eval_shape(jax.vmap(first.world), cells)
        found = jax.eval_shape(jax.vmap(first.search), cells, drawn)._replace(info={})
        shared = [
            made(f"{task} world", first.world, cells),
            made(f"{task} evaluate", first.evaluate, drawn, found),
            made(f"{task} train", first.fit, cells, drawn, found),
        ]
        yield from (one for one in shared if one.name not in done)
        for finder in settings.finders:
            if f"{task} {finder}" not in done:
                run = sweeps.make_run(*shape, finder, epochs=settings.epochs)
                yield made(f"{task} {finder}", run.search, cells, drawn)
    if settings.vgg is not None:
        yield from (one for one in of_images(settings, mesh) if one.name not in done)


def of_images(settings: Settings, mesh: Mesh) -> Iterator[Made]:
    """The programs of vgg.py, which computes its networks one by one."""
    from images.groups import ImageGroup

    assert settings.vgg is not None
    groups = [g for g in plan.plan(settings.vgg).groups() if isinstance(g, ImageGroup)]
    ticket, popup = (
        next(group for group in groups if group.finder == name)
        for name in (plan.TICKET_FINDER, plan.POPUPS[0])
    )

    def made(name: str, function: Any, *arguments: Any) -> Made:
        shapes = resized(arguments, settings.chips)
        at = partial(program, function, mesh, *shapes, in_turn=True)
        return Made(f"{IMAGES} {name}", lambda _: at(), 1)

    for group in (ticket, popup):
        run, cells = group.run, resized(group.example(), settings.chips)
        drawn = jax.eval_shape(jax.vmap(run.world), cells)
        if group is ticket:
            found = jax.eval_shape(jax.vmap(run.search), cells, drawn)._replace(info={})
            yield made("world", run.world, cells)
            yield made("train", run.fit, cells, drawn, found)
        yield made(group.finder, run.search, cells, drawn)


def names(settings: Settings) -> list[str]:
    """The names of all programs, in the order of the table."""
    parts = ("world", "evaluate", "train", *settings.finders)
    found = [f"{task} {part}" for task in settings.tasks for part in parts]
    images = ("world", "train", plan.TICKET_FINDER, plan.POPUPS[0])
    return found + [f"{IMAGES} {part}" for part in images if settings.vgg is not None]


def measured(one: Made, settings: Settings) -> dict[str, Any]:
    """Compiles a program for as many networks as fit; its row of the table."""
    times: dict[int, tuple[float, float]] = {}

    def at(networks: int) -> list[Program]:
        clock = time.perf_counter()
        lowered = one.at(networks)
        traced = time.perf_counter()
        lowered.compile()
        times[networks] = traced - clock, time.perf_counter() - traced
        return [lowered]

    networks = fitting(one.networks, at)
    if networks not in times:  # two or less are not tried
        at(networks)
    compiled = one.at(networks).compile()
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert text is not None
    assert memory is not None
    target = TARGETS[settings.target]
    limits = {"rate": target.rate, "bandwidth": target.bandwidth, "launch": target.launch}
    return {
        "id": one.name,
        "networks": networks,
        "trace_seconds": times[networks][0],
        "compile_seconds": times[networks][1],
        "temporary_bytes": int(memory.temp_size_in_bytes),
        "argument_bytes": int(memory.argument_size_in_bytes),
        "output_bytes": int(memory.output_size_in_bytes),
        "kernels": program_text.kernels(text),
        "loops": [loop._asdict() for loop in program_text.loops(text)],
        "estimated_seconds": program_text.seconds(text, **limits),
    }


def ran(one: Made, networks: int, settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """Runs a program: its time, and with --profile that of its kernels."""
    _, part = one.name.split()
    run = partial(one.at(networks), *inputs.of(part))
    row: dict[str, Any] = {"measured_seconds": running.seconds(run)}
    return row | ({"profile": running.profile(run)} if settings.profile else {})


def inputs_of(settings: Settings, mesh: Mesh) -> Callable[[str, int], Inputs]:
    """The inputs of the programs of a task for so many networks, the last ones kept."""

    @lru_cache(maxsize=1)
    def made(task: str, networks: int) -> Inputs:
        shape = (task, settings.depth, settings.width)
        run = sweeps.make_run(*shape, "random", epochs=settings.epochs)
        return Inputs(task, run, mesh, networks * settings.chips)

    return made


def show(rows: Sequence[dict[str, Any]], settings: Settings, console: Console) -> None:
    """Prints the table, and the assumptions of its last column."""
    lines = []
    for row in rows:
        lines.append(
            [
                row["id"],
                str(row["networks"]),
                f"{row['compile_seconds']:.1f}",
                f"{row['temporary_bytes'] / 1e6:.0f}",
                f"{row['output_bytes'] / 1e6:.0f}",
                program_text.nested(row["loops"]),
                f"{row['networks'] / row['estimated_seconds']:.0f}",
            ]
        )
        if settings.run:
            seconds = row.get("measured_seconds")
            lines[-1].append("" if seconds is None else f"{row['networks'] / seconds:.0f}")
    heads = (*HEADS, "measured") if settings.run else HEADS
    terminal.show(console, terminal.table(heads, lines), terminal.listed(heads, lines))
    target = TARGETS[settings.target]
    terminal.say(
        console,
        "Kernels in loops: of each loop, times its passes, and in brackets those of the loops "
        "inside of it; (3*) stands for three equal ones. A number alone is that of a loop whose "
        "length the device decides, which the estimate counts once. "
        f"Networks/s is an upper bound for a chip: {target.rate / 1e12:.1f} TFLOP/s in products, "
        f"{target.bandwidth / 1e12:.2f} TB/s ({target.source}), and {1e6 * target.launch:.0f} "
        "microseconds to start a kernel (assumed).",
    )


def run(settings: Settings, console: Console) -> None:
    """Compiles what is missing, saves each result, and shows all."""
    mesh = targets.mesh(TARGETS[settings.target], settings.chips, settings.run)
    inputs = inputs_of(settings, mesh)
    rows = {row["id"]: row for row in saved(settings)}
    with Progress(console=console) as bar:
        task = bar.add_task("tracing", total=len(names(settings)), completed=len(rows))
        for one in programs(settings, mesh, set(rows)):
            bar.update(task, description=one.name)
            rows[one.name] = measured(one, settings)
            if settings.run and not one.name.startswith(IMAGES):
                networks = rows[one.name]["networks"]
                given = inputs(one.name.split()[0], networks)
                rows[one.name] |= ran(one, networks, settings, given)
            labels = {name: [json.dumps(value)] for name, value in rows[one.name].items()}
            folder.save(settings.out, chunks.Chunk(labels | {"id": [one.name]}, {}))
            bar.advance(task)
    found = [rows[name] for name in names(settings)]
    chunks.write_json(settings.out / "programs.json", found)
    folder.finish(settings.out, list(rows))
    show(found, settings, console)
    console.print(f"All numbers: {settings.out / 'programs.json'}")


def saved(settings: Settings) -> Iterator[dict[str, Any]]:
    """The rows in the folder."""
    for chunk in folder.load(settings.out):
        row = {name: json.loads(v[0]) for name, v in chunk.labels.items() if name != "id"}
        yield {"id": chunk.ids[0]} | row


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "compile_for.py")
        named = str(settings.out).replace("TARGET", settings.target)
        settings = replace(settings, out=Path(named))
        platform = TARGETS[settings.target].platform
        targets.prepare(platform, settings.run, settings.vgg is not None)
    with job(settings):
        run(settings, Console())


if __name__ == "__main__":
    cli.run(main)
