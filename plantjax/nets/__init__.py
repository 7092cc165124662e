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
from plantjax.nets.equinox_modules import from_equinox
from plantjax.nets.modules import Module, from_linen, from_nnx
from plantjax.nets.schemes import SCHEMES
from plantjax.nets.wirings import Wiring

__all__ = [
    "MLP",
    "RESNETS",
    "SCHEMES",
    "SHORTCUTS",
    "VGGS",
    "Module",
    "Network",
    "Wiring",
    "apply",
    "fold",
    "from_equinox",
    "from_linen",
    "from_nnx",
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
