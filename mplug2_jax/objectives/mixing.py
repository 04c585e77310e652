"""Mixup and CutMix of images and videos, on the device: one partner and one share for a batch.

Zhang et al., 2018 (https://arxiv.org/abs/1710.09412) and Yun et al., 2019
(https://arxiv.org/abs/1905.04899). Row i is mixed with row B - 1 - i, and all frames of a clip
alike. Both are weighted sums of two examples; they differ in where in the frame which weight lies.
"""

import jax
import jax.numpy as jnp

from mplug2_jax.model.vision import normalize_pixels

Array = jax.Array


def draw_weights(key: Array, mixup: float, cutmix: float, height: int, width: int) -> Array:
    """The weight of the row itself at every pixel, float32 `[H, W]`; its partner has the rest.

    Args:
      key: of the step.
      mixup: alpha of the Beta distribution of a weight that is the same everywhere; 0 for none.
      cutmix: alpha of that of the share outside of a random box, which is the partner's; 0 for
        none. With both, each is drawn with probability 1/2.
      height, width: of a frame.
    """
    which, share, row, column = jax.random.split(key, 4)
    pasted = jax.random.bernoulli(which) if mixup and cutmix else bool(cutmix)
    alpha = jnp.where(pasted, cutmix or 1.0, mixup or 1.0)
    share = jax.random.beta(share, alpha, alpha)
    # A box of that share of the area, which the edges may cut off.
    side = jnp.sqrt(1 - share)

    def inside(key, length):
        centre = jax.random.uniform(key) * length
        low, high = (jnp.round(centre + sign * side * length / 2) for sign in (-1, 1))
        return (jnp.arange(length) >= low) & (jnp.arange(length) < high)

    box = inside(row, height)[:, None] & inside(column, width)[None]
    return jnp.where(pasted, 1.0 - box, share)


def mix(video: Array, weights: Array) -> Array:
    """Mixes every row with its partner.

    Args:
      video: `[B, T, H, W, 3]`, uint8, or normalised floating.
      weights: of `draw_weights`.

    Returns:
      `[B, T, H, W, 3]`, normalised and floating.
    """
    video = normalize_pixels(video)
    weights = weights[:, :, None].astype(video.dtype)
    return weights * video + (1 - weights) * video[::-1]
