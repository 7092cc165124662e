"""The benchmark's side of the PyTorch peer, a worker process that answers lines of JSON."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from plantjax.types import Batch, Params

EXPERIMENTS = Path(__file__).parent.parent
WORKER = "timing.torch_peer"


class Peer:
    """A PyTorch worker; call `stop` at the end."""

    def __init__(self, python: str, params: Params, data: Batch) -> None:
        """Starts the worker on some networks, each with a data set.

        Args:
          python: a Python interpreter that has torch.
          params: the networks' initial parameters, with a leading axis over networks.
          data: training samples of each.

        Raises:
          ValueError: if the interpreter cannot be started or has no torch.
        """
        probe = [python, "-c", "import torch"]
        try:
            missing = subprocess.run(probe, capture_output=True, check=False).returncode
        except OSError as error:
            raise ValueError(
                f"--peer-python must be a Python interpreter, got {python}: {error.strerror}."
            ) from error
        if missing:
            raise ValueError(
                f"--peer needs torch, and {python} has none: pip install torch==2.13.0."
            )
        arrays = {"x": np.asarray(data.x), "y": np.asarray(data.y)}
        for index, name in enumerate(sorted(params)):
            layer = params[name]
            arrays[f"kernel_{index}"] = np.asarray(layer["kernel"])
            arrays[f"bias_{index}"] = np.asarray(layer["bias"])
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "network.npz"
        with path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        interpreter = os.path.abspath(shutil.which(python) or python)  # the worker starts elsewhere
        self._process = subprocess.Popen(
            [interpreter, "-m", WORKER],
            cwd=EXPERIMENTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._send(str(path))

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and returns the reply, with the worker's seconds and losses.

        Raises:
          RuntimeError: if the worker fails.
        """
        self._send(json.dumps(request))
        assert self._process.stdout is not None
        reply: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "error" in reply:
            raise RuntimeError(f"the peer failed on {request}: {reply['error']}")
        return reply

    def stop(self) -> None:
        """Stops the worker."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
