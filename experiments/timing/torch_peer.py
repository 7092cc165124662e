"""The benchmark's workloads in ordinary PyTorch: one network at a time, one thread, float32.

Run as a worker, `python torch_peer.py`: the first line of stdin is the path of an .npz (x, y,
kernel_0, bias_0, ..., optionally mask_kernel_0, mask_bias_0, ...), every other line a request
`{"workload": .., "density": .., "seed": 0, "repeat": 1, **options of the workload}`. Each request
is answered by one line, `{"process_seconds": .., "wall_seconds": .., "loss": .., ..}` (seconds per
run) or `{"error": ..}`. The parent pins the process and asks for warm-ups.
"""
# mypy: disable-error-code="import-not-found"
# Types are checked where torch is not installed.

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

BATCH_SIZE = 32

Array: TypeAlias = np.ndarray
Layers: TypeAlias = Sequence[tuple[Array, Array]]
"""(kernel [I, O], bias [O]) of every layer, or masks of their shapes."""
Data: TypeAlias = tuple[Array, Array]
"""x float32 [N, I] and y, int64 [N] (labels) or float32 [N, O]."""
Tensors: TypeAlias = list[Tensor]
"""Scores or float masks, one per parameter in the order of `model.parameters()`."""
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
    """Prunes once, by magnitude or to a given mask, and trains what is left.

    Args:
      layers: initial parameters, float32.
      data: to train on.
      density: fraction to keep; a given mask overrules it.
      mask: bool, kept where True.
      epochs: of training.
      loader: a name in `LOADERS`.
      fused: use Adam's fused step, which is faster but not PyTorch's default.

    Returns:
      The Result.
    """
    model, batches = _dense(layers), _batched(data, loader)
    if mask is None:
        kept = _select([p.abs() for p in model.parameters()], density)
    else:
        arrays = [array for kernel, bias in mask for array in (kernel.T, bias)]
        kept = [torch.tensor(array, dtype=torch.float32) for array in arrays]
    return _result(kept, _fit(model, kept, batches, epochs, fused))


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
    """Trains, prunes by magnitude and rewinds, level by level; then trains as `singleshot`."""
    model, batches = _dense(layers), _batched(data, loader)
    kept = [torch.ones_like(p) for p in model.parameters()]
    for level in range(1, levels + 1):
        _fit(model, kept, batches, level_epochs, fused)
        scores = [p.abs() for p in model.parameters()]
        kept = _select(scores, density ** (level / levels), kept)
        model = _dense(layers)
    return _result(kept, _fit(model, kept, batches, epochs, fused))


def synflow(layers: Layers, data: Data, density: float, *, rounds: int = 100) -> Result:
    """Prunes without training (Tanaka et al. 2020, https://arxiv.org/abs/2006.05467)."""
    model = _dense([(abs(kernel), abs(bias)) for kernel, bias in layers])
    parameters, ones = list(model.parameters()), torch.ones(1, data[0].shape[1])
    kept = [torch.ones_like(p) for p in parameters]
    for index in range(1, rounds + 1):
        gradients = torch.autograd.grad(model(ones).sum(), parameters)
        scores = [(p * g).abs() for p, g in zip(parameters, gradients, strict=True)]
        kept = _select(scores, density ** (index / rounds), kept)
        _prune(model, kept)
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
    popups = [_PopupLinear(*layer, density, ranking) for layer in layers]
    model, loss, batches = _chain(popups), _ScaleFreeLoss(), _batched(data, loader)
    learned = [p for p in [*model.parameters(), *loss.parameters()] if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.1, momentum=0.9, weight_decay=5e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * len(batches)))
    losses = _train(model, loss, optimizer, batches, epochs, scheduler=cosine)
    with torch.no_grad():
        return _result([mask for popup in popups for mask in popup.masks()], losses)


class _Subset(torch.autograd.Function):
    """Marks the k highest scores; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, k: int, ranking: str) -> Tensor:
        mask = torch.zeros_like(scores)
        mask.view(-1)[RANKINGS[ranking](scores.flatten(), k)] = 1.0
        return mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


class _PopupLinear(nn.Linear):
    """A frozen layer with learned scores, whose highest sizes are kept."""

    def __init__(self, kernel: Array, bias: Array, density: float, ranking: str) -> None:
        super().__init__(*kernel.shape)
        _load(self, kernel, bias).requires_grad_(False)
        bound = kernel.shape[0] ** -0.5
        self.weight_scores = nn.Parameter(torch.empty_like(self.weight).uniform_(-bound, bound))
        self.bias_scores = nn.Parameter(torch.empty_like(self.bias).uniform_(-bound, bound))
        self.counts = [_number_kept(density, array.size) for array in (kernel, bias)]
        self.ranking = ranking

    def masks(self) -> Tensors:
        pairs = zip((self.weight_scores, self.bias_scores), self.counts, strict=True)
        return [_Subset.apply(scores.abs(), k, self.ranking) for scores, k in pairs]

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.masks()
        return functional.linear(x, self.weight * weight, self.bias * bias)


def _task_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean loss of outputs [B, O]: cross entropy for labels y, else squared error."""
    return (functional.mse_loss if y.is_floating_point() else functional.cross_entropy)(outputs, y)


