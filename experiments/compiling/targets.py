"""Data sheets of the devices that `compile_for.py` compiles for; none of them need be there.

Rates are those of float32 products at the precision that plantjax asks for: a GPU's float32 units,
and a sixth of a TPU's bfloat16 rate, because its compiler makes six passes. The time to start a
kernel is an assumption.
"""

import importlib.util
import os
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from plantjax.sweeps.compiling import AXIS


class Target(NamedTuple):
    """A device, as its data sheet says.

    Attributes:
      platform: "cuda", "tpu" or "cpu".
      topology: its name for one chip, or for the smallest group of them that there is.
      shared: its name for several chips.
      rate: float32 operations a second in matrix products.
      bandwidth: bytes a second to and from its memory.
      memory: bytes.
      launch: seconds to start a kernel, assumed.
      source: of these numbers.
      description: what XLA's compiler for GPUs has to know of the card, a text protobuf.
    """

    platform: str
    topology: str
    shared: str
    rate: float
    bandwidth: float
    memory: float
    launch: float
    source: str
    description: str = ""


H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84929347584 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""

TARGETS = {
    "h100": Target(
        *("cuda", "1x1x1", "1x1x4", 67e12, 3.35e12, 85e9, 3e-6),
        "NVIDIA H100 Tensor Core GPU data sheet, SXM: FP32, memory bandwidth",
        H100,
    ),
    "v4": Target(
        *("tpu", "v4:2x2x1", "v4:2x2x1", 275e12 / 6, 1.2e12, 32e9, 1e-6),
        "Google Cloud, TPU v4: peak compute per chip (bf16), HBM2 capacity and bandwidth",
    ),
    "v5e": Target(
        *("tpu", "v5e:2x2", "v5e:2x2", 197e12 / 6, 0.82e12, 16e9, 1e-6),
        "Google Cloud, TPU v5e: peak compute per chip (bf16), HBM2 capacity and bandwidth",
    ),
    "v6e": Target(
        *("tpu", "v6e:2x2", "v6e:2x2", 918e12 / 6, 1.6e12, 32e9, 1e-6),
        "Google Cloud, TPU v6e: peak compute per chip (bf16), HBM capacity and bandwidth",
    ),
    "cpu": Target("cpu", "", "", 0.1e12, 20e9, 16e9, 0.0, "a core or two of a server, assumed"),
}
PACKAGES = {"cuda": ("jax_cuda12_plugin", "jax_cuda13_plugin"), "tpu": ("libtpu",)}
EXTRAS = {"cuda": "cuda12", "tpu": "tpu"}
"""The packages that have the compiler of a platform, and the extra that brings the first."""


def prepare(platform: str, present: bool = False, images: bool = False) -> None:
    """Sets what the compilers of absent devices look for; call it before JAX has any device.

    Args:
      platform: "cuda", "tpu" or "cpu".
      present: whether the device is there, and will be used.
      images: whether convolutional networks will be compiled.

    Raises:
      ValueError: if no package with the platform's compiler is installed.
    """
    jax.config.update("jax_enable_compilation_cache", False)  # times are those of a first run
    if platform == "cpu" or present:
        return
    if not any(importlib.util.find_spec(name) for name in PACKAGES[platform]):
        raise ValueError(
            f"this target needs the package {PACKAGES[platform][0]}: in an environment of its own "
            f"(it is large), pip install -e '.[experiments,{EXTRAS[platform]}]'."
        )
    os.environ |= {
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # any; else it is looked for, and missed aloud
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    flags = os.environ.get("XLA_FLAGS", "")
    if images and platform == "cuda":  # without a device XLA tries no tiles, and some do not fit
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_enable_triton_gemm=false"
    jax.config.update("jax_platforms", "cpu")


def mesh(target: Target, chips: int, present: bool = False) -> Mesh:
    """A mesh of chips of this kind, or of those present, which share the cells of programs.

    Raises:
      ValueError: if there are fewer chips in its topology, or in this machine.
    """
    devices = list(jax.devices()) if present else _devices(target, chips)
    if len(devices) < chips:
        raise ValueError(f"--chips must be at most {len(devices)} here, got {chips}.")
    return Mesh(np.asarray(devices[:chips]), (AXIS,))


def _devices(target: Target, chips: int) -> list[Any]:
    if target.platform == "cpu":
        return list(jax.devices("cpu"))
    name = target.topology if chips == 1 else target.shared
    if target.platform == "cuda":
        found = topologies.get_topology_desc(
            platform="cuda", topology=name, target_config=target.description
        )
    else:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name)
    return list(found.devices)
