"""The benchmark's workloads in ordinary PyTorch: one thread, float32, mostly one network at a time.

Run as a worker in experiments/, `python -m timing.torch_peer`. The first line of stdin is the path
of an .npz (x, y, kernel_0, bias_0, ..., optionally mask_kernel_0, mask_bias_0, ..., all with a
leading axis over networks); every other line is a request `{"workload": .., "density": .., "seed":
0, "repeat": 1, **options of the workload}`, which runs on the first network, or with `"networks":
n` on the first n at once. Each request is answered by one line, `{"process_seconds": ..,
"wall_seconds": .., "loss": .., ..}` (seconds per run) or `{"error": ..}`. The parent pins the
process and requests the warm-ups.
"""
# mypy: disable-error-code="import-not-found", allow-untyped-decorators
# These comments let mypy check this file without torch.

import json
import sys
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch

from timing import torch_loops
from timing.torch_loops import Data, Layers, Tensors

Result: TypeAlias = dict[str, Any]
"""The mean training loss of every epoch ("losses") and of the last ("loss"), and the "mask"."""


def singleshot(
    layers: Layers,
    data: Data,
    density: float,
    *,
    mask: Layers | None = None,
    epochs: int = 10,
    loader: str = "dataloader",
    fused: bool = False,
) -> Result:
    """Prunes once, by magnitude or to a given mask, and trains the remaining parameters.

    Args:
      layers: initial parameters, float32.
      data: to train on.
      density: fraction to keep; a given mask overrides it.
      mask: bool, True where kept.
      epochs: epochs of training.
      loader: a name in `torch_loops.LOADERS`.
      fused: use Adam's fused step, which is faster but not PyTorch's default.

    Returns:
      The Result.
    """
    model, batches = torch_loops.dense(layers), torch_loops.batched(data, loader)
    if mask is None:
        kept = torch_loops.select([p.abs() for p in model.parameters()], density)
    else:
        arrays = [array for kernel, bias in mask for array in (kernel.T, bias)]
        kept = [torch.tensor(array, dtype=torch.float32) for array in arrays]
    return _result(kept, torch_loops.fit(model, kept, batches, epochs, fused))


def multishot(
    layers: Layers,
    data: Data,
    density: float,
    *,
    levels: int = 10,
    level_epochs: int = 5,
    epochs: int = 10,
    loader: str = "dataloader",
    fused: bool = False,
) -> Result:
    """Trains, prunes by magnitude and rewinds, level by level; then trains like `singleshot`."""
    model, batches = torch_loops.dense(layers), torch_loops.batched(data, loader)
    kept = [torch.ones_like(p) for p in model.parameters()]
    for level in range(1, levels + 1):
        torch_loops.fit(model, kept, batches, level_epochs, fused)
        scores = [p.abs() for p in model.parameters()]
        kept = torch_loops.select(scores, density ** (level / levels), kept)
        model = torch_loops.dense(layers)
    return _result(kept, torch_loops.fit(model, kept, batches, epochs, fused))


def synflow(layers: Layers, data: Data, density: float, *, rounds: int = 100) -> Result:
    """Prunes without training (Tanaka et al. 2020, https://arxiv.org/abs/2006.05467)."""
    model = torch_loops.dense([(abs(kernel), abs(bias)) for kernel, bias in layers])
    parameters, ones = list(model.parameters()), torch.ones(1, data[0].shape[1])
    kept = [torch.ones_like(p) for p in parameters]
    for index in range(1, rounds + 1):
        gradients = torch.autograd.grad(model(ones).sum(), parameters)
        scores = [(p * g).abs() for p, g in zip(parameters, gradients, strict=True)]
        kept = torch_loops.select(scores, density ** (index / rounds), kept)
        torch_loops.prune(model, kept)
    return _result(kept, [])


