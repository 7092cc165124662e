"""Evaluation of masked networks: what a value may depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plantjax as pj
from plantjax.types import Batch

NORMED = pj.nets.Network(pj.nets.convnets.VGG(4, batch_norm=True, blocks=((3,),)))


@pytest.mark.slow
def test_networks_with_batch_norm_use_the_statistics_of_the_training_data():
    keys = jax.random.split(jax.random.key(0), 3)
    params = NORMED.init(keys[0], (4, 4, 2))
    train = Batch(jax.random.normal(keys[1], (20, 4, 4, 2)), jnp.zeros(20, jnp.int32))
    x = 3.0 * jax.random.normal(keys[2], (10, 4, 4, 2)) + 1.0
    y = jnp.argmax(NORMED.frozen(params, train.x)(params, x), axis=1).astype(jnp.int32)

    @jax.jit
    def accuracy(order):
        data, mask = Batch(x[order], y[order]), pj.masks.full(params)
        task = pj.TASKS["circle"]
        return pj.evaluate(task, params, mask, data, apply=NORMED, train=train)["accuracy"]

    for order in (np.arange(10), np.arange(10)[::-1], np.array([3]), np.array([7, 1])):
        assert accuracy(order) == 1.0
    with pytest.raises(ValueError, match="train must be given for networks with batch norm"):
        pj.evaluate(pj.TASKS["circle"], params, pj.masks.full(params), train, apply=NORMED)
