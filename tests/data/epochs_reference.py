"""Records of unequal numbers of items, and the plain list of what an epoch over them has."""

from data.demo.texts import COLOURS, DIGITS
from mplug2_jax.contracts.streams import MEDIA

SAID = [f"{colour} {digit}" for colour in COLOURS for digit in DIGITS]
# Unequal, some without any: by split, how many each record has.
COUNTS = {"train": (3, 0, 1, 7, 2, 0, 1, 5, 1, 4) * 4, "val": (2, 0, 6), "few": (1, 1)}


def listed(counts, over) -> list[tuple[int, int | None]]:
    """A slow, plain list of what comes up once an epoch; of one that is damaged (-1) one item."""
    if over == MEDIA:
        return [(record, None) for record in range(len(counts))]
    return [(record, item) for record, count in enumerate(counts)
            for item in range(1 if count < 0 else count)]
