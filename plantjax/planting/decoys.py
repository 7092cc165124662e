"""Decoys: copies of a ticket's regularities in unused neurons, which do not solve the task.

A decoy has the same values as the ticket up to a factor for each neuron: the same ratios of bias
and weight, the same directions of rows. Only its last hidden layer is connected wrongly.
"""

from functools import partial

import jax
import jax.numpy as jnp

from plantjax import checks, nets
from plantjax.nets.chains import with_layers
from plantjax.types import Key, Mask, Planted


def add_decoys(key: Key, planted: Planted, copies: int = 1) -> Planted:
    """Writes decoys into a mother, beside its ticket.

    Each copy takes one unused neuron per ticket neuron and hidden layer, overwrites the same
    connections among these as in the ticket, and scales them to the norm of what they replace. The
    rows of the last kernel are dealt to the neurons shifted by a random number of places and with
    random signs (a single row: with sign -1), so that the copy computes something else. The
    parameters of the ticket and its mask stay as they are. Where the unused neurons run out, the
    remaining neurons of a copy are left out.

    Pure; jits and vmaps over keys and planted networks.

    Args:
      key: consumed.
      planted: a chain with a ticket.
      copies: number of decoys, at least 0; static.

    Returns:
      Planted with other params, and the same mask and scale.

    Raises:
      ValueError: if copies is negative or the network is not a chain.

    >>> import jax, plantjax as pj
    >>> mother = pj.nets.init(jax.random.key(0), (1, 9, 1))
    >>> planted = jax.jit(pj.plant)(jax.random.key(1), pj.targets.relu(depth=3), mother)
    >>> more = jax.jit(pj.planting.add_decoys, static_argnums=2)(jax.random.key(2), planted, 2)
    >>> int((more.params["layer_00"]["kernel"] != planted.params["layer_00"]["kernel"]).sum())
    2
    >>> float(more.verify(pj.targets.relu(depth=3), pj.nets.apply)) < 1e-5
    True
    """
    checks.integer("copies", copies, 0)
    nets.layers(planted.params)  # raises unless it is a chain
    return _add(key, planted, copies) if copies else planted


@partial(jax.jit, static_argnames="copies")
def _add(key: Key, planted: Planted, copies: int) -> Planted:
    params, mask = nets.layers(planted.params), nets.layers(planted.mask)
    keys = [jax.random.fold_in(key, index) for index in range(len(params))]
    orders = [
        _order(keys[index], _used(mask, index), copies) for index in range(len(params) - 1)
    ]  # of hidden layers
    for copy in range(copies):
        copy_key = jax.random.fold_in(keys[-1], copy)
        reads = jnp.arange(params[0]["kernel"].shape[0], dtype=jnp.int32)
        for index, (layer, kept) in enumerate(zip(list(params), mask, strict=True)):
            last = index == len(params) - 1
            if last:
                kernel = jnp.where(kept["kernel"], layer["kernel"], 0.0)
                used = _used(mask, index - 1) if index else jnp.ones(reads.shape, bool)
                shown = {"kernel": _flipped(copy_key, kernel, used)}
                reads = _shifted(copy_key, reads, used) if index else reads
                writes = jnp.arange(layer["bias"].size, dtype=jnp.int32)
            else:
                shown = {name: jnp.where(kept[name], layer[name], 0.0) for name in layer}
                writes = orders[index][copy]
            params[index] = _written(layer, kept, shown, reads, writes, last)
            reads = writes
    return planted._replace(params=with_layers(planted.params, params))


def _used(mask: list[Mask], index: int) -> jax.Array:
    """Hidden neurons [M] of a layer that belong to the ticket."""
    inner, outer = mask[index], mask[index + 1]
    incoming = jnp.any(inner["kernel"], axis=0) | inner["bias"]
    return incoming | jnp.any(outer["kernel"], axis=1)


def _order(key: Key, used: jax.Array, copies: int) -> list[jax.Array]:
    """For each copy, the place [M] that stands for every neuron; out of range for unused ones."""
    width = used.size
    free = jnp.argsort(
        used.astype(jnp.float32) + jax.random.uniform(key, (width,), jnp.float32, maxval=0.5)
    )
    rank, count = jnp.cumsum(used) - 1, jnp.sum(used)
    found = []
    for copy in range(copies):
        place = copy * count + rank
        fits = used & (place < width - count)
        found.append(jnp.where(fits, jnp.take(free, place, mode="clip"), width))
    return found


def _shifted(key: Key, places: jax.Array, used: jax.Array) -> jax.Array:
    """The places of the used neurons, each given to another one a random number of steps away."""
    count, width = jnp.sum(used), used.size
    step = jax.random.randint(key, (), 1, jnp.maximum(count, 2), jnp.int32)
    neurons = jnp.argsort(~used, stable=True)  # the used ones first, in order
    rank = jnp.where(used, (jnp.cumsum(used) - 1 + step) % jnp.maximum(count, 1), width)
    other = jnp.take(neurons, rank, mode="clip")
    return jnp.where(used, places[other], width)


def _flipped(key: Key, kernel: jax.Array, used: jax.Array) -> jax.Array:
    """Rows with random signs; -1 if there is only one."""
    sign = jax.random.rademacher(key, (kernel.shape[0],), kernel.dtype)
    return kernel * jnp.where(jnp.sum(used) == 1, -jnp.ones_like(sign), sign)[:, None]


def _written(
    layer: dict[str, jax.Array],
    kept: dict[str, jax.Array],
    shown: dict[str, jax.Array],
    reads: jax.Array,
    writes: jax.Array,
    last: bool,
) -> dict[str, jax.Array]:
    """A layer with the values `shown` at new places, scaled to the norm of what is there."""
    cells = (reads[:, None], writes[None, :])
    new, old, places = {}, {}, {}
    for name, value in shown.items():
        at = cells if name == "kernel" else (writes,)
        places[name] = jnp.zeros(layer[name].shape, bool).at[at].set(kept[name], mode="drop")
        new[name] = jnp.zeros_like(layer[name]).at[at].set(value, mode="drop")
        old[name] = jnp.where(places[name], layer[name], 0.0)
    before, after = (_norms(part, last) for part in (old, new))
    factor = before / checks.divisor(after)
    scaled = {name: jnp.atleast_2d(new[name]) * factor[None, :] for name in shown}
    return layer | {
        name: jnp.where(places[name], scaled[name].reshape(layer[name].shape), layer[name])
        for name in shown
    }


def _norms(part: dict[str, jax.Array], last: bool) -> jax.Array:
    """Norms of the neurons [O]; of the last layer, one of them all, which keeps its rows alike."""
    rows = [jnp.atleast_2d(value) for value in part.values()]
    squares = jnp.sum(jnp.square(jnp.concatenate(rows)), axis=0)
    return jnp.sqrt(jnp.sum(squares, keepdims=True) if last else squares)
