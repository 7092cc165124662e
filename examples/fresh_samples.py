"""Metrics as a plugin: the quality of a mask, and of the ticket, on 100,000 fresh samples.

The 1,000 held-out samples tell an accuracy near 0.97 to half a point only; fresh ones to 0.05.
`python experiments/seek.py --plugin examples/fresh_samples.py ...` adds the columns `fresh` and
`fresh_ticket`, which all masks of a task share the samples of (noise 0.01).
"""

import jax

import plantjax as pj

SAMPLES, SEED = 100_000, 987_654_321


def fresh(judged):
    """The task's metric of the masked network on fresh samples, without weak training."""
    return value(judged.task, judged.params, judged.mask)


def fresh_ticket(judged):
    """The same of the planted ticket."""
    return value(judged.task, judged.planted.params, judged.planted.mask)


def value(task, params, mask):
    """The task's metric of a masked chain on fresh samples."""
    data = task.sample(jax.random.key(SEED), SAMPLES)
    return pj.evaluate(task, params, mask, data)[task.metric]


pj.METRICS["fresh"] = fresh
pj.METRICS["fresh_ticket"] = fresh_ticket
