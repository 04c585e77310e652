"""What a task says of the figures that it reports, and of how a person sees one example."""

import dataclasses
import fnmatch
import math
from collections.abc import Callable

import numpy as np

Clip = Callable[[int], np.ndarray | None]  # the frames [T, H, W, 3] of a record's number, if any


@dataclasses.dataclass(frozen=True)
class Figure:
    """Figures of one meaning.

    Attributes:
      name: with "{kind}" for what they are of; "*" stands for any words, such as a question's type.
        In training they are named `stream/figure`.
      meaning: how a person reads it.
      low, high: their range.
      better: "higher", "lower", or "" where neither is.
      headline: whether it stands in summaries, tables and the line of progress.
      baseline: what the last word of its name is replaced by, for the figure that a reader compares
        it with; "" for none.
      slow: whether another program computes it, too slowly for validation.
    """

    name: str
    meaning: str
    low: float = 0.0
    high: float = 1.0
    better: str = "higher"
    headline: bool = False
    baseline: str = ""
    slow: bool = False

    def matches(self, name: str, kind: str = "") -> bool:
        """Whether it speaks of the figure of that name, `kind` being what it is of."""
        return fnmatch.fnmatchcase(name, self.name.format(kind=kind))

    def baseline_of(self, name: str) -> str:
        """The name of the figure to compare `name` with, "" for none."""
        return f"{name.rpartition('_')[0]}_{self.baseline}" if self.baseline else ""


def find(figures: tuple[Figure, ...], name: str, kind: str = "") -> Figure | None:
    """The first of `figures` that speaks of `name`."""
    return next((figure for figure in figures if figure.matches(name, kind)), None)


def logged(name: str, meaning: str, high: float = math.inf, better: str = "lower",
           headline: bool = True) -> Figure:
    """What training logs as `stream/name`; losses, if not said otherwise, in the progress line."""
    return Figure(f"*/{name}", meaning, 0.0, high, better, headline)


@dataclasses.dataclass
class Example:
    """One example of a page.

    Attributes:
      frames: uint8 [T, H, W, 3], the frames the model saw, or None.
      rows: (label, text) such as ("prediction", "a man sings").
      correct: marks it right or wrong; None marks nothing.
      thumbnails: (frames likewise, label, is_match), best first, such as the clips that a retrieval
        query brought up.
    """

    frames: np.ndarray | None = None
    rows: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    correct: bool | None = None
    thumbnails: list[tuple[np.ndarray | None, str, bool]] = dataclasses.field(default_factory=list)
