"""How a checkpoint's tensors become our parameters, and gradients its layout again.

A `Slot` says where one tensor of a checkpoint goes: a parameter, its place in a stack of equal
layers, the transform of its axes. Together they must cover the checkpoint's used names and our
parameters exactly; anything else is an error that lists the names.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mplug2_jax.convert.stored import BFLOAT16, CheckpointFileError, StoredTensor

Shape = tuple[int, ...]
LISTED = 20  # names that an error lists of each kind; more are listed with a * for numbers


class Transform(NamedTuple):
    """A rearrangement between a checkpoint's tensor and our parameter, both ways.

    Attributes:
      forward, backward: theirs -> ours and back; `backward` gets their shape too.
      shape: their shape, of ours.
    """

    forward: Callable[[np.ndarray], np.ndarray]
    backward: Callable[[np.ndarray, Shape], np.ndarray]
    shape: Callable[[Shape], Shape]


SAME = Transform(lambda x: x, lambda x, shape: x, lambda s: s)
# Dense kernels: theirs [out, in], ours [in, out].
DENSE = Transform(lambda x: x.T, lambda x, shape: x.T, lambda s: (s[1], s[0]))
# 1x1x1 convolutions: theirs [out, in, 1, 1, 1].
POINTWISE = Transform(lambda x: x[:, :, 0, 0, 0].T, lambda x, shape: x.T.reshape(shape),
                      lambda s: (s[1], s[0], 1, 1, 1))
# Depthwise over time: theirs [D, 1, 3, 1, 1], ours [3, D].
DEPTHWISE = Transform(lambda x: x[:, 0, :, 0, 0].T, lambda x, shape: x.T.reshape(shape),
                      lambda s: (s[1], 1, s[0], 1, 1))


def patches(patch: int, depth: int | None, ours: int = 0) -> Transform:
    """The patch embedding: theirs `[D, 3, (depth,) p, p]`, ours `[depth * p * p * 3, D]`.

    Args:
      patch: p.
      depth: frames of their kernel; None where theirs is a 2-D convolution.
      ours: frames of our kernel where theirs is 2-D: it becomes the middle one, zeros beside it.
    """
    middle = (patch, patch) if depth is None else (depth, patch, patch)

    def forward(x):
        kernel = np.moveaxis(x, (0, 1), (-1, -2)).reshape(-1, x.shape[0])
        if ours > 1:
            zeros = np.zeros_like(kernel)
            kernel = np.concatenate([kernel if k == ours // 2 else zeros for k in range(ours)])
        return kernel

    def backward(x, shape):
        return np.moveaxis(x.reshape(*middle, 3, shape[0]), (-1, -2), (0, 1))

    return Transform(forward, backward, lambda s: (s[1], 3, *middle))


class Slot(NamedTuple):
    """Where one tensor of a checkpoint goes.

    Attributes:
      parameter: our path, `text/layers/layer/mlp/wi/kernel`.
      layer: its place in the stack of layers; None for a parameter of its own.
      transform: of the axes.
      part: of how many equal parts of their first axis it is which, as `(which, of)`.
    """

    parameter: str
    layer: int | None = None
    transform: Transform = SAME
    part: tuple[int, int] = (0, 1)


Layout = dict[str, tuple[Slot, ...]]  # by the checkpoint's name


class WeightsError(CheckpointFileError):
    """Weights that do not fit the model; the message lists the names."""


def their_shapes(layout: Layout, ours: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shape that every name of a layout must have in the checkpoint."""
    shapes = {}
    for name, slots in layout.items():
        slot = slots[0]
        shape = ours[slot.parameter]
        shape = slot.transform.shape(shape if slot.layer is None else shape[1:])
        shapes[name] = (shape[0] * slot.part[1], *shape[1:]) if slot.part[1] > 1 else shape
    return shapes


