"""Golden sets: weights, inputs and outputs of another implementation, computed again by this one.

A set is `PREFIX.pth` or `.safetensors`, `PREFIX.npz` and `PREFIX.json`: of the released model
(`kind` "caption" or "qa"), of a Hugging Face BERT, or of a CLIP image tower.
"""

import dataclasses
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.convert import hugging_face, layout, official
from mplug2_jax.convert.release_names import TIED, rewritten_name
from mplug2_jax.convert.weights_file import read_weights
from mplug2_jax.model.config import MODULES, ModelConfig
from mplug2_jax.model.decoding import beam_search, rank_answers
from mplug2_jax.model.mplug2 import MPlug2, build, part_of
from mplug2_jax.model.rows import with_visual
from mplug2_jax.objectives.losses import token_cross_entropy
from mplug2_jax.parallel.sharding import path_name

Array = jax.Array
Arrays = dict[str, np.ndarray]
CLS_ID, SEP_ID = 101, 102  # of BERT's uncased vocabulary, and of every golden set


class GoldenError(ValueError):
    """A golden set that is not complete or not valid; the message says what is wrong."""


class GoldenSet(NamedTuple):
    """A set, read.

    Attributes:
      prefix: of its files.
      weights: the file of weights.
      arrays: inputs and expected outputs, by name.
      facts: the json.
    """

    prefix: str
    weights: Path
    arrays: Arrays
    facts: dict[str, Any]

    @property
    def kind(self) -> str:
        """"caption", "qa", "bert" or "clip_vision_model"."""
        return self.facts.get("kind") or self.facts.get("model_type", "")

    @property
    def pad_id(self) -> int:
        """The id that fills texts up."""
        return self.facts.get("bert_config", self.facts).get("pad_token_id", 0)


def read_set(prefix: str) -> GoldenSet:
    """Reads `PREFIX.npz` and `PREFIX.json` and finds the weights.

    Raises:
      GoldenError: a file is missing or broken.
    """
    weights = [path for path in map(Path, (f"{prefix}.pth", f"{prefix}.safetensors"))
               if path.is_file()]
    if len(weights) != 1:
        raise GoldenError(f"{prefix}: expected one of {prefix}.pth and {prefix}.safetensors, found "
                          f"{len(weights)}")
    try:
        facts = json.loads(Path(f"{prefix}.json").read_text())
        with np.load(f"{prefix}.npz") as file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise GoldenError(f"{error.filename or prefix}: {error.strerror or error}") from None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise GoldenError(f"{prefix}: the .npz or .json is broken: {error}") from None
    if not isinstance(facts, dict) or not arrays:
        raise GoldenError(f"{prefix}: the .json is no table, or the .npz holds no arrays")
    golden = GoldenSet(prefix, weights[0], arrays, facts)
    if golden.kind not in (*RELEASED, *COMPUTE):
        raise GoldenError(f"{prefix}.json: kind {golden.kind!r}; expected one of "
                          + ", ".join((*RELEASED, *COMPUTE)))
    return golden


def compute(golden: GoldenSet, drop: Iterable[str] = ()) -> Arrays:
    """Every output of the set, by this implementation, in float32.

    Args:
      golden: the set.
      drop: regular expressions of names to leave out of the weights of a released model.

    Raises:
      CheckpointFileError, ConfigError: the weights do not fit, strictly.
      GoldenError: an output of an unknown name, or inputs that it needs are missing.
    """
    drop = tuple(drop)
    with jax.default_matmul_precision("highest"):
        if golden.kind in RELEASED:
            return compute_released(golden, drop)
        if drop:
            raise GoldenError(f"--drop: {golden.prefix} is not of the released model")
        return COMPUTE[golden.kind](golden)


def exact(config: ModelConfig) -> ModelConfig:
    """The model, computing in float32 and without dropout."""
    return dataclasses.replace(config, dtype="float32", dropout=0.0)


