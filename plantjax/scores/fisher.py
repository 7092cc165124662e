"""Fisher: the effect of pruning on the loss, by the diagonal of the empirical Fisher matrix."""

import jax
import jax.numpy as jnp

from plantjax import masks
from plantjax.types import Apply, Batch, Key, Loss, Mask, Params, ScoreFn


def fisher(apply: Apply, loss: Loss) -> ScoreFn:
    """Scores theta^2 F / 2, F the mean over samples of squared gradients of a sample's loss.

    The gradients are those of the masked network. Samples are taken one after the other, so that
    memory does not grow with the batch.

    Source: Gollini Navarrete et al. 2025, https://arxiv.org/abs/2502.11450, where it is called
    Fisher pruning (FP). Its authors compare it with F alone (FD) and with |theta g + theta^2 F / 2|
    (FTS).

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> def apply(params, x):
    ...     return x @ params["w"]
    >>> params, mask = {"w": jnp.array([[1.0], [-2.0]])}, {"w": jnp.ones((2, 1), bool)}
    >>> batch = pj.types.Batch(jnp.array([[2.0, 1.0], [0.0, 1.0]]), jnp.zeros((2, 1)))
    >>> score = pj.SCORES["fisher"](apply, lambda outputs, y: jnp.sum(outputs - y))
    >>> score(jax.random.key(0), params, mask, batch)["w"].tolist()  # F is [2, 1]
    [[1.0], [2.0]]
    """

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        del key
        masked = masks.apply(params, mask)

        def add(total: Params, sample: Batch) -> tuple[Params, None]:
            one = jax.tree.map(lambda leaf: leaf[None], sample)
            gradient = jax.grad(lambda p: loss(apply(p, one.x), one.y))(masked)
            return jax.tree.map(lambda t, g: t + jnp.square(g), total, gradient), None

        total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), batch)
        half = 0.5 / batch.x.shape[0]
        return jax.tree.map(lambda p, t: jnp.square(p) * (half * t), params, total)

    return score
