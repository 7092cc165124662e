"""Your own network: plant a ticket in it, and let two finders seek it.

Any pytree of arrays with an `apply(params, x) -> outputs` works. Planting has to know how the
layers are connected: a chain unless you give a wiring. With `apply` and inputs, it checks that.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

import plantjax as pj
from plantjax.nets.wirings import INPUT, Layer, Wiring


class Images(nn.Module):  # a Flax module, and a chain
    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(self.width, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(2)(x.reshape(x.shape[0], -1))


def run_images(params, x):
    return Images(params["Conv_0"]["bias"].size).apply({"params": params}, x)


def run_list(params, x):  # a list of matrices, with a shortcut and without biases
    x = jax.nn.relu(x.reshape(x.shape[0], -1) @ params[0])
    return jax.nn.relu(x @ params[1] + x) @ params[2]


NODES = [(INPUT, "stream"), ("stream", "sum"), ("sum", "output")]  # what a layer reads, writes
WIRING = Wiring(tuple(Layer(str(i), None, *n) for i, n in enumerate(NODES)), (("sum", "stream"),))


def seek(name, apply, target, mother, wiring=None):
    def sample(key, n):  # the target itself labels the data, so its ticket is always right
        x = jax.random.normal(key, (n, 6, 6, 1))
        return pj.Batch(x, jnp.argmax(apply(target, x), axis=1).astype(jnp.int32))

    loss, evaluate = pj.losses.cross_entropy, pj.tasks.evaluate_classes
    task = pj.types.Task(name, 36, 2, "accuracy", lambda depth: target, sample, loss, evaluate)
    train, test = pj.tasks.split(sample(jax.random.key(1), 1000))
    planted = pj.plant(jax.random.key(0), target, mother, wiring=wiring, apply=apply, x=train.x)
    found, density = {"planted": planted.mask}, pj.masks.density(planted.mask)
    for finder in ("synflow", "edge_popup"):
        search = jax.jit(pj.FINDERS[finder](task, apply=apply))
        found[finder] = search(jax.random.key(2), planted.params, train, density).mask
    for finder, mask in found.items():
        accuracy = float(pj.evaluate(task, planted.params, mask, test, apply=apply)["accuracy"])
        print(f"{name}: {finder} keeps {int(pj.masks.count(mask))}, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    key, image = jax.random.key(3), jnp.zeros((1, 6, 6, 1))
    seek("module", run_images, *(Images(w).init(key, image)["params"] for w in (2, 16)))
    chains = (pj.nets.init(key, (36, w, w, 2)) for w in (3, 30))
    seek("list", run_list, *([layer["kernel"] for layer in c.values()] for c in chains), WIRING)
