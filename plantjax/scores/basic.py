"""The basic scores: random, magnitude, SNIP and GraSP."""

import jax
import jax.numpy as jnp

from plantjax import draws, masks
from plantjax.types import Apply, Batch, Key, Loss, Mask, Params, ScoreFn

GRASP_TEMPERATURE = 200.0


def random(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores N(0, 1), as a baseline: a random mask of exact density.

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> score = pj.SCORES["random"](None, None)
    >>> params = {"w": jnp.ones((2, 3))}
    >>> score(jax.random.key(0), params, pj.masks.full(params), None)["w"].shape
    (2, 3)
    """
    del apply, loss

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del mask, batch
        return draws.normal(key, params)

    return score


def magnitude(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores |theta|, pruned or not (Han et al. 2015, https://arxiv.org/abs/1506.02626).

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> score = pj.SCORES["magnitude"](None, None)
    >>> params = {"w": jnp.array([-2.0, 1.0])}
    >>> score(jax.random.key(0), params, pj.masks.full(params), None)["w"].tolist()
    [2.0, 1.0]
    """
    del apply, loss

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del key, mask, batch
        return jax.tree.map(jnp.abs, params)

    return score


def snip(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores |dL/dm| = |theta dL/d(m theta)| (Lee et al. 2019, https://arxiv.org/abs/1810.02340).

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> def apply(params, x):
    ...     return x @ params["w"]
    >>> params, mask = {"w": jnp.array([[1.0], [-2.0]])}, {"w": jnp.ones((2, 1), bool)}
    >>> batch = pj.types.Batch(jnp.array([[3.0, 1.0]]), jnp.zeros((1, 1)))
    >>> score = pj.SCORES["snip"](apply, lambda outputs, y: jnp.sum(outputs - y))
    >>> score(jax.random.key(0), params, mask, batch)["w"].tolist()
    [[3.0], [2.0]]
    """

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del key
        masked = masks.apply(params, mask)
        gradient = jax.grad(lambda p: loss(apply(p, batch.x), batch.y))(masked)
        return jax.tree.map(lambda p, g: jnp.abs(p * g), params, gradient)

    return score


def grasp(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores theta (H g), the first-order effect of a parameter on the gradient norm.

    H and g are Hessian and gradient of the loss of outputs divided by 200, over kept parameters;
    H g is one Hessian-vector product (Wang et al. 2020, eq. 8, https://arxiv.org/abs/2002.07376).

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> def apply(params, x):
    ...     return x @ params["w"]
    >>> params, mask = {"w": jnp.array([[1.0], [-2.0]])}, {"w": jnp.ones((2, 1), bool)}
    >>> batch = pj.types.Batch(jnp.array([[3.0, 1.0]]), jnp.zeros((1, 1)))
    >>> score = pj.SCORES["grasp"](apply, lambda outputs, y: jnp.sum(jnp.square(outputs - y)))
    >>> values = score(jax.random.key(0), params, mask, batch)["w"]  # theta x 4 f |x|^2 / 200^4
    >>> bool(jnp.allclose(values, jnp.array([[7.5e-8], [-5e-8]]), atol=0.0))
    True
    """

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del key

        def tempered(p: Params) -> jax.Array:
            outputs = apply(masks.apply(p, mask), batch.x)
            return loss(outputs / GRASP_TEMPERATURE, batch.y)

        gradient = jax.grad(tempered)
        _, product = jax.jvp(gradient, (params,), (gradient(params),))
        return jax.tree.map(jnp.multiply, params, product)

    return score
