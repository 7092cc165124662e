"""A plugin: a task, a score, a finder and a metric of your own, known by name in every script.

    python experiments/seek.py --plugin examples/own_plugin.py --tasks absolute --finders largest

The score is also a finder, "sensitivity", and another one level by level, "multishot_sensitivity".
"""

import jax
import jax.numpy as jnp

import plantjax as pj


def absolute(depth):
    """The target |x| = relu(x) + relu(-x); further layers pass both on unchanged."""
    kernels = [jnp.array([[1.0, -1.0]]), *[jnp.eye(2)] * (depth - 3), jnp.ones((2, 1))]
    layers = ({"kernel": kernel, "bias": jnp.zeros(kernel.shape[1])} for kernel in kernels)
    return {pj.nets.layer_name(index): layer for index, layer in enumerate(layers)}


def sensitivity(apply, loss):
    """Scores (theta dL/dtheta)^2."""

    def score(key, params, mask, batch):
        def masked_loss(theta):
            return loss(apply(pj.masks.apply(theta, mask), batch.x), batch.y)

        return jax.tree.map(lambda p, g: (p * g) ** 2, params, jax.grad(masked_loss)(params))

    return score


def largest(task, *, apply=pj.nets.apply):
    """Keeps the largest parameters, positive ones first."""

    def search(key, params, data, density):
        return pj.Found(pj.masks.select(key, params, density), params, {})

    return pj.types.Finder(search)


def hamming(judged):
    """Share of the parameters at which the found mask and the planted one differ."""
    pairs = jax.tree.map(jnp.not_equal, judged.mask, judged.planted.mask)
    return pj.masks.density(pairs)


pj.TASKS["absolute"] = pj.tasks.regression("absolute", 1, 1, absolute, jnp.abs)
pj.SCORES["sensitivity"] = sensitivity  # makes the finders "sensitivity", "multishot_sensitivity"
pj.FINDERS["largest"] = largest
pj.METRICS["hamming"] = hamming
