"""A modality of one's own: sound, as log-mel energies in patches of a few frames."""

import io
import wave
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.layers import BERT_EPS, Repeat, bert_init
from mplug2_jax.model.modalities import Modality, register
from mplug2_jax.model.text import transformer_layer

FRAMES, MELS, PATCH, LAYERS = 32, 24, 4, 2


class SpectrogramEncoder(nn.Module):
    """A class token and patches of `PATCH` frames, through layers like those of the text."""
    config: ModelConfig
    remat: str = "none"

    @nn.compact
    def __call__(self, energies):
        """Log energies `[B, T, M]` to `[B, 1 + T / PATCH, D]`."""
        config, dtype = self.config, self.config.compute_dtype
        width, init = config.width, bert_init(config.width)
        x = energies.astype(dtype).reshape(energies.shape[0], -1, PATCH * MELS)  # [B, N, P * M]
        kernel = self.param("patch_kernel", nn.initializers.lecun_normal(), (x.shape[-1], width))
        token = jnp.tile(self.param("class_embedding", init, (1, 1, width)), (x.shape[0], 1, 1))
        x = jnp.concatenate([token.astype(dtype), x @ kernel.astype(dtype)], axis=1)
        places = self.param("position", init, (1 + FRAMES // PATCH, width)).astype(dtype)
        x = nn.LayerNorm(epsilon=BERT_EPS, dtype=dtype, name="norm_pre")(x + places[:x.shape[1]])
        return Repeat(transformer_layer(config), LAYERS, config.scan, self.remat,
                      name="layers")(x)[0]


def mel_energies(samples, rate):
    """The batch field's row, float32 `[FRAMES, MELS]`, of samples `[FRAMES * window]`."""
    frames = samples[:len(samples) // FRAMES * FRAMES].reshape(FRAMES, -1)  # [T, window]
    power = np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]))) ** 2
    mel = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), MELS + 2)[:, None]
    low, centre, high = (700 * (10 ** (mel[i:i + MELS] / 2595) - 1) for i in range(3))
    bins = np.fft.rfftfreq(frames.shape[1], 1 / rate)
    filters = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clip(0)
    return (power @ filters.T).astype(np.float32)


def load(data):
    """The same of the bytes of a WAV file, 16 bit."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            samples = np.frombuffer(file.readframes(-1), np.int16) / 2 ** 15
            return mel_energies(samples, file.getframerate())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"not a WAV file: {error}") from None


def entry(remat="none"):
    return Modality("spectrogram", partial(SpectrogramEncoder, remat=remat), "energies",
                    lambda config: jax.ShapeDtypeStruct((FRAMES, MELS), jnp.float32),
                    lambda energies: jnp.log(energies + 1e-3) / 3, load=load)


register(entry())
