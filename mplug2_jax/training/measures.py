"""What a step says of itself beside its task's figures: norms by module, and what it has read."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mplug2_jax.parallel import hosts
from mplug2_jax.parallel.mesh import feeding_alike
from mplug2_jax.training.optimizer import rates_of

Batch = Mapping[str, Mapping[str, Any]]
# Of a stream's batch: ids [B, L], of several questions [B, Q, L], and their masks.
TEXTS = ("text", "prompt", "target")


def norms(name: str, tree: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Euclidean norms, float32 scalars: `name` of the whole tree, `name/module` of its modules."""
    squares = {module: optax.tree.norm(part, squared=True) for module, part in tree.items()}
    whole = sum(squares.values(), start=jnp.zeros(()))
    return {name: jnp.sqrt(whole)} | {f"{name}/{module}": jnp.sqrt(square)
                                      for module, square in squares.items()}


def tokens(batch: Batch) -> jax.Array:
    """Tokens of a step's texts, a float32 scalar: [CLS] and [SEP] count, padding does not."""
    counts = (jnp.sum(mask.sum(tuple(range(1, mask.ndim))) * rows["example_mask"])
              for rows in batch.values() for text in TEXTS
              if (mask := rows.get(f"{text}_mask")) is not None)
    return sum(counts, start=jnp.zeros((), jnp.int32)).astype(jnp.float32)


def amounts(batch: Batch) -> dict[str, int]:
    """What every step reads: `examples`, `frames` and `positions`, the room of texts, if any.

    Args:
      batch: a global one, arrays or shapes.
    """
    counts = {"examples": 0, "frames": 0, "positions": 0}
    for rows in batch.values():
        counts["examples"] += rows["example_mask"].shape[0]
        if "video" in rows:  # [B, T, H, W, 3]
            counts["frames"] += rows["video"].shape[0] * rows["video"].shape[1]
        counts["positions"] += sum(
            math.prod(rows[text].shape) for text in TEXTS if text in rows)
    return {name: count for name, count in counts.items() if count}


def fetched(metrics: Mapping[str, jax.Array], step: int,
            rates: dict[str, optax.Schedule]) -> dict[str, float]:
    """A step's metrics on the host, and the learning rates, which skipped steps did not move."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    return values | rates_of(step - int(values["skipped_steps"]), rates)


def beside(values: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """The values, and beside each `stream/part` of the loss its `stream/part_weight`."""
    parts = ((name, name.partition("/")[2]) for name in values)
    return {**values, **{f"{name}_weight": float(weights[part])
                         for name, part in parts if part in weights}}


def skipped(counts: Mapping[tuple[str, str], int], mesh: Mesh) -> dict[str, int]:
    """Records skipped so far by all hosts, `skipped`, and `skipped/reason` of each reason.

    Args:
      counts: of this process, by stream and reason.
      mesh: over which batches are spread.
    """
    reasons: Counter[str] = Counter()
    for (_, reason), count in counts.items():
        reasons[reason] += count
    alike = feeding_alike(mesh)
    found = {reason: count // alike for reason, count in hosts.totals(reasons).items()}
    return {"skipped": sum(found.values())} | {
        f"skipped/{reason}": count for reason, count in found.items()}
