"""Your own metric: one function and one line make it a column of every table.

This one measures how far a network's outputs are from those of the planted ticket, before and after
training. Hidden units are exchangeable, so a mask without any planted parameter may come close.
"""

import jax.numpy as jnp

import plantjax as pj


def distance(judged):
    """Relative distance of the outputs to the planted ticket's, after one factor per output."""
    wanted = judged.ticket_outputs
    factors = pj.losses.output_factors(judged.outputs, wanted)
    misfit = judged.outputs * factors[None, :] - wanted
    return jnp.sqrt(jnp.mean(jnp.square(misfit)) / jnp.mean(jnp.square(wanted)))


if __name__ == "__main__":
    pj.METRICS["distance"] = distance
    cells = pj.sweeps.make_cells(pj.TASKS["relu"], seeds=range(4), densities=[0.2])
    for finder in ("planted", "synflow", "edge_popup_global"):
        run = pj.sweeps.make_run("relu", 3, 30, finder, epochs=2, samples=1_000)
        found = pj.sweeps.sweep(run, cells)
        strong, weak = (found[f"{stage}/metric/distance"] for stage in ("pruned", "trained"))
        print(f"{finder}: strong {strong.mean():.1e}, weak {weak.mean():.1e}")
