"""Gradual pruning: exact densities, zeros that stay, what the inner optimizer sees, resuming."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from plantjax import masks, nets, optim
from plantjax.losses import cross_entropy
from plantjax.masks import schedules
from shared import at, chain, circle, flat

PARAMS = chain(2, 16, 16, 4)
SIZE = masks.size(PARAMS)
X, Y = circle(24)
WRAPPED = {
    "adamw": lambda prune: prune(
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.01, weight_decay=0.1))
    ),
    "momentum": lambda prune: prune(optax.sgd(0.1, momentum=0.9, nesterov=True)),
    "average": lambda prune: prune(optax.chain(optax.adam(0.01), optax.ema(0.9))),
    "schedule-free": lambda prune: prune(optax.contrib.schedule_free_adamw(0.01)),
    "multi-steps inside": lambda prune: prune(
        optax.MultiSteps(optax.adam(0.01), 3).gradient_transformation()
    ),
    "multi-steps outside": lambda prune: optax.MultiSteps(
        prune(optax.adam(0.01)), 2
    ).gradient_transformation(),
    "if-finite outside": lambda prune: optax.apply_if_finite(prune(optax.adam(0.01)), 5),
    "factored": lambda prune: prune(optax.adafactor(0.01, min_dim_size_to_factor=4)),
}


QUICK = ("adamw",)


def pruned(inner=None, **options):
    return optim.prune(
        inner or optax.adam(0.01), **{"density": 0.1, "end": 9, "every": 2} | options
    )


def step(optimizer, params, state):
    gradient = jax.grad(lambda p: cross_entropy(nets.apply(p, X), Y))(params)
    with jax.numpy_dtype_promotion("standard"):  # wrappers of optax do not run under "strict"
        updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def run(optimizer, steps=20, params=PARAMS, state=None):
    """Parameters and states after each step, stacked."""

    def one(carry, _):
        carry = step(optimizer, *carry)
        return carry, carry

    start = params, optimizer.init(params) if state is None else state
    return jax.jit(lambda start: jax.lax.scan(one, start, length=steps)[1])(start)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in WRAPPED],
)
def test_zeros_stay_and_the_density_is_exact_with_every_optimizer(name):
    params, states = run(WRAPPED[name](lambda inner: pruned(inner)))
    kept = np.asarray(masks_of(states))  # [steps, P]
    values = np.stack([flat(at(params, index)) for index in range(20)])
    assert (values[~kept] == 0).all()
    assert not (kept[1:] & ~kept[:-1]).any()  # nothing comes back
    assert kept[-1].sum() == int(0.1 * SIZE + 0.5)
    np.testing.assert_allclose(optim.density(states), kept.sum(1) / SIZE, rtol=1e-6)
    assert np.isfinite(values).all()
    assert (values[-1] != values[-6])[kept[-1]].any()  # what is kept goes on


def masks_of(states):
    return np.concatenate(
        [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(optim.mask(states))], axis=1
    )


@pytest.mark.slow
def test_densities_follow_the_schedule_from_begin_to_end():
    _, states = run(pruned(schedule="cubic", begin=3, every=4, end=13))
    kept = masks_of(states).sum(1)
    wanted, now = [], SIZE
    for number in range(1, 21):  # updates count from 1
        if number in (7, 11, 13):
            density = schedules.cubic(0.1, number - 3, 10)
            now = int(masks.number_kept(density, SIZE))
        wanted.append(now)
    np.testing.assert_array_equal(kept, wanted)


@pytest.mark.slow
def test_magnitude_and_saliency_choose_what_they_say():
    params = {"w": jnp.array([4.0, -3.0, 2.0, 1.0])}
    gradient = {"w": jnp.array([0.1, 0.2, -1.0, 5.0])}
    wanted = {"magnitude": [1, 1, 0, 0], "saliency": [0, 0, 1, 1], "lamp": [1, 1, 0, 0]}
    for method, kept in wanted.items():
        optimizer = pruned(optax.sgd(0.1), density=0.5, method=method, end=1)
        _, state = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
        np.testing.assert_array_equal(optim.mask(state)["w"], np.array(kept, bool))


@pytest.mark.slow
def test_random_pruning_differs_by_key_and_own_methods_are_taken():
    _, states = jax.vmap(lambda key: run(pruned(method="random", key=key), 9))(
        jax.random.split(jax.random.key(3), 3)
    )
    kept = np.concatenate(
        [leaf[:, -1].reshape(3, -1) for leaf in jax.tree.leaves(optim.mask(states))], axis=1
    )
    assert len(np.unique(kept, axis=0)) == 3
    assert (kept.sum(1) == int(0.1 * SIZE + 0.5)).all()

    def smallest(key, params, gradient, mask):
        return jax.tree.map(lambda p: -jnp.abs(p), params)

    params, state = {"w": jnp.array([2.0, 1.0])}, None
    optimizer = pruned(optax.sgd(0.1), density=0.5, method=smallest, end=1)
    _, state = optimizer.update(params, optimizer.init(params), params)
    assert optim.mask(state)["w"].tolist() == [False, True]


@pytest.mark.slow
def test_an_allocation_sets_the_numbers_of_layers():
    optimizer = pruned(scope="erk", density=0.25, end=1)
    _, state = jax.jit(optimizer.update)(PARAMS, optimizer.init(PARAMS), PARAMS)
    wanted = jax.jit(masks.erk)(PARAMS, 0.25)
    np.testing.assert_array_equal(masks.group_counts(optim.mask(state)), wanted)


def test_clipping_sees_the_sparse_gradient_and_moments_of_the_pruned_are_zero():
    """Two updates dense, the third prunes all but the first two: afterwards these move alone."""
    params = {"w": jnp.array([3.0, 2.0, 1.0, 0.5])}
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1, b1=0.9))
    optimizer = pruned(inner, density=0.5, schedule="one_shot", end=3)
    update, state = jax.jit(optimizer.update), optimizer.init(params)
    gradients = [jnp.array([0.3, 0.1, 0.2, -0.1])] * 2 + [jnp.array([0.3, 0.1, 100.0, jnp.nan])] * 3
    for index, gradient in enumerate(gradients):
        if index == 2:  # the same from here, with the moments of two parameters alone
            alone = {"w": params["w"][:2]}
            seen = jax.tree.map(lambda s: s[:2] if s.ndim else s, state.inner)
        updates, state = update({"w": gradient}, state, params)
        params = optax.apply_updates(params, updates)
        if index >= 2:
            with jax.numpy_dtype_promotion("standard"):
                updates, seen = inner.update({"w": gradient[:2]}, seen, alone)
            alone = optax.apply_updates(alone, updates)
            moments = state.inner[1][0]
            assert (moments.mu["w"][2:] == 0).all()
            assert (moments.nu["w"][2:] == 0).all()
    np.testing.assert_allclose(params["w"][:2], alone["w"], rtol=1e-6)
    assert (params["w"][2:] == 0).all()


def test_updates_that_are_not_finite_are_rejected_unless_it_is_the_pruned_that_are_not():
    optimizer = pruned(optax.apply_if_finite(optax.sgd(0.5), 5), density=0.5, end=1)
    params = {"w": jnp.array([2.0, 1.0])}
    update, state = jax.jit(optimizer.update), optimizer.init(params)
    for gradient, wanted in (([1.0, jnp.nan], [1.5, 0.0]), ([jnp.nan, 0.0], [1.5, 0.0])):
        updates, state = update({"w": jnp.array(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_array_equal(params["w"], wanted)


@pytest.mark.slow
def test_it_compiles_once_with_donated_buffers_and_a_traced_density():
    traces = []

    def one(params, state, density):
        traces.append(density)
        return step(pruned(density=density), params, state)

    compiled = jax.jit(one, donate_argnums=(0, 1))
    for density in (0.1, 0.5):
        params = jax.tree.map(jnp.copy, PARAMS)
        state = pruned().init(params)
        for _ in range(10):
            params, state = compiled(params, state, jnp.float32(density))
        np.testing.assert_allclose(optim.density(state), density, atol=1 / SIZE)
    assert len(traces) == 1


@pytest.mark.slow
def test_vmapped_networks_are_each_pruned_as_alone():
    params = jax.vmap(lambda key: nets.init(key, (2, 16, 4)))(
        jax.random.split(jax.random.key(1), 3)
    )
    densities = jnp.array([0.1, 0.3, 0.6])
    together = jax.vmap(lambda p, d: at(run(pruned(density=d), 10, p), -1))(params, densities)
    for index in range(3):
        alone = at(run(pruned(density=densities[index]), 10, at(params, index)), -1)
        kept, other = optim.mask(alone[1]), at(optim.mask(together[1]), index)
        jax.tree.map(np.testing.assert_array_equal, kept, other)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            alone[0],
            at(together[0], index),
        )


@pytest.mark.slow
def test_sharded_parameters_give_the_same_masks():
    mesh = Mesh(np.array(jax.devices()[:2]), ("model",))

    def place(leaf):
        split = PartitionSpec(*(None,) * (leaf.ndim - 1), "model") if leaf.ndim else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, split))

    params = jax.tree.map(place, PARAMS)
    state = jax.jit(pruned().init)(params)
    compiled = jax.jit(lambda p, s: step(pruned(), p, s))
    for _ in range(10):
        params, state = compiled(params, state)
    alone = at(run(pruned(), 10)[1], -1)
    jax.tree.map(np.testing.assert_array_equal, optim.mask(state), optim.mask(alone))


@pytest.mark.slow
def test_it_resumes_from_a_checkpoint_bit_by_bit(tmp_path):
    checkpoint = pytest.importorskip("orbax.checkpoint")
    optimizer = WRAPPED["adamw"](lambda inner: pruned(inner))
    compiled = jax.jit(lambda carry: step(optimizer, *carry))
    carry = PARAMS, optimizer.init(PARAMS)
    for index in range(12):
        if index == 5:
            with checkpoint.StandardCheckpointer() as saver:
                saver.save(tmp_path / "state", carry)
        carry = compiled(carry)
    fresh = jax.eval_shape(lambda: (PARAMS, optimizer.init(PARAMS)))
    with checkpoint.StandardCheckpointer() as saver:
        resumed = saver.restore(tmp_path / "state", fresh)
    for _ in range(5, 12):
        resumed = compiled(resumed)
    jax.tree.map(np.testing.assert_array_equal, resumed, carry)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 1.5}, r"density must lie in \(0, 1\], got 1.5"),
        ({"method": "best"}, "method must be one of magnitude, saliency, random, lamp, got 'best'"),
        ({"schedule": "late"}, "schedule must be one of exponential, linear, cubic, one_shot"),
        ({"scope": "oracle"}, "scope must not be oracle"),
        ({"scope": "5:4"}, "scope must be one of global, local"),
        ({"begin": -1}, "begin must be an integer of at least 0, got -1"),
        ({"begin": 10}, "end must be an integer of at least 10, got 9"),
        ({"every": 0}, "every must be an integer of at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pruned(**options)


def test_a_predicate_that_allows_nothing_is_refused():
    with pytest.raises(ValueError, match="prunable must allow at least one leaf"):
        pruned(prunable=lambda path: False).init(PARAMS)
