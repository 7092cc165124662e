"""Networks, losses, selection and the training loops of the PyTorch peer, as usually written.

They train in float32, one network at a time or, with `torch.func`, several at once; `torch_peer.py`
runs the workloads with them.
"""
# mypy: disable-error-code="import-not-found", allow-subclassing-any, allow-untyped-decorators
# These comments let mypy check this file without torch.

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

BATCH_SIZE = 32

Array: TypeAlias = np.ndarray
Layers: TypeAlias = Sequence[tuple[Array, Array]]
"""(kernel [I, O], bias [O]) of every layer, or masks of these shapes."""
Data: TypeAlias = tuple[Array, Array]
"""x float32 [N, I] and y, int64 [N] (labels) or float32 [N, O]."""
Tensors: TypeAlias = list[Tensor]
"""Scores or float masks, one per parameter in the order of `model.parameters()`."""


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


class PopupLinear(nn.Linear):
    """A frozen layer with learned scores, which keeps the weights of the largest ones."""

    def __init__(self, kernel: Array, bias: Array, density: float, ranking: str) -> None:
        """Draws the scores; `ranking` is a name in `RANKINGS`."""
        super().__init__(*kernel.shape)
        _load(self, kernel, bias).requires_grad_(False)
        bound = kernel.shape[0] ** -0.5
        self.weight_scores = nn.Parameter(torch.empty_like(self.weight).uniform_(-bound, bound))
        self.bias_scores = nn.Parameter(torch.empty_like(self.bias).uniform_(-bound, bound))
        self.counts = [_number_kept(density, array.size) for array in (kernel, bias)]
        self.ranking = ranking

    def masks(self) -> Tensors:
        """The float masks of weight and bias."""
        pairs = zip((self.weight_scores, self.bias_scores), self.counts, strict=True)
        return [_Subset.apply(scores.abs(), k, self.ranking) for scores, k in pairs]

    def forward(self, x: Tensor) -> Tensor:
        """Applies the masked layer."""
        weight, bias = self.masks()
        return functional.linear(x, self.weight * weight, self.bias * bias)


def _task_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean loss of outputs [B, O]: cross entropy for labels y, else squared error."""
    return (functional.mse_loss if y.is_floating_point() else functional.cross_entropy)(outputs, y)


class ScaleFreeLoss(nn.Module):
    """The task's loss regardless of the outputs' scale; its gradient is zero for dead outputs."""

    def __init__(self) -> None:
        """Starts with a log scale of 0."""
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of outputs [B, O]."""
        # Outputs of 1e-13 occur, and their squares would lose precision.
        size = outputs.detach().abs().amax(0 if y.is_floating_point() else (0, 1))
        unit = outputs / torch.where(size > 0, size, 1.0)
        if y.is_floating_point():
            norm = unit.square().sum(0)
            factor = (y * unit).sum(0) / torch.where(norm > 0, norm, 1.0)
            error = (y - factor * unit).square().mean(0)
            beyond = 2.0 * y.square().mean(0) - error  # keeps a gradient for negative factors
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
LOADERS: dict[str, Callable[[TensorDataset], Batches]] = {
    "dataloader": lambda data: DataLoader(data, BATCH_SIZE, shuffle=True, drop_last=True),
    "slice": _Slices,
}
RANKINGS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "sort": lambda scores, k: scores.argsort(descending=True)[:k],
    "topk": lambda scores, k: scores.topk(k).indices,
}


def batched(data: Data, loader: str) -> Batches:
    """The data in batches, in a new order every epoch; the last partial batch is dropped."""
    return LOADERS[loader](TensorDataset(*map(torch.from_numpy, data)))


def dense(layers: Layers) -> nn.Sequential:
    """A dense ReLU network with these parameters."""
    return chain([_load(nn.Linear(*kernel.shape), kernel, bias) for kernel, bias in layers])


