"""Liveness: live paths against a search through the graph of channels."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import masks, recovery
from plantjax.nets import liveness, wirings
from plantjax.nets.wirings import INPUT, Layer, Wiring, layer
from plantjax.types import Planted
from shared import CONV, RESIDUAL, STREAM, net


def graph(params, mask, wiring):
    """Kept edges between (node, channel) pairs, and the channels that a positive bias feeds."""
    sizes, edges, fed = wirings.channels(params, wiring), {}, set()
    for part in wiring.layers:
        kept = np.asarray(wirings.leaves(mask)[part.kernel])
        for index in zip(*np.nonzero(kept), strict=True):
            start = (part.reads, index[-2] % sizes[part.reads])
            edges[(part.kernel, index)] = (start, (part.writes, index[-1]))
        bias = wirings.leaves(params)[part.bias]
        for channel in np.nonzero(wirings.leaves(mask)[part.bias] & (bias > 0))[0]:
            fed.add((part.writes, channel))
    for node, source in wiring.carries:
        for channel in range(sizes[source]):
            edges[(node, channel)] = ((source, channel), (node, channel))
    return sizes, edges, fed


def reach(pairs, start):
    """All that is reached from a set along pairs (from, to)."""
    while True:
        more = {end for begin, end in pairs if begin in start} - start
        if not more:
            return start
        start = start | more


@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
@pytest.mark.parametrize(("params", "wiring"), [(CONV, wirings.chain(CONV)), (RESIDUAL, STREAM)])
def test_live_paths_against_a_search_through_the_graph(params, wiring, share):
    find = jax.jit(masks.live, static_argnums=2)
    output = wiring.nodes[-1]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mask = jax.tree.map(lambda p, rng=rng: rng.random(p.shape) < share, params)
        sizes, edges, biased = graph(params, mask, wiring)
        inputs = {(INPUT, channel) for channel in range(sizes[INPUT])}
        fed = reach(edges.values(), inputs | biased)
        read = reach(
            [pair[::-1] for pair in edges.values()], {(output, c) for c in range(sizes[output])}
        )
        live = find(params, mask, wiring)
        for part in wiring.layers:
            kernel, bias = (wirings.leaves(live)[path] for path in (part.kernel, part.bias))
            wanted = np.zeros_like(kernel)
            for (name, index), (start, end) in edges.items():
                if name == part.kernel:
                    wanted[index] = start in fed and end in read
            np.testing.assert_array_equal(kernel, wanted)
            node = part.writes
            alive = [
                (node, c) in read and ((node, c) in fed or node == output)
                for c in range(sizes[node])
            ]
            np.testing.assert_array_equal(bias, wirings.leaves(mask)[part.bias] & np.array(alive))
        reached = reach(edges.values(), inputs)
        joined = any(node == output for node, _ in reached)
        assert bool(liveness.connected(mask, wiring)) == joined
        chex.assert_trees_all_equal(find(params, live, wiring), live)


def test_a_batch_norm_may_feed_any_channel():
    norm = {"scale": jnp.ones(3), "bias": jnp.zeros(3)}
    params = {**net((1, 1, 2, 3), (3, 2)), "norm_00": norm}
    first = Layer(
        "layer_00/kernel", "layer_00/bias", INPUT, "hidden", "norm_00/scale", "norm_00/bias"
    )
    wiring = Wiring((first, layer("layer_01", "hidden", "output")))
    mask = {
        **masks.full(params),
        "layer_00": jax.tree.map(jnp.zeros_like, masks.full(params)["layer_00"]),
    }
    chex.assert_trees_all_equal(masks.live(params, mask, wiring), mask)


def test_recovery_of_convolutional_and_residual_networks():
    for params, wiring in ((CONV, wirings.chain(CONV)), (RESIDUAL, STREAM)):
        full = masks.full(params)
        planted = Planted(params, full, jnp.ones(2))
        result = jax.jit(recovery.compare, static_argnames="wiring")(
            params, full, planted, wiring=wiring
        )
        assert float(result["live_density"]) == float(result["connected"]) == 1.0
        for name in params:
            assert float(result[f"{name}/precision"]) == float(result[f"{name}/recall"]) == 1.0
