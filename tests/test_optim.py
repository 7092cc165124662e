"""Optimizers that keep a network sparse: what is pruned neither moves nor is seen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plantjax import optim

MASK = {"w": jnp.array([True, True, False])}
START = {"w": jnp.array([1.0, 2.0, 5.0])}
INNER = {
    "clipping": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
    "adamw": optax.adamw(0.1),
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


@pytest.mark.parametrize("pruned", [100.0, np.nan])
@pytest.mark.parametrize("name", INNER)
def test_kept_parameters_move_as_if_the_pruned_were_not_there(name, pruned):
    gradients = jnp.array([[0.5, -0.2, pruned], [0.1, 0.3, pruned], [0.2, 0.2, pruned]])
    params, state = trained(optim.keep_pruned(INNER[name], MASK), {"w": gradients})
    alone, _ = trained(
        optax.with_extra_args_support(INNER[name]), {"w": gradients[:, :2]}, {"w": START["w"][:2]}
    )
    np.testing.assert_allclose(params["w"][:2], alone["w"], rtol=1e-6)
    assert params["w"][2] == 0.0
    if name == "schedule-free":
        averaged = optax.contrib.schedule_free_eval_params(state, params)
        assert averaged["w"][2] == 0.0


def test_it_refuses_other_masks_and_needs_the_parameters():
    optimizer = optim.keep_pruned(optax.sgd(0.1), MASK)
    with pytest.raises(ValueError, match=r"mask\[w\] must have the shape"):
        optimizer.init({"w": jnp.zeros(2)})
    with pytest.raises(ValueError, match="params must be given"):
        optimizer.update(START, optimizer.init(START))
