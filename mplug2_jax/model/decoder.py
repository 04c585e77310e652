"""The text decoder: causal BERT layers that cross-attend to a memory, with a key-value cache."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.layers import Repeat, TiedHead, unstack
from mplug2_jax.model.rows import Shared
from mplug2_jax.model.text import embeddings, transformer_layer

Array = jax.Array
Cache = dict[str, Any]


def init_cache(config: ModelConfig, batch: int, length: int) -> Cache:
    """An empty cache for `batch` sequences of up to `length` tokens.

    Holds `index` (int32 scalar: tokens so far) and `layers`, for each layer a dict of `self_key
    [batch, H, Dh, length]` and `self_value [batch, H, length, Dh]`. The first `decode` call adds
    the memory's `cross_key [items, H, Dh, S]` and `cross_value [items, H, S, Dh]`.

    Raises:
      ValueError: `length` is larger than the table of positions.
    """
    if length > config.max_positions:
        raise ValueError(f"text of {length} tokens, but model.max_positions is "
                         f"{config.max_positions}: generate fewer or raise it")
    size, dtype = config.width // config.heads, config.compute_dtype
    layer = {"self_key": jnp.zeros((batch, config.heads, size, length), dtype),
             "self_value": jnp.zeros((batch, config.heads, length, size), dtype)}
    return {"index": jnp.zeros((), jnp.int32), "layers": (layer,) * config.decoder_layers}


def unstack_layers(config: ModelConfig, params: dict[str, Any]) -> dict[str, Any]:
    """A model's parameters with the decoder's layers apart, for `decode` calls with a cache."""
    decoder = params["decoder"]
    layers = unstack(decoder["layers"]["layer"], config.decoder_layers)
    return {**params, "decoder": {**decoder, "layers": {"layer": layers}}}


class TextDecoder(nn.Module):
    """Embeddings, `decoder_layers` layers and the tied vocabulary head.

    Attributes:
      config: the model's sizes.
    """

    config: ModelConfig

    def setup(self):
        config = self.config
        self.embeddings = embeddings(config)
        self.layers = Repeat(transformer_layer(config, causal=True), config.decoder_layers,
                             config.scan, config.remat.decoder)
        self.head = TiedHead(config.width, config.vocab_size, config.compute_dtype)

    def __call__(
        self,
        ids: Array,
        mask: Array | None,
        memory: Array | Shared | None,
        memory_mask: Array | None,
        cache: Cache | None = None,
    ) -> tuple[Array, Cache | None]:
        """Next-token logits, for a whole sequence or for the next tokens of a cached one.

        Args:
          ids: int32 `[B, L]`.
          mask: bool `[B, L]`, False for padding; None for none. Ignored with a cache.
          memory: `[B, S, D]`; None where the cache already holds its keys and values.
          memory_mask: bool `[B, S]`, or None for all.
          cache: of `init_cache`, or as the previous call returned it.

        Returns:
          Logits float32 `[B, L, V]` and the cache after these tokens (None without one).
        """
        length = ids.shape[1]
        if cache is None:
            index, entries = jnp.zeros((), jnp.int32), None
            self_mask = None if mask is None else mask[:, None, None, :]
        else:
            index, entries = cache["index"], cache["layers"]
            slots = jnp.arange(entries[0]["self_key"].shape[-1])
            self_mask = (slots <= index + jnp.arange(length)[:, None])[None, None]
        if memory_mask is not None:
            memory_mask = memory_mask[:, None, None, :]
        x = self.embeddings(ids, index)
        x, entries = self.layers(x, entries, self_mask, memory, memory_mask, index)
        logits = self.head(x, self.embeddings.word)
        return logits, None if cache is None else {"index": index + length, "layers": entries}
