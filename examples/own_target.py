"""Your own target: a sparse network that solves a problem exactly. Two finders look for it.

The problem is the tent |1 - |2 x||; the target writes absolute values as relu(z) + relu(-z).
"""

import jax
import jax.numpy as jnp

import plantjax as pj


def tent(depth):
    """The target, of any depth from 4 on; further layers pass the values on unchanged."""
    if depth < 4:
        raise ValueError(f"depth must be at least 4, got {depth}.")
    layers = [
        (jnp.array([[2.0, -2.0]]), jnp.zeros(2)),  # |2x| is the sum of these two
        (jnp.array([[1.0, -1.0], [1.0, -1.0]]), jnp.array([-1.0, 1.0])),
        *[(jnp.eye(2), jnp.zeros(2))] * (depth - 4),
        (jnp.ones((2, 1)), jnp.zeros(1)),
    ]
    return {
        pj.nets.layer_name(index): {"kernel": kernel, "bias": bias}
        for index, (kernel, bias) in enumerate(layers)
    }


def sample(key, n, noise=0.01):
    inputs, noises = jax.random.split(key)
    x = jax.random.uniform(inputs, (n, 1), minval=-1.0, maxval=1.0)
    y = jnp.abs(1.0 - jnp.abs(2.0 * x))
    return pj.Batch(x, y + noise * jax.random.normal(noises, y.shape))


TENT = pj.types.Task(
    name="tent",
    n_in=1,
    n_out=1,
    metric="mse",
    target=tent,
    sample=sample,
    loss=pj.losses.mean_squared_error,
    evaluate=pj.tasks.evaluate_values,
)

if __name__ == "__main__":
    pj.TASKS["tent"] = TENT  # from here on it is known by name
    cells = pj.sweeps.make_cells(TENT, seeds=range(4), densities=[0.02])
    for finder in ("planted", "synflow100", "edge_popup_global"):
        run = pj.sweeps.make_run("tent", depth=5, width=50, finder=finder, epochs=2, samples=4_000)
        found = pj.sweeps.sweep(run, cells)
        strong, weak = found["pruned/value"], found["trained/value"]
        print(f"{finder}: strong {strong.mean():.2e}, weak {weak.mean():.2e}")
