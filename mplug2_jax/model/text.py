"""The text encoder: BERT's embeddings and the layers that text has to itself.

The universal layers come after it (`universal.py`); together they are the released text encoder.
"""

from functools import partial

import flax.linen as nn
import jax

from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.layers import Embeddings, Repeat, TransformerLayer


def transformer_layer(config: ModelConfig, cross_first: bool = False,
                      causal: bool = False) -> partial[TransformerLayer]:
    """A `TransformerLayer` of the BERT parts' sizes, as a builder for `Repeat`."""
    return partial(TransformerLayer, width=config.width, heads=config.heads,
                   mlp_dim=config.mlp_dim, dropout=config.dropout, dtype=config.compute_dtype,
                   cross_first=cross_first, causal=causal)


def embeddings(config: ModelConfig) -> Embeddings:
    """BERT embeddings in the model's sizes."""
    return Embeddings(config.vocab_size, config.max_positions, config.width, config.dropout,
                      config.compute_dtype)


class TextEncoder(nn.Module):
    """Embeddings and `text_layers` post-norm layers.

    Attributes:
      config: the model's sizes.
    """

    config: ModelConfig

    def setup(self):
        config = self.config
        self.embeddings = embeddings(config)
        if config.text_layers:
            self.layers = Repeat(transformer_layer(config), config.text_layers, config.scan,
                                 config.remat.text)

    def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """`ids int32 [B, L]` and `mask bool [B, L]` (False for padding) to `[B, L, D]`."""
        x = self.embeddings(ids)
        if self.config.text_layers:
            x, _ = self.layers(x, None, mask[:, None, None, :])
        return x

    def word_embeddings(self) -> jax.Array:
        """The table `[V, D]`, for heads that are tied to it."""
        return self.embeddings.word
