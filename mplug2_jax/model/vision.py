"""The dual-vision encoder: a ViT for which an image is a video of one frame.

Spatial attention stays within a frame; local temporal modules connect a patch to the same patch
of neighbouring frames. With their output projection zero, a fresh encoder is the image ViT.
Shapes: B batch, T frames, N patches a frame, D width. Pre-norm, eps 1e-5, QuickGELU, as CLIP.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.layers import (
    BERT_EPS,
    VISION_EPS,
    Attention,
    Dropout,
    Mlp,
    Repeat,
    StochasticDepth,
    bert_init,
    quick_gelu,
)
from mplug2_jax.parallel.sharding import shard_batch, shard_frames

Array = jax.Array
# CLIP's statistics, of RGB in 0..1.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
dense_init = nn.initializers.lecun_normal()


def normalize_pixels(video: Array) -> Array:
    """uint8 RGB `[..., 3]` to normalised float32; floating input passes, taken as normalised."""
    if jnp.issubdtype(video.dtype, jnp.floating):
        return video
    pixels = video.astype(jnp.float32) / 255.0
    return (pixels - jnp.array(PIXEL_MEAN)) / jnp.array(PIXEL_STD)


def shift_time(x: Array, offset: int) -> Array:
    """`x [B, T, ...]` read `offset` frames later (earlier if negative), zeros outside."""
    if offset == 0:
        return x
    pad = [(0, 0)] * x.ndim
    pad[1] = (max(-offset, 0), max(offset, 0))
    start = max(offset, 0)
    return jnp.pad(x, pad)[:, start:start + x.shape[1]]


class LocalTemporal(nn.Module):
    """The release's local temporal module: D -> D/2, depthwise over 3 frames, D/2 -> D.

    Attributes:
      width: D.
      dtype: of computation.
    """

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The residual to add to the patches `x [B, T, N, D]`."""
        half = self.width // 2
        dense = dict(dtype=self.dtype, kernel_init=dense_init)
        x = nn.LayerNorm(epsilon=VISION_EPS, dtype=self.dtype, name="norm")(x)
        x = nn.Dense(half, name="down", **dense)(x)  # [B, T, N, D/2]
        kernel = self.param("temporal_kernel", nn.initializers.normal(3 ** -0.5), (3, half))
        bias = self.param("temporal_bias", nn.initializers.zeros, (half,))
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        x = jnp.asarray(sum(shift_time(x, k - 1) * kernel[k] for k in range(3))) + bias
        up = nn.Dense(self.width, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="up")
        return up(quick_gelu(x))


