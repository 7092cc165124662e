"""One line around your optimizer: prune a network of your own while it trains.

Everything inside sees the sparse network alone: clipping, moments, weight decay. Pruned weights are
exactly zero from the update on that prunes them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import plantjax as pj


class Classifier(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(nn.LayerNorm()(nn.Dense(64)(x)))
        return nn.Dense(4)(x)


NET, STEPS = Classifier(), 1_000
usual = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(3e-3))
optimizers = {
    "dense": usual,
    "gradual": pj.optim.prune(
        usual, density=0.1, end=600, every=50, prunable=lambda path: path.endswith("kernel")
    ),
    "2:4": pj.optim.prune(usual, density=0.5, end=100, scope="2:4"),
    "RigL": pj.optim.rewire(usual, density=0.1, end=600, every=50),
}


def train(optimizer, params, data):
    def step(carry, key):
        params, state = carry
        rows = jax.random.randint(key, (128,), 0, data.x.shape[0])

        def loss(params):
            return pj.losses.cross_entropy(NET.apply(params, data.x[rows]), data.y[rows])

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = params, optimizer.init(params)
    return jax.lax.scan(step, start, jax.random.split(jax.random.key(2), STEPS))[0]


if __name__ == "__main__":
    train_data, test = pj.tasks.split(pj.TASKS["circle"].sample(jax.random.key(0), 5_000))
    params = NET.init(jax.random.key(1), train_data.x)
    for name, optimizer in optimizers.items():
        found, state = jax.jit(lambda p, o=optimizer: train(o, p, train_data))(params)
        accuracy = jnp.mean(jnp.argmax(NET.apply(found, test.x), axis=1) == test.y)
        kept = 1.0 if name == "dense" else pj.optim.density(state)
        print(f"{name}: accuracy {accuracy:.3f} at density {kept:.3f}")
