"""Public figures of the TPU chips that a plan can be made for."""

import dataclasses

from mplug2_jax.config import ConfigError
from mplug2_jax.training.flops import PEAK_FLOPS

GIB = 2 ** 30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device, which for all of these is a chip.

    Attributes:
      kind: JAX's `device_kind`, a key of `PEAK_FLOPS`.
      hbm: bytes of memory that a program may use, as the compiler states it when it runs out.
      hbm_bandwidth: bytes/s.
      ici_bandwidth: bytes/s over all links of a chip, one direction of each.
    """

    kind: str
    hbm: float
    hbm_bandwidth: float
    ici_bandwidth: float

    @property
    def flops(self) -> float:
        """Dense bf16 peak, FLOP/s."""
        return PEAK_FLOPS[self.kind]


# Bandwidths: "system architecture" pages of Google Cloud's TPU documentation
# (cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e), which give the interconnect in Gbit/s a chip:
# 2,400, 1,600, 4,800, 3,584.
CHIPS = {
    "v4": Chip("TPU v4", 31.25 * GIB, 1228e9, 2400e9 / 8),
    "v5e": Chip("TPU v5e", 15.75 * GIB, 819e9, 1600e9 / 8),
    "v5p": Chip("TPU v5p", 95.74 * GIB, 2765e9, 4800e9 / 8),
    "v6e": Chip("TPU v6e", 31.25 * GIB, 1640e9, 3584e9 / 8),
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology's name such as "v5e:16x16".

    Raises:
      ConfigError: not a name of that form, or of another chip.
    """
    name, _, shape = topology.partition(":")
    if name not in CHIPS or not all(side.isdigit() and int(side) for side in shape.split("x")):
        raise ConfigError(f"--topology={topology}: expected CHIP:AxB or CHIP:AxBxC, the chip one "
                          "of " + ", ".join(CHIPS))
    return CHIPS[name]