class GroupedTemporal(nn.Module):
    """The figure's local temporal module: a temporal convolution for each of G channel groups.

    Groups are concatenated and projected (paper, Figure 2 and section 3.2); video only.

    Attributes:
      width: D.
      groups: G, a divisor of D.
      dtype: of computation.
    """

    width: int
    groups: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The residual to add to the patches `x [B, T, N, D]`."""
        size = self.width // self.groups
        x = nn.LayerNorm(epsilon=VISION_EPS, dtype=self.dtype, name="norm")(x)
        x = x.reshape(*x.shape[:-1], self.groups, size)  # [B, T, N, G, D/G]
        kernel = self.param("temporal_kernel", nn.initializers.normal((3 * size) ** -0.5),
                            (3, self.groups, size, size)).astype(self.dtype)
        bias = self.param("temporal_bias", nn.initializers.zeros, (self.width,))
        x = jnp.asarray(sum(
            jnp.einsum("btngc,gcd->btngd", shift_time(x, k - 1), kernel[k]) for k in range(3)))
        x = x.reshape(*x.shape[:-2], self.width) + bias.astype(self.dtype)
        return nn.Dense(self.width, dtype=self.dtype, kernel_init=nn.initializers.zeros,
                        name="up")(x)


def spread(x: Array, config: ModelConfig) -> Array:
    """Where the residual stream `x [B, T, 1 + N, D]` lies between layers on a mesh."""
    return shard_frames(x) if config.shard_frames else shard_batch(x)


class VisionBlock(nn.Module):
    """One pre-norm block: local temporal, spatial attention, local temporal, MLP.

    Attributes:
      config: the model's sizes and the variant of local temporal modelling.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array, rate: Array | None = None) -> tuple[Array, None]:
        """`x [B, T, 1 + N, D]`, class token first in every frame, to the same shape.

        `rate`, a scalar, is this layer's of stochastic depth.
        """
        config, width = self.config, self.config.vision_width
        dtype, drop = config.compute_dtype, StochasticDepth()

        def temporal(x, name):
            module: GroupedTemporal | LocalTemporal
            if config.local_temporal == "grouped":
                module = GroupedTemporal(width, config.temporal_groups, dtype, name=name)
            else:
                module = LocalTemporal(width, dtype, name=name)
            residual = module(x[:, :, 1:])  # the class tokens never enter
            return x.at[:, :, 1:].add(drop(residual, rate))

        def norm(name):
            return nn.LayerNorm(epsilon=VISION_EPS, dtype=dtype, name=name)

        kind = config.local_temporal
        # The figure's variant leaves images alone; its parameters exist all the same at `init`.
        if kind in ("once", "twice") or (
                kind == "grouped" and (x.shape[1] > 1 or self.is_initializing())):
            x = temporal(x, "temporal_1")
        attention = Attention(width, width // 64, dense_init, dtype, name="attention")
        frames = norm("norm_1")(x).reshape(-1, *x.shape[2:])  # [B * T, 1 + N, D]
        x = x + drop(attention(frames, attention.key_value(frames)).reshape(x.shape), rate)
        if kind == "twice":
            x = temporal(x, "temporal_2")
        mlp = Mlp(width, 4 * width, quick_gelu, dense_init, dtype, name="mlp")
        x = x + drop(mlp(norm("norm_2")(x)), rate)
        return spread(x, config), None


class DualVisionEncoder(nn.Module):
    """Images and videos to one sequence of visual features.

    Attributes:
      config: the model's sizes.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, video: Array) -> Array:
        """Encodes a clip.

        Args:
          video: floating `[B, T, H, W, 3]` of `normalize_pixels`; an image has T = 1.

        Returns:
          `[B, 1 + T' * N, D]` in the width of the text: the mean of the frames' class tokens, then
          all patches frame by frame. T' = T but under temporal downsampling.

        Raises:
          ValueError: H or W is not a multiple of the patch size.
        """
        config, width = self.config, self.config.vision_width
        dtype = config.compute_dtype
        x = self.embed_patches(video.astype(dtype))  # [B, T, N, D]
        grid = video.shape[2] // config.patch_size, video.shape[3] // config.patch_size
        scale = nn.initializers.normal(width ** -0.5)
        token = self.param("class_embedding", scale, (width,)).astype(dtype)
        x = jnp.concatenate([jnp.broadcast_to(token, (*x.shape[:2], 1, width)), x], axis=2)
        x = x + self.position(grid).astype(dtype)  # [B, T, 1 + N, D]
        x = nn.LayerNorm(epsilon=VISION_EPS, dtype=dtype, name="norm_pre")(x)
        x = spread(x, config)
        depth = config.vision_layers
        rates = tuple(config.stochastic_depth * i / max(depth - 1, 1) for i in range(depth)
                      ) if config.stochastic_depth else ()
        blocks = Repeat(partial(VisionBlock, config=config), depth, config.scan,
                        config.remat.vision, rates, name="blocks")
        x, _ = blocks(x)
        x = jnp.concatenate([
            x[:, :, 0].mean(axis=1, keepdims=True),  # [B, 1, D]
            x[:, :, 1:].reshape(x.shape[0], -1, width),  # [B, T * N, D]
        ], axis=1)
        x = nn.LayerNorm(epsilon=VISION_EPS, dtype=dtype, name="norm_post")(x)
        if width != config.width:
            x = nn.Dense(config.width, dtype=dtype, kernel_init=bert_init(config.width),
                         name="project")(x)
            x = nn.LayerNorm(epsilon=BERT_EPS, dtype=dtype, name="project_norm")(x)
            x = Dropout(config.dropout)(x)
        return x

    def embed_patches(self, pixels: Array) -> Array:
        """Cuts `[B, T, H, W, 3]` into patches and projects them: `[B, T', N, D]`.

        One matrix product instead of a 3-D convolution: the kernel covers a whole patch, and with
        temporal downsampling three frames of it, strides and zero padding in time included.
        """
        patch, stride = self.config.patch_size, self.config.temporal_stride
        batch, time, height, width, _ = pixels.shape
        if height % patch or width % patch:
            raise ValueError(f"frames of {height} x {width} pixels do not divide into patches of "
                             f"{patch}: resize them to a multiple of model.patch_size")
        rows, columns = height // patch, width // patch
        x = pixels.reshape(batch, time, rows, patch, columns, patch, 3)
        x = x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(batch, time, rows * columns, patch * patch * 3)
        depth = 3 if stride else 1
        kernel = self.param("patch_kernel", dense_init,
                            (depth * patch * patch * 3, self.config.vision_width))
        if stride:
            x = jnp.concatenate([shift_time(x, k - 1)[:, ::stride] for k in range(3)], axis=-1)
        return x @ kernel.astype(x.dtype)

    def position(self, grid: tuple[int, int]) -> Array:
        """The positional embedding `[1 + N, D]`, its patch part resized to `grid` if it differs."""
        side = self.config.image_size // self.config.patch_size
        width = self.config.vision_width
        table = self.config.position_gain * self.param(
            "position", nn.initializers.normal(width ** -0.5), (1 + side * side, width))
        if grid == (side, side):
            return table
        patches = jax.image.resize(table[1:].reshape(side, side, width), (*grid, width),
                                   method="bilinear", antialias=False)
        return jnp.concatenate([table[:1], patches.reshape(-1, width)])
