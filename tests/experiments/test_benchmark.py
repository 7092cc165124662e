"""The benchmark: a workload beside a rival and a peer, its table, bad input; no times."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

import benchmark
import scripting
from plantjax import losses, nets, training
from plantjax.jobs import InputError
from plantjax.types import Batch
from timing import growth, jax_peers, measure, peers, table, workloads
from timing.client import Peer
from timing.workloads import Workload


class Fake:
    """A peer that takes ten seconds."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        return {"process_seconds": 10.0, "loss": 0.25}


def test_a_workload_takes_turns_with_rivals_and_a_peer() -> None:
    before = jax.config.jax_compilation_cache_dir
    item = Workload(
        "doubling",
        lambda x: {"loss": 2.0 * x},
        (jnp.ones((4, 100)),),
        networks=4,
        bytes=800.0,
        loss=lambda result: float(result["loss"].mean()),
        peer={"workload": "doubling"},
        warm_up={"epochs": 1},
        rivals={"adding_up": lambda x: {"loss": x + x}},
    )
    peer = Fake()
    row = benchmark.measured(item, {"flops": 1e9, "bytes": 1e9}, peer, Console(quiet=True))
    assert (row["name"], row["networks"]) == ("doubling", 4)
    assert 0.0 < row["spread"][0] <= row["seconds_per_network"] <= row["spread"][1]
    assert row["gflops"] is None
    assert row["gbytes_per_second"] > 0
    np.testing.assert_allclose(row["fraction_of_peak"], row["gbytes_per_second"], rtol=1e-6)
    assert (row["loss"], row["peer_loss"]) == (2.0, 0.25)
    assert row["peer_ratio"] > 1
    assert row["ratio_adding_up"] > 0
    assert peer.asked[0]["epochs"] == 1
    seeds = [request.get("seed") for request in peer.asked]
    assert seeds == [None, *range(growth.REPEATS)]
    assert jax.config.jax_compilation_cache_dir == before
    words = table.rivals(row)
    assert words.startswith("PyTorch ")
    assert "adding up" in words
    assert "losses 2, 0.25" in words


@pytest.mark.slow
def test_a_selection_names_its_rivals() -> None:
    item = workloads.selection(1000, 2)
    found = jax.jit(item.function)(*item.arguments)
    for rival in (item.rivals or {}).values():
        leaves = zip(jax.tree.leaves(found), jax.tree.leaves(rival(*item.arguments)), strict=True)
        assert all((np.asarray(a) == np.asarray(b)).all() for a, b in leaves)


@pytest.mark.slow
def test_peers_in_jax_train_as_the_library_does() -> None:
    """In one batch the order of the samples does not matter."""
    batch, epochs = jax_peers.BATCH_SIZE, 3
    keys = jax.random.split(jax.random.key(0), 2)
    params = jax.vmap(lambda key: nets.init(key, (2, 6, 3)))(keys)
    mask = jax.tree.map(lambda leaf: leaf > 0, params)
    x = jax.random.normal(keys[0], (2, batch, 2))
    data = Batch(x, jnp.argmax(x @ jnp.ones((2, 3)) + x[..., :1], axis=-1))

    def fit(params: Any, mask: Any, data: Batch) -> jax.Array:
        options = {"apply": nets.apply, "loss": losses.cross_entropy, "batch_size": batch}
        options |= {"optimizer": optax.adam(1e-3), "epochs": epochs}
        return training.fit(keys[0], params, mask, data, **options)[1][-1]

    wanted = jax.vmap(fit)(params, mask, data)
    for peer in peers.PEERS.values():
        if not isinstance(peer.train, str):
            with jax.numpy_dtype_promotion("standard"):  # optax does not run under "strict"
                found = peer.train(params, mask, data, 1, epochs=epochs)
            np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_a_peer_is_compared_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def ask(self: Any, request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {"process_seconds": 100.0, "loss": 50.0}

    monkeypatch.setattr(
        peers, "PEERS", {"torch_func": peers.Entry("two at once", "ensemble", (2,))}
    )
    monkeypatch.setattr(workloads, "magnitude", lambda count: (jnp.ones(count),))
    ours = peers.Ours(lambda x: 2.0 * x, [(jnp.ones(2),)] * 2, np.array([0.1, 0.3]))
    monkeypatch.setattr(peers, "_ours", lambda arguments, batch, epochs: ours)
    worker = type("Worker", (), {"ask": ask})()
    (row,) = peers.compare(2, 1, 3, worker, Console(quiet=True))
    assert asked[0] == {"workload": "ensemble", "density": 0.1, "networks": 2, "epochs": 1}
    assert [request["seed"] for request in asked[1:]] == [0, 1, 2]
    assert (row["name"], row["seconds_per_network"], row["loss"]) == ("torch_func_2", 50.0, 50.0)
    np.testing.assert_allclose(row["our_loss"], 0.2)
    low, high = row["times_ours_spread"]
    assert 1.0 < low <= row["times_ours"] <= high
    assert not row["losses_alike"]
    assert "not alike" in table.peer(row)[4]


@pytest.mark.slow
def test_compact_networks_compute_what_their_rivals_do() -> None:
    for item in workloads.compaction():
        (rival,) = (item.rivals or {}).values()
        outputs, wanted = (np.asarray(run(*item.arguments)) for run in (item.function, rival))
        np.testing.assert_allclose(outputs, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def test_medians_and_ranges_of_times() -> None:
    found = measure.timing([(3.0, 4.0), (1.0, 9.0), (2.0, 5.0)])
    assert found == measure.Timing(2.0, 5.0, 1.0, 3.0)


@pytest.mark.parametrize("width", [40, 50, 80, 200])
def test_tables_fit_on_a_terminal(width: int) -> None:
    path = scripting.ROOT / "experiments" / "results" / "benchmark-cpu.json"
    results = json.loads(path.read_text())
    console = Console(record=True, width=width)
    table.show(results, console)
    text = console.export_text()
    for row in results:
        assert row["name"] in text
        if "seconds_per_network" in row:
            assert f"{1e3 * row['seconds_per_network']:.4g}" in text.split()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--batch 1", "--batch must be an integer of at least 2, got 1"),
        ("--networks 1", "--networks must be an integer of at least 2, got 1"),
        ("--only this", "--only must be one of workloads, .*, got 'this'"),
        ("--finders guess", "--finders must be one of random, .*, got 'guess'"),
        ("--out {}", "--out must be a file such as results.json"),
        ("--plugin nowhere.py", "--plugin must name a Python file"),
    ],
)
def test_bad_input_is_refused(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        benchmark.main(words.format(tmp_path).split())


def test_a_peer_needs_a_python() -> None:
    with pytest.raises(ValueError, match="--peer-python must be a Python interpreter"):
        Peer("/nowhere/python", {}, None)
