"""Plugins: a user's own Python file or module, whose tasks, scores, finders and metrics register.

A plugin is imported before names are checked, in every process of a job. The hash of its source is
among the settings, so that results never mix two versions of it.
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

OPTION = "--plugin"


def load(plugin: str) -> ModuleType:
    """Imports a plugin once per process.

    Args:
      plugin: the path of a Python file, or the name of a module.

    Raises:
      ValueError: if there is no such file or module, or it fails.
    """
    path = Path(plugin)
    name = f"plantjax_plugin_{path.stem}" if path.suffix == ".py" else plugin
    loaded = sys.modules.get(name)
    if loaded is not None:
        if path.suffix == ".py" and not path.samefile(loaded.__file__ or ""):
            raise ValueError(f"{OPTION} must name files of different names, got {plugin} twice.")
        return loaded
    try:
        if path.suffix != ".py":
            return importlib.import_module(plugin)
        if not path.is_file():
            raise FileNotFoundError("there is no such file")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        sys.modules.pop(name, None)
        raise ValueError(
            f"{OPTION} must name a Python file or a module that can be imported, got {plugin}: "
            f"{type(error).__name__}: {error}."
        ) from error
    return module


def settings(plugins: Sequence[str]) -> dict[str, str]:
    """The hashes of the plugins' sources by name, which are part of a job's settings."""
    return {Path(plugin).name: _hash(plugin) for plugin in plugins}


def named(argv: Sequence[str]) -> list[str]:
    """The plugins on a command line, which are imported before it is parsed: help needs them."""
    found, taking = [], False
    for word in argv:
        if word.startswith(f"{OPTION}="):
            found.append(word.partition("=")[2])
        elif word.startswith("--"):
            taking = word == OPTION
        elif taking:
            found.append(word)
    return found


def absolute(plugins: Sequence[str]) -> tuple[str, ...]:
    """The plugins with absolute paths, for workers that run in another folder."""
    return tuple(str(Path(p).absolute()) if p.endswith(".py") else p for p in plugins)


def _hash(plugin: str) -> str:
    source = load(plugin).__file__
    content = Path(source).read_bytes() if source else plugin.encode()
    return hashlib.sha256(content).hexdigest()[:16]