def needs(golden: GoldenSet, *names: str) -> list[np.ndarray]:
    """Inputs of the set by name."""
    if missing := [name for name in names if name not in golden.arrays]:
        raise GoldenError(f"{golden.prefix}.npz: lacks {', '.join(missing)}")
    return [golden.arrays[name] for name in names]


def channels_last(pixels: np.ndarray) -> np.ndarray:
    """`[B, 3, T, H, W]` to `[B, T, H, W, 3]`."""
    return np.moveaxis(pixels, 1, -1)


def compute_released(golden: GoldenSet, drop: Iterable[str]) -> Arrays:
    """Outputs of the released captioning and question answering models."""
    tensors = read_weights(golden.weights)
    config = exact(official.config_from_release(
        golden.facts.get("config", {}), golden.facts.get("bert_config", {}), tensors,
        str(golden.weights)))
    converted = official.convert(tensors, config, str(golden.weights), drop)
    released = Released(build(config, MODULES, ()), golden, converted)
    return {name: released.output(name) for name in golden.arrays if name not in INPUTS}


class Released:
    """The released model over one set's inputs; each output is computed when it is asked for.

    Args:
      model: of all modules.
      golden: the set.
      converted: its weights.
    """

    def __init__(self, model: MPlug2, golden: GoldenSet, converted: official.Converted):
        self.model, self.golden, self.layout = model, golden, converted.layout
        self.params = jax.tree.map(jnp.asarray, part_of(layout.nest(converted.params), model))
        self._kept: dict[Callable[..., Any], Any] = {}

    def once(self, function: Callable[[], Any]) -> Any:
        """The function's result, computed the first time."""
        if function not in self._kept:
            self._kept[function] = function()
        return self._kept[function]

    def output(self, name: str) -> np.ndarray:
        """One output by its name in the set."""
        if name.startswith("grad:"):
            return self.gradient(name.removeprefix("grad:"))
        if name == "grad_global_norm":
            return np.asarray(optax.tree.norm(self.once(self.loss)[1]))
        if name == "loss":
            return np.asarray(self.once(self.loss)[0])
        for group, names in ((self.encode, ENCODED), (self.beams, BEAMS), (self.ranking, RANKING)):
            if name in names:
                found = self.once(group)
                if name not in found:
                    raise GoldenError(f"{self.golden.prefix}.npz: lacks the inputs of {name}")
                return np.asarray(found[name])
        raise GoldenError(f"{self.golden.prefix}.npz: unknown array {name!r}")

    def texts(self, name: str) -> tuple[Array, Array]:
        """`<name>_ids int32` and `<name>_mask bool`."""
        ids, mask = needs(self.golden, f"{name}_ids", f"{name}_mask")
        return jnp.asarray(ids, jnp.int32), jnp.asarray(mask, bool)

    def call(self, params: Any, method: str, *args: Any) -> Any:
        """One of the model's methods."""
        return self.model.apply({"params": params}, *args, method=method)

    def forward(self, params: Any) -> dict[str, Array]:
        """All that comes before the decoder, and what the decoder reads."""
        # The last universal layer's output, before the norm; the vision features, before `visn_fc`.
        last = f"layers_{self.model.config.universal_layers - 1}"
        captured = (("vision", "norm_post"), ("universal", last))
        video = channels_last(needs(self.golden, "video")[0])
        visual, state = self.model.apply(
            {"params": params}, jnp.asarray(video), method="encode_visual",
            capture_intermediates=lambda module, name: module.path in captured
            and name == "__call__", mutable=["intermediates"])
        seen = state["intermediates"]
        found = {"visual_encoder": seen["vision"]["norm_post"]["__call__"][-1],
                 "universal_vision": seen["universal"][last]["__call__"][-1][0],
                 "visual_embeds": visual, "memory": visual, "memory_mask": None}
        if "question_ids" in self.golden.arrays:
            ids, mask = self.texts("question")
            text = self.call(params, "encode_text", ids, mask)
            fused = self.call(params, "fuse", visual, text, mask)
            found |= {"text_encoder": text, "fusion_visual": fused[0], "fusion_text": fused[1]}
            if self.golden.kind == "qa":
                found["memory"], found["memory_mask"] = with_visual(fused[0], fused[1], mask)
        return found

    def encode(self) -> dict[str, Array]:
        """The outputs of `ENCODED`, and the memory with its mask."""
        def run(params):
            found = self.forward(params)
            if "answer_ids" in self.golden.arrays:
                found["decoder_logits"] = self.call(
                    params, "decode", *self.texts("answer"), found["memory"],
                    found["memory_mask"])[0]
            return found

        return jax.jit(run)(self.params)

    def loss(self) -> tuple[Array, Any]:
        """The training loss without dropout, and its gradients by all parameters."""
        ids, mask = self.texts("answer")
        labels, weights = ids[:, 1:], mask[:, 1:]
        videos = needs(self.golden, "video")[0].shape[0]
        if self.golden.kind == "caption":
            prompt = int(needs(self.golden, "prompt_length")[0])
            weights = weights & (jnp.arange(1, ids.shape[1]) >= prompt)

        def run(params):
            found = self.forward(params)
            logits, _ = self.call(params, "decode", ids, mask, found["memory"],
                                  found["memory_mask"])
            loss = token_cross_entropy(logits[:, :-1], labels, weights)  # a mean over tokens
            # Question answering: summed over each answer's tokens, a mean over videos.
            return loss * weights.sum() / videos if self.golden.kind == "qa" else loss

        return jax.jit(jax.value_and_grad(run))(self.params)

    def gradient(self, name: str) -> np.ndarray:
        """The loss's gradient by one parameter of the checkpoint, in the checkpoint's layout."""
        name = rewritten_name(name)
        name = TIED.get(name, name)
        if name not in self.layout:
            raise GoldenError(f"{self.golden.prefix}.npz: gradient of {name!r}, which the model "
                              "does not use")
        grads = self.once(self.loss)[1]
        flat = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(grads)}
        return layout.to_theirs(name, self.layout, flat)

    def memory(self) -> tuple[Array, Array | None]:
        """What the decoder reads, and its mask."""
        found = self.once(self.encode)
        return found["memory"], found["memory_mask"]

    def beams(self) -> dict[str, np.ndarray]:
        """The best hypothesis of every item and its score."""
        sizes = [int(x) for x in needs(self.golden, "beam_size", "min_length", "max_length")]
        ids, scores = beam_search(
            self.model, self.params, *self.memory(), beams=sizes[0], min_length=sizes[1],
            max_length=sizes[2], start_id=CLS_ID, end_id=SEP_ID, pad_id=self.golden.pad_id)
        return {"beam_ids": np.asarray(ids)[:, 0], "beam_scores": np.asarray(scores)[:, 0]}

    def ranking(self) -> dict[str, np.ndarray]:
        """The best candidates of every item and their probabilities."""
        best, probabilities = rank_answers(
            self.model, self.params, *self.memory(), *self.texts("candidate"),
            keep=int(needs(self.golden, "rank_k")[0]))
        return {"rank_ids": np.asarray(best), "rank_probs": np.asarray(probabilities)}


