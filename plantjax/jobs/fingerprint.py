"""Fingerprints of the code that makes results, so that a folder never mixes two versions of it.

They cover plantjax's own sources, versions and settings of JAX that change values, and what users
have registered: its byte code, closures, defaults, the functions that it calls and its modules.
"""

import dataclasses
import functools
import hashlib
import os
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np
import optax

from plantjax.finders import FINDERS
from plantjax.metrics import METRICS
from plantjax.scores import SCORES
from plantjax.tasks import TASKS

PACKAGE = Path(__file__).parent.parent
APART = ("jobs", "interchange", "results")
"""Folders of the package that change no result."""
FLAGS = ("jax_threefry_partitionable", "jax_enable_x64", "jax_default_matmul_precision")
"""Settings of JAX that change values."""
REGISTRIES: dict[str, Mapping[str, Any]] = {
    "task": TASKS,
    "score": SCORES,
    "finder": FINDERS,
    "metric": METRICS,
}
_INSTALLED = tuple(
    f"{folder}{os.sep}" for folder in (PACKAGE, *map(sysconfig.get_path, ("stdlib", "purelib")))
)


def fingerprint(folders: Sequence[Path] = ()) -> dict[str, Any]:
    """What results depend on besides the settings, as JSON-ready values by name.

    Args:
      folders: further folders with sources that a script's results depend on.
    """
    parts = (path.relative_to(PACKAGE).parts for path in PACKAGE.rglob("*.py"))
    own = (PACKAGE.joinpath(*part) for part in parts if part[0] not in APART)
    return {
        "plantjax": _hash_files(own),
        **{folder.name: _hash_files(folder.rglob("*.py")) for folder in folders},
        **{module.__name__: module.__version__ for module in (jax, jaxlib, optax)},
        **{flag: getattr(jax.config, flag) for flag in FLAGS},
        **{
            kind: {name: _hash(entry) for name, entry in registry.items()}
            for kind, registry in REGISTRIES.items()
        },
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What has changed from one fingerprint to another, in words.

    Of registered functions only those count that both have: others had no part in both.
    """
    found = []
    for name in {**new, **old}:
        before, now = old.get(name), new.get(name)
        if name in REGISTRIES and isinstance(before, dict) and isinstance(now, dict):
            changed = [key for key in before if key in now and before[key] != now[key]]
            found += [f"the {name} {key} has changed" for key in changed]
        elif before != now:
            found.append(f"{name}: {before} there, {now} here")
    return found


def _hash_files(paths: Iterator[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _hash(value: Any) -> str:
    digest = hashlib.sha256()
    for part in _parts(value, []):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]


def _installed(value: types.FunctionType | type) -> bool:
    """Whether a function or class is plantjax's or a library's: its source or version is known."""
    if isinstance(value, types.FunctionType):
        return value.__code__.co_filename.startswith(_INSTALLED)
    file = getattr(sys.modules.get(value.__module__), "__file__", None)
    return value.__module__ == "builtins" or (file or "").startswith(_INSTALLED)


def _parts(value: Any, above: list[Any]) -> Iterator[str]:
    """The parts of a value that decide what it does, as strings."""
    if any(value is other for other in above):  # it refers to itself
        yield "above"
        return
    above = [*above, value]
    if isinstance(value, functools.partial):
        inner: Any = [value.func, value.args, value.keywords]
    elif isinstance(value, types.FunctionType):
        yield value.__qualname__
        inner = [value.__defaults__, value.__kwdefaults__, *_closure(value)]
        if not _installed(value):
            yield from _code(value.__code__)
            inner += [value.__globals__.get(name) for name in _names(value.__code__)]
    elif isinstance(value, type):
        yield value.__qualname__
        methods = [part for _, part in sorted(vars(value).items()) if callable(part)]
        inner = [] if _installed(value) else methods
    elif isinstance(value, Mapping):
        inner = [part for pair in value.items() for part in pair]
    elif isinstance(value, list | tuple):
        inner = list(value)
    elif isinstance(value, set | frozenset):  # in an order that does not change
        inner = sorted(map(repr, value))
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        yield f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
        return
    elif isinstance(value, types.ModuleType):
        inner = [value.__name__, *_sources(value)]
    elif isinstance(value, types.MethodType):
        inner = [value.__func__, value.__self__]
    elif hasattr(value, "__wrapped__"):  # by jax.jit
        inner = [value.__wrapped__]
    elif " at 0x" not in repr(value) and not dataclasses.is_dataclass(value):
        yield repr(value)
        return
    else:  # an object
        inner = [type(value), getattr(value, "__dict__", {})]
    for part in inner:
        yield from _parts(part, above)


def _sources(module: types.ModuleType) -> Iterator[str]:
    """The sources of a module beside the user's code, and of the modules that it uses itself."""
    found: dict[str, Path] = {}
    left = [module]
    while left:
        one = left.pop()
        file = getattr(one, "__file__", None) or ""
        if one.__name__ in found or file.startswith(_INSTALLED) or not file.endswith(".py"):
            continue
        found[one.__name__] = Path(file)
        left += [part for part in vars(one).values() if isinstance(part, types.ModuleType)]
    for name in sorted(found):
        yield name
        yield hashlib.sha256(found[name].read_bytes()).hexdigest()


def _closure(function: types.FunctionType) -> list[Any]:
    return [cell.cell_contents for cell in function.__closure__ or ()]


def _code(code: types.CodeType) -> Iterator[str]:
    """The byte code and the constants of a function, and of those inside it."""
    yield code.co_code.hex()
    yield " ".join(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant)
        else:
            yield from _parts(constant, [])


def _names(code: types.CodeType) -> list[str]:
    """The global names that a function, or one inside it, may look up."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return [*code.co_names, *(name for part in inner for name in _names(part))]
