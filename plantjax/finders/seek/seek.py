"""Seek: our search for strong tickets, by discrete moves at a price per parameter.

Concrete ticket search provides sparse starts (`starts`). They run a race (`schedule`, `race`) of
stages (`stage`), each of which redesigns whole units (`units`) and flips single edges (`edges`);
every chosen move is evaluated exactly. A price per parameter (`price`) leads the live count to the
budget. Only the mask changes.
"""

from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp

from plantjax import checks, masks, nets
from plantjax.finders import common
from plantjax.finders.concrete_ticket import concrete_ticket
from plantjax.finders.seek import loss, options, race, schedule, starts, subnetwork, teacher
from plantjax.finders.seek.options import Options
from plantjax.finders.seek.subnetwork import Chain, Kept
from plantjax.nets.chains import with_layers
from plantjax.types import Apply, Batch, Finder, Found, Key, Params, Task


@common.on_floats
def seek(
    task: Task,
    *,
    apply: Apply = nets.apply,
    restarts: int | None = None,
    sweeps: int | None = None,
    rungs: int | None = None,
    cycles: int | None = None,
    cycle_sweeps: int | None = None,
    units: int | None = None,
    wide_units: int | None = None,
    redesigned: int | None = None,
    breadth: int | None = None,
    in_edges: int | None = None,
    sweep_samples: int | None = None,
    first_samples: int | None = None,
    candidates: int = 16,
    finalists: int = 4,
    sharpen: float | None = None,
    power: float | None = None,
    focus: float | None = None,
    noise: float | None = None,
    price: float | None = None,
    teachers: int | None = None,
    pool: int | None = None,
    search_epochs: int | None = None,
    batch_size: int | None = None,
    widen: float = 1.25,
) -> Finder:
    """Searches strong tickets by discrete moves; keeps live parameters only, at most k.

    A move changes one unit: some of its edges, or all of it, so that another unit of the mother
    takes its place. A visit to a unit makes the move with the lowest log loss + cost of the live
    parameters, if that is an improvement. From sweep to sweep the price of a parameter rises while
    more than k are left, and falls while fewer are. Several starts run a race: the best of them go
    on. An option that is None has a default of the task's metric (`options.DEFAULTS`).

    Args:
      task: defines the loss: the scale-free squared error, or a scale-free loss of probabilities.
      apply: must compute what `nets.apply` does: a chain of dense layers with ReLU.
      restarts: number of starts, each a concrete ticket with a key of its own.
      sweeps: number of sweeps of every start. A sweep redesigns units and then visits the edges of
        all units.
      rungs: number of rungs of the race. On each one the best third of the last one's starts makes
        three times as many sweeps.
      cycles: the best start of all is led a little above k and back so often.
      cycle_sweeps: number of sweeps that lead it back.
      units: largest number of live units per hidden layer if k is small (14 units at most).
      wide_units: the same for larger k; then units are not redesigned.
      redesigned: number of units per hidden layer and sweep to redesign, live ones first; 0 for
        none.
      breadth: number of units of the mother that are tried in the place of one, and of sets of
        in-edges that are kept per size.
      in_edges: largest number of in-edges of a new unit, the bias included.
      sweep_samples: number of training samples per sweep, drawn anew for each, at most all.
      first_samples: number of these on which moves are predicted and evaluated first.
      candidates: number of edge moves per visit that are evaluated; the best predictions.
      finalists: number of moves that are then evaluated on all samples of the sweep, at least 2.
      sharpen: in all rungs but the last, moves are judged by logits that are exp(sharpen) times
        larger than those of least cross entropy.
      power: exponent q in [0, 1] of the loss of probabilities in all rungs but the last, see
        `loss`: 0 is cross entropy, which moves lower afterwards, 1 the expected error. The best
        mask is chosen by the error itself.
      focus: share of the samples that is drawn near class boundaries.
      noise: size of the Gumbel noise, in log loss, with which moves are chosen in the first sweep;
        it falls during the race.
      price: the first price of k parameters together, in log loss; it is steered from then on.
      teachers: number of small networks that are trained on the data and then label it, with
        jittered copies of it, for the search (`teacher`); 0 for the data as it is. Classification
        only.
      pool: number of random units of the mother per hidden layer that a concrete ticket is made of.
      search_epochs: number of epochs of each concrete ticket search.
      batch_size: samples per step of concrete ticket search, at most all.
      widen: concrete tickets have widen k parameters.

    Returns:
      A Finder. `Found.info` holds, after each sweep [T] in the order of `schedule.table`, "errors"
      on the training data (share of wrong labels, or MSE after rescaling), "live", the number of
      live parameters, and "prices", the log loss that a parameter has to be worth; and "error",
      that of the mask.

    Raises:
      ValueError: if a number is out of range; in a search, if params or apply are not a chain.

    Source: ours; SEEKER.md reports its results, and what else was tried.
    """
    given = {name: value for name, value in locals().items() if name in options.ACCURACY}
    found = options.filled(task, given)
    checks.integer("candidates", candidates, 2)
    checks.integer("finalists", finalists, 2)
    checks.positive("widen", widen)
    chosen = options.build(found, candidates, finalists)
    own = {
        name: found[name] for name in ("focus", "teachers", "pool", "search_epochs", "batch_size")
    }
    return Finder(_Seek(task, apply, chosen, widen=widen, **own), "global", exact_counts=False)


