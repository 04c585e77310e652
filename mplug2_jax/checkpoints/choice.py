"""Which checkpoint of a folder is taken, and which stay: one host looks, all do as it says."""

from pathlib import Path
from typing import Any

from absl import logging

from mplug2_jax.checkpoints import manifest
from mplug2_jax.checkpoints.errors import CheckpointError, Damaged
from mplug2_jax.checkpoints.folders import DAMAGED, clean, remove, set_aside, stored
from mplug2_jax.parallel import hosts


class Choice:
    """The checkpoints of a folder that may be taken, from the newest good one on.

    All hosts must make it, and call what it offers, except `retire`.

    Args:
      folder: of checkpoints.
      writes: whether the folder is written to: then what is damaged is set aside, for its number
        will come again, and what was never finished is removed.
      begins_anew: whether a run may go on though none is good, for it loses nothing by it.
      most: newer ones are as if they were not there; None for none such.

    Attributes:
      numbers: of the checkpoints, the newest first; the first is whole as far as its files say.

    Raises:
      CheckpointError: there are checkpoints, and none is good. HostError: a host does not see the
        one that is taken, or sees another.
    """

    def __init__(self, folder: Path, writes: bool, begins_anew: bool = False,
                 most: int | None = None):
        self._folder, self._writes, self._begins_anew = folder, writes, begins_anew
        self._most = most
        self._lost: list[str] = []
        self._aside: list[int] = []  # of the lost ones those whose names stand in the way
        if writes and hosts.is_first():
            clean(folder)
        self.numbers: list[int] = []
        self._choose()

    def reject(self, error: Damaged) -> None:
        """Goes on to the next older good one: the first could not be read.

        Raises:
          CheckpointError: there is none.
        """
        self._choose(error.reason)

    def put_aside(self) -> None:
        """Another one was read: sets aside what was damaged, for its number will come again.

        Not before: where a disk fails for a while, all may seem to be.
        """
        numbers, self._aside = self._aside, []
        if hosts.is_first() and self._writes:
            for number in numbers:
                set_aside(self._folder / str(number))

    def _choose(self, damage: str = "") -> None:
        """Looks for the newest good one; `damage` is of the newest, where it is known."""
        found: dict[str, Any] = {}
        if hosts.is_first():
            try:
                found = self._found(damage)
            except OSError as error:  # of the machine: nothing is said of the checkpoints
                found = {"refused": f"{self._folder}: {manifest.said(error)}"}
        found = hosts.said_by_first(found)
        if "refused" in found:
            raise CheckpointError(f"{found['refused']}: its checkpoints cannot be looked at")
        self.numbers, self._lost = found["numbers"], self._lost + found["lost"]
        if not self.numbers and (self._lost or found["aside"]) and not self._begins_anew:
            why = "; ".join(self._lost or [f"{name} is one" for name in found["aside"]])
            raise CheckpointError(
                f"{self._folder}: all its checkpoints are damaged ({why}): mend one, or move the "
                "folder away to begin without it")
        if self.numbers and hosts.several():
            newest = self._folder / str(self.numbers[0])
            known = newest / hosts.said_by_first(manifest.known_by(newest))
            hosts.require_same(str(newest), manifest.digest(known))

    def _found(self, damage: str) -> dict[str, Any]:
        """What the first host sees: the good ones' numbers, and what is wrong with others."""
        numbers, lost = [number for number in stored(self._folder)
                         if self._most is None or number <= self._most], []
        if damage and self.numbers[0] in numbers:  # what is rejected stays there
            numbers = [number for number in numbers if number <= self.numbers[0]]
        else:  # a run has retired it
            damage = ""
        while numbers:
            damage = damage or manifest.damage(self._folder / str(numbers[0]))
            if not damage:
                break
            lost.append((numbers.pop(0), damage))
            damage = ""
        aside = sorted(path.name for path in self._folder.glob(f"*{DAMAGED}*"))
        for number, why in lost:
            logging.warning("%s/%d is damaged and not used: %s", self._folder, number, why)
            self._aside.append(number)
        if not numbers and self._begins_anew:
            self.put_aside()
        return {"numbers": numbers, "lost": [f"{n}: {why}" for n, why in lost], "aside": aside}

    def retire(self, newest: int, keep: int, every: int) -> None:
        """On the first host, removes what need not stay after a new checkpoint.

        Args:
          newest: its number; if it is not good, nothing is removed.
          keep: how many of the newest stay.
          every: those whose number is a multiple of this stay, too; 0 for none.
        """
        self.numbers.insert(0, newest)
        if damage := manifest.damage(self._folder / str(newest)):
            raise Damaged(self._folder / str(newest), damage)
        kept = [number for i, number in enumerate(self.numbers)
                if i < keep or every and number % every == 0]
        for number in set(self.numbers) - set(kept):
            path = self._folder / str(number)
            try:
                if path.exists() and (damage := manifest.damage(path)):
                    logging.warning("%s is damaged, and set aside: %s", path, damage)
                    set_aside(path)
                elif path.exists():
                    remove(path)
            except OSError as error:  # the new one is whole all the same
                logging.warning("%s stays: %s", path, manifest.said(error))
        self.numbers = kept

