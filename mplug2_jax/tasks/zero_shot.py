"""Zero-shot classification: a pretraining checkpoint's contrastive space, and prompts for classes.

The contrastive head gives each prompt a probability, its softmax over all prompts; a class has the
mean of its prompts' probabilities. So a prompt may also name one of the many things that an example
can be beside its class. Radford et al., 2021 (https://arxiv.org/abs/2103.00020, section 3.1.4)
average features, as prompts that say the same allow: with `task.average = "features"` a class has
the mean of its prompts' features, made of unit length again, as its only prompt. Published
templates are meant for that. Nothing is trained; images and videos alike.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.contracts.options import option
from mplug2_jax.preprocess.classes import class_names, class_prompts
from mplug2_jax.preprocess.text import clean_caption
from mplug2_jax.tasks.base import Array, Batch, Scores, fetch
from mplug2_jax.tasks.base.labels import Labelling, LabelOptions
from mplug2_jax.tasks.base.rows import Counts, Kept, size
from mplug2_jax.tasks.base.sharing import for_rows

AVERAGES = ("probabilities", "features")
ROWS = 64  # prompts or examples a call; all calls alike, so that one compilation serves


@dataclasses.dataclass(frozen=True)
class ZeroShotOptions(LabelOptions):
    """The `task` section."""

    templates: tuple | str = option((), "prompts with '{}' for the class, or a file of them")
    wordings: tuple | str = option((), "what prompts call the classes, in their order ('a | b': "
                                       "two ways), or a file")
    average: str = option("probabilities", "what of its prompts a class has the mean of: "
                                           "'probabilities', or 'features' as CLIP")

    def __post_init__(self):
        super().__post_init__()
        if self.average not in AVERAGES:
            raise ConfigError(f"task.average = {self.average!r}: expected one of "
                              + ", ".join(AVERAGES))
        if self.inputs != "visual":
            raise ConfigError(f"task.inputs = {self.inputs!r}: zero-shot classification is of "
                              "'visual'")


class ZeroShot(Labelling):
    """The likeliest class of an image or video by prompts (`task.templates`, `task.wordings`).

    Several views of an example have the logarithms of their probabilities averaged.
    """

    Options = ZeroShotOptions
    card = ("Classes by prompts, in a pretraining checkpoint's contrastive space; nothing is "
            "trained. A class has the mean of its prompts' probabilities, or of their features as "
            "CLIP. Paper: experiments, "
            "zero-shot transfer.")

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._encode, self._compare = jax.jit(self.text_features), jax.jit(self.compare)

    @classmethod
    def composition(cls, options: ZeroShotOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
        class_prompts(options.classes, options.wordings, options.templates)  # raises
        return ("vision", "text", "universal"), ("vtc",)

    def loss(self, params: Any, batch: Any, rng: Array, task_state: Any = None,
             step: Array | int = 0) -> Any:
        raise ConfigError("task.name = 'zero_shot': it evaluates and has no loss; train pretrain "
                          "or retrieval")

    def predict(self, params: Any, batch: Batch) -> dict[str, Array]:
        """`features float32 [B, V, C]`, of each view `[B, C]` in the contrastive space."""
        return {"features": for_rows(partial(self.view_features, params), batch, "video")}

    def view_features(self, params: Any, batch: Batch) -> Array:
        """Contrastive features float32 `[B, V, C]` of `video [B, (V,) T, H, W, 3]`."""
        visual = self.encode_views(params, batch["video"])  # [B, V, S, D]
        features = self.call(params, "contrastive", visual.reshape(-1, *visual.shape[2:]), "visual")
        return features.reshape(*visual.shape[:2], -1)

    def text_features(self, params: Any, ids: Array, mask: Array) -> Array:
        """Contrastive features float32 `[P, C]` of prompts, `ids, mask [P, L]`."""
        text = self.call(params, "encode_text", ids, mask)
        return self.call(params, "contrastive", text, "text")

    def compare(self, params: Any, features: Array, prompts: Array, owners: Array) -> Array:
        """Log-probabilities of the classes, each relative to its number of prompts.

        Args:
          params: give the temperature.
          features: `[B, V, C]` of examples.
          prompts: `[P, C]` of all classes.
          owners: int `[P]`, the class of each.

        Returns:
          float32 `[B, classes]`, but for a number an example.
        """
        count = len(class_names(self.options.classes))
        sizes = jnp.zeros(count).at[owners].add(1.0)
        logits = jnp.matmul(features, prompts.T, precision=jax.lax.Precision.HIGHEST)
        logits /= self.call(params, "temperature")  # [B, V, P]
        most = logits.max(axis=-1, keepdims=True)
        sums = jnp.zeros((*logits.shape[:2], count)).at[..., owners].add(jnp.exp(logits - most))
        # A class whose prompts are all out of float32's range beside the likeliest one's.
        each = jnp.log(jnp.maximum(sums / sizes, jnp.finfo(jnp.float32).tiny)) + most
        return (each - jax.nn.logsumexp(each, axis=-1, keepdims=True)).mean(axis=1)

    def prompt_features(self, params: Any) -> tuple[np.ndarray, np.ndarray]:
        """Features float32 `[P, C]` of all prompts, or of all classes, and the class of each.

        Raises:
          ConfigError: a prompt is longer than the model's positions.
        """
        options, tokenizer = self.options, self.tokenizer
        prompts, owners = class_prompts(options.classes, options.wordings, options.templates)
        most = self.model.config.max_positions
        prompts = [clean_caption(prompt, most) for prompt in prompts]
        length = 2 + max(len(tokenizer.encode(prompt)) for prompt in prompts)
        if length > most:
            raise ConfigError(f"task.templates: a prompt has {length} tokens; expected at most "
                              f"model.max_positions = {most}")
        rows = (np.stack(part) for part in zip(
            *(tokenizer.encode_padded(prompt, length) for prompt in prompts), strict=True))
        features = in_rows(partial(self._encode, params), *rows)
        if options.average == "features":
            return averaged(features, owners)
        return features, owners

    def kept(self, shapes: Mapping[str, Any], counts: Counts) -> Kept:
        return Kept((), 2 * size(shapes["_predict"]["features"], counts.examples))

    def record(self, output: dict[str, np.ndarray], annotation: dict[str, Any]) -> dict[str, Any]:
        return {"id": annotation["id"], "label": annotation["label"], "texts": [],
                "features": output["features"]}

    def finish(self, params: Any, records: list[dict[str, Any]], kind: str) -> Scores:
        """Compares every example with every prompt, and scores what it says.

        Raises:
          ValueError: there is no example.
        """
        if not records:
            raise ValueError("zero-shot has nothing to classify: no example could be used")
        prompts, owners = (jnp.asarray(part) for part in self.prompt_features(params))
        features = np.stack([record.pop("features") for record in records])
        logits = in_rows(lambda part: self._compare(params, part, prompts, owners), features)
        for record, row in zip(records, logits, strict=True):
            record |= self.said(row)
        return self.score(records, kind)


def averaged(features: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each class's prompts, of unit length: `[P, C]` to `[classes, C]`; and them."""
    classes = np.unique(owners)
    means = np.stack([features[owners == one].mean(axis=0) for one in classes])
    norm = np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)
    return means / norm, classes


def in_rows(function: Callable[..., Array], *arrays: np.ndarray) -> np.ndarray:
    """`function` of arrays `[N, ...]`, in calls of `ROWS` rows: its rows `[N, ...]`."""
    results = []
    for start in range(0, len(arrays[0]), ROWS):
        parts = [array[start:start + ROWS] for array in arrays]
        count = len(parts[0])
        filled = (np.concatenate([part, np.repeat(part[-1:], ROWS - count, axis=0)])
                  for part in parts)
        results.append(fetch(function(*(jnp.asarray(part) for part in filled)))[:count])
    return np.concatenate(results)
