"""An entry for the leaderboard from PyTorch, without JAX: masks of the largest parameters.

python experiments/leaderboard.py worlds WORLDS --tasks circle --seeds 2
python examples/enter_from_pytorch.py WORLDS ENTRY
python experiments/leaderboard.py score ENTRY
"""

import json
import sys
from pathlib import Path

import numpy as np

ABOUT = """name = "magnitude in torch"
source = "plantjax, examples/enter_from_pytorch.py"
cost = "one sort of the parameters for each mask"
looked_at = "the parameters alone, no data"
"""


def read(path):
    """The arrays of a world: parameters by path, and x, y and world, which says which it is."""
    arrays = dict(np.load(path))
    return {name: arrays.pop(name) for name in ("x", "y", "world")}, arrays


def forward(params, x):
    """The outputs of the network; tensors or arrays. Pruned parameters are 0."""
    for index, layer in enumerate(sorted({name.split("/")[0] for name in params})):
        x = (x.clip(0) if index else x) @ params[f"{layer}/kernel"] + params[f"{layer}/bias"]
    return x


def largest(params, kept):
    """A mask of the `kept` largest of all parameters: the place for a search of your own."""
    import torch

    sizes = torch.cat([torch.as_tensor(array).flatten().abs() for array in params.values()])
    mask = torch.zeros(len(sizes), dtype=torch.bool)
    mask[sizes.topk(kept).indices] = True
    parts = mask.split([array.size for array in params.values()])
    pairs = zip(params.items(), parts, strict=True)
    return {name: part.reshape(array.shape).numpy() for (name, array), part in pairs}


def enter(worlds, entry, mask_of):
    """Writes masks for all worlds and densities, and entry.toml."""
    for task, facts in json.loads((worlds / "worlds.json").read_text())["tasks"].items():
        for path in sorted((worlds / task).glob("*.npz")):
            data, params = read(path)
            for density, allowed in facts["densities"].items():
                out = entry / task / path.stem / f"{density}.npz"
                out.parent.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(out, world=data["world"], **mask_of(params, allowed["kept"]))
    (entry / "entry.toml").write_text(ABOUT)


if __name__ == "__main__":
    enter(Path(sys.argv[1]), Path(sys.argv[2]), largest)
