"""What of the training media other splits get, and what of the splits may be no intention."""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Mapping

from data.datasets.own.record import Record
from data.datasets.raw import Missing
from data.datasets.split_names import split_name
from mplug2_jax.contracts.errors import DataError

TRAIN = "train"


def read_shares(said: str) -> dict[str, float]:
    """`val=0.1,test=0.05` by split; a number alone is that of `val`.

    Raises:
        DataError: it is none of them, or all of it.
    """
    shares: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in said.split(","))):
        name, mark, number = part.rpartition("=")
        name = split_name(name) if mark else "val"
        try:
            shares[name] = float(number)
        except ValueError:
            shares[name] = 0.0
        if not 0 < shares[name] < 1 or name == TRAIN or not name:
            raise DataError(f"--share={said}: expected such as val=0.1,test=0.1: shares of the "
                            "training media that other splits get")
    if sum(shares.values()) >= 1:
        raise DataError(f"--share={said}: nothing is left for {TRAIN}")
    return shares


def divide(splits: dict[str, list[Record]], shares: dict[str, float], seed: int) -> None:
    """Gives other splits their shares of the training media, in the order of a hash of each name.

    So a medium is of one split whatever is said of it, and whatever the table's order. Media that
    records have together stay together.
    """
    if there := [split for split in shares if split in splits]:
        raise DataError(f"--share={','.join(shares)}: the tables have a split {there[0]!r} already")
    if not shares:
        return
    joined = _joined(record for record in splits.get(TRAIN, ())
                     if not isinstance(record.entry.media, Missing))
    sizes = Counter(joined.values())
    left = sorted(sizes, key=lambda key: hashlib.sha256(
        f"{seed}:{key}".encode("utf-8", "surrogateescape")).digest())
    of: dict[str, str] = {}
    for split, share in shares.items():
        drawn, rest = _drawn(left, sizes, max(1, round(share * len(joined))))
        if not rest:
            raise DataError(f"--share={','.join(shares)}: {len(joined):,} media, in {len(sizes):,} "
                            "groups that records join, cannot be divided")
        of |= dict.fromkeys(drawn, split)
        left = rest
    whole = splits.pop(TRAIN)
    for split in (TRAIN, *shares):
        splits[split] = [one for one in whole
                         if of.get(joined.get(one.members[0], ""), TRAIN) == split]


def _joined(records: Iterable[Record]) -> dict[str, str]:
    """By medium the first, by name, of all that records join it with, of itself alone or not."""
    above: dict[str, str] = {}

    def first(key: str) -> str:
        while above.setdefault(key, key) != key:
            above[key] = above[above[key]]
            key = above[key]
        return key

    for record in records:
        low, *rest = sorted({first(key) for key in record.members})
        above.update(dict.fromkeys(rest, low))
    return {key: first(key) for key in list(above)}


def _drawn(keys: list[str], sizes: Mapping[str, int], count: int) -> tuple[list[str], list[str]]:
    """The first of the keys that have so many media together, at least one; and the other keys."""
    drawn: list[str] = []
    for key in keys:
        if sizes[key] <= count:
            drawn.append(key)
            count -= sizes[key]
    if not drawn and keys:
        drawn = [min(keys, key=sizes.__getitem__)]
    taken = set(drawn)
    return drawn, [key for key in keys if key not in taken]


def warn(splits: dict[str, list[Record]]) -> None:
    """Says what of the splits may be no intention."""
    where: dict[str, set[str]] = {}
    names: dict[str, str] = {}
    for split, records in splits.items():
        for record in records:
            for key in record.members:
                names.setdefault(key, record.entry.id)
                where.setdefault(key, set()).add(split)
        kinds = Counter(one.entry.kind for one in records
                        if not isinstance(one.entry.media, Missing))
        if len(kinds) > 1:
            said_kinds = ", ".join(f"{count:,} of {kind}" for kind, count in kinds.items())
            _say(f"{split} holds {said_kinds}: a stream reads one kind; give each a table")
    shared = [key for key, of in where.items() if len(of) > 1]
    if shared:
        _say(f"{len(shared):,} media stand in several splits, the first: {names[shared[0]]}")


def _say(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr, flush=True)