def chain(linears: Sequence[nn.Linear]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    modules = [module for linear in linears for module in (nn.ReLU(), linear)]
    return nn.Sequential(*modules[1:])


@torch.no_grad()
def select(scores: Tensors, density: float, within: Tensors | None = None) -> Tensors:
    """Float masks of the highest scores of all arrays; entries pruned in `within` stay pruned."""
    flat = torch.cat([score.flatten() for score in scores])
    if within is not None:
        flat[torch.cat([mask.flatten() for mask in within]) == 0] = -math.inf
    kept = torch.zeros_like(flat)
    kept[flat.topk(_number_kept(density, flat.numel())).indices] = 1.0
    parts = kept.split([score.numel() for score in scores])
    return [part.view_as(score) for part, score in zip(parts, scores, strict=True)]


@torch.no_grad()
def prune(model: nn.Module, kept: Tensors) -> None:
    """Sets pruned parameters to zero."""
    prune_to(model.parameters(), kept)


def prune_to(params: Iterable[Tensor], kept: Tensors) -> None:
    """Sets pruned entries of these arrays to zero."""
    for p, mask in zip(params, kept, strict=True):
        p.mul_(mask)


def fit(model: nn.Module, kept: Tensors, batches: Batches, epochs: int, fused: bool) -> list[float]:
    """Trains by Adam; pruned parameters start at zero and get no gradient, so they stay there."""
    prune(model, kept)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
    masked = list(zip(model.parameters(), kept, strict=True))
    return train(model, _task_loss, optimizer, batches, epochs, masked)


def train(
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


@torch.no_grad()  # vmapped gradients need no other ones
def fit_together(
    models: Sequence[nn.Module], kept: Sequence[Tensors], data: Data, epochs: int
) -> list[list[float]]:
    """Trains networks of one shape at once, each like `fit`, but on data of its own.

    Args:
      models: n networks.
      kept: float masks of each network.
      data: x float32 [n, N, I] and labels y int64 [n, N].
      epochs: passes over the data.

    Returns:
      The mean loss of each network [n] in every epoch.
    """
    stacked, buffers = stack_module_state(models)
    params = {name: leaf.detach() for name, leaf in stacked.items()}
    masks = [torch.stack(parts) for parts in zip(*kept, strict=True)]
    base = copy.deepcopy(models[0]).to("meta")

    def loss(params: dict[str, Tensor], buffers: Any, x: Tensor, y: Tensor) -> Tensor:
        return _task_loss(functional_call(base, (params, buffers), (x,)), y)

    gradients = vmap(grad_and_value(loss))
    prune_to(params.values(), masks)
    optimizer = torch.optim.Adam(params.values(), lr=1e-3)
    x, y = map(torch.from_numpy, data)
    steps, rows = y.shape[1] // BATCH_SIZE, torch.arange(len(models))[:, None]
    means = []
    for _ in range(epochs):
        order = torch.rand(y.shape).argsort(1)[:, : steps * BATCH_SIZE]
        batches = (part[rows, order].split(BATCH_SIZE, 1) for part in (x, y))
        total = torch.zeros(len(models))
        for batch in zip(*batches, strict=True):
            slopes, values = gradients(params, buffers, *batch)
            for leaf, slope, mask in zip(params.values(), slopes.values(), masks, strict=True):
                leaf.grad = slope.mul_(mask)
            optimizer.step()
            total += values
        means.append((total / steps).tolist())
    return means


@torch.no_grad()
def _load(linear: nn.Linear, kernel: Array, bias: Array) -> nn.Linear:
    linear.weight.copy_(torch.from_numpy(kernel.T))
    linear.bias.copy_(torch.from_numpy(bias))
    return linear


def _number_kept(density: float, n: int) -> int:
    """clip(floor(density n + 0.5), 1, n) in float32, as plantjax counts."""
    return min(max(math.floor(np.float32(density) * np.float32(n) + np.float32(0.5)), 1), n)