class _ScaleFreeLoss(nn.Module):
    """The task's loss whatever the size of the outputs; zero gradient where they are dead."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        # Outputs of 1e-13 occur, and their squares would lose precision.
        size = outputs.detach().abs().amax(0 if y.is_floating_point() else (0, 1))
        unit = outputs / torch.where(size > 0, size, 1.0)
        if y.is_floating_point():
            norm = unit.square().sum(0)
            factor = (y * unit).sum(0) / torch.where(norm > 0, norm, 1.0)
            error = (y - factor * unit).square().mean(0)
            beyond = 2.0 * y.square().mean(0) - error  # a negative factor is no way out
            return torch.where(factor >= 0, error, beyond).mean()
        centred = unit - unit.mean(1, keepdim=True)
        power = centred.square().mean()
        unit = torch.where(power > 0, centred, 0.0) / torch.where(power > 0, power, 1.0).sqrt()
        return _task_loss(unit * self.log_scale.exp(), y)


class _Slices:
    """Batches sliced from tensors that are permuted once per epoch."""

    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data) // BATCH_SIZE

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = self.data[torch.randperm(len(self.data))[: len(self) * BATCH_SIZE]]
        return zip(x.split(BATCH_SIZE), y.split(BATCH_SIZE), strict=True)


Batches: TypeAlias = "DataLoader[Any] | _Slices"
WORKLOADS: dict[str, Callable[..., Result]] = {
    run.__name__: run for run in (singleshot, multishot, synflow, edge_popup)
}
LOADERS: dict[str, Callable[[TensorDataset], Batches]] = {
    "dataloader": lambda data: DataLoader(data, BATCH_SIZE, shuffle=True, drop_last=True),
    "slice": _Slices,
}
RANKINGS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "sort": lambda scores, k: scores.argsort(descending=True)[:k],
    "topk": lambda scores, k: scores.topk(k).indices,
}


def _batched(data: Data, loader: str) -> Batches:
    """The data in batches, in a new order every epoch; the last partial batch is dropped."""
    return LOADERS[loader](TensorDataset(*map(torch.from_numpy, data)))


def _dense(layers: Layers) -> nn.Sequential:
    return _chain([_load(nn.Linear(*kernel.shape), kernel, bias) for kernel, bias in layers])


def _chain(linears: Sequence[nn.Linear]) -> nn.Sequential:
    modules = [module for linear in linears for module in (nn.ReLU(), linear)]
    return nn.Sequential(*modules[1:])


@torch.no_grad()
def _load(linear: nn.Linear, kernel: Array, bias: Array) -> nn.Linear:
    linear.weight.copy_(torch.from_numpy(kernel.T))
    linear.bias.copy_(torch.from_numpy(bias))
    return linear


def _number_kept(density: float, n: int) -> int:
    """clip(floor(density n + 0.5), 1, n) in float32, as plantjax counts."""
    return min(max(math.floor(np.float32(density) * np.float32(n) + np.float32(0.5)), 1), n)


@torch.no_grad()
def _select(scores: Tensors, density: float, within: Tensors | None = None) -> Tensors:
    """Float masks of the highest scores of all arrays; what `within` pruned stays pruned."""
    flat = torch.cat([score.flatten() for score in scores])
    if within is not None:
        flat[torch.cat([mask.flatten() for mask in within]) == 0] = -math.inf
    kept = torch.zeros_like(flat)
    kept[flat.topk(_number_kept(density, flat.numel())).indices] = 1.0
    parts = kept.split([score.numel() for score in scores])
    return [part.view_as(score) for part, score in zip(parts, scores, strict=True)]


@torch.no_grad()
def _prune(model: nn.Module, kept: Tensors) -> None:
    for p, mask in zip(model.parameters(), kept, strict=True):
        p.mul_(mask)


def _fit(
    model: nn.Module, kept: Tensors, batches: Batches, epochs: int, fused: bool
) -> list[float]:
    """Trains by Adam; pruned parameters start at zero and get no gradient, so they stay there."""
    _prune(model, kept)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
    masked = list(zip(model.parameters(), kept, strict=True))
    return _train(model, _task_loss, optimizer, batches, epochs, masked)


def _train(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    epochs: int,
    masked: Sequence[tuple[Tensor, Tensor]] = (),
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> list[float]:
    """The training loop; returns the mean loss of every epoch."""
    means = []
    for _ in range(epochs):
        total = 0.0
        for x, y in batches:
            optimizer.zero_grad()
            value = loss(model(x), y)
            value.backward()
            for p, mask in masked:
                if p.grad is not None:
                    p.grad.mul_(mask)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            total += value.item()
        means.append(total / len(batches))
    return means


def _result(kept: Tensors, losses: list[float]) -> Result:
    arrays = [mask.bool().numpy() for mask in kept]
    mask = [(weight.T, bias) for weight, bias in zip(arrays[::2], arrays[1::2], strict=True)]
    return {"loss": losses[-1] if losses else None, "losses": losses, "mask": mask}


def _read(path: str) -> tuple[Layers, Data, Layers]:
    """Reads (layers, data, mask) from an .npz; the mask is empty if the file holds none."""
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
    **options: Any,
) -> dict[str, Any]:
    """Runs a request `repeat` times, with seeds seed, seed + 1, ...; losses are of the last."""
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
        except Exception as error:  # the parent decides what an error ends
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)
        if arrays is None:
            break


if __name__ == "__main__":
    main()
