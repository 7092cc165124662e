"""Optimizers that keep a network sparse: what is pruned neither moves nor is seen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plantjax import optim
from plantjax.optim import packing

MASK = {"w": jnp.array([True, True, False])}
START = {"w": jnp.array([1.0, 2.0, 5.0])}
INNER = {
    "clipping": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
    "adamw": optax.adamw(0.1),
    "average": optax.chain(optax.adam(0.1), optax.ema(0.9)),
    "schedule-free": optax.contrib.schedule_free_adamw(0.1),
    "multi-steps": optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "value": optax.polyak_sgd(),
}


def trained(optimizer, gradients, start=START):
    """The parameters and the state after some steps."""

    def step(carry, gradient):
        params, state = carry
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradient, state, params, value=jnp.float32(1.0))
        return (optax.apply_updates(params, updates), state), params

    return jax.jit(lambda: jax.lax.scan(step, (start, optimizer.init(start)), gradients)[0])()


@pytest.mark.parametrize(
    ("name", "pruned"), [("adamw", 100.0), *((name, np.nan) for name in INNER)]
)
def test_kept_parameters_move_as_if_the_pruned_were_not_there(name, pruned):
    gradients = jnp.array([[0.5, -0.2, pruned], [0.1, 0.3, pruned], [0.2, 0.2, pruned]])
    params, state = trained(optim.keep_pruned(INNER[name], MASK), {"w": gradients})
    alone, _ = trained(
        optax.with_extra_args_support(INNER[name]), {"w": gradients[:, :2]}, {"w": START["w"][:2]}
    )
    np.testing.assert_allclose(params["w"][:2], alone["w"], rtol=1e-6)
    assert params["w"][2] == 0.0
    np.testing.assert_array_equal(optim.mask(state)["w"], MASK["w"])
    if name == "schedule-free":
        averaged = optax.contrib.schedule_free_eval_params(state.inner, params)
        assert averaged["w"][2] == 0.0


@pytest.mark.parametrize("shape", [(), (8,), (17,), (64, 1), (3, 3, 2, 5)])
def test_masks_are_packed_into_bits(shape):
    mask = jax.random.bernoulli(jax.random.key(0), shape=(2, *shape))
    bits = jax.jit(jax.vmap(packing.pack))(mask)
    np.testing.assert_array_equal(packing.unpack(bits, shape), mask)
    longest = max(shape, default=1)
    assert bits.size == mask.size // longest * -(-longest // 8)


def around(wrapper):
    """The state of an optimizer that keeps MASK, inside another wrapper."""
    kept = optim.keep_pruned(optax.sgd(0.1), MASK)
    made = {
        "chain": lambda: optax.chain(optax.clip(1.0), kept),
        "multi-steps": lambda: optax.MultiSteps(kept, 2),
        "if-finite": lambda: optax.apply_if_finite(kept, 3),
        "injected": lambda: optax.inject_hyperparams(
            lambda learning_rate: optim.keep_pruned(optax.sgd(learning_rate), MASK)
        )(learning_rate=0.1),
        "partition": lambda: optax.partition({"a": kept, "b": optax.sgd(0.1)}, {"w": "a"}),
    }
    return made[wrapper]().init(START)


@pytest.mark.parametrize("wrapper", ["chain", "multi-steps", "if-finite", "injected", "partition"])
def test_masks_are_found_inside_other_wrappers(wrapper):
    state = around(wrapper)
    np.testing.assert_array_equal(optim.mask(state)["w"], MASK["w"])
    np.testing.assert_allclose(optim.density(state), 2 / 3)


def test_states_without_a_mask_or_with_two_are_refused():
    kept = optim.keep_pruned(optax.sgd(0.1), MASK)
    for optimizer, number in ((optax.adam(0.1), 0), (optax.chain(kept, kept), 2)):
        with pytest.raises(ValueError, match=f"keep_pruned in it, got {number} of them"):
            optim.mask(optimizer.init(START))


def test_masks_of_batches_of_states():
    masks = {"a": jnp.array([[True, False], [True, True]]), "b": jnp.array([True, False])}
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), masks)
    state = jax.vmap(lambda m, p: optim.keep_pruned(optax.sgd(0.1), m).init(p))(masks, params)
    jax.tree.map(np.testing.assert_array_equal, optim.mask(state), masks)
    np.testing.assert_allclose(optim.density(state), [2 / 3, 2 / 3])


def test_leaves_that_are_not_floats_or_not_prunable_are_let_alone():
    params = {
        "w": jnp.array([1.0, 2.0]),
        "scale": jnp.array([3.0, 4.0]),
        "steps": jnp.array([7, 8]),
        "flag": jnp.array([True, False]),
        "none": None,
    }
    mask = jax.tree.map(lambda leaf: jnp.array([True, False]), params)
    optimizer = optim.keep_pruned(optax.adamw(0.1), mask, prunable=lambda path: path != "scale")
    gradient = jax.tree.map(jnp.ones_like, params)
    gradient["steps"] = np.zeros(2, jax.dtypes.float0)  # as jax.grad with allow_int
    state = optimizer.init(params)
    updates, state = jax.jit(optimizer.update)(gradient, state, params)
    after = optax.apply_updates(params, updates)
    assert after["w"][1] == 0.0
    assert (after["scale"] < params["scale"]).all()
    for name in ("steps", "flag"):
        np.testing.assert_array_equal(after[name], params[name])
        assert optim.mask(state)[name].all()
    assert float(optim.density(state)) == 0.5


def test_updates_of_narrower_types_still_zero_what_is_pruned():
    optimizer = optim.keep_pruned(
        optax.stateless(lambda u, _: jax.tree.map(lambda x: x.astype(jnp.bfloat16), u)), MASK
    )
    params = {"w": jnp.array([1.0, 2.0, 1.0 / 3.0])}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert updates["w"].dtype == jnp.float32
    assert optax.apply_updates(params, updates)["w"][2] == 0.0


def test_it_refuses_other_masks_and_needs_the_parameters():
    optimizer = optim.keep_pruned(optax.sgd(0.1), MASK)
    with pytest.raises(ValueError, match=r"mask\[w\] must have the shape"):
        optimizer.init({"w": jnp.zeros(2)})
    with pytest.raises(ValueError, match="params must be given"):
        optimizer.update(START, optimizer.init(START))
    other = {"w": jnp.zeros(2)}
    with pytest.raises(ValueError, match="params must have the shapes that they had"):
        optimizer.update(other, optimizer.init(START), other)


@pytest.mark.parametrize(
    "name", [pytest.param("lbfgs", marks=pytest.mark.slow), "plateau", "polyak"]
)
def test_line_searches_and_losses_are_those_of_the_sparse_network(name):
    rule = {
        "lbfgs": optax.lbfgs(memory_size=3),
        "plateau": optax.chain(optax.sgd(0.05), optax.contrib.reduce_on_plateau(patience=1)),
        "polyak": optax.polyak_sgd(0.5),
    }[name]

    def run(optimizer, start, aim):
        def loss(params):
            (w,) = jax.tree.leaves(params)
            return jnp.sum(jnp.array([1.0, 9.0, 1e6])[: w.size] * jnp.square(w - aim))

        def step(carry, _):
            params, state = carry
            value, slope = jax.value_and_grad(loss)(params)
            with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
                updates, state = optimizer.update(
                    slope, state, params, value=value, grad=slope, value_fn=loss
                )
            return (optax.apply_updates(params, updates), state), None

        start = (start, optimizer.init(start))
        return jax.jit(lambda: jax.lax.scan(step, start, None, 6)[0][0])()

    aim = jnp.array([3.0, -2.0, 0.0])
    alone = run(optax.with_extra_args_support(rule), {"w": START["w"][:2]}, aim[:2])
    start = START if name == "lbfgs" else {"w": jnp.array([1.0, 2.0, 0.0])}
    found = run(optim.keep_pruned(rule, MASK), start, aim)  # the loss of what is pruned is huge
    np.testing.assert_allclose(found["w"][:2], alone["w"], rtol=1e-4)
    assert found["w"][2] == 0.0
    if name == "lbfgs":
        pruned = optim.prune(rule, density=0.6, end=2)
        found = run(pruned, {"w": jnp.array([1.0, 2.0, 1e-3])}, aim)
        np.testing.assert_allclose(found["w"], [3.0, -2.0, 0.0], atol=0.01)


@pytest.mark.parametrize(
    "name", ["keep_pruned", "prune", pytest.param("rewire", marks=pytest.mark.slow)]
)
def test_it_works_in_the_optimizer_of_flax_nnx(name):
    from flax import nnx

    net = nnx.Linear(2, 4, rngs=nnx.Rngs(0))
    kept = {"kernel": jnp.arange(8).reshape(2, 4) % 2 == 0, "bias": jnp.ones(4, bool)}
    only = {"prunable": lambda path: path == "kernel"}
    state = nnx.state(net, nnx.Param)
    mask = jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(kept))
    rule = {
        "keep_pruned": lambda inner: optim.keep_pruned(inner, mask, **only),
        "prune": lambda inner: optim.prune(inner, density=0.5, end=2, **only),
        "rewire": lambda inner: optim.rewire(inner, density=0.5, end=4, every=2, **only),
    }[name](optax.adam(0.1))
    optimizer = nnx.Optimizer(net, rule, wrt=nnx.Param)

    @nnx.jit
    def step(net, optimizer):
        slopes = nnx.grad(lambda net: jnp.sum(jnp.square(net(jnp.ones((3, 2))) - 1.0)))(net)
        optimizer.update(net, slopes)

    for _ in range(4):
        step(net, optimizer)
    found = optim.mask(optimizer.opt_state)
    assert float(optim.density(optimizer.opt_state)) == 0.5
    np.testing.assert_array_equal(net.kernel[...] != 0, found["kernel"])
    assert (net.bias[...] != 0).all()
    if name == "keep_pruned":
        np.testing.assert_array_equal(found["kernel"], kept["kernel"])
