"""Settings of all tests: no silent promotion or broadcasting, and two CPU devices.

With JAX_ENABLE_X64=1 arrays that tests make may be double, so they may be promoted.
"""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import jax

if not jax.config.jax_enable_x64:
    jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
