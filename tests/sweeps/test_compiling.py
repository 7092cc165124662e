"""Compiled programs: once per shape, whichever thread asks, and on any number of devices alike."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import sweeps
from plantjax.sweeps import compiling
from plantjax.tasks import TASKS


def counting():
    """A function of two arrays, and the list of its traces."""
    traces = []

    def function(x, y):
        traces.append(x)
        return {"sum": x + y, "product": x * y}

    return function, traces


def test_threads_share_one_compilation():
    function, traces = counting()
    x, mesh = jnp.arange(4.0), compiling.mesh_of(1)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: compiling.program(function, mesh, x, x), range(8)))
    assert len(traces) == 1
    assert all(program is found[0] for program in found)
    np.testing.assert_array_equal(found[0](x, x)["sum"], 2 * np.arange(4))


def test_other_shapes_dtypes_and_devices_are_other_programs():
    function, traces = counting()
    x = jnp.arange(4.0)
    for arguments in ((x, x), (x[:2], x[:2]), (x.astype(jnp.int32), x.astype(jnp.int32))):
        compiling.program(function, compiling.mesh_of(1), *arguments)
    compiling.program(function, compiling.mesh_of(2), x, x)
    assert len(traces) == 4


def test_what_was_forgotten_is_made_anew():
    function, traces = counting()
    x, mesh = jnp.arange(4.0), compiling.mesh_of(1)
    first = compiling.program(function, mesh, x, x)
    compiling.forget()
    assert compiling.program(function, mesh, x, x) is not first
    assert len(traces) == 2
    np.testing.assert_array_equal(first(x, x)["sum"], 2 * np.arange(4))  # still whole


def test_shapes_are_enough():
    function, _ = counting()
    shape = jax.ShapeDtypeStruct((4,), jnp.float32)
    program = compiling.program(function, compiling.mesh_of(1), shape, shape)
    assert program.out_info["sum"].shape == (4,)
    assert program is compiling.program(function, compiling.mesh_of(1), jnp.ones(4), jnp.ones(4))


def test_a_batch_is_halved_until_it_fits():
    def wide(x):  # takes 4 kB for each cell: sums of a sorted outer product
        return jnp.sort(jnp.outer(x, x).reshape(-1)).sum()

    def programs(batch):
        yield compiling.program(wide, compiling.mesh_of(1), jnp.ones((batch, 32)))

    most = max(part.temporary_bytes() for part in programs(64))
    assert most >= 64 * 32 * 32 * 4
    assert compiling.fitting(64, programs, most) == 64
    assert compiling.fitting(64, programs, most - 1) == 32
    assert compiling.fitting(64, programs, most // 5) == 8
    assert compiling.fitting(64, programs, 1) == 2


@pytest.mark.parametrize(("why", "expected"), [("RESOURCE_EXHAUSTED: hbm", 8), ("INTERNAL", None)])
def test_what_exceeds_the_device_is_halved_and_other_errors_are_told(why, expected):
    def programs(batch):
        if batch > 8:
            raise jax.errors.JaxRuntimeError(why)
        return [compiling.program(jnp.sin, compiling.mesh_of(1), jnp.ones((batch, 3)))]

    if expected is None:
        with pytest.raises(jax.errors.JaxRuntimeError, match=why):
            compiling.fitting(64, programs)
    else:
        assert compiling.fitting(64, programs) == expected


def test_every_device_runs_its_share():
    def place(x):
        return x + 1.0

    mesh = compiling.mesh_of(2)
    x = compiling.share(mesh, jnp.arange(6.0))
    found = compiling.program(place, mesh, x)(x)
    np.testing.assert_array_equal(found, np.arange(1.0, 7.0))
    assert [shard.data.shape for shard in found.addressable_shards] == [(3,), (3,)]
    assert len({shard.device for shard in found.addressable_shards}) == 2


def test_loops_of_two_devices_do_not_wait_for_one_another():
    """A loop runs as long as its own device's cells need, so nothing is exchanged."""

    def count(limit):
        return jax.lax.while_loop(lambda n: n < limit, lambda n: n + 1, 0)

    mesh = compiling.mesh_of(2)
    limits = compiling.share(mesh, jnp.array([3, 5, 70, 90], jnp.int32))
    program = compiling.program(count, mesh, limits)
    np.testing.assert_array_equal(program(limits), limits)
    assert "all-reduce" not in program.compile().as_text()


def test_a_batch_in_turn_is_computed_one_by_one():
    seen = []

    def function(x):
        jax.debug.callback(lambda value: seen.append(np.shape(value)), x)
        return x**2

    x, mesh = jnp.arange(4.0), compiling.mesh_of(1)
    program = compiling.program(function, mesh, x, in_turn=True)
    np.testing.assert_array_equal(program(x), np.arange(4.0) ** 2)
    jax.effects_barrier()
    assert seen == [()] * 4
    assert program is not compiling.program(function, mesh, x)


@pytest.mark.parametrize("devices", [0, 3, 1.5])
def test_devices_that_are_not_there_are_refused(devices):
    run = sweeps.make_run("relu", 3, 8, "snip", epochs=1, samples=100)
    cells = sweeps.make_cells(TASKS["relu"], [0, 1], [0.5])
    with pytest.raises(ValueError, match="devices must be an integer of at least 1 and at most 2"):
        sweeps.sweep(run, cells, devices=devices)
