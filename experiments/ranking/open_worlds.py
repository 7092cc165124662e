"""`leaderboard.py worlds`: mothers and training data as files, for those who do not use JAX.

A file holds all that finders are told of a world, and nothing of its ticket or its held-out data.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from jax.flatten_util import ravel_pytree
from rich.console import Console

import plantjax
from plantjax import checks, interchange, masks, nets, sweeps
from plantjax.jobs import cli, terminal
from plantjax.jobs.grids import HALF, TICKET, Tickets, parse_density
from plantjax.jobs.job import InputError, checking_input, use_compilation_cache
from plantjax.sweeps.worlds import DrawWorld, mother_widths
from plantjax.tasks import PAPER_TASKS, SAMPLES, TASKS
from plantjax.types import Mask, Params

BOARD = (*PAPER_TASKS, "random_teacher", "xor")
"""Tasks of the leaderboard."""
DEPTH, WIDTH, NOISE, EPOCHS = 5, 100, 0.01, 40
"""Of the leaderboard: shape of the mothers, noise of the samples, epochs of weak training."""
FRESH = 100_000
"""Number of fresh samples that networks are judged on."""
DENSITIES = ("0.5", "0.1", "0.02", TICKET, HALF)
WORLD = "world"
"""Name of the array that says which world a file is of."""
FORWARD = (
    "h = x; for each layer in order: h = h @ kernel + bias, with ReLU, max(h, 0), between layers "
    "and not after the last. A pruned entry of kernel or bias is 0."
)
TOLD = {
    "accuracy": "y are labels, the largest output is the answer",
    "mse": "y are values, errors are taken after one least-squares factor for each output",
}


def release_seed(version: str = plantjax.__version__) -> int:
    """The first seed of the mothers of a release: six digits of a hash of its name.

    Nobody can have tuned on them before the release has its name.

    >>> release_seed("0.1.0") == release_seed("0.1.0") != release_seed("0.1.1")
    True
    """
    digest = hashlib.sha256(f"plantjax {version}".encode()).hexdigest()
    return 100_000 + int(digest, 16) % 900_000


@dataclass(frozen=True)
class Sheet:
    """What the worlds of a leaderboard have in common.

    Attributes:
      depth: layers of neurons, the input included.
      width: neurons per hidden layer.
      samples: size of the data set, of which the last tenth is held out.
    """

    depth: int = DEPTH
    width: int = WIDTH
    samples: int = SAMPLES

    def check(self) -> None:
        """Raises ValueError, naming the option, if a number is out of range."""
        checks.integer("--depth", self.depth, 3)
        checks.integer("--width", self.width, 1)
        checks.integer("--samples", self.samples, 10)

    def forms(self, task: str) -> Mask:
        """Shapes and dtypes of a mask; raises ValueError if mothers are too small for the task."""
        widths = mother_widths(TASKS[task], self.depth, self.width)
        return jax.eval_shape(lambda: masks.full(nets.init(jax.random.key(0), widths)))

    def densities(self, task: str, names: Sequence[str], tickets: Tickets) -> dict[str, float]:
        """The values of densities by name: decimals, "ticket" and "ticket/2"."""
        ticket, _ = tickets[task, self.depth, self.width]
        words = {TICKET: ticket, HALF: ticket / 2}
        return {name: words.get(name) or parse_density(name) for name in names}

    def worlds(self, task: str, seeds: Sequence[int]) -> Iterator[tuple[int, sweeps.World]]:
        """The worlds of some seeds, in pairs, as in sweeps: alone they might differ in a bit."""
        draw = DrawWorld(TASKS[task], self.depth, self.width, samples=self.samples)
        draw_both = jax.jit(jax.vmap(draw))
        for start in range(0, len(seeds), 2):
            pair = seeds[start : start + 2]
            cells = sweeps.make_cells(TASKS[task], [pair[0], pair[-1]], [1.0], NOISE)
            both = jax.tree.map(np.asarray, draw_both(cells))
            for index, seed in enumerate(pair):
                yield seed, jax.tree.map(lambda leaf, index=index: leaf[index], both)

    def stamp(self, task: str, seed: int, params: Params) -> np.ndarray:
        """A hash of a world, uint8 [32]; worlds with other mothers have another one.

        It covers which parameters are positive, and not their last digits, so that all kinds of
        devices agree.
        """
        words = json.dumps([task, seed, self.depth, self.width, self.samples, NOISE])
        positive, _ = ravel_pytree(jax.tree.map(lambda leaf: leaf > 0, params))
        digest = hashlib.sha256(words.encode() + np.packbits(np.asarray(positive)).tobytes())
        return np.frombuffer(digest.digest(), np.uint8)


@dataclass(frozen=True)
class Settings:
    """Write mothers and training data as .npz files, and nothing of their tickets."""

    folder: tyro.conf.Positional[Path]
    """Folder for the worlds, new or empty: TASK/SEED.npz, worlds.json and README.md."""
    tasks: Annotated[tuple[str, ...], cli.known(TASKS)] = BOARD
    """Tasks."""
    seeds: int = 10
    """Number of mothers of each task."""
    first_seed: int = field(default_factory=release_seed)
    """The first seed (default: the release's)."""
    densities: tuple[str, ...] = DENSITIES
    """Densities to tell the number of parameters for."""
    depth: int = DEPTH
    """Layers of neurons, the input included."""
    width: int = WIDTH
    """Neurons per hidden layer."""
    samples: int = SAMPLES
    """Size of the data set, of which the last tenth is held out."""
    plugin: tuple[str, ...] = ()
    """Python files or modules with tasks of your own, imported first."""

    def sheet(self) -> Sheet:
        """Shape and data of the worlds."""
        return Sheet(self.depth, self.width, self.samples)

    def names(self) -> tuple[str, ...]:
        """The tasks."""
        return tuple(dict.fromkeys(self.tasks))

    def check(self) -> None:
        """Raises ValueError, naming the option, if a setting is out of range."""
        self.sheet().check()
        checks.integer("--seeds", self.seeds, 1, 10_000)
        checks.integer("--first-seed", self.first_seed, 0, 2**31 - 10_001)
        for option, values in (("tasks", self.names()), ("densities", self.densities)):
            if not values:
                raise ValueError(f"--{option} must name at least one, got none.")
        for density in self.densities:
            parse_density(density)
        for name in self.names():
            checks.choice("--tasks", name, TASKS)
            self.sheet().forms(name)
        if self.folder.exists() and not (self.folder.is_dir() and not any(self.folder.iterdir())):
            raise ValueError(f"FOLDER must be new or empty, got {self.folder}.")


def facts(settings: Settings) -> dict[str, Any]:
    """What worlds.json says: shapes, forward pass, and parameters that each density allows."""
    sheet, tickets = settings.sheet(), Tickets()
    found: dict[str, Any] = {
        "depth": sheet.depth,
        "width": sheet.width,
        "training_samples": sheet.samples - sheet.samples // 10,
        "noise": NOISE,
        "forward": FORWARD,
        "seeds": list(range(settings.first_seed, settings.first_seed + settings.seeds)),
        "tasks": {},
    }
    for name in settings.names():
        task, forms = TASKS[name], sheet.forms(name)
        n = masks.size(forms)
        densities = sheet.densities(name, settings.densities, tickets)
        pairs = jax.tree_util.tree_leaves_with_path(forms)
        found["tasks"][name] = {
            "metric": task.metric,
            "y": TOLD.get(task.metric, "y are values"),
            "parameters": n,
            "arrays": {checks.path_name(path): list(leaf.shape) for path, leaf in pairs},
            "densities": {
                density: {"density": value, "kept": int(masks.number_kept(value, n))}
                for density, value in densities.items()
            },
        }
    return found


def write(settings: Settings) -> None:
    """Writes all worlds; the folder is there with all of them, or not at all."""
    sheet, told = settings.sheet(), facts(settings)
    target = settings.folder.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=target.parent, suffix=".tmp"))
    try:
        aside.chmod(0o755)
        for name in settings.names():
            (aside / name).mkdir()
            for seed, world in sheet.worlds(name, told["seeds"]):
                interchange.save(aside / name / f"{seed}.npz", contents(sheet, name, seed, world))
        (aside / "worlds.json").write_text(json.dumps(told, indent=2) + "\n")
        (aside / "README.md").write_text(README)
        aside.replace(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def contents(sheet: Sheet, task: str, seed: int, world: sweeps.World) -> Mapping[str, Any]:
    """What the file of a world holds: the mother's parameters, x, y, and which world it is."""
    params = world.planted.params
    stamp = sheet.stamp(task, seed, params)
    return {**params, "x": world.train.x, "y": world.train.y, WORLD: stamp}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with checking_input():
        settings = cli.parse(Settings, argv, "leaderboard.py worlds")
        settings.check()
    use_compilation_cache()
    try:
        write(settings)
    except OSError as error:
        raise InputError(f"FOLDER cannot be written: {error}.") from error
    files = terminal.count(len(settings.names()) * settings.seeds, "world")
    terminal.say(Console(), f"{files}, worlds.json and README.md: {settings.folder}")


README = f"""# Worlds

Dense networks, each with a sparse one hidden in it that solves its task. Which of the parameters
should be kept?

`TASK/SEED.npz` holds the parameters of one network, `layer_00/kernel` [inputs, outputs],
`layer_00/bias` [outputs] and so on; the training data `x` [samples, inputs] and `y`; and `{WORLD}`,
which says which world it is.

The network: {FORWARD}

`worlds.json` has the shapes, what `y` is, and for each task and density the number of parameters,
weights and biases together, that a mask may keep ("kept"): floor(density * parameters + 0.5), but
at least 1. "ticket" is the density of the hidden network, "ticket/2" half of it.

## An entry

A folder with the file `entry.toml`

```toml
name = "magnitude in torch"
source = "https://example.org/paper-or-code"
cost = "1 second on a laptop for all masks"
looked_at = "the parameters alone, no data"
```

and masks `TASK/SEED/DENSITY.npz`, such as `circle/0/0.1.npz`, `circle/0/ticket.npz`,
`circle/0/ticket/2.npz`. A file holds a bool array for each array of the network, under the same
name, True where a parameter is kept; and `{WORLD}`, copied from the world. Tasks, seeds and
densities may be left out.

    python experiments/leaderboard.py score FOLDER

scores it. `examples/enter_from_pytorch.py` makes an entry. Both come with plantjax, whose
CONTRIBUTING.md says how an entry is sent.
"""
