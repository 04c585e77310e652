"""The fusion encoder: text attends to vision; in connected layers both attend to both."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.layers import Repeat, remat_module
from mplug2_jax.model.rows import Shared, for_each
from mplug2_jax.model.text import transformer_layer

Array = jax.Array


class FusionEncoder(nn.Module):
    """`fusion_layers` layers, every `fusion_stride`-th of them (but the first) connected.

    Attributes:
      config: the model's sizes.
    """

    config: ModelConfig

    def setup(self):
        config = self.config
        build = transformer_layer(config)
        self.layers: list[nn.Module] | Repeat
        if self.connected:
            # Connected layers have no cross-attention, so the layers are not equal: laid out.
            cls = remat_module(build.func, config.remat.fusion)
            self.layers = [cls(**build.keywords) for _ in range(config.fusion_layers)]
        else:
            self.layers = Repeat(build, config.fusion_layers, config.scan, config.remat.fusion)

    @property
    def connected(self) -> tuple[int, ...]:
        """Indices of the connected layers."""
        stride = self.config.fusion_stride
        return tuple(i for i in range(1, self.config.fusion_layers) if i % stride == 0)

    def __call__(self, visual: Array | Shared, text: Array, mask: Array) -> tuple[Any, Array]:
        """Fuses.

        Args:
          visual: `[B, S, D]`, or `Shared` by the texts, R = 1.
          text: `[B * R, L, D]`: R texts for every visual, those of one visual beside each other.
          mask: bool `[B * R, L]`.

        Returns:
          The visual as it came, or `[B * R, S, D]` where connected layers make it depend on the
          text, and the text, `[B * R, L, D]`.
        """
        self_mask = mask[:, None, None, :]
        if isinstance(self.layers, Repeat):
            text, _ = self.layers(text, None, self_mask, visual)
            return visual, text
        seen = for_each(visual)
        seen = jnp.repeat(seen, text.shape[0] // seen.shape[0], axis=0)
        length = seen.shape[1]
        both_mask = jnp.pad(mask, ((0, 0), (length, 0)), constant_values=True)[:, None, None, :]
        for i, layer in enumerate(self.layers):
            if i in self.connected:
                both, _ = layer(jnp.concatenate([seen, text], axis=1), None, both_mask)
                # As released: the visual part is a residual, the text part replaces the text.
                seen, text = seen + both[:, :length], both[:, length:]
            else:
                text, _ = layer(text, None, self_mask, seen)
        return seen, text
