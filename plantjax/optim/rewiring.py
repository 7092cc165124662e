"""Dynamic sparse training (SET, RigL) as a wrapper around any optax optimizer.

It takes dense gradients of the sparse network, so that growth can see pruned parameters.
"""

import math

import chex
import jax
import jax.numpy as jnp
import optax

from plantjax import checks, draws, masks
from plantjax.masks import groups, topk
from plantjax.masks.allocations import ALLOCATIONS
from plantjax.optim.packing import Packed
from plantjax.optim.sparse import Sparse, given
from plantjax.optim.views import Leaves
from plantjax.types import Key, Mask, Params, Prunable

GROWTHS = ("random", "gradient")
"""Where weights grow: at random (SET), or where the dense gradient is largest (RigL)."""


def rewire(
    optimizer: optax.GradientTransformation,
    *,
    density: chex.Numeric | None = None,
    end: float,
    grow: str = "gradient",
    every: int = 100,
    fraction: float = 0.3,
    allocation: str = "erk",
    mask: Mask | None = None,
    key: Key | None = None,
    prunable: Prunable | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Trains a sparse network, and moves some of its connections at regular steps.

    After t = every, 2 every, ... < end updates, the next one drops in each layer the share
    fraction / 2 (1 + cos(pi t / end)) of the kept parameters, those of the smallest |w|, and grows
    as many of those that are then pruned. It takes no step of the inner optimizer. Parameters grow
    from zero, with zeros for their entries in the inner state (see `prune`). A parameter that is
    dropped and grown in one update stays as it was. A layer is the arrays of one parent path.

    Args:
      optimizer: any optax optimizer; it sees the sparse network alone, see `keep_pruned`.
      density: share of the prunable parameters that is kept throughout, in (0, 1]; may be traced.
        The first mask is random, with the numbers per layer of the allocation.
      end: number of updates after which the mask is fixed; three quarters of the training in the
        paper.
      grow: one of GROWTHS: "gradient" is RigL, "random" SET.
      every: number of updates between two changes of the mask.
      fraction: share of a layer that is dropped at first, in [0, 1].
      allocation: a name in `masks.ALLOCATIONS`.
      mask: the first mask, instead of `density`.
      key: of the first mask, of random growth and of ties; by default that of seed 0.
      prunable: as in `prune`.

    Returns:
      An optax optimizer with a SparseState; every layer keeps its number of parameters.

    Raises:
      ValueError: if a name is unknown, a number is out of range, or not exactly one of density and
        mask is given.

    Source: RigL, Evci et al. 2020, https://arxiv.org/abs/1911.11134; SET, Mocanu et al. 2018,
    https://arxiv.org/abs/1707.04780. The original SET drops a constant share after each epoch, the
    smallest positive and the largest negative weights; here it has RigL's schedule, as in the RigL
    paper.

    >>> import jax, jax.numpy as jnp, optax, plantjax as pj
    >>> params = {"w": jnp.arange(8.0)}
    >>> optimizer = rewire(optax.adam(0.1), density=0.5, end=75)
    >>> float(pj.optim.density(jax.jit(optimizer.init)(params)))
    0.5
    """
    if (density is None) == (mask is None):
        raise ValueError("density or mask must be given, and not both.")
    if density is not None:
        checks.density(density)
    checks.choice("grow", grow, GROWTHS)
    checks.choice("allocation", allocation, ALLOCATIONS)
    checks.interval("end", end, 0.0, 2.0**31)
    checks.integer("every", every, 1)
    checks.interval("fraction", fraction, 0.0, 1.0)
    key = jax.random.key(0) if key is None else key

    def start(params: Params, packed: Packed) -> Leaves:
        if density is None:
            return given(mask, params, packed)
        draw_key, select_key = jax.random.split(jax.random.fold_in(key, 0))
        free = packed.pick(jax.tree.leaves(params))
        counts = ALLOCATIONS[allocation](free, density)
        return masks.select(
            select_key, draws.normal(draw_key, free), density, "oracle", counts=counts
        )

    def due(step: jax.Array) -> jax.Array:
        return (step > 0) & (step % every == 0) & (step < math.ceil(end))

    def change(step: jax.Array, params: Leaves, gradient: Leaves, mask: Leaves) -> Leaves:
        share = fraction / 2 * (1.0 + jnp.cos(math.pi * step.astype(jnp.float32) / max(end, 1.0)))
        wanted = gradient if grow == "gradient" else jax.tree.map(jnp.zeros_like, gradient)
        return move(jax.random.fold_in(key, step), params, mask, wanted, share)

    return Sparse(optimizer, start, prunable, due, change, rests=True).transformation()


def move(key: Key, params: Params, mask: Mask, wanted: Params, share: chex.Numeric) -> Mask:
    """Drops a share of each layer's kept, the smallest |params|, and grows the largest |wanted|."""
    drop_key, grow_key = jax.random.split(key)
    kept, unravel = groups.ravel_layers(mask)
    sizes, wishes = (
        groups.ravel_layers(jax.tree.map(jnp.abs, tree))[0] for tree in (params, wanted)
    )
    counts = jnp.stack([jnp.sum(vector, dtype=jnp.int32) for vector in kept])
    dropped = jnp.floor(share * counts.astype(jnp.float32)).astype(jnp.int32)
    stay, _ = topk.top(drop_key, sizes, counts - dropped, kept)
    grown, _ = topk.top(grow_key, wishes, dropped, [~vector for vector in stay])
    return unravel([a | b for a, b in zip(stay, grown, strict=True)])
