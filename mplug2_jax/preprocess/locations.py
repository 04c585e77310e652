"""Boxes as words: the four sides of a box are location tokens, reserved entries of the vocabulary.

A side in 0..1 is rounded to one of `bins` evenly spaced positions, 0 and 1 among them; the token of
position i is the i-th reserved entry (`[unused0]`, `[unused1]`, ... as in BERT's vocabulary). A box
is written `[CLS] x0 y0 x1 y1 [SEP]`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.preprocess.tokenizer import Tokenizer

Array = jax.Array
SIDES = 4


class Locations:
    """The location tokens of a tokenizer.

    Attributes:
      ids: int32 `[bins]`, the token of every position.
      positions: float32 `[bins]`, from 0 to 1.
    """

    def __init__(self, tokenizer: Tokenizer, bins: int):
        if not 2 <= bins <= len(tokenizer.reserved):
            raise ConfigError(f"task.location_bins = {bins}: expected at least 2, and at most "
                              f"{len(tokenizer.reserved)}, the reserved entries [unused0], "
                              "[unused1], ... of the vocabulary")
        self.tokenizer = tokenizer
        self.ids = np.array(tokenizer.reserved[:bins], np.int32)
        self.positions = np.linspace(0, 1, bins, dtype=np.float32)

    def target(self, box: Array, length: int = SIDES + 2) -> tuple[Array, Array]:
        """Target ids int32 and mask bool, `[B, length]`, of `box [B, 4]` in 0..1."""
        place = jnp.round(box.clip(0.0, 1.0) * (len(self.ids) - 1)).astype(jnp.int32)
        ends = [jnp.full((box.shape[0], 1), end, jnp.int32)
                for end in (self.tokenizer.cls_id, self.tokenizer.sep_id)]
        ids = jnp.concatenate([ends[0], jnp.asarray(self.ids)[place], ends[1]], axis=1)
        ids = jnp.pad(ids, ((0, 0), (0, length - SIDES - 2)),
                      constant_values=self.tokenizer.pad_id)
        return ids, jnp.broadcast_to(jnp.arange(length) < SIDES + 2, ids.shape)

    def allowed(self) -> np.ndarray:
        """bool `[4, V]`: what decoding may choose, step by step, so that a box comes out."""
        steps = np.zeros((SIDES, self.tokenizer.vocab_size), bool)
        steps[:, self.ids] = True
        return steps

    def box(self, ids: Array) -> Array:
        """float32 `[B, 4]`, (x0, y0, x1, y1) in 0..1, of `ids [B, 1 + 4]` so decoded.

        Sides that come in the wrong order are swapped.
        """
        table = np.zeros(self.tokenizer.vocab_size, np.float32)
        table[self.ids] = self.positions
        return ordered(jnp.asarray(table)[ids[:, 1:1 + SIDES]])


def ordered(box: Array) -> Array:
    """`[..., 4]` with x0 <= x1 and y0 <= y1."""
    low, high = box[..., :2], box[..., 2:]
    return jnp.concatenate([jnp.minimum(low, high), jnp.maximum(low, high)], axis=-1)
