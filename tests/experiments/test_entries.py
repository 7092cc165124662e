"""Entries: masks from elsewhere score as our own do, bad ones are refused, worlds hide tickets."""

import json
import os
import runpy
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest

import leaderboard
import scripting
from plantjax import nets, sweeps
from plantjax.jobs import Grid, InputError, runner
from plantjax.tasks import TASKS
from ranking import entries, open_worlds
from ranking.open_worlds import WORLD, Sheet

EXAMPLE = runpy.run_path(str(scripting.ROOT / "examples" / "enter_from_pytorch.py"))
SHEET = Sheet(depth=3, width=8, samples=300)
SHAPE = ["--depth", "3", "--width", "8", "--samples", "300"]
DENSITIES = ("0.5", "ticket")
SEEDS = (0, 1, 2)

Arrays = dict[str, np.ndarray]


def largest(params: Mapping[str, np.ndarray], kept: int) -> Arrays:
    """What the example does in PyTorch, in numpy."""
    sizes = np.concatenate([np.abs(array).ravel() for array in params.values()])
    mask = np.zeros(len(sizes), bool)
    mask[np.argsort(-sizes, kind="stable")[:kept]] = True
    ends = np.cumsum([array.size for array in params.values()])[:-1]
    parts = zip(params.items(), np.split(mask, ends), strict=True)
    return {name: part.reshape(array.shape) for (name, array), part in parts}


