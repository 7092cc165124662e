"""Compose by hand: seeds, densities and learning rates in one vmapped, jitted program."""

import jax
import jax.numpy as jnp
import optax

import plantjax as pj

TASK = pj.TASKS["circle"]
WIDTHS = (2, 30, 30, 30, 4)
find = pj.FINDERS["synflow"](TASK)


def weak_accuracy(seed, density, learning_rate):
    """Plants, prunes and trains one network; every argument may be traced."""
    keys = jax.random.split(jax.random.key(seed), 5)
    planted = pj.plant(keys[0], TASK.target(5), pj.nets.init(keys[1], WIDTHS))
    train, test = pj.tasks.split(TASK.sample(keys[2], 2_000))
    mask = find(keys[3], planted.params, train, density).mask
    trained, _ = pj.training.fit(
        keys[4],
        planted.params,
        mask,
        train,
        apply=pj.nets.apply,
        loss=TASK.loss,
        optimizer=optax.adam(learning_rate),
        epochs=5,
        batch_size=32,
    )
    return pj.evaluate(TASK, trained, mask, test)["accuracy"]


over_rates = jax.vmap(weak_accuracy, (None, None, 0))
over_densities = jax.vmap(over_rates, (None, 0, None))
over_seeds = jax.jit(jax.vmap(over_densities, (0, None, None)))

if __name__ == "__main__":
    densities, rates = jnp.array([0.1, 0.3, 1.0]), jnp.array([1e-3, 1e-2])
    accuracy = over_seeds(jnp.arange(3), densities, rates)  # [3 seeds, 3 densities, 2 rates]
    for density, row in zip(densities, jnp.median(accuracy, axis=0), strict=True):
        told = ", ".join(f"{a:.3f} at rate {r:g}" for a, r in zip(row, rates, strict=True))
        print(f"density {density:g}: {told}")
