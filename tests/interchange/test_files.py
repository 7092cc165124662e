"""Files of masks and parameters, PyTorch's arrays, and pruned parameters under any optimizer."""

import io
import pickle
import zipfile

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plantjax import interchange
from shared import chain

PARAMS = chain(2, 8, 4)
MASK = jax.tree.map(lambda leaf: np.asarray(leaf) > 0.5, PARAMS)
TREES = {
    "params": PARAMS,
    "mask": MASK,
}


@pytest.mark.parametrize("suffix", interchange.FORMATS)
@pytest.mark.parametrize("name", ["params", "mask"])
def test_what_was_written_is_read(tmp_path, suffix, name):
    tree = TREES[name]
    path = tmp_path / f"tree{suffix}"
    interchange.save(path, tree)
    chex.assert_trees_all_equal(interchange.load(str(path), tree), tree)
    shapes = jax.eval_shape(lambda: tree)
    chex.assert_trees_all_equal(interchange.load(path, shapes), tree)


@settings(deadline=None, max_examples=20)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["bool", "float32", "int8", "float16"]),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_tree_of_arrays_goes_through_both_formats(tmp_path_factory, forms):
    rng = np.random.default_rng(0)
    tree = [jnp.asarray(rng.integers(0, 2, shape).astype(dtype)) for dtype, shape in forms]
    for suffix in interchange.FORMATS:
        path = tmp_path_factory.mktemp("any") / f"tree{suffix}"
        interchange.save(path, tree)
        chex.assert_trees_all_equal(interchange.load(path, tree), tree)


@pytest.mark.parametrize("suffix", interchange.FORMATS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: {**tree, "layer_09": tree["layer_00"]}, "missing: layer_09/bias"),
        (lambda tree: {"layer_00": tree["layer_00"]}, "got others: layer_01/bias"),
        (lambda tree: jax.tree.map(lambda a: a[:1], tree), "for layer_00/bias"),
        (lambda tree: jax.tree.map(lambda a: a > 0, tree), "must hold bool"),
    ],
)
def test_other_trees_are_refused(tmp_path, suffix, change, message):
    path = tmp_path / f"tree{suffix}"
    interchange.save(path, PARAMS)
    with pytest.raises(ValueError, match=message):
        interchange.load(path, change(PARAMS))


def npz(path, **members: bytes):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def npy(array, allow_pickle=False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def header(shape: str) -> bytes:
    text = f"{{'descr': '|b1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("code of the file was run",))


HOSTILE = {
    "zip bomb": (header("(3,)") + bytes(100_000_000), "must hold 3 bytes for a"),
    "huge shape": (
        header("(10000000000,)"),
        r"for a, got bool \(10000000000",
    ),
    "short": (header("(3,)") + b"\x01", "must hold 3 bytes for a"),
    "pickled": (npy(np.array([Bomb()], object), allow_pickle=True), "got object"),
    "bare pickle": (pickle.dumps(Bomb()), "must hold arrays"),
    "no header": (b"", "must hold arrays"),
    "code as shape": (header("(__import__('os').getpid(),)"), "must hold arrays"),
    "long header": (header("(" + "1," * 5000 + ")"), "must hold arrays"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(tmp_path, name):
    content, message = HOSTILE[name]
    npz(tmp_path / "mask.npz", a=content)
    with pytest.raises(ValueError, match=message):
        interchange.load(tmp_path / "mask.npz", {"a": jnp.ones(3, bool)})


def test_fortran_order_is_understood(tmp_path):
    wanted = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    npz(tmp_path / "a.npz", a=npy(np.asfortranarray(wanted)))
    found = interchange.load(tmp_path / "a.npz", {"a": jnp.ones((2, 3))})
    np.testing.assert_array_equal(found["a"], wanted)


@pytest.mark.parametrize("suffix", interchange.FORMATS)
@pytest.mark.parametrize("cut", [0, 10, -10])
def test_damaged_files_are_refused(tmp_path, suffix, cut):
    path = tmp_path / f"tree{suffix}"
    interchange.save(path, PARAMS)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="must be a whole"):
        interchange.load(path, PARAMS)


def test_no_array_becomes_the_notes_of_a_file(tmp_path):
    tree = {"__metadata__": jnp.ones(2), "b": jnp.zeros(3)}
    with pytest.raises(ValueError, match="must have no leaf __metadata__"):
        interchange.save(tmp_path / "a.safetensors", tree)
    assert not list(tmp_path.iterdir())
    interchange.save(tmp_path / "a.npz", tree)
    assert interchange.load(tmp_path / "a.npz", tree)["__metadata__"].tolist() == [1.0, 1.0]


def test_other_suffixes_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.npz or \.safetensors, got"):
        interchange.save(tmp_path / "mask.pkl", MASK)
    with pytest.raises(ValueError, match=r"tree\[0\] must have a dtype of numpy, got bfloat16"):
        interchange.save(tmp_path / "mask.npz", [jnp.ones(2, jnp.bfloat16)])
    for suffix in interchange.FORMATS:
        with pytest.raises(FileNotFoundError):
            interchange.load(tmp_path / f"none{suffix}", MASK)
