"""Names of splits: `train`, a sum `train+val`, and the two parts of each, `train[held_out]`.

A fixed draw holds out some records of a split; `train[held_out]` are they and `train[rest]` the
others. `data.pipeline` reads such names, and configs are checked by them.
"""

import re
from typing import NamedTuple

from mplug2_jax.contracts.errors import ConfigError

HELD_OUT, REST = "held_out", "rest"
_TERM = re.compile(r"([^\[\]+\s]+)(?:\[([^\[\]+]*)\])?")


class Term(NamedTuple):
    """One split of a sum, or a part of it.

    Attributes:
      name: of the written split.
      part: `HELD_OUT`, `REST`, or "" for the whole.
    """

    name: str
    part: str

    def __str__(self) -> str:
        return f"{self.name}[{self.part}]" if self.part else self.name


def terms(split: str) -> list[Term]:
    """What a name sums up, in its order.

    Raises:
      ConfigError: it is no name of a split, or of a part that there is not.
    """
    found = []
    for text in split.split("+"):
        match = _TERM.fullmatch(text)
        if match is None:
            raise ConfigError(f"split {split!r}: expected a name, a sum such as train+val, or a "
                              f"part such as train[{HELD_OUT}]")
        name, part = match.groups()
        if part is not None and part not in (HELD_OUT, REST):
            raise ConfigError(f"split {split!r}: there is no part {part!r}; expected "
                              f"{name}[{HELD_OUT}] or {name}[{REST}]")
        found.append(Term(name, part or ""))
    return found


def overlap(one: str, other: str) -> Term | None:
    """The first term of `one` that has records in common with `other`; None for none."""
    for term in terms(one):
        for name, part in terms(other):
            if term.name == name and (term.part == part or not (term.part and part)):
                return term
    return None
