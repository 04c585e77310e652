"""Public figures of the TPU chips that a plan can be made for."""

import dataclasses

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.planning.flops import PEAK_FLOPS

GIB = 2 ** 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device, which for all of these is a chip.

    Attributes:
      kind: JAX's `device_kind`, a key of `PEAK_FLOPS`.
      hbm: bytes of memory as published (of a v5e, the 15.75 GiB that a program may use); whether a
        program fits is the compiler's to say.
      hbm_bandwidth: bytes/s.
      ici_bandwidth: bytes/s that a chip sends over all its links together.
    """

    kind: str
    hbm: float
    hbm_bandwidth: float
    ici_bandwidth: float

    @property
    def flops(self) -> float:
        """Dense bf16 peak, FLOP/s."""
        return PEAK_FLOPS[self.kind]


# Bandwidths: the specifications of docs.cloud.google.com/tpu/docs/v5e, /v5p and /v6e, which give
# the interconnect for both directions together (400, 1200 and 800 GB/s); for v4 its page gives the
# all-reduce bandwidth of a pod of 4,096, 1.1 PB/s, by which the others agree as well.
CHIPS = {
    "v4": Chip("TPU v4", 32 * GIB, 1200e9, 1.1e15 / 4096),
    "v5e": Chip("TPU v5e", 15.75 * GIB, 819e9, 400e9 / 2),
    "v5p": Chip("TPU v5p", 95 * GIB, 2765e9, 1200e9 / 2),
    "v6e": Chip("TPU v6e", 32 * GIB, 1638e9, 800e9 / 2),
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology's name such as "v5e:16x16".

    Raises:
      ConfigError: not a name of that form, or of another chip.
    """
    name, _, shape = topology.partition(":")
    shape = shape.removesuffix("_twisted")
    if name not in CHIPS or not all(side.isdigit() and int(side) for side in shape.split("x")):
        raise ConfigError(f"--topology={topology}: expected CHIP:AxB or CHIP:AxBxC, the chip one "
                          "of " + ", ".join(CHIPS))
    return CHIPS[name]