def check_names(tensors: Mapping[str, StoredTensor], layout: Layout, ours: Mapping[str, Shape],
                source: str, resizable: Iterable[str] = ()) -> None:
    """Every name of the layout is there in its shape, and no other is.

    Args:
      tensors: of the checkpoint, without what is ignored.
      layout: of all that is used.
      ours: shapes of our parameters, by path.
      source: the file, for the message.
      resizable: names whose number of rows may differ.

    Raises:
      WeightsError: lists missing, unknown, misshapen names and those of a wrong dtype.
    """
    expected = their_shapes(layout, ours)
    shared = [name for name in expected if name in tensors]
    misshapen = [f"{name} {tensors[name].shape} instead of {expected[name]}" for name in shared
                 if tensors[name].shape != expected[name] and not (
                     name in resizable and tensors[name].shape[1:] == expected[name][1:])]
    wrong = [f"{name} {tensors[name].dtype}" for name in shared
             if tensors[name].dtype.kind != "f" and tensors[name].dtype != BFLOAT16]
    problems = {"missing": [name for name in expected if name not in tensors],
                "unknown": [name for name in tensors if name not in expected],
                "of another shape": misshapen, "of a dtype that is not floating": wrong}
    if found := [f"{len(names)} {kind}: {shorten(names)}" for kind, names in problems.items()
                 if names]:
        raise WeightsError(f"{source}: the weights do not fit the model: " + "; ".join(found))


def shorten(names: list[str]) -> str:
    """Names in one line; where there are many, those that differ in numbers alone as one."""
    if len(names) <= LISTED:
        return ", ".join(names)
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    return ", ".join(f"{kind} ({len(alike)} of them)" if alike[1:] else alike[0]
                     for kind, alike in kinds.items())


def fill(tensors: Mapping[str, StoredTensor], layout: Layout, ours: Mapping[str, Shape],
         resize: Mapping[str, Callable[[np.ndarray], np.ndarray]],
         source: str) -> dict[str, np.ndarray]:
    """Our parameters, float32, by path: each allocated once, filled tensor by tensor.

    Args:
      tensors, layout, ours: as `check_names` has checked them.
      resize: what is done first to some names' tensors.
      source: the file, for the message.

    Raises:
      WeightsError: an infinite number, or none, or one too large for float32.
    """
    result = {path: np.empty(ours[path], np.float32)
              for slots in layout.values() for path in dict.fromkeys(s.parameter for s in slots)}
    for name, slots in layout.items():
        # One mapping at a time: pages of the file leave memory with it.
        theirs = tensors[name].load()
        if name in resize:
            theirs = resize[name](np.asarray(theirs, np.float32))
        for slot in slots:
            which, of = slot.part
            size = theirs.shape[0] // of if theirs.ndim else 0
            part = theirs[which * size:(which + 1) * size] if of > 1 else theirs
            target = result[slot.parameter]
            target = target[... if slot.layer is None else (slot.layer, ...)]
            with np.errstate(over="ignore"):  # of float64
                target[...] = slot.transform.forward(part)
            if target.size and not np.isfinite((target.min(), target.max())).all():  # no copy
                raise WeightsError(f"{source}: {name} holds numbers that are not finite in float32")
    return result


def to_theirs(name: str, layout: Layout, ours: Mapping[str, np.ndarray]) -> np.ndarray:
    """One tensor in the checkpoint's layout, of our parameters (or gradients) by path."""
    shape = their_shapes({name: layout[name]}, {k: np.shape(v) for k, v in ours.items()})[name]
    parts = []
    for slot in layout[name]:
        x = np.asarray(ours[slot.parameter])
        x = x if slot.layer is None else x[slot.layer]
        of = slot.part[1]
        parts.append(slot.transform.backward(
            x, (shape[0] // of, *shape[1:]) if of > 1 else shape))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of dicts, of values by path."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *folders, leaf = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return tree


def resize_positions(table: np.ndarray, rows: int) -> np.ndarray:
    """A vision table `[1 + n * n, D]` for another square grid, `[rows, D]`.

    Bilinear with half-pixel centres and no antialiasing; the class token's row stays.

    Raises:
      WeightsError: either number of patches is not a square.
    """
    old, new = (round((n - 1) ** 0.5) for n in (len(table), rows))
    if old * old != len(table) - 1 or new * new != rows - 1:
        raise WeightsError(f"positional embedding of {len(table)} rows: cannot be resized to "
                           f"{rows}; both must be 1 + a square")
    # Output pixel i samples at (i + 1/2) * old / new - 1/2, clamped to the grid.
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.floor(at).astype(int)
    high, weight = np.minimum(low + 1, old - 1), (at - low).astype(table.dtype)
    grid = table[1:].reshape(old, old, -1)
    grid = grid[low] + (grid[high] - grid[low]) * weight[:, None, None]
    grid = grid[:, low] + (grid[:, high] - grid[:, low]) * weight[None, :, None]
    return np.concatenate([table[:1], grid.reshape(new * new, -1)])
