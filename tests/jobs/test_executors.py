"""Executors: memory that does not suffice, ways to run that are refused."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

import scripting
import seek
from plantjax.jobs import InputError, Operation, executors
from plantjax.jobs.chunks import Chunk
from plantjax.jobs.executors import Watch, Work


def small_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> tuple[list[list[int]], Any]:
    """A group that cannot compute more than so many cells at once, and what gets saved."""
    saved: list[list[int]] = []
    monkeypatch.setattr(executors, "save", lambda folder, chunk: saved.append(chunk.ids))

    def compute(cells: list[int], devices: int, keep: Any, after: Any) -> Chunk:
        if len(cells) > most:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        done: list[int] = []
        for cell in cells:
            done.append(cell)
            if after(1):
                break
        return Chunk({"id": done}, {})

    return saved, group_of(compute)


def group_of(compute: Any) -> SimpleNamespace:
    return SimpleNamespace(
        compute=compute, prepare=lambda n, devices: None, program="p", task="relu", finder="snip"
    )


def computed(group: Any, cells: int, devices: int = 1) -> tuple[list[str], int]:
    said: list[str] = []
    work, operation = Work(Path("nowhere"), group, []), Operation(out=Path("nowhere"))
    watch = Watch(executors.scheduled([work], operation), said.append, lambda: False)
    sizes = list(executors.compute(work, range(cells), devices, operation, watch))
    assert sum(number for number, _ in sizes) == cells
    return said, sizes[-1][1]


def test_out_of_memory_halves_the_chunk_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    saved, group = small_memory(monkeypatch, most=6)
    said, size = computed(group, 20)
    assert [number for part in saved for number in part] == list(range(20))
    assert max(map(len, saved)) <= 6
    assert said == [f"Out of memory: going on with {n} cells at a time." for n in (10, 5)]
    assert size == 5


def test_the_next_groups_start_with_what_memory_sufficed_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved, group = small_memory(monkeypatch, most=6)
    blocks = [list(range(start, start + 20)) for start in (0, 20)]
    said: list[str] = []
    operation = Operation(out=Path("nowhere"), devices=1)
    work = [Work(Path("nowhere"), group, blocks)] * 2
    watch = Watch(executors.scheduled(work, operation), said.append, lambda: False)
    list(executors.here(work, operation, watch))
    assert len(said) == 2
    assert {len(part) for part in saved} == {5}


def test_no_device_gets_less_than_two_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    _, group = small_memory(monkeypatch, most=3)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        computed(group, 20, devices=2)


@pytest.mark.parametrize("most", [0, 1, 3, 25])
def test_a_job_that_is_to_stop_saves_what_has_run(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, group = small_memory(monkeypatch, most=100)
    blocks = [list(range(start, start + 20)) for start in (0, 20)]
    work, operation = [Work(Path("nowhere"), group, blocks)], Operation(Path("nowhere"), devices=1)
    schedule = executors.scheduled(work, operation)
    watch = Watch(schedule, print, lambda: schedule.cells_run >= most)
    done = list(executors.here(work, operation, watch))
    assert [cell for part in saved for cell in part] == list(range(most))
    assert sum(done) == most


def test_other_errors_are_not_swallowed() -> None:
    def broken(*_: Any) -> None:
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        computed(group_of(broken), 20)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--executor dask", "--executor"),
        ("--ray-address auto", "--ray-address goes with --executor ray"),
        (
            "--executor ray --coordinator a:1 --processes 2 --process 0",
            "goes with --executor local|pip install",
        ),
        ("--ray-cpus -1 --executor ray", "--ray-cpus must lie in"),
        ("--checkpoint-seconds -1", "--checkpoint-seconds must lie in"),
        ("--devices 0", "--devices must be an integer of at least 1, got 0"),
        ("--chunk 0", "--chunk must be an integer of at least 1, got 0"),
    ],
)
def test_bad_ways_to_run_are_refused(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        seek.main([*scripting.SHAPE, "--out", str(tmp_path / "out"), *words.split()])
    assert not (tmp_path / "out").exists()


def test_a_missing_ray_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ray" else find(name)
    )
    with pytest.raises(InputError, match=r"--executor ray .*pip install 'plantjax\[ray\]'"):
        seek.main([*scripting.SHAPE, "--out", str(tmp_path / "out"), "--executor", "ray"])
    assert not (tmp_path / "out").exists()
