"""A module of Equinox: plant a ticket in it, seek it, and turn the result into a module again."""

import equinox as eqx
import jax
import jax.numpy as jnp

import plantjax as pj

TASK = pj.TASKS["circle"]
TARGET = TASK.target(3)

if __name__ == "__main__":
    keys = jax.random.split(jax.random.key(0), 4)
    module = eqx.nn.MLP(TASK.n_in, TASK.n_out, width_size=60, depth=1, key=keys[0])
    apply, mother = pj.nets.from_equinox(module)  # a chain: kernels [I, O] and biases
    planted = pj.plant(keys[1], TARGET, mother)
    density = pj.masks.density(planted.mask)
    train, test = pj.tasks.split(TASK.sample(keys[2], 10_000))
    found = {"planted": planted.mask}
    for name in ("synflow", "edge_popup_global"):
        find = jax.jit(pj.FINDERS[name](TASK, apply=apply))
        found[name] = find(keys[3], planted.params, train, density).mask
    for name, mask in found.items():
        ticket = apply.restore(pj.masks.apply(planted.params, mask))
        accuracy = TASK.evaluate(jax.vmap(ticket)(test.x), test.y)["accuracy"]
        zeros = sum(
            jnp.sum(leaf == 0) for leaf in jax.tree.leaves(eqx.filter(ticket, eqx.is_array))
        )
        print(f"{name}: {zeros} of {pj.masks.size(mother)} are zero, accuracy {accuracy:.3f}")
