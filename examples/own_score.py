"""Your own score: one function and one line, and it runs beside all others on every task.

This one is similar to Wanda, which prunes by size times activation.
"""

import jax
import jax.numpy as jnp
import pandas as pd

import plantjax as pj


def activity(apply, loss):  # a score gets the network and the loss; this one needs neither
    """Scores |w| times the size of its input (Sun et al. 2024, https://arxiv.org/abs/2306.11695)."""

    def score(key, params, mask, batch):
        x, scores = batch.x, {}
        for name in sorted(params):  # a chain of dense layers
            layer, kept = params[name], pj.masks.apply(params[name], mask[name])
            size = jnp.sqrt(jnp.mean(jnp.square(x), axis=0))
            kernel = jnp.abs(layer["kernel"]) * size[:, None]
            scores[name] = {"kernel": kernel, "bias": jnp.abs(layer["bias"])}
            x = jax.nn.relu(x @ kept["kernel"] + kept["bias"][None, :])
        return scores

    return score


def compare(finders, seeds=2, density=0.2, width=30):
    """Strong and weak value of every finder on every task: medians over the seeds."""
    tables = []
    for task in pj.TASKS.values():
        cells = pj.sweeps.make_cells(task, range(seeds), [density])
        for name in finders:
            run = pj.sweeps.make_run(task, 5, width, name, epochs=1, samples=2_000)
            values = pj.sweeps.sweep(run, cells)
            stages = {stage: values[f"{stage}/value"] for stage in ("pruned", "trained")}
            tables.append(pd.DataFrame({"task": task.name, "finder": name, **stages}))
    table = pd.concat(tables)
    return table.groupby(["task", "finder"], sort=False).median()


if __name__ == "__main__":
    pj.SCORES["activity"] = activity  # makes the finders "activity" and "multishot_activity", too
    print(compare((*pj.scores.PAPER_SCORES, "activity")).round(4).to_string())
