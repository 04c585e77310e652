"""Media that rows of an evaluation's batch share: encoded once each, their results for every row.

Such a batch has the plain fields of the contract, and beside them `shared_<field> [M, ...]`, the
media once each, and `medium int32 [B]`, which of them each row is of. A task that reads the plain
field does what it would do of any batch; one that encodes by `for_rows` encodes M media in place of
B.
"""

from collections.abc import Callable

import jax

from mplug2_jax.contracts.streams import MEDIUM, SHARED, shared
from mplug2_jax.parallel.sharding import take_shared

Array = jax.Array
Batch = dict[str, Array]


def for_rows(function: Callable[[Array], Array], batch: Batch, field: str) -> Array:
    """`function(batch[field])`, of each medium once where rows share them.

    Args:
      function: of media `[M, ...]` to `[M, ...]`, of each by itself.
      batch: with the field `[B, ...]`.
      field: of the batch.

    Returns:
      `[B, ...]`.
    """
    if shared(field) not in batch:
        return function(batch[field])
    return take_shared(function(batch[shared(field)]), batch[MEDIUM])


@jax.jit
def _rows(media: Batch, medium: Array) -> Batch:
    return {field: take_shared(x, medium) for field, x in media.items()}


def with_rows(batch: Batch) -> Batch:
    """A batch as it was read, with the plain fields of media that its rows share."""
    media = {name.removeprefix(SHARED): x for name, x in batch.items() if name.startswith(SHARED)}
    return batch | _rows(media, batch[MEDIUM]) if media else batch
