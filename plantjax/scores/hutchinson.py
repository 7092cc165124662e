"""Hutchinson: the effect of pruning on the loss, by an estimate of the Hessian's diagonal."""

import jax
import jax.numpy as jnp

from plantjax import checks, masks
from plantjax.types import Apply, Batch, Key, Loss, Mask, Params, ScoreFn


def hutchinson(
    apply: Apply, loss: Loss, *, probes: int = 10, temperature: float = 200.0
) -> ScoreFn:
    """Scores theta^2 h / 2, h the mean over probes z of z * H z, an estimate of diag(H).

    H is the Hessian of the loss of outputs divided by a temperature, of the masked network. The
    entries of a probe are -1 or 1 with equal chances, so the estimate is unbiased, and exact where
    H is diagonal. Parameters of negative curvature score below those of none.

    Args:
      apply: `(params, x) -> outputs`.
      loss: `(outputs, y) -> scalar`.
      probes: number of probes, each one product with the Hessian.
      temperature: divides the outputs.

    Returns:
      A ScoreFn.

    Raises:
      ValueError: if a number is out of range.

    Source: Gollini Navarrete et al. 2025, https://arxiv.org/abs/2502.11450, there Hutchinson
    pruning (HP); ten probes, the temperature, and the sign of h are those of the released code. The
    formula is that of LeCun et al. 1989 (optimal brain damage).

    >>> import jax, jax.numpy as jnp, plantjax as pj
    >>> def apply(params, x):
    ...     return x * params["w"][None, :]
    >>> params, mask = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.ones(2, bool)}
    >>> batch = pj.types.Batch(jnp.array([[2.0, 1.0]]), jnp.zeros((1, 2)))
    >>> score = hutchinson(apply, lambda outputs, y: jnp.sum(jnp.square(outputs)), temperature=1.0)
    >>> score(jax.random.key(0), params, mask, batch)["w"].tolist()  # H is diag(8, 2)
    [4.0, 4.0]
    """
    checks.integer("probes", probes, 1)
    checks.positive("temperature", temperature)

    def score(key: Key, params: Params, mask: Mask, batch: Batch) -> Params:
        masked = masks.apply(params, mask)
        gradient = jax.grad(lambda p: loss(apply(p, batch.x) / temperature, batch.y))
        leaves, structure = jax.tree.flatten(masked)

        def add(total: Params, index: jax.Array) -> tuple[Params, None]:
            keys = jax.random.split(jax.random.fold_in(key, index), len(leaves))
            drawn = [
                jax.random.rademacher(k, jnp.shape(leaf), leaf.dtype)
                for k, leaf in zip(keys, leaves, strict=True)
            ]
            probe = jax.tree.unflatten(structure, drawn)
            _, product = jax.jvp(gradient, (masked,), (probe,))
            return jax.tree.map(lambda t, z, hz: t + z * hz, total, probe, product), None

        zeros = jax.tree.map(jnp.zeros_like, masked)
        total, _ = jax.lax.scan(add, zeros, jnp.arange(probes, dtype=jnp.int32))
        half = 0.5 / probes
        return jax.tree.map(lambda p, t: jnp.square(p) * (half * t), params, total)

    return score
