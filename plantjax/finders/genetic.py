"""A genetic algorithm over masks, without gradients; one vmap scores a whole population."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from plantjax import checks, draws, masks, nets
from plantjax.finders import common
from plantjax.nets import wirings
from plantjax.types import Apply, Batch, Finder, Found, Key, Mask, Params, Task

STRONGEST = 0.1
"""The largest probability with which a mutant draws a parameter anew."""


class Population(NamedTuple):
    """Masks [M, ...], their scores [M] (higher is better), and their live counts int32 [M]."""

    masks: Mask
    score: jax.Array
    live: jax.Array


class Sizes(NamedTuple):
    """Number of masks that have children, and number of new masks of each kind."""

    parents: int
    children: int
    mutants: int
    migrants: int


@common.on_floats
def genetic(
    task: Task,
    *,
    apply: Apply = nets.apply,
    generations: int = 300,
    population: int = 100,
    mutation: float = 0.1,
    migration: float = 0.1,
    recombination: float = 0.3,
    parents: float = 0.3,
    fitness_samples: int = 512,
) -> Finder:
    """Breeds masks of exactly k parameters; the best M of each generation and its offspring stay.

    The offspring of a generation, as shares of M:

    - `recombination` children of two of the best `parents`: a child keeps all that both keep, and a
      random part of the parameters that one of them keeps;
    - `mutation` mutants of a random member: each parameter is drawn anew with a probability that is
      log-uniform between 1 / n and 0.1;
    - `migration` random masks.

    Fitness is the task's metric first, then fewer live parameters (of a chain; all masks keep
    exactly k). Dead parameters are free to mutate. The best mask is never lost, so its score never
    falls. Rates and fitness are published; the strength of mutations and the fixed counts are ours.

    Args:
      task: defines the metric.
      apply: `(params, x) -> outputs`.
      generations: number of generations G.
      population: number of masks M.
      mutation: share of mutants.
      migration: share of random masks.
      recombination: share of children.
      parents: share of the best masks that have children.
      fitness_samples: number of training samples that score masks, drawn once; at most all.

    Returns:
      A Finder. `Found.info` holds "best", the highest score after every generation [G] (the metric,
      or the negative MSE), and, if the wiring is known, "live_kept", the live count of the mask.

    Raises:
      ValueError: if a number is out of range.

    Source: Altmann et al. 2024, https://arxiv.org/abs/2411.04658
    """
    checks.integer("generations", generations, 1)
    checks.integer("population", population, 2)
    checks.integer("fitness_samples", fitness_samples, 1)
    sizes = _sizes(population, mutation, migration, recombination, parents)

    def make(apply: Apply) -> Callable[..., Found]:
        def search(key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
            common.check(task, params, data, density)
            batch_key, start_key, key = jax.random.split(key, 3)
            n = data.x.shape[0]
            chosen = jax.random.choice(batch_key, n, (min(fitness_samples, n),), replace=False)
            batch = Batch(data.x[chosen], data.y[chosen])

            def scored(members: Mask) -> Population:
                score_one = partial(_score, task, apply, params, batch)
                score, live = jax.vmap(score_one)(members)
                return Population(members, score, live)

            def generation(old: Population, index: jax.Array) -> tuple[Population, jax.Array]:
                new = scored(_offspring(jax.random.fold_in(key, index), old.masks, density, sizes))
                best = fittest_of(_joined(old, new), population)
                return best, best.score[0]

            ties = jax.tree.map(
                lambda p: jnp.zeros((population, *jnp.shape(p)), jnp.float32), params
            )
            first = scored(_highest(start_key, ties, density))
            start = fittest_of(first, population)
            last, best = jax.lax.scan(generation, start, jnp.arange(generations, dtype=jnp.int32))
            info = {"best": best}
            if wirings.of(apply, params) is not None:
                info["live_kept"] = last.live[0]
            return Found(_rows(last.masks, 0), params, info)

        return search

    return Finder(common.on_prunable(make, apply))


def _sizes(
    population: int, mutation: float, migration: float, recombination: float, parents: float
) -> Sizes:
    """Turns shares of a population into numbers of masks.

    Raises:
      ValueError: if a share is out of range, or there would be no new masks.
    """
    shares = {"mutation": mutation, "migration": migration, "recombination": recombination}
    for name, share in shares.items():
        checks.interval(name, share, 0.0, 1.0)
    checks.interval("parents", parents, 0.0, 1.0, open_low=True)
    sizes = Sizes(
        parents=max(1, round(parents * population)),
        children=round(recombination * population),
        mutants=round(mutation * population),
        migrants=round(migration * population),
    )
    if sum(sizes[1:]) == 0:
        raise ValueError(
            "recombination, mutation and migration must make at least one new mask of "
            f"{population}, got {recombination}, {mutation} and {migration}."
        )
    return sizes


def _offspring(key: Key, old: Mask, density: chex.Numeric, sizes: Sizes) -> Mask:
    """New masks of one generation, from old ones [M, ...] sorted by fitness.

    One selection over votes makes all of them, and one draw makes all noise, because that compiles
    fast.
    """
    noise_key, pair_key, member_key, rate_key, select_key = jax.random.split(key, 5)
    population, new = jax.tree.leaves(old)[0].shape[0], sum(sizes[1:])
    like = _rows(old, 0)
    noise, chance = jax.vmap(lambda key: draws.uniform(key, (like, like)))(
        jax.random.split(noise_key, new)
    )
    mothers, fathers = jax.random.randint(
        pair_key, (2, sizes.children), 0, sizes.parents, jnp.int32
    )
    changed = jax.random.randint(member_key, (sizes.mutants,), 0, population, jnp.int32)
    weakest = math.log(min(1.0 / masks.size(like), STRONGEST))
    rates = jnp.exp(
        jax.random.uniform(
            rate_key,
            (sizes.mutants,),
            minval=weakest,
            maxval=math.log(STRONGEST),
            dtype=jnp.float32,
        )
    )
    children = slice(0, sizes.children)
    mutants = slice(sizes.children, sizes.children + sizes.mutants)
    migrants = slice(sizes.children + sizes.mutants, new)
    votes = _joined(
        recombined(_rows(old, mothers), _rows(old, fathers), _rows(noise, children)),
        jax.vmap(mutated)(
            _rows(old, changed), rates, _rows(chance, mutants), _rows(noise, mutants)
        ),
        _rows(noise, migrants),
    )
    return _highest(select_key, votes, density)


def recombined(mother: Mask, father: Mask, noise: Params) -> Params:
    """Votes of a child: highest where both keep, then at random where one keeps.

    The noise is in [0, 1).
    """
    return jax.tree.map(
        lambda one, other, u: jnp.where(
            one & other, 2.0, jnp.where(one | other, 1.0, 0.0) + 0.9 * u
        ),
        mother,
        father,
        noise,
    )


def mutated(mask: Mask, rate: jax.Array, chance: Params, noise: Params) -> Params:
    """Votes of a mutant: those of the mask, but random where chance is below rate.

    Both noises are in [0, 1). With k as in the mask, the highest k votes are its kept parameters
    elsewhere, and as many of the redrawn parameters as it kept among them.
    """
    return jax.tree.map(
        lambda kept, c, u: jnp.where(c < rate, 0.05 + 0.9 * u, jnp.where(kept, 1.0, 0.0)),
        mask,
        chance,
        noise,
    )


def _highest(key: Key, votes: Params, density: chex.Numeric) -> Mask:
    """Masks [C, ...] that keep the highest votes [C, ...]."""
    keys = jax.random.split(key, jax.tree.leaves(votes)[0].shape[0])
    return jax.vmap(masks.select, (0, 0, None))(keys, votes, density)


def fittest_of(population: Population, size: int) -> Population:
    """The best `size` masks, sorted by higher score, then fewer live parameters, then age."""
    order = jnp.lexsort((population.live, -population.score))[:size]
    return jax.tree.map(lambda leaf: leaf[order], population)


def _score(
    task: Task, apply: Apply, params: Params, batch: Batch, mask: Mask
) -> tuple[jax.Array, jax.Array]:
    value = task.evaluate(apply(masks.apply(params, mask), batch.x), batch.y)[task.metric]
    score = value if task.metric == "accuracy" else -value
    finite = jnp.where(jnp.isfinite(score), score, jnp.finfo(score.dtype).min)
    wiring = wirings.of(apply, params)
    live = mask if wiring is None else masks.live(params, mask, wiring)
    return finite, masks.count(live)


def _rows(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _joined(*trees: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)
