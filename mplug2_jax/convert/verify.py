"""Compares what this implementation computes with every array of a golden set."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from mplug2_jax.convert.golden import (
    CLS_ID,
    INPUTS,
    SEP_ID,
    Arrays,
    GoldenSet,
    compute,
    read_set,
)

# Float32 on a CPU: relative L2 error; of gradients; absolute, of scores and probabilities.
RELATIVE, GRADIENT, ABSOLUTE = 1e-5, 1e-4, 1e-4
# No single number may be further off than this many times what the whole array may be on average:
# the norm of a large array hides one wrong number.
SINGLE = 10
SCORES, IDS = ("beam_scores", "rank_probs"), ("beam_ids", "rank_ids")
SETTINGS = ("beam_size", "min_length", "max_length")


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      name: of the array.
      measure: what `error` is.
      error: None where there is nothing to measure.
      tolerance: of it.
      fault: what is wrong; empty if the array passes.
    """

    name: str
    measure: str
    error: float | None
    tolerance: float | None
    fault: str


def verify(prefix: str, drop: Iterable[str] = ()) -> list[Row]:
    """Reads a set, computes it, compares it.

    Args:
      prefix: of the set's files.
      drop: as of `golden.compute`.

    Raises:
      ValueError: the set or its weights cannot be used; the message says why.
    """
    golden = read_set(prefix)
    return compare(golden, compute(golden, drop))


def compare(golden: GoldenSet, computed: Arrays) -> list[Row]:
    """A row for every array of the set.

    Args:
      golden: the expected values.
      computed: of `compute`.
    """
    return [Row(name, "input", None, None, input_fault(golden, name)) if name in INPUTS
            else compare_one(name, value, computed[name], golden.pad_id)
            for name, value in golden.arrays.items()]


def compare_one(name: str, expected: np.ndarray, found: np.ndarray, pad_id: int) -> Row:
    """Compares one output by the measure of its kind."""
    if name == "beam_ids":
        expected, found = same_length(expected, found, pad_id)
    if expected.shape != found.shape:
        return Row(name, "shape", None, None, f"shape {found.shape}, expected {expected.shape}")
    if name in IDS:
        wrong = int((expected != found).sum())
        return Row(name, "wrong ids", wrong, 0, f"{wrong} ids differ" if wrong else "")
    expected, found = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    difference = np.abs(expected - found)
    if name in SCORES:
        error, tolerance, measure = float(difference.max(initial=0)), ABSOLUTE, "absolute"
        if name == "rank_probs" and error <= tolerance:
            # A probability's logarithm is a score, so small probabilities are held to that too.
            with np.errstate(all="ignore"):
                logs = np.abs(np.log(expected) - np.log(found))
            logs = np.where((expected == 0) & (found == 0), 0, logs)
            worst = float(logs.max(initial=0))
            if not worst <= SINGLE * tolerance:
                return Row(name, "absolute, of logs", worst, SINGLE * tolerance,
                           f"log-probabilities off by {worst:.1e}")
    else:
        measure, tolerance = "relative L2", GRADIENT if name.startswith("grad") else RELATIVE
        norm = np.linalg.norm(expected)
        error = float(np.linalg.norm(difference) / norm) if norm else float(difference.max())
        single = float(difference.max(initial=0) * expected.size ** 0.5 / norm) if norm else 0.0
        if error <= tolerance and not single <= SINGLE * tolerance:
            return Row(name, "largest / RMS", single, SINGLE * tolerance,
                       f"one number is off by {single:.1e} of the array's RMS")
    passed = error <= tolerance  # False for NaN
    return Row(name, measure, error, tolerance, "" if passed else f"off by {error:.1e}")


def same_length(expected: np.ndarray, found: np.ndarray, pad_id: int,
                ) -> tuple[np.ndarray, np.ndarray]:
    """Both padded to the longer one."""
    if expected.ndim != 2 or found.ndim != 2:
        return expected, found
    length = max(expected.shape[1], found.shape[1])
    expected, found = (np.pad(x, ((0, 0), (0, length - x.shape[1])), constant_values=pad_id)
                       for x in (expected, found))
    return expected, found


def input_fault(golden: GoldenSet, name: str) -> str:
    """What is wrong with an input, where the outputs alone might not show it."""
    value = golden.arrays[name]
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        return "holds numbers that are not finite"
    if name.endswith("mask") and not np.isin(value, (0, 1)).all():
        return "holds numbers other than 0 and 1"
    if name in SETTINGS:
        wanted = golden.facts["config"].get(name, int(value))
        return "" if int(value) == wanted else f"is {int(value)}, but {wanted} in the json"
    if name == "rank_k":
        best = golden.arrays.get("rank_ids", np.zeros((1, int(value))))
        return "" if best.shape[1] == int(value) else f"is {int(value)}, rank_ids has {best.shape}"
    if name == "prompt_length":
        longest = golden.arrays["answer_ids"].shape[1]
        return "" if 1 <= int(value) < longest else f"is {int(value)}: not within the answers"
    if name.endswith(("_ids", "_mask")):
        return text_fault(golden, name.rsplit("_", 1)[0])
    return ""


def text_fault(golden: GoldenSet, name: str) -> str:
    """What is wrong with a text: it is [CLS] ... [SEP] and padding, and the mask says which."""
    ids, mask = (golden.arrays.get(f"{name}_{part}") for part in ("ids", "mask"))
    if ids is None or mask is None or ids.shape != mask.shape or ids.ndim != 2:
        return f"{name}_ids and {name}_mask are not there in one shape [B, L]"
    mask = mask.astype(bool)
    if (ids[~mask] != golden.pad_id).any():
        return f"{name}_ids is not padding where {name}_mask is 0"
    if (np.diff(mask.astype(int), axis=1) > 0).any() or not mask[:, 0].all():
        return f"{name}_ids has padding before its end"
    last = np.take_along_axis(ids, mask.sum(axis=1, keepdims=True) - 1, axis=1)
    if (ids[:, 0] != CLS_ID).any() or (last != SEP_ID).any():
        return f"{name}_ids is not [CLS] ... [SEP]"
    return ""


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines: list[Any] = [("array", "measure", "error", "tolerance", "")]
    for row in rows:
        figures = ["-" if x is None else f"{x:.1e}" for x in (row.error, row.tolerance)]
        lines.append((row.name, row.measure, *figures,
                      f"FAIL: {row.fault}" if row.fault else "pass"))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in
                               zip(line, (*widths, 0), strict=True)).rstrip() for line in lines)
