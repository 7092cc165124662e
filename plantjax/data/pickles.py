"""Reads pickles of dicts, lists, tuples, strings, numbers and integer arrays without running code.

There are two barriers. Opcodes outside a short list are refused before anything is executed, and
the names that numpy arrays need resolve to our own classes, which only store and check their
arguments.
"""

import io
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np

_OPCODES = re.compile(
    r"PROTO|FRAME|STOP|MARK|POP|POP_MARK|DUP|MEMOIZE|(LONG_)?(BIN)?(PUT|GET)|NONE|NEWTRUE|NEWFALSE|"
    r"INT|BININT[12]?|LONG1?|(SHORT_)?(BIN)?STRING|UNICODE|(SHORT_)?BINUNICODE8?|"
    r"(SHORT_)?BINBYTES8?|BYTEARRAY8|(EMPTY_)?(DICT|LIST|TUPLE)|TUPLE[123]|SETITEMS?|APPENDS?|"
    r"(STACK_)?GLOBAL|REDUCE|BUILD"
)
_FREE_TUPLES = 100
_NUMPY = ("numpy.core", "numpy._core")


class _Dtype:
    """Replaces numpy.dtype, for integer types: `dtype('u1', False, True)`."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = _text(code), "|"
        if self.code not in ("u1", "i1", "i2", "i4", "i8", "u2", "u4", "u8"):
            raise pickle.UnpicklingError(f"an array of type {self.code!r}")

    def __setstate__(self, state: Any) -> None:
        self.order = _text(state[1])


class _Array:
    """Replaces an array under construction; it has a `value` once its state is set."""

    __slots__ = ("value",)
    value: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.value = _array(content, dtype, shape, "F" if fortran else "C")


class _Maker:
    """Base of callables, without attributes that a pickle could set."""

    __slots__ = ()


class _Reconstruct(_Maker):
    def __call__(self, kind: Any, *_: Any) -> _Array:
        if not isinstance(kind, _Ndarray):
            raise pickle.UnpicklingError("an array of another class")
        return _Array()


class _FromBuffer(_Maker):
    def __call__(self, content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
        array = _Array()
        array.value = _array(content, dtype, shape, _text(order))
        return array


class _Ndarray(_Maker):
    """Replaces the class numpy.ndarray, which pickles only pass as an argument."""


class _Encode(_Maker):
    """Replaces `_codecs.encode`, with which Python 3 writes bytes in old protocols."""

    def __call__(self, text: str, codec: str = "latin1") -> bytes:
        if codec != "latin1":
            raise pickle.UnpicklingError(f"a string in the codec {codec!r}")
        return text.encode("latin1")


_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Ndarray(),
    ("_codecs", "encode"): _Encode(),
    **{(f"{core}.multiarray", "_reconstruct"): _Reconstruct() for core in _NUMPY},
    **{(f"{core}.numeric", "_frombuffer"): _FromBuffer() for core in _NUMPY},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise pickle.UnpicklingError(f"the name {module}.{name}")
        return _GLOBALS[module, name]


def load(path: Path, content: bytes) -> dict[str, Any]:
    """Reads a pickled dict of integer arrays, lists, strings and numbers; never runs its code.

    Args:
      path: for error messages.
      content: content of the file.

    Returns:
      The dict with str keys. Arrays are numpy arrays; strings written by Python 2 are bytes.

    Raises:
      ValueError: if the pickle is damaged, contains anything else, or is not a dict.
    """
    try:
        _check_opcodes(content)
        found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(found, dict):
            raise pickle.UnpicklingError(f"a {type(found).__name__}")
        return {
            _text(key): value.value if isinstance(value, _Array) else value
            for key, value in found.items()
        }
    except Exception as error:  # a damaged or hostile pickle can raise anything
        raise ValueError(
            f"{path} has {error} in its pickle (of {len(content)} bytes), expected a whole pickle "
            "of a dict of integer arrays, lists, strings and numbers; nothing of it was run."
        ) from error


def _check_opcodes(content: bytes) -> None:
    """Raises on forbidden opcodes, a missing end, and anything that would exhaust memory or stack.

    The latter are large memo indices and deeply nested tuples. Nearly all tuples of a valid pickle
    are arguments of the next REDUCE or BUILD, so only a few others are allowed.
    """
    last, free = "", 0
    for opcode, argument, _ in pickletools.genops(content):
        if not _OPCODES.fullmatch(opcode.name):
            raise pickle.UnpicklingError(f"the opcode {opcode.name}")
        if opcode.name == "MEMOIZE" or opcode.name.endswith("PUT"):
            if not 0 <= int(argument or 0) <= len(content):
                raise pickle.UnpicklingError(f"the memo place {argument}")
            continue
        free += last.startswith("TUPLE") and opcode.name not in ("REDUCE", "BUILD")
        if free > _FREE_TUPLES:
            raise pickle.UnpicklingError(f"more than {_FREE_TUPLES} tuples")
        last = opcode.name


def _array(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """The integer array with this content; dtype, shape and content are checked."""
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("an array without type or content")
    kind = np.dtype(dtype.code)
    if dtype.order == ">":
        kind = kind.newbyteorder(">")
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise pickle.UnpicklingError(f"an array of shape {shape}")
    return np.frombuffer(content, kind).reshape(shape, order="F" if order == "F" else "C")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if not isinstance(value, str):
        raise pickle.UnpicklingError(f"a {type(value).__name__} where a string belongs")
    return value