def compute_bert(golden: GoldenSet) -> Arrays:
    """Outputs of a Hugging Face BERT: its layers as text and universal layers, and the MLM head."""
    facts = hugging_face_sizes(golden, "hidden_size", "num_attention_heads", "intermediate_size",
                               "num_hidden_layers", "vocab_size", "max_position_embeddings")
    width, heads, mlp_dim, layers, vocab_size, positions = facts
    universal = min(2, layers)
    config = exact(ModelConfig(
        vision_width=64, vision_layers=1, patch_size=8, image_size=8,  # no vision is run
        width=width, heads=heads, mlp_dim=mlp_dim, vocab_size=vocab_size, max_positions=positions,
        text_layers=layers - universal, universal_layers=universal, fusion_layers=1,
        decoder_layers=layers))
    tensors = read_weights(golden.weights)
    converted = hugging_face.convert_bert(tensors, config, str(golden.weights))
    with_head = "heads/mlm/bias" in converted.params
    model = build(config, ("text", "universal"), ("mlm",) if with_head else ())
    variables = {"params": layout.nest(converted.params)}
    ids, mask = needs(golden, "ids", "mask")
    hidden = model.apply(variables, jnp.asarray(ids, jnp.int32), jnp.asarray(mask, bool),
                         method="encode_text")
    found: dict[str, Any] = {"last_hidden_state": hidden}
    if with_head:
        found["mlm_logits"] = model.apply(variables, hidden, method="mlm_logits")
    return pick(golden, found)


