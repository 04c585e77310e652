"""A modality of one's own: sound, as log-mel energies in patches of a few frames.

Where this file's folder is on PYTHONPATH, `common.task("retrieval", modality="spectrogram")` and
every other task with the option reads the batch field `energies` in place of `video`.
"""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.layers import BERT_EPS, Repeat, bert_init
from mplug2_jax.model.modalities import Modality, register
from mplug2_jax.model.text import transformer_layer


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of the encoder; `frames` at most, a multiple of `patch`."""

    frames: int = 32
    mels: int = 24
    patch: int = 4
    layers: int = 2
    remat: str = "none"


class SpectrogramEncoder(nn.Module):
    """A class token and patches of `patch` frames, through layers like those of the text."""

    config: ModelConfig
    sizes: Sizes = Sizes()

    @nn.compact
    def __call__(self, energies):
        """Log energies `[B, T, M]` to `[B, 1 + T / patch, D]`."""
        config, sizes = self.config, self.sizes
        width, dtype, init = config.width, config.compute_dtype, bert_init(config.width)
        x = energies.astype(dtype).reshape(
            energies.shape[0], -1, sizes.patch * sizes.mels)  # [B, N, patch * M]
        kernel = self.param("patch_kernel", nn.initializers.lecun_normal(), (x.shape[-1], width))
        token = self.param("class_embedding", init, (width,)).astype(dtype)
        token = jnp.broadcast_to(token, (x.shape[0], 1, width))
        x = jnp.concatenate([token, x @ kernel.astype(dtype)], axis=1)  # [B, 1 + N, D]
        rows = 1 + sizes.frames // sizes.patch
        x = x + self.param("position", init, (rows, width)).astype(dtype)[:x.shape[1]]
        x = nn.LayerNorm(epsilon=BERT_EPS, dtype=dtype, name="norm_pre")(x)
        return Repeat(transformer_layer(config), sizes.layers, config.scan, sizes.remat,
                      name="layers")(x)[0]


def entry(sizes=Sizes()):
    """What the model has to know of it."""
    return Modality(
        "spectrogram", partial(SpectrogramEncoder, sizes=sizes), "energies",
        lambda config: jax.ShapeDtypeStruct((sizes.frames, sizes.mels), jnp.float32),
        lambda energies: jnp.log(energies + 1e-3) / 3)


def mel_energies(wave, rate, sizes=Sizes()):
    """The batch field's row, float32 `[frames, mels]`, of a wave `[frames * window]`."""
    frames = wave.reshape(sizes.frames, -1)
    window = frames.shape[1]
    power = np.abs(np.fft.rfft(frames * np.hanning(window))) ** 2  # [T, 1 + window / 2]
    mel = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), sizes.mels + 2)
    edges = 700 * (10 ** (mel[:, None] / 2595) - 1)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bins = np.fft.rfftfreq(window, 1 / rate)
    filters = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clip(0)
    return (power @ filters.T).astype(np.float32)


register(entry())
