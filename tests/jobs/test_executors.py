"""Executors: halves when memory does not suffice; Ray's workers give the same table."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pandas as pd
import pytest

import seek
from plantjax.jobs import cli, executors
from plantjax.jobs.executors import Work

TINY = ["--tasks", "relu", "--depth", "3", "--width", "8", "--seeds", "3", "--epochs", "1"]
TINY += ["--finders", "snip", "--densities", "ticket", "0.5", "--chunk", "3"]


def small_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> tuple[list[list[int]], Any]:
    """A group that cannot compute more than so many cells at once, and what gets saved."""
    saved: list[list[int]] = []
    monkeypatch.setattr(store, "save", lambda folder, chunk: saved.append(chunk))

    def compute(run: Any, cells: list[int], devices: int, keep: Any) -> list[int]:
        if len(cells) > most:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return list(cells)

    return saved, SimpleNamespace(compute=compute)


def computed(group: Any, cells: int, devices: int = 1) -> tuple[list[str], int]:
    said: list[str] = []
    work = Work(Path("nowhere"), group, [])
    operation = cli.Operation(out=Path("nowhere"))
    done = executors.compute(work, range(cells), None, devices, operation, said.append)
    sizes = list(done)
    assert sum(number for number, _ in sizes) == cells
    return said, sizes[-1][1]


def test_out_of_memory_halves_the_chunk_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    saved, group = small_memory(monkeypatch, most=6)
    said, size = computed(group, 20)
    assert [number for part in saved for number in part] == list(range(20))
    assert max(map(len, saved)) <= 6
    assert said == [f"Out of memory: going on with {n} cells at a time." for n in (10, 5)]
    assert size == 5


def test_no_device_gets_less_than_two_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    _, group = small_memory(monkeypatch, most=3)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        computed(group, 20, devices=2)


def test_other_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        computed(SimpleNamespace(compute=broken), 20)


def test_a_missing_ray_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ray" else find(name)
    )
    with pytest.raises(cli.InputError, match=r"--executor ray .*pip install 'plantjax\[ray\]'"):
        seek.main([*TINY, "--out", str(tmp_path / "out"), "--executor", "ray"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--executor dask", "--executor"),
        ("--ray-address auto", "--ray-address goes with --executor ray"),
        (
            "--executor ray --coordinator a:1 --processes 2 --process 0",
            "goes with --executor local",
        ),
        ("--ray-cpus -1 --executor ray", "--ray-cpus must lie in"),
        ("--checkpoint-seconds -1", "--checkpoint-seconds must lie in"),
        ("--devices 0", "--devices must be an integer of at least 1, got 0"),
    ],
)
def test_bad_ways_to_run_are_refused(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(cli.InputError, match=message):
        seek.main([*TINY, "--out", str(tmp_path / "out"), *words.split()])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ray_changes_nothing(tmp_path: Path) -> None:
    for name in ("local", "ray"):  # in processes of their own, since Ray forks
        command = [sys.executable, "experiments/seek.py", *TINY, "--executor", name]
        command += ["--out", str(tmp_path / name)]
        root = Path(__file__).parents[2]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    found, wanted = (
        pd.read_csv(tmp_path / name / "results.csv", dtype=str).drop(columns="seconds")
        for name in ("ray", "local")
    )
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)
