"""AdamW with two groups (vision and the rest), warm-up and cosine, gradient clipping."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import optax

from mplug2_jax.training.sharding import path_name

# No weight decay on biases, LayerNorm scales, and the temperature, which are not directions.
NO_DECAY = re.compile(r"(bias|scale|temperature)$")
VISION = re.compile(r"^vision/(?!project)")  # the projection to the text width is no part of CLIP


def schedule(peak: float, start: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Linear warm-up from `start` to `peak`, then cosine back to `start`, a value a step."""
    return optax.warmup_cosine_decay_schedule(
        init_value=min(start, peak), peak_value=peak, warmup_steps=warmup_steps,
        decay_steps=total_steps, end_value=min(start, peak))


def label_by_path(params: Any) -> Any:
    """"vision" or "rest" for every parameter."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "vision" if VISION.search(path_name(path)) else "rest", params)


def decay_mask(params: Any) -> Any:
    """True for every parameter that weight decay acts on."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not NO_DECAY.search(path_name(path)), params)


def freeze(optimizer: optax.GradientTransformation,
           patterns: Sequence[str]) -> optax.GradientTransformation:
    """The optimizer of all but the parameters whose path matches one of `patterns`.

    Those keep their values, bit for bit, have no moments, and do not count in the clipped norm.
    """
    frozen = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))

    def label(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "frozen" if frozen.search(path_name(path)) else "trained", params)

    return optax.multi_transform({"trained": optimizer, "frozen": optax.set_to_zero()}, label)


def make_optimizer(options: Any) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of a config's `optimizer` section, and its schedule (of the rest's rate).

    One AdamW for all; a group differs by its learning rate alone, so that moments are one tree.
    """
    rest = schedule(options.learning_rate, options.final_learning_rate, options.warmup_steps,
                    options.steps)
    vision = schedule(options.vision_learning_rate, options.final_learning_rate,
                      options.warmup_steps, options.steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(options.clip_norm),
        optax.scale_by_adam(b1=options.b1, b2=options.b2, eps=1e-8),
        optax.add_decayed_weights(options.weight_decay, mask=decay_mask),
        optax.multi_transform({"vision": optax.scale_by_learning_rate(vision),
                               "rest": optax.scale_by_learning_rate(rest)}, label_by_path),
    )
    return freeze(optimizer, options.frozen) if options.frozen else optimizer, rest
