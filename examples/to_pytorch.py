"""Out to PyTorch: a ticket that was found and trained here, in a module of PyTorch.

Then smaller: the same function as a dense network of the units that are left.
"""

from itertools import pairwise

import jax
import numpy as np
import optax
import torch
from torch.nn.utils import prune

import plantjax as pj

TASK = pj.TASKS["circle"]


def module(widths):
    """The network of `pj.nets.apply` in PyTorch."""
    layers = [torch.nn.Linear(*pair) for pair in pairwise(widths)]
    between = [part for layer in layers for part in (torch.nn.ReLU(), layer)]
    return torch.nn.Sequential(*between[1:])


if __name__ == "__main__":
    keys = jax.random.split(jax.random.key(0), 4)
    params = pj.nets.init(keys[0], (2, 60, 60, 4))
    train, test = pj.tasks.split(TASK.sample(keys[1], 10_000))
    mask = jax.jit(pj.FINDERS["snip"](TASK))(keys[2], params, train, 0.05).mask
    trained, _ = pj.training.fit(
        keys[3],
        params,
        mask,
        train,
        apply=pj.nets.apply,
        loss=TASK.loss,
        optimizer=optax.adam(1e-2),
        epochs=10,
        batch_size=32,
    )
    outputs, x = pj.nets.apply(trained, test.x), torch.tensor(np.asarray(test.x))
    pruned = module((2, 60, 60, 4))
    for layer in pruned[::2]:
        prune.identity(layer, "weight")  # now it has weight_orig and weight_mask
    pruned.load_state_dict(pj.interchange.to_torch(trained, mask, pruned.state_dict()))

    small = pj.compact(trained, mask)
    dense = module(pj.nets.widths(small))
    dense.load_state_dict(pj.interchange.to_torch(small, None, dense.state_dict()))

    for name, net in {"pruned": pruned, "compact": dense}.items():
        error = np.abs(net(x).detach().numpy() - outputs).max()
        widths = [layer.out_features for layer in net[::2]]
        print(f"{name}: widths {widths}, differs by at most {error:.1e}")