@pytest.fixture(scope="module")
def worlds(cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds") / "worlds"
    words = ["--tasks", "relu", "--first-seed", "0", "--seeds", str(len(SEEDS))]
    words += ["--densities", *DENSITIES]
    leaderboard.main(["worlds", str(folder), *words, *SHAPE])
    return folder


@pytest.fixture(scope="module")
def entry(worlds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("entry") / "entry"
    EXAMPLE["enter"](worlds, folder, largest)
    return folder


def rewrite(path: Path, change: Callable[[Arrays], Any]) -> None:
    """Changes the arrays of a file."""
    arrays = dict(np.load(path))
    np.savez(path, **(change(arrays) or arrays))


@pytest.mark.parametrize("finder", ["random", "planted"])
@pytest.mark.slow
def test_masks_score_as_those_of_our_own_finders(
    finder: str, entry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the last digit; the entry of random masks leaves one out."""
    seeds = SEEDS[::2] if finder == "random" else SEEDS
    density = "ticket" if finder == "planted" else "0.5"
    planted = finder == "planted"
    grid = Grid(
        tasks=("relu",),
        finders=() if planted else (finder,),
        references=("planted",) if planted else (),
        densities=(density,),
        seeds=SEEDS,
        depth=SHEET.depth,
        width=SHEET.width,
        static={"epochs": 2, "samples": SHEET.samples, "fresh": 1000},
    )
    runner.run(grid, tmp_path / "board")
    mine, own = tmp_path / "entry", scripting.masks(tmp_path / "board")
    shutil.copytree(entry, mine)
    for path in mine.rglob("*.npz"):
        if path.stem != density or int(path.parent.name) not in seeds:
            path.unlink()
        else:
            (bits,) = (m for name, m in own.items() if name.endswith(f"/{path.parent.name}"))
            rewrite(path, lambda arrays, bits=bits: fill(arrays, bits))
    out = tmp_path / "out"
    words = ["score", str(mine), *SHAPE, "--epochs", "2", "--fresh", "1000", "--out", str(out)]
    leaderboard.main(words)
    assert f"{len(seeds)} masks scored anew" in capsys.readouterr().out
    found = pd.read_csv(out / "results.csv")
    assert set(found["finder"]) == {"magnitude in torch"}
    wanted = pd.read_csv(tmp_path / "board" / "results.csv")
    wanted = wanted[wanted["seed"].isin(seeds)].reset_index(drop=True)
    assert list(found) == list(wanted)
    same = [name for name in wanted if name not in ("finder", "seconds")]
    pd.testing.assert_frame_equal(found[same], wanted[same], check_exact=True)
    masks = scripting.masks(out)
    assert {own[name.replace("magnitude in torch", finder)] for name in masks} == {*masks.values()}
    if planted:
        pruned = found[found["stage"] == "pruned"]
        np.testing.assert_array_equal(pruned["value"], pruned["ticket_value"])
    chunks = scripting.contents(out / "chunks")
    leaderboard.main(words)
    assert scripting.contents(out / "chunks") == chunks


def fill(arrays: Arrays, bits: bytes) -> Arrays:
    """The arrays of a mask, in the order of their names, and the world."""
    names = sorted(name for name in arrays if name != WORLD)
    sizes = [arrays[name].size for name in names]
    mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=sum(sizes)).astype(bool)
    parts = np.split(mask, np.cumsum(sizes)[:-1])
    pairs = zip(names, parts, strict=True)
    return {n: part.reshape(arrays[n].shape) for n, part in pairs} | {WORLD: arrays[WORLD]}


def test_worlds_tell_what_finders_are_told_and_nothing_of_the_ticket(worlds: Path) -> None:
    assert {path.name for path in worlds.iterdir()} == {"relu", "worlds.json", "README.md"}
    facts = json.loads((worlds / "worlds.json").read_text())
    assert facts["training_samples"] == 270
    forms = facts["tasks"]["relu"]["arrays"]
    assert facts["tasks"]["relu"]["densities"]["0.5"]["kept"] == 13  # of 25, half rounded up
    drawn = jax.jit(jax.vmap(sweeps.make_run("relu", 3, 8, "random", samples=300).world))(
        sweeps.make_cells(TASKS["relu"], SEEDS[:2], [0.5])
    )
    for index, seed in enumerate(SEEDS[:2]):
        data, params = EXAMPLE["read"](worlds / "relu" / f"{seed}.npz")
        assert {name: list(array.shape) for name, array in params.items()} == forms
        assert set(data) == {"x", "y", WORLD}
        world = jax.tree.map(lambda leaf, index=index: np.asarray(leaf[index]), drawn)
        for name, array in params.items():
            layer, _, leaf = name.partition("/")
            np.testing.assert_array_equal(array, world.planted.params[layer][leaf])
        np.testing.assert_array_equal(data["x"], world.train.x)
        np.testing.assert_array_equal(data["y"], world.train.y)
        assert not np.isin(world.test.x, data["x"]).any()
        tree = world.planted.params
        np.testing.assert_allclose(
            EXAMPLE["forward"](params, data["x"]), nets.apply(tree, data["x"]), rtol=1e-5, atol=1e-6
        )


def test_a_stamp_is_of_one_world_and_not_of_its_last_digits() -> None:
    ((_, world),) = SHEET.worlds("relu", [0])
    params = world.planted.params
    stamp = SHEET.stamp("relu", 0, params)
    nearly = jax.tree.map(lambda leaf: leaf * np.float32(1 + 1e-6), params)
    np.testing.assert_array_equal(SHEET.stamp("relu", 0, nearly), stamp)
    others = [
        SHEET.stamp("relu", 1, params),
        SHEET.stamp("relu", 0, jax.tree.map(np.negative, params)),
        Sheet(3, 8, 301).stamp("relu", 0, params),
    ]
    assert all((other != stamp).any() for other in others)


PATH = "relu/1/0.5.npz"
FIRST = "layer_00/kernel"


def arrays(change: Callable[[Arrays], Any]) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder / PATH, change)


def about(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "entry.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def renamed(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / PATH).rename(folder / name)

    return change


def pickled(folder: Path) -> None:
    np.savez(folder / PATH, **{FIRST: np.array([{}], object)}, allow_pickle=True)


def cut(folder: Path) -> None:
    path = folder / PATH
    path.write_bytes(path.read_bytes()[:-100])


def broken(folder: Path) -> None:
    """A byte of a compressed array is another one."""
    path = folder / PATH
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo(f"{FIRST}.npy").header_offset + 30 + len(f"{FIRST}.npy") + 40
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def emptied(folder: Path) -> None:
    shutil.rmtree(folder / "relu")


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "over budget": (
        arrays(lambda a: {n: m | (n != WORLD) for n, m in a.items()}),
        "at most 13 of 25 parameters, got 25",
    ),
    "over a smaller budget": (renamed("relu/1/0.02.npz"), "at most 1 of 25 parameters, got 13"),
    "another world": (renamed("relu/7/0.5.npz"), "must be for the world 7 of relu"),
    "another shape": (arrays(lambda a: {**a, FIRST: a[FIRST].T}), r"\(1, 8\) for layer_00/kernel"),
    "another dtype": (arrays(lambda a: {**a, FIRST: a[FIRST] * 1.0}), "must hold bool .* float64"),
    "array missing": (arrays(lambda a: a.pop(FIRST) is None), "missing: layer_00/kernel"),
    "array too many": (arrays(lambda a: {**a, "x": a[FIRST]}), "others: x"),
    "no world": (arrays(lambda a: a.pop(WORLD) is None), "missing: world"),
    "world a word": (arrays(lambda a: {**a, WORLD: np.array("0")}), "must hold uint8"),
    "unknown task": (renamed("rely/1/0.5.npz"), "task must be one of .* mean 'relu'"),
    "seed not finite": (renamed("relu/nan/0.5.npz"), "seed an integer from 0 .*, got nan"),
    "seed too large": (renamed("relu/2147483648/0.5.npz"), "seed an integer from 0"),
    "seed written twice": (renamed("relu/01/0.5.npz"), "seed an integer from 0 .*, got 01"),
    "density above one": (renamed("relu/1/1.5.npz"), "named after its density, .* got 1.5"),
    "density not finite": (renamed("relu/1/nan.npz"), "named after its density, .* got nan"),
    "density written otherwise": (renamed("relu/1/0.50.npz"), "its density, .* got 0.50"),
    "another file": (renamed("relu/1/0.5.npy"), "must be a mask, TASK/SEED/DENSITY.npz"),
    "in another place": (renamed("0.5.npz"), "must be a mask, TASK/SEED/DENSITY.npz"),
    "a link": (lambda f: (f / "relu/3").symlink_to(f / "relu/2"), "must be a mask, TASK/SEED"),
    "a pipe": (lambda f: os.mkfifo(f / "relu/1/0.3.npz"), "must be a mask, TASK/SEED/DENSITY.npz"),
    "pickled": (pickled, "must name exactly|got object"),
    "cut off": (cut, "damaged"),
    "broken": (broken, "cannot be read|damaged|must hold"),
    "no zip file": (lambda f: (f / PATH).write_text("mask"), "damaged"),
    "no masks": (emptied, "must hold masks TASK/SEED/DENSITY.npz, got none"),
    "no folder": (shutil.rmtree, "must be a folder with an entry"),
    "no entry.toml": (lambda f: (f / "entry.toml").unlink(), "must hold entry.toml"),
    "no TOML": (about('name = "', "name = "), "must be TOML"),
    "no text": (lambda f: (f / "entry.toml").write_bytes(b"\xff"), "must be TOML"),
    "a field missing": (about("cost =", "# cost ="), "one line of text as cost"),
    "a field unknown": (about("cost =", "costs ="), "costs is no option .* mean 'cost'"),
    "a field no text": (about('"one sort of the parameters for each mask"', "12"), "text as cost"),
    "lines in a field": (about("one sort", "one\\nsort"), "one line of text as cost"),
    "a long file": (about("cost =", "#" * 40_000 + "\ncost ="), "at most 32000 bytes"),
    "no name": (about("magnitude in torch", "a|b"), "must be up to 50 letters"),
    "a long name": (about("magnitude in torch", "a" * 51), "must be up to 50 letters"),
    "a name that looks taken": (about("magnitude in torch", "magnitude "), "up to 50 letters"),
    "a name that is taken": (about("magnitude in torch", "Magnitude"), "that of a finder here"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_entries_are_refused_and_nothing_is_written(
    name: str, entry: Path, tmp_path: Path
) -> None:
    change, message = BAD[name]
    folder, out = tmp_path / "entry", tmp_path / "out"
    shutil.copytree(entry, folder)
    change(folder)
    before = scripting.contents(folder)
    with pytest.raises(InputError, match=message) as refusal:
        leaderboard.main(["score", str(folder), *SHAPE, "--out", str(out)])
    assert len(str(refusal.value).splitlines()) == 1
    assert scripting.contents(folder) == before
    assert not out.exists()


def test_a_good_entry_may_be_a_part_and_have_hidden_files(entry: Path, tmp_path: Path) -> None:
    folder = tmp_path / "entry"
    shutil.copytree(entry, folder)
    (folder / PATH).unlink()
    (folder / ".git").mkdir()
    (folder / ".git" / "config").touch()
    (folder / "README.md").touch()
    shutil.copy(folder / "relu/1/ticket.npz", folder / "relu/1/0.2.npz")
    found = entries.read(folder, SHEET)
    assert list(found.densities["relu"]) == ["0.5", "0.2", "ticket"]
    assert len(found.masks["relu"]) == 6
    assert found.digest() != entries.read(entry, SHEET).digest()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score", "ENTRY", "--depth", "4"], "must hold bool|must name exactly"),
        (["score", "ENTRY", *SHAPE, "--epochs", "-1"], "--epochs must be an integer"),
        (["score", "ENTRY", *SHAPE, "--out", "ENTRY/out"], "--out must not be in the entry"),
        (["score"], "required"),
        (["worlds", "WORLDS", "--tasks", "relu"], "FOLDER must be new or empty"),
        (["worlds", "NEW", "--tasks", "rely"], "--tasks must be one of"),
        (["worlds", "NEW", "--tasks"], "--tasks must name at least one"),
        (["worlds", "NEW", "--densities", "2"], "--densities must lie in"),
        (["worlds", "NEW", "--seeds", "0"], "--seeds must be an integer"),
        (["worlds", "NEW", "--width", "0"], "--width must be an integer"),
        (["worlds", "NEW", "--tasks", "circle", "--width", "3"], "width must be at least 4"),
    ],
)
def test_bad_commands_are_refused(
    words: list[str],
    message: str,
    worlds: Path,
    entry: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"ENTRY": entry, "WORLDS": worlds, "NEW": "new", "ENTRY/out": entry / "out"}
    with pytest.raises(InputError, match=message):
        leaderboard.main([str(places.get(word, word)) for word in words])
    assert not list(tmp_path.iterdir())


def test_the_example_is_an_entry(worlds: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    EXAMPLE["enter"](worlds, tmp_path, EXAMPLE["largest"])
    found = entries.read(tmp_path, SHEET).masks["relu"]
    assert [int(mask.sum()) for (density, _), mask in found.items() if density == "0.5"] == [13] * 3


def test_densities_and_shape_are_those_of_the_leaderboard() -> None:
    full, usual = leaderboard.BUDGETS["full"], open_worlds.Settings(Path("worlds"))
    assert usual.densities == full.densities
    assert usual.tasks == full.tasks
    assert usual.first_seed == leaderboard.Settings().first_seed
    assert (usual.depth, usual.width) == (leaderboard.DEPTH, full.width)
