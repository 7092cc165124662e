"""Orbax checkpoints of unfinished searches, written level by level."""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


class Checkpoint:
    """Checkpoints one search in its own folder; a `plantjax.sweeps.Keeper`."""

    def __init__(self, folder: Path, seconds: float) -> None:
        """Nothing is written before the first `save`.

        Args:
          folder: named after the cells, so that no other search finds it.
          seconds: the least time between two saves.
        """
        self._folder, self._seconds = folder.absolute(), seconds
        self._saved = time.monotonic()

    def restore(self, like: Any) -> tuple[int, Any]:
        """The last level kept and its tree, of the structure of `like`; (0, like) if none is.

        A checkpoint that is damaged, or of another search, is set aside with a warning on stderr.
        """
        if not self._folder.exists():
            return 0, like
        try:
            return self._restored(like)
        except Exception as error:  # whatever Orbax makes of damaged files
            reason = " ".join(str(error).split())[:200]
            aside = self._folder.with_name(f"{self._folder.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            self._folder.rename(aside)
            print(
                f"warning: {self._folder} is damaged ({reason}); its search starts anew.",
                file=sys.stderr,
            )
            return 0, like

    def _restored(self, like: Any) -> tuple[int, Any]:
        with self._manager() as manager:
            level = manager.latest_step()
            if level is None:
                return 0, like
            leaves, structure = jax.tree.flatten(like)
            named = {f"{index:04d}": leaf for index, leaf in enumerate(leaves)}
            kept = manager.restore(level, args=ocp.args.StandardRestore(named))
        for name, leaf in named.items():
            if np.shape(kept[name]) != np.shape(leaf):
                raise ValueError(f"an array is {np.shape(kept[name])}, not {np.shape(leaf)}")
        return level, jax.tree.unflatten(structure, [kept[name] for name in named])

    def save(self, level: int, tree: Any) -> None:
        """Replaces the saved tree if the last save is long enough ago."""
        if time.monotonic() - self._saved < self._seconds:
            return
        named = {f"{index:04d}": leaf for index, leaf in enumerate(jax.tree.leaves(tree))}
        with self._manager() as manager:
            manager.save(level, args=ocp.args.StandardSave(named))
            manager.wait_until_finished()
        self._saved = time.monotonic()

    def clear(self) -> None:
        """Removes the folder: the search is done."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(max_to_keep=1)
        return ocp.CheckpointManager(self._folder, options=options)
