"""The universal layers: one set of weights through which text and vision both go.

With `universal_sharing` "separate" (an ablation) each modality has a set of its own.

Self-attention and MLP are shared; cross-attention is used by the vision path alone, where a few
latent queries read the visual features, so that a layer costs O(S) in the visual length S.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.layers import BERT_EPS, Dropout, bert_init, remat_module
from mplug2_jax.model.text import transformer_layer
from mplug2_jax.parallel.sharding import shard_batch

Array = jax.Array


class UniversalLayers(nn.Module):
    """Both paths over the same layers.

    `universal_variant` "release": self-attention, then cross-attention; text comes out as it is.
    "figure" (paper, Figure 2): the queries cross-attend first; text has an outer residual.

    Attributes:
      config: the model's sizes and the variant.
    """

    config: ModelConfig

    def setup(self):
        config = self.config
        figure = config.universal_variant == "figure"
        build = transformer_layer(config, cross_first=figure)
        cls = remat_module(build.func, config.remat.universal)

        def layers():
            # Laid out, not scanned: there are few, and the vision path treats each differently.
            return [cls(**build.keywords) for _ in range(config.universal_layers)]

        self.layers = layers()
        if config.universal_sharing == "separate":
            self.text_layers = layers()
        self.norm = nn.LayerNorm(epsilon=BERT_EPS, dtype=config.compute_dtype)
        self.drop = Dropout(config.dropout)

    def text(self, x: Array, mask: Array) -> Array:
        """The text path: `x [B, L, D]`, `mask bool [B, L]` to `[B, L, D]`."""
        start, config = x, self.config
        layers = self.text_layers if config.universal_sharing == "separate" else self.layers
        for layer in layers:
            x, _ = layer(x, None, mask[:, None, None, :])
        return start + x if config.universal_variant == "figure" else x

    @nn.compact
    def vision(self, features: Array) -> Array:
        """The vision path: `features [B, S, D]` to the visual embedding `[B, S, D]`.

        The latents read the features in every layer but the last, where the roles swap: the
        features read the latents, which gives the output the features' length.
        """
        config, batch = self.config, features.shape[0]
        # Here, so that a task of text alone does not have them.
        latents = self.param("latents", bert_init(config.width), (config.latents, config.width))
        x = jnp.broadcast_to(latents, (batch, *latents.shape)).astype(features.dtype)
        x = shard_batch(x)  # or the parameter's own sharding would spread to all that follows
        for layer in self.layers[:-1]:
            x, _ = layer(x, None, None, features)
        x, _ = self.layers[-1](features, None, None, x)
        return self.drop(self.norm(features + x))
