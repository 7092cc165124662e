"""Masks and parameters in and out: files, and arrays of PyTorch."""

from plantjax.interchange.files import FORMATS, load, save
from plantjax.interchange.torch import from_torch, to_torch

__all__ = ["FORMATS", "from_torch", "load", "save", "to_torch"]
