"""What tests share: quick compilation, trees as vectors."""

import functools

import jax
import numpy as np

UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

jit = functools.partial(jax.jit, compiler_options=UNOPTIMISED)
"""Compiles in half the time where nothing depends on the last bit; quick tests do so anyway."""


def flat(tree):
    """All leaves as one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
