"""PyTorch state dicts: arrays go where their roles and the order of the layers say."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plantjax import interchange, nets
from plantjax.interchange import from_torch

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_weights_of_norms_are_scales():
    like = {"norm": {"bias": jnp.ones(4), "scale": jnp.zeros(4)}}
    found = from_torch({"1.weight": np.full(4, 3.0), "1.bias": np.zeros(4)}, like)
    assert found["norm"]["scale"].tolist() == [3.0] * 4
    assert found["norm"]["bias"].tolist() == [0.0] * 4


@pytest.mark.parametrize("count", [3, 11, 12, 101])
def test_equal_layers_keep_their_order(count):
    like = {f"Dense_{i}": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)} for i in range(count)}
    state = {}
    for i in range(count):
        state |= {f"{i}.weight": np.array([[i, 1.0], [2.0, 3.0]]), f"{i}.bias": np.full(2, i)}
    found = from_torch(state, like)
    for i in range(count):
        assert found[f"Dense_{i}"]["kernel"].tolist() == [[i, 2.0], [1.0, 3.0]]
        assert found[f"Dense_{i}"]["bias"].tolist() == [i, i]


def test_embeddings_are_not_transposed():
    table = normal(4, 4)
    found = from_torch({"emb.weight": table}, {"Embed_0": {"embedding": jnp.zeros((4, 4))}})
    np.testing.assert_array_equal(found["Embed_0"]["embedding"], table)


class Convolutional(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(5, (1, 1))(x)))
        return nn.Dense(7)(x.reshape(x.shape[0], -1))


def test_a_dense_layer_behind_a_flattened_image_reads_channels_last():
    x = normal(2, 6, 4, 3)  # NHWC
    like = Convolutional().init(jax.random.key(0), jnp.asarray(x))
    state = {"0.weight": normal(5, 3, 1, 1), "0.bias": normal(5)}
    state |= {f"1.{role}": normal(5) for role in ("weight", "bias", "running_mean")}
    state |= {"1.running_var": RNG.uniform(1, 2, 5), "1.num_batches_tracked": np.array(9)}
    state |= {"4.weight": normal(7, 5 * 24), "4.bias": normal(7)}
    image = np.einsum("nhwi,oi->nohw", x, state["0.weight"][:, :, 0, 0])
    parts = (state["0.bias"], state["1.running_mean"], state["1.running_var"])
    bias, mean, var = (part[:, None, None] for part in parts)
    scale, shift = (state[f"1.{role}"][:, None, None] for role in ("weight", "bias"))
    image = np.maximum((image + bias - mean) / np.sqrt(var + 1e-5) * scale + shift, 0)
    wanted = image.reshape(2, -1) @ state["4.weight"].T + state["4.bias"]
    found = Convolutional().apply(from_torch(state, like), jnp.asarray(x))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    alone = from_torch(state.items(), like["params"])  # pairs, and no place for statistics
    assert sorted(alone) == ["BatchNorm_0", "Conv_0", "Dense_0"]


def test_which_dense_layers_read_a_flattened_image_can_be_said():
    """Two kinds of pooling side by side have twice as many features as the image has channels."""
    state = {"0.weight": normal(4, 3, 1, 1), "0.bias": normal(4)}
    state |= {"1.weight": normal(5, 8), "1.bias": normal(5)}
    like = {
        "conv": {"kernel": jnp.zeros((1, 1, 3, 4)), "bias": jnp.zeros(4)},
        "dense": {"kernel": jnp.zeros((8, 5)), "bias": jnp.zeros(5)},
    }
    plain = np.asarray(from_torch(state, like, flattened=[])["dense"]["kernel"])
    np.testing.assert_array_equal(plain, state["1.weight"].T)
    image = state["1.weight"].reshape(5, 4, 2).transpose(2, 1, 0).reshape(8, 5)
    for flattened in (None, ["1"]):
        found = from_torch(state, like, flattened=flattened)
        np.testing.assert_array_equal(found["dense"]["kernel"], image)
        again = interchange.to_torch(found, None, state, flattened=flattened)
        np.testing.assert_array_equal(again["1.weight"], state["1.weight"])
    with pytest.raises(ValueError, match=r"flattened must name linear modules .* got '0'"):
        from_torch(state, like, flattened=["0"])


def test_pruned_weights_come_in_masked():
    state = {"0.bias": np.ones(2), "0.weight_orig": normal(2, 3), "0.weight_mask": np.eye(2, 3)}
    found = from_torch(state, nets.init(jax.random.key(0), (3, 2)))
    np.testing.assert_array_equal(
        found["layer_00"]["kernel"], (state["0.weight_orig"] * np.eye(2, 3)).T
    )


QUERY_KEY = {name: {"kernel": jnp.zeros((2, 2))} for name in ("key", "query")}


def test_where_names_give_no_order_they_must_be_told():
    state = {"q.weight": normal(2, 2), "k.weight": normal(2, 2)}
    with pytest.raises(ValueError, match=r"names must say which layer state\['q'\] is"):
        from_torch(state, QUERY_KEY)
    found = from_torch(state, QUERY_KEY, names={"q": "query", "k": "key"})
    np.testing.assert_array_equal(found["query"]["kernel"], state["q.weight"].T)
    same = {"query.weight": state["q.weight"], "key.weight": state["k.weight"]}
    again = from_torch(same, QUERY_KEY)
    np.testing.assert_array_equal(again["key"]["kernel"], found["key"]["kernel"])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "state must hold at least one array"),
        ({"0.weight": normal(2, 2)}, "no other module fills"),
        ({"0.weight": normal(2, 3), "0.bias": normal(3)}, "no other module fills"),
        ({"0.weight": normal(2, 3), "0.gamma": normal(2)}, "no other module fills"),
    ],
)
def test_what_does_not_fit_is_refused(state, message):
    with pytest.raises(ValueError, match=message):
        from_torch(state, nets.init(jax.random.key(0), (3, 2)))


def test_layers_without_arrays_are_named():
    state = {"0.weight": normal(4, 3), "0.bias": normal(4)}
    with pytest.raises(ValueError, match="no arrays for layer_01"):
        from_torch(state, nets.init(jax.random.key(0), (3, 4, 2)))
