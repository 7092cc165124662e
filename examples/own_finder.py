"""Your own finder: any search for a mask. This one keeps the best of many random masks.

A finder is a pure function `(key, params, data, density) -> Found`. If it works with a traced
density, it jits, vmaps and runs in sweeps of any size.
"""

import jax
import jax.numpy as jnp

import plantjax as pj


def best_of_many(task, *, apply=pj.nets.apply, tries=64):
    """Draws `tries` random masks of exact density and keeps the best one on the data."""
    sign = 1.0 if task.metric == "mse" else -1.0
    draw = pj.SCORES["random"](apply, task.loss)

    def search(key, params, data, density):
        def attempt(key):
            scores, ties = jax.random.split(key)
            mask = pj.masks.select(ties, draw(scores, params, None, data), density)
            found = pj.evaluate(task, params, mask, data, apply=apply)
            return mask, sign * found[task.metric]

        tried, errors = jax.lax.map(attempt, jax.random.split(key, tries))
        best = jnp.argmin(errors)
        mask = jax.tree.map(lambda leaf: leaf[best], tried)
        return pj.Found(mask, params, {"error": errors[best]})

    return pj.types.Finder(search)


if __name__ == "__main__":
    pj.FINDERS["best_of_many"] = best_of_many  # its options become those of make_run
    cells = pj.sweeps.make_cells(pj.TASKS["relu"], seeds=range(4), densities=[0.05, 0.2])
    for tries in (1, 16, 256):
        run = pj.sweeps.make_run(
            "relu", 3, 30, "best_of_many", tries=tries, epochs=0, samples=1_000
        )
        errors = pj.sweeps.sweep(run, cells)["pruned/value"].reshape(4, 2)
        print(f"best of {tries}: mse {errors.mean(axis=0)[0]:.1e}, {errors.mean(axis=0)[1]:.1e}")
