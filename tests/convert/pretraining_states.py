"""Golden checkpoints of the release, altered to what pretraining saves: heads, copies, queues."""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np

from mplug2_jax.convert import official
from mplug2_jax.convert.official import read_weights
from mplug2_jax.convert.release_names import WORDS

GOLDEN = Path(__file__).parents[1] / "golden"
DIM = 6  # of the contrastive space


@cache
def released(name):
    """A golden set's weights as arrays, its config, and the parameters they are."""
    path = GOLDEN / f"{name}.pth"
    tensors, facts = read_weights(path), json.loads((GOLDEN / f"{name}.json").read_text())
    config = official.config_from_release(facts["config"], facts["bert_config"], tensors, "x.pth")
    params = official.convert(tensors, config, "x.pth").params
    return {key: np.array(tensor.load()) for key, tensor in tensors.items()}, facts, params


def converted(path, name, **options):
    """What a file becomes, by the config that the golden set's JSON and its weights give."""
    facts, tensors = released(name)[1], read_weights(path)
    config = official.config_from_release(facts["config"], facts["bert_config"], tensors, str(path))
    return official.convert(tensors, config, str(path), **options)


def inside(state, text="bert.", fusion="fusion."):
    """Names as encoders have them that were pretrained inside a model with a head."""
    renamed = {}
    for name, value in state.items():
        root, rest = name.split(".", 1) if "." in name else (name, "")
        extra = {"text_encoder": text, "fusion_encoder": fusion}.get(root.removesuffix("_m"), "")
        renamed[f"{root}.{extra}{rest}" if extra and not rest.startswith("cls.") else name] = value
    return renamed


def vectors(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def heads(state, mlm="text_encoder"):
    """Heads of pretraining by the names of ALBEF's family."""
    words = state[WORDS]
    width = words.shape[1]
    found = {"vision_proj.weight": vectors((DIM, width), 1), "vision_proj.bias": vectors(DIM, 2),
             "text_proj.weight": vectors((DIM, width), 3), "text_proj.bias": vectors(DIM, 4),
             "temp": np.float32(0.05).reshape(()),
             "itm_head.weight": vectors((2, width), 5), "itm_head.bias": vectors(2, 6)}
    if mlm:
        cls = f"{mlm}.cls.predictions"
        bias = vectors(len(words), 7)
        found |= {f"{cls}.bias": bias, f"{cls}.transform.dense.weight": vectors((width, width), 8),
                  f"{cls}.transform.dense.bias": vectors(width, 9),
                  f"{cls}.transform.LayerNorm.weight": vectors(width, 10),
                  f"{cls}.transform.LayerNorm.bias": vectors(width, 11),
                  f"{cls}.decoder.weight": words, f"{cls}.decoder.bias": bias}
    return found


def queues(pairs=8):
    return {"image_queue": vectors((DIM, pairs), 1), "text_queue": vectors((DIM, pairs), 2),
            "idx_queue": np.full((1, pairs), -100), "queue_ptr": np.zeros(1, np.int64)}


def momentum(state):
    """Copies of what the family keeps copies of: all but the matching head and the temperature."""
    owned = {name: value for name, value in state.items()
             if not re.match(r"[^.]+_m\.|itm_head\.|temp$", name)}
    return {re.sub(r"^([^.]+)", r"\1_m", name): value + np.float32(0.5)
            if value.dtype == np.float32 else value for name, value in owned.items()}


def tied(state):
    """The copies' vocabulary heads tied to their own words."""
    for name in [name for name in state if name.endswith("cls.predictions.decoder.weight")]:
        root = name.split(".")[0]
        inner = ".bert" if "decoder" in root else ""
        words = root if root.startswith("text") else root.replace("fusion", "text")
        state[name] = state[f"{words}{inner}.embeddings.word_embeddings.weight"]
    return state


def pretrained(name, mlm="text_encoder"):
    """A whole pretraining state: modules, heads, momentum copies of its own, queues."""
    state = {key: value for key, value in released(name)[0].items()
             if not re.match(r"[^.]+_m\.", key)}
    state |= heads(state, mlm)
    return inside(tied(state | momentum(state))) | queues()


def wrapped(state):
    """Names as a distributed wrapper's state has them."""
    return {f"module.{name}": value for name, value in state.items()}