def edge_popup(
    layers: Layers,
    data: Data,
    density: float,
    *,
    epochs: int = 10,
    loader: str = "dataloader",
    ranking: str = "sort",
) -> Result:
    """Learns what to keep in every array (Ramanujan et al. 2020, https://arxiv.org/abs/1911.13299).

    The published code sorts; ranking "topk" is faster.
    """
    popups = [torch_loops.PopupLinear(*layer, density, ranking) for layer in layers]
    model, loss = torch_loops.chain(popups), torch_loops.ScaleFreeLoss()
    batches = torch_loops.batched(data, loader)
    learned = [p for p in [*model.parameters(), *loss.parameters()] if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.1, momentum=0.9, weight_decay=5e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * len(batches)))
    losses = torch_loops.train(model, loss, optimizer, batches, epochs, scheduler=cosine)
    with torch.no_grad():
        return _result([mask for popup in popups for mask in popup.masks()], losses)


def ensemble(layers: Layers, data: Data, density: float, *, epochs: int = 10) -> Result:
    """Prunes and trains several networks at once, each like `singleshot`, with `torch.func.vmap`.

    Arrays have a leading axis over networks, and losses are means over them.
    """
    networks = [[(kernel[i], bias[i]) for kernel, bias in layers] for i in range(len(data[1]))]
    models = [torch_loops.dense(network) for network in networks]
    kept = [torch_loops.select([p.abs() for p in m.parameters()], density) for m in models]
    losses = torch_loops.fit_together(models, kept, data, epochs)
    return _result(kept[0], [sum(values) / len(values) for values in losses])


WORKLOADS: dict[str, Callable[..., Result]] = {
    run.__name__: run for run in (singleshot, multishot, synflow, edge_popup, ensemble)
}


def _result(kept: Tensors, losses: list[float]) -> Result:
    arrays = [mask.bool().numpy() for mask in kept]
    mask = [(weight.T, bias) for weight, bias in zip(arrays[::2], arrays[1::2], strict=True)]
    return {"loss": losses[-1] if losses else None, "losses": losses, "mask": mask}


def _read(path: str) -> tuple[Layers, Data, Layers]:
    """Reads (layers, data, mask) from an .npz; the mask is empty if the file has none."""
    with np.load(path) as file:
        arrays = dict(file)

    def layers(kind: str) -> Layers:
        count = sum(name.startswith(f"{kind}kernel_") for name in arrays)
        return [(arrays[f"{kind}kernel_{i}"], arrays[f"{kind}bias_{i}"]) for i in range(count)]

    x, y = arrays["x"].astype(np.float32), arrays["y"]
    y = y.astype(np.int64 if np.issubdtype(y.dtype, np.integer) else np.float32)
    return layers(""), (x, y), layers("mask_")


def _answer(
    layers: Layers,
    data: Data,
    mask: Layers,
    *,
    workload: str,
    density: float,
    seed: int = 0,
    repeat: int = 1,
    given_mask: bool = False,
    networks: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Runs a request `repeat` times, with seeds seed, seed + 1, ...; losses are of the last."""
    first: Any = 0 if networks is None else slice(networks)
    layers, mask = ([(k[first], b[first]) for k, b in pairs] for pairs in (layers, mask))
    data = (data[0][first], data[1][first])
    if given_mask and not mask:
        raise ValueError("given_mask needs an .npz with mask_kernel_0, mask_bias_0, and so on.")
    if given_mask:
        options["mask"] = mask
    wall, process = time.perf_counter(), time.process_time()
    for index in range(repeat):
        torch.manual_seed(seed + index)
        found = WORKLOADS[workload](layers, data, density, **options)
    process, wall = time.process_time() - process, time.perf_counter() - wall
    found["kept"] = sum(int(array.sum()) for pair in found.pop("mask") for array in pair)
    seconds = {"process_seconds": process / repeat, "wall_seconds": wall / repeat}
    return seconds | found | {"threads": torch.get_num_threads(), "torch": torch.__version__}


def main() -> None:
    """Answers requests until stdin ends; see the top of this file."""
    torch.set_num_threads(1)
    arrays = None
    for line in sys.stdin:
        try:
            if arrays is None:
                arrays = _read(line.strip())
                continue
            reply = _answer(*arrays, **json.loads(line))
        except Exception as error:  # the parent decides how to handle errors
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)
        if arrays is None:
            break


if __name__ == "__main__":
    main()