def compute_clip(golden: GoldenSet) -> Arrays:
    """Outputs of a CLIP image tower: the vision encoder with fresh local temporal modules."""
    width, heads, layers, patch, side = hugging_face_sizes(
        golden, "hidden_size", "num_attention_heads", "num_hidden_layers", "patch_size",
        "image_size")
    if heads * 64 != width:
        raise ConfigError(f"{golden.prefix}.json: {heads} heads; CLIP's have a size of 64, so "
                          f"{width // 64}")
    config = exact(ModelConfig(
        vision_width=width, vision_layers=layers, patch_size=patch, image_size=side,
        width=width, heads=heads, mlp_dim=width, vocab_size=1, text_layers=1,  # no text is run
        universal_layers=1, fusion_layers=1, decoder_layers=1))
    tensors = read_weights(golden.weights)
    converted = hugging_face.convert_clip(tensors, config, str(golden.weights))
    model = build(config, ("vision",), ())
    pixels = needs(golden, "pixel_values")[0]
    post, state = model.apply(
        {"params": layout.nest(converted.params)},
        jnp.asarray(channels_last(pixels)[:, None]), method="encode_visual",
        capture_intermediates=lambda module, name: module.path == ("vision", "blocks"),
        mutable=["intermediates"])
    blocks = state["intermediates"]["vision"]["blocks"]["__call__"][-1][0]  # [B, 1, 1 + N, D]
    return pick(golden, {"last_hidden_state": blocks[:, 0], "last_hidden_state_post_ln": post})


def hugging_face_sizes(golden: GoldenSet, *keys: str) -> list[int]:
    """Sizes out of a Hugging Face json.

    Raises:
      GoldenError: one is missing or no int.
    """
    for key in keys:
        if type(golden.facts.get(key)) is not int:
            raise GoldenError(f"{golden.prefix}.json: {key} = {golden.facts.get(key)!r}, expected "
                              "an int")
    return [golden.facts[key] for key in keys]


def pick(golden: GoldenSet, found: dict[str, Array]) -> Arrays:
    """The outputs that the set has.

    Raises:
      GoldenError: it has one that is not among them.
    """
    wanted = [name for name in golden.arrays if name not in INPUTS]
    if unknown := [name for name in wanted if name not in found]:
        raise GoldenError(f"{golden.prefix}.npz: unknown array {unknown[0]!r}")
    return {name: np.asarray(found[name]) for name in wanted}


INPUTS = ("video", "question_ids", "question_mask", "answer_ids", "answer_mask", "prompt_length",
          "beam_size", "min_length", "max_length", "candidate_ids", "candidate_mask", "rank_k",
          "ids", "mask", "pixel_values")
ENCODED = ("visual_encoder", "universal_vision", "visual_embeds", "text_encoder", "fusion_visual",
           "fusion_text", "decoder_logits")
BEAMS, RANKING = ("beam_ids", "beam_scores"), ("rank_ids", "rank_probs")
RELEASED = ("caption", "qa")
COMPUTE = {"bert": compute_bert, "clip_vision_model": compute_clip}
