"""Wirings: chains that are recognised, and what is refused."""

import jax.numpy as jnp
import pytest

from plantjax.nets import wirings
from plantjax.nets.wirings import INPUT, Wiring
from shared import CONV, RESIDUAL, STREAM, net


def test_a_chain_is_recognised():
    wiring = wirings.chain(CONV)
    assert [part.name for part in wiring.layers] == sorted(CONV)
    assert list(wirings.channels(CONV, wiring).values()) == [2, 3, 4, 5, 2]
    assert wirings.find(CONV) == wiring
    assert all(part.bias is None for part in wirings.chain(net((2, 3), (3, 1), bias=False)).layers)
    nested = {"params": {"Conv_0": CONV["layer_00"], "Dense_0": net((48, 4))["layer_00"]}}
    assert [part.name for part in wirings.chain(nested).layers] == [
        "params/Conv_0",
        "params/Dense_0",
    ]
    listed = list(CONV.values())
    assert [part.kernel for part in wirings.chain(listed).layers] == [
        f"{i}/kernel" for i in range(4)
    ]


def test_names_give_another_order():
    params = {
        f"conv_{i}": part
        for i, part in zip((2, 10, 1), net(*[(3, 3, 2, 2)] * 3).values(), strict=True)
    }
    usual = [part.name for part in wirings.chain(params).layers]
    assert usual == ["conv_1", "conv_2", "conv_10"]
    names = ["conv_10", "conv_2", "conv_1"]
    assert [part.name for part in wirings.chain(params, names).layers] == names


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"a": jnp.ones(2)},
        net((2, 3), (2, 3)),
        net((3, 3, 2, 3), (3, 3, 2, 3)),  # a grouped convolution reads as one that does not fit
        net((3, 3, 2, 3), (7, 3)),
        net((4, 3), (6, 3)),  # no image to flatten
        {"layer_00": {**CONV["layer_00"], "scale": jnp.ones(3)}},
        {"layer_00": {**CONV["layer_00"], "bias": jnp.ones(2)}},
    ],
)
def test_what_is_no_chain(params):
    with pytest.raises(ValueError, match="params must be a chain of dense layers or convolutions"):
        wirings.chain(params)
    assert wirings.find(params) is None


def changed(index, **fields):
    layers = list(STREAM.layers)
    layers[index] = layers[index]._replace(**fields)
    return Wiring(tuple(layers), STREAM.carries)


@pytest.mark.parametrize(
    ("wiring", "message"),
    [
        (Wiring(()), "at least one layer"),
        (changed(1, reads="block"), "layer_01 reads block, which is not written before it"),
        (changed(1, reads="wide"), "layer_01 reads wide, which is not written before it"),
        (changed(6, writes="inner"), "which is not written before it"),
        (changed(0, writes=INPUT), "which is not written before it"),
        (Wiring(STREAM.layers, (("stem", "block"),)), "stem carries block, which is not written"),
        (Wiring(STREAM.layers, (("output", "wide"),)), "output must not carry wide"),
        (Wiring(STREAM.layers, (("second", "block"),)), "must have the 3 channels of block, got 2"),
        (Wiring(STREAM.layers[:-1]), "must name every leaf of params once, but not layer_06/bias"),
        (changed(1, bias="layer_00/bias"), "once, but not layer_01/bias"),
        (changed(1, kernel="layer_01/weight"), "params must have the leaf layer_01/weight"),
        (changed(5, reads="inner"), r"params\[layer_05/kernel\] must read 2 channels, got shape"),
        (changed(2, writes="wide"), "reads block, which is not written before it"),
    ],
)
def test_wirings_that_do_not_fit(wiring, message):
    with pytest.raises(ValueError, match=message):
        wirings.channels(RESIDUAL, wiring)
