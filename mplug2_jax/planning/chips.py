"""Chips by the names that JAX gives them: their peak FLOP/s, and of some what a plan asks for."""

import dataclasses
import math
import time

import jax
import jax.numpy as jnp
from absl import logging

GIB = 2 ** 30

# A TPU chip's dense bf16 peak, FLOP/s, and its TensorCores, by `device_kind`. A JAX device is one
# core of a v2, v3 or 7x, and both of a v4 or v5p: its `num_cores` says how many. v2 and v3: Jouppi
# et al., 2020 (doi.org/10.1145/3360307); the others: docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p,
# /v6e and /tpu7x. libtpu says "lite" and "TPU v5" where Google's pages say v5e, v6e and v5p.
TPUS = {
    "TPU v2": (46e12, 2), "TPU v3": (123e12, 2), "TPU v4": (275e12, 2),
    "TPU v5 lite": (197e12, 1), "TPU v5e": (197e12, 1), "TPU v5": (459e12, 2),
    "TPU v5p": (459e12, 2), "TPU v6 lite": (918e12, 1), "TPU v6e": (918e12, 1),
    "TPU7x": (2307e12, 2), "TPU v7x": (2307e12, 2),
}

# A GPU's dense bf16 peak, FLOP/s with float32 sums (of V100 and T4, which have no bf16, that of
# float16), by the name that its driver gives and JAX hands on. From NVIDIA's data sheet of each:
# figures with sparsity are halved, those of an HGX board or a rack divided by its GPUs. Of the A10G
# from AWS's sheet, of RTX cards from the white papers of GA102, Ada and RTX Blackwell.
GPUS = {
    "Tesla V100-PCIE-16GB": 112e12, "Tesla V100-PCIE-32GB": 112e12,
    "Tesla V100-SXM2-16GB": 125e12, "Tesla V100-SXM2-32GB": 125e12,
    "Tesla V100-SXM3-32GB": 125e12, "Tesla V100S-PCIE-32GB": 130e12, "Tesla T4": 65e12,
    "NVIDIA A100-PCIE-40GB": 312e12, "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12, "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A10": 125e12, "NVIDIA A10G": 70e12, "NVIDIA A30": 165e12, "NVIDIA A40": 149.7e12,
    "NVIDIA L4": 121e12, "NVIDIA L40": 181.05e12, "NVIDIA L40S": 362.05e12,
    "NVIDIA H100 PCIe": 756.5e12, "NVIDIA H100 NVL": 835.5e12,
    "NVIDIA H100 80GB HBM3": 989.5e12, "NVIDIA H200": 989.5e12, "NVIDIA H200 NVL": 835.5e12,
    "NVIDIA GH200 120GB": 989.5e12, "NVIDIA GH200 480GB": 989.5e12,
    "NVIDIA GH200 144G HBM3e": 989.5e12,
    "NVIDIA B200": 2250e12, "NVIDIA GB200": 2500e12,
    "NVIDIA B300 SXM6 AC": 2250e12, "NVIDIA GB300": 2500e12,
    "NVIDIA RTX A6000": 154.8e12, "NVIDIA RTX 6000 Ada Generation": 364.2e12,
    "NVIDIA GeForce RTX 3090": 71e12, "NVIDIA GeForce RTX 4090": 165.2e12,
    "NVIDIA GeForce RTX 5090": 209.5e12,
}


def peak_of(kind: str, cores: int | None = None) -> float | None:
    """Dense bf16 peak of one JAX device, FLOP/s; None where the table does not have it.

    Args:
      kind: its `device_kind`, to the letter: a part of a GPU (MIG) has a name of its own.
      cores: its `num_cores`, of a TPU.
    """
    if kind in TPUS:
        flops, all_cores = TPUS[kind]
        return flops * cores / all_cores if cores else flops if all_cores == 1 else None
    return GPUS.get(kind)


def peak_flops() -> float | None:
    """Peak FLOP/s of all devices together, of CPUs a measured product's; None where unknown.

    The log then says so in a line.
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        return _measured()
    peak = peak_of(device.device_kind, getattr(device, "num_cores", None))
    if peak is None:
        logging.warning("%r: planning/chips.py has no peak FLOP/s of it, so there will be no MFU",
                        device.device_kind)
        return None
    return peak * jax.device_count()


def _measured() -> float:
    """FLOP/s of a float32 product; simulated devices share the machine, so it is that of all."""
    size = 2048
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    jax.block_until_ready(product(x))
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(product(x))
        best = min(best, time.perf_counter() - start)
    return 2 * size ** 3 / best


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device that a plan can be made for: a TPU chip, or a GPU.

    Attributes:
      kind: JAX's `device_kind`, a key of `TPUS` or `GPUS`.
      hbm: bytes of memory as published (of a v5e, the 15.75 GiB that a program may use; of a GPU
        what its driver says); whether a program fits a TPU is the compiler's to say.
      hbm_bandwidth: bytes/s.
      ici_bandwidth: bytes/s that it sends to others of its slice, or of its machine, over all links
        together.
      dcn_bandwidth: bytes/s that it sends to other slices; 0 where that is not known.
    """

    kind: str
    hbm: float
    hbm_bandwidth: float
    ici_bandwidth: float
    dcn_bandwidth: float = 0.0

    @property
    def flops(self) -> float:
        """Dense bf16 peak, FLOP/s."""
        return GPUS[self.kind] if self.is_gpu else TPUS[self.kind][0]

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.kind in GPUS

    @property
    def usable(self) -> float:
        """Bytes that a recipe may fill: 92 % of a TPU's, and of a GPU's 85 %, for what kernels and
        collectives take there besides (workspaces, NCCL, the context) the compiler does not see."""
        return (0.85 if self.is_gpu else 0.92) * self.hbm


# Bandwidths: the specifications of docs.cloud.google.com/tpu/docs/v5e, /v5p and /v6e, which give
# the interconnect for both directions together (400, 1200 and 800 GB/s), and the data center's
# network of a pod of 256 chips (6.4 and 25.6 Tbit/s) or of a chip (v5p, 50 Gbit/s); for v4 its page
# gives the all-reduce bandwidth of a pod of 4,096, 1.1 PB/s, by which the others agree as well.
# GPUs: NVIDIA's data sheets, NVLink for both directions together (900 and 1,800 GB/s), and memory
# as their drivers say.
CHIPS = {
    "v4": Chip("TPU v4", 32 * GIB, 1200e9, 1.1e15 / 4096),
    "v5e": Chip("TPU v5e", 15.75 * GIB, 819e9, 400e9 / 2, 6.4e12 / 8 / 256),
    "v5p": Chip("TPU v5p", 95 * GIB, 2765e9, 1200e9 / 2, 50e9 / 8),
    "v6e": Chip("TPU v6e", 32 * GIB, 1638e9, 800e9 / 2, 25.6e12 / 8 / 256),
    "h100": Chip("NVIDIA H100 80GB HBM3", 84_942_979_072, 3352e9, 900e9 / 2),
    "h200": Chip("NVIDIA H200", 151_397_597_184, 4800e9, 900e9 / 2),
    "b200": Chip("NVIDIA B200", 191_514_411_008, 7672e9, 1800e9 / 2),
    "gb200": Chip("NVIDIA GB200", 197_897_748_480, 7928e9, 1800e9 / 2),
}
