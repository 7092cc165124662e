"""Networks: dense chains, convolutional networks, and wirings, which say how layers connect."""

from plantjax.nets import wirings
from plantjax.nets.batch_norm import Network, fold
from plantjax.nets.chains import (
    MLP,
    apply,
    init,
    is_chain,
    layer_name,
    layers,
    rescale,
    rescale_to_he,
    widths,
)
from plantjax.nets.convnets import RESNETS, SHORTCUTS, VGGS, resnet, vgg
from plantjax.nets.schemes import SCHEMES
from plantjax.nets.wirings import Wiring

__all__ = [
    "MLP",
    "RESNETS",
    "SCHEMES",
    "SHORTCUTS",
    "VGGS",
    "Network",
    "Wiring",
    "apply",
    "fold",
    "init",
    "is_chain",
    "layer_name",
    "layers",
    "rescale",
    "rescale_to_he",
    "resnet",
    "vgg",
    "widths",
    "wirings",
]
