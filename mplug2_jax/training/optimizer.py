"""AdamW with two groups (vision and the rest), warm-up and cosine, gradient clipping.

Beside them what fine-tuning adds: frozen parameters, and learning rates that fall layer by layer.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

from mplug2_jax.parallel.sharding import path_name
from mplug2_jax.training.pace import PLANNED, Pace

# No weight decay on biases, LayerNorm scales, and the temperature, which are not directions.
NO_DECAY = re.compile(r"(bias|scale|temperature)$")
VISION = re.compile(r"^vision/(?!project)")  # the projection to the text width is no part of CLIP
# The layers of a module: stacked in front, or one by one. What comes before them in its module.
LAYERS = re.compile(r"^(\w+)/(?:blocks|(?:\w+_)?layers)(?:_(\d+))?/")
BELOW_LAYERS = re.compile(r"/(embeddings/|class_embedding$|position$|patch_kernel$|norm_pre/"
                          r"|latents$)")
HIGHER = ("universal", "fusion", "decoder")  # each above those before, and all above the encoders


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


def matching(patterns: Sequence[str]) -> re.Pattern[str]:
    """One expression for the paths that one of `patterns` is found in; of none, for no path."""
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or "(?!)")


def hold(params: Any, patterns: Sequence[str]) -> Any:
    """The same parameters, through the frozen ones of which no gradient is computed."""
    if not patterns:
        return params
    frozen = matching(patterns)
    return jax.tree_util.tree_map_with_path(
        lambda path, x: jax.lax.stop_gradient(x) if frozen.search(path_name(path)) else x, params)


def freeze(optimizer: optax.GradientTransformation,
           patterns: Sequence[str]) -> optax.GradientTransformation:
    """The optimizer of all but the parameters whose path matches one of `patterns`.

    Those keep their values, bit for bit, have no moments, and do not count in the clipped norm.
    """
    frozen = matching(patterns)

    def label(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "frozen" if frozen.search(path_name(path)) else "trained", params)

    return optax.multi_transform({"trained": optimizer, "frozen": optax.set_to_zero()}, label)


def layer_factors(params: Any, decay: float) -> Any:
    """`decay ** n` for every parameter, n being how many layers from the output it lies.

    As in BEiT (Bao et al., 2022): heads have n = 0, the topmost layer 1, the layer below it 2, and
    embeddings one more than the lowest layer. Of stacked layers `[L, ...]` a factor each, `[L, 1,
    ...]`.
    """
    counts: dict[str, int] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        if found := LAYERS.search(path_name(path)):
            module, number = found.groups()
            counts[module] = max(counts.get(module, 0),
                                 x.shape[0] if number is None else int(number) + 1)

    def factor(path, x):
        name = path_name(path)
        module = name.split("/")[0]
        if module == "heads":
            return 1.0
        rank = HIGHER.index(module) + 1 if module in HIGHER else 0
        above = sum(counts.get(higher, 0) for higher in HIGHER[rank:])
        own = counts.get(module, 0)
        if found := LAYERS.search(name):
            if found[2] is not None:
                return decay ** (above + own - int(found[2]))
            factors = decay ** (above + own - np.arange(own, dtype=np.float32))
            return factors.reshape(-1, *(1,) * (x.ndim - 1))
        return decay ** (above + own + 1 if BELOW_LAYERS.search(name) else above)

    return jax.tree_util.tree_map_with_path(factor, params)


def scale_layers(decay: float) -> optax.GradientTransformation:
    """Multiplies updates by `layer_factors`."""
    return optax.stateless(lambda updates, params: jax.tree.map(
        lambda update, factor: update * factor, updates, layer_factors(params, decay)))


def make_optimizer(options: Any, pace: Pace = PLANNED
                   ) -> tuple[optax.GradientTransformation, dict[str, optax.Schedule]]:
    """The optimizer of a config's `optimizer` section, and its schedules by their key there.

    One AdamW for all; a group differs by its learning rate alone, so that moments are one tree.
    Schedules are of updates, at the `pace` of the run; its state does not depend on that.
    """
    rest, vision = (pace.of_updates(schedule(peak, options.final_learning_rate,
                                             options.warmup_steps, options.steps))
                    for peak in (options.learning_rate, options.vision_learning_rate))
    optimizer = optax.chain(
        optax.clip_by_global_norm(options.clip_norm),
        optax.scale_by_adam(b1=options.b1, b2=options.b2, eps=1e-8),
        optax.add_decayed_weights(options.weight_decay, mask=decay_mask),
        optax.multi_transform({"vision": optax.scale_by_learning_rate(vision),
                               "rest": optax.scale_by_learning_rate(rest)}, label_by_path),
    )
    if options.frozen:
        optimizer = freeze(optimizer, options.frozen)
    if options.layer_decay != 1:
        optimizer = optax.chain(optimizer, scale_layers(options.layer_decay))
    return optimizer, {"learning_rate": rest, "vision_learning_rate": vision}


def rates_of(step: int, schedules: dict[str, optax.Schedule]) -> dict[str, float]:
    """The learning rates with which a run came to `step` (the first is 1), by their names.

    An optimizer counts the updates before this one: the first has the value at 0.
    """
    return {name: float(rate(step - 1)) for name, rate in schedules.items()}