@dataclass(frozen=True)
class _Seek:
    """The search of `seek`."""

    task: Task
    apply: Apply
    options: Options
    focus: float
    teachers: int
    pool: int
    search_epochs: int
    batch_size: int
    widen: float

    def __call__(self, key: Key, params: Params, data: Batch, density: chex.Numeric) -> Found:
        common.check(self.task, params, data, density)
        common.check_chain("seek", self.apply, params)
        whole, (params, data) = params, _single((params, data))
        start_key, path_key, race_key, teach_key = jax.random.split(key, 4)
        if self.teachers:
            many = teacher.relabelled(teach_key, data, self.task.n_out, self.teachers)
            data = Batch(data.x, many.y[: data.x.shape[0]])
        else:
            many = data
        chain = _unit_scale(subnetwork.stack(params))
        goal = loss.goal_of(self.task, self.focus)
        k = masks.number_kept(density, masks.size(params))
        wide = k.astype(jnp.float32) * self.widen

        def beginner(apply: Apply) -> Finder:
            batch_size = min(self.batch_size, data.x.shape[0])
            numbers = {"search_epochs": self.search_epochs, "batch_size": batch_size}
            return concrete_ticket(self.task, apply=apply, loss="robust", **numbers)

        def begin(key: Key) -> Kept:
            slots = self.options.effort.wide_units
            return starts.learned(key, beginner, chain, data, wide, self.pool, slots)

        plan = self.options.plan
        begun = jax.lax.map(begin, jax.random.split(start_key, plan.restarts))
        safe = starts.safe(path_key, goal, chain, many, k)
        table = schedule.table(plan, self.options.noise)
        best, told = race.run(
            race_key, goal, chain, many, k, begun, safe, table, self.options.effort
        )
        mask = with_layers(params, nets.layers(subnetwork.unstack(best, chain.widths)))
        return Found(mask, whole, told)


def _single(tree: Any) -> Any:
    """The tree with floats of single precision, in which the search computes."""
    return jax.tree.map(lambda a: a.astype(jnp.float32) if checks.is_float(a) else a, tree)


def _unit_scale(chain: Chain) -> Chain:
    """Scales every kernel to unit size, and biases with them; outputs change by one factor."""
    kernels, biases = chain.weights[:, :-1], chain.weights[:, -1:]
    entries = jnp.asarray(subnetwork.real(chain.widths)[:, :-1].sum(axis=(1, 2)), jnp.float32)
    size = jnp.sqrt(jnp.sum(jnp.square(kernels), axis=(1, 2)) / entries)
    factor = (1.0 / checks.divisor(size))[:, None, None]
    weights = jnp.concatenate([kernels * factor, biases * jnp.cumprod(factor, axis=0)], axis=1)
    return Chain(weights, chain.widths)
