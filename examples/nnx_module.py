"""A module of Flax NNX: prune it, train the ticket, and go on with the module.

Batch norms and the state of Dropout are left alone. `from_linen` does the same for Flax Linen.
"""

import jax
import optax
from flax import nnx

import plantjax as pj

TASK = pj.TASKS["circle"]


class Network(nnx.Module):
    def __init__(self, width, rngs):
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.layers = nnx.List(
            [
                nnx.Linear(TASK.n_in, width, rngs=rngs),
                nnx.Linear(width, width, rngs=rngs),
                nnx.Linear(width, TASK.n_out, rngs=rngs),
            ]
        )

    def __call__(self, x):
        first, second, last = self.layers
        x = nnx.relu(self.norm(first(x)))
        return last(nnx.relu(second(self.dropout(x))))


if __name__ == "__main__":
    keys = jax.random.split(jax.random.key(0), 3)
    module = Network(50, nnx.Rngs(0))
    module.eval()  # no Dropout, and batch norms as they are
    apply, params = pj.nets.from_nnx(module)
    train, test = pj.tasks.split(TASK.sample(keys[0], 10_000))
    for name in ("magnitude", "snip", "synflow"):
        find = jax.jit(pj.FINDERS[name](TASK, apply=apply))
        mask = find(keys[1], params, train, 0.1).mask
        trained, _ = pj.training.fit(
            keys[2],
            params,
            mask,
            train,
            apply=apply,
            loss=TASK.loss,
            optimizer=optax.adam(1e-2),
            epochs=10,
            batch_size=32,
        )
        nnx.update(module, trained)
        accuracy = TASK.evaluate(module(test.x), test.y)["accuracy"]
        kept, n = pj.masks.count(mask, apply.prunable), pj.masks.size(params, apply.prunable)
        print(f"{name}: keeps {kept} of {n}, accuracy {accuracy:.3f}")
