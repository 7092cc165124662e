"""Helpers that several test files use."""

from fractions import Fraction
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from plantjax import nets, targets
from plantjax.nets.wirings import INPUT, Wiring, layer
from plantjax.types import Batch


def flat(tree):
    """All leaves as one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def at(tree, index):
    """One entry of a batch of trees."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def net(*shapes, bias=True):
    """Random numpy layers of these kernel shapes."""
    rng = np.random.default_rng(0)
    return {
        nets.layer_name(i): {
            "kernel": rng.normal(size=shape).astype("f4"),
            **({"bias": rng.normal(size=shape[-1:]).astype("f4")} if bias else {}),
        }
        for i, shape in enumerate(shapes)
    }


def chain(*widths):
    """A random dense network; like `circle`, made without compiling anything."""

    def scaled(layer):
        size = np.float32(np.sqrt(2 / len(layer["kernel"])))
        return {name: jnp.asarray(size * array) for name, array in layer.items()}

    return {name: scaled(layer) for name, layer in net(*pairwise(widths)).items()}


def circle(n):
    """Samples of the circle task without noise."""
    x = np.random.default_rng(1).uniform(-1.0, 1.0, (n, 2)).astype("f4")
    labels = np.searchsorted(targets.CIRCLE_BOUNDARIES, np.sum(x**2, axis=1))
    return Batch(jnp.asarray(x), jnp.asarray(labels, jnp.int32))


CONV = net((3, 3, 2, 3), (1, 1, 3, 4), (2 * 2 * 4, 5), (5, 2))
RESIDUAL = net(
    (3, 3, 2, 3), (3, 3, 3, 2), (3, 3, 2, 3), (3, 3, 3, 2), (1, 1, 2, 4), (1, 1, 3, 4), (4, 2)
)
STREAM = Wiring(
    (
        layer("layer_00", INPUT, "stem"),
        layer("layer_01", "stem", "inner"),
        layer("layer_02", "inner", "block"),  # adds the stem
        layer("layer_03", "block", "second"),
        layer("layer_04", "second", "wide"),  # is added to the projection, and to a padded block
        layer("layer_05", "block", "wide"),
        layer("layer_06", "wide", "output"),
    ),
    (("block", "stem"), ("wide", "block")),
)


def shares(k, sizes):
    """k by largest remainder in proportion to the sizes, at least one each if that is possible."""
    ones: set[int] = set()
    while True:
        rest, total = k - len(ones), sum(n for i, n in enumerate(sizes) if i not in ones)
        quotas = [
            Fraction(0) if i in ones else Fraction(n * rest, total) for i, n in enumerate(sizes)
        ]
        small = {i for i, quota in enumerate(quotas) if i not in ones and quota < 1}
        if k < len(sizes) or not small:
            break
        ones |= small
    kept = [1 if i in ones else int(quota) for i, quota in enumerate(quotas)]
    for i in sorted(range(len(sizes)), key=lambda i: int(quotas[i]) - quotas[i])[: k - sum(kept)]:
        kept[i] += 1
    return kept
