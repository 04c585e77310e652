"""Media that rows of an evaluation's batch share: encoded once each, their results for every row.

Such a batch has the plain fields of the contract, and beside them `shared_<field> [M, ...]`, the
media once each, and `medium int32 [B]`, which of them each row is of. A task that reads the plain
field does what it would do of any batch; one that encodes by `for_rows` encodes M media in place of
B.
"""

from collections.abc import Callable

import jax

from mplug2_jax.contracts.streams import MEDIUM, SHARED, shared
from mplug2_jax.model.rows import Shared, for_each
from mplug2_jax.parallel.sharding import take_shared

Array = jax.Array
Batch = dict[str, Array]


def once(function: Callable[[Batch], Array], batch: Batch, field: str) -> Array | Shared:
    """`function` of each medium once, as the model reads it for the rows that share it.

    Args:
      function: of a batch whose `field` are the media `[M, ...]`, to tokens `[M, S, D]`, of each
        medium by itself; it reads no other field, for those have B rows.
      batch: with the field `[B, ...]`.
      field: of the batch.

    Returns:
      Tokens `[B, S, D]`, or those of the media and which of them each row is of.
    """
    plain = {name: x for name, x in batch.items() if not name.startswith(SHARED)}
    if shared(field) not in batch:
        return function(plain)
    return Shared(function(plain | {field: batch[shared(field)]}), batch[MEDIUM])


def for_rows(function: Callable[[Batch], Array], batch: Batch, field: str) -> Array:
    """As `once`, the results for every row, `[B, ...]`, whatever they are of a medium."""
    return for_each(once(function, batch, field))


@jax.jit
def _rows(media: Batch, medium: Array) -> Batch:
    return {field: take_shared(x, medium) for field, x in media.items()}


def with_rows(batch: Batch) -> Batch:
    """A batch as it was read, with the plain fields of media that its rows share."""
    media = {name.removeprefix(SHARED): x for name, x in batch.items() if name.startswith(SHARED)}
    return batch | _rows(media, batch[MEDIUM]) if media else batch
