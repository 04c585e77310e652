"""Weights of Hugging Face as a start: where BERT's and CLIP's numbers go, and what stays fresh."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from torch_files import write_state

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.convert import hugging_face, official
from mplug2_jax.convert.layout import nest
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import build
from mplug2_jax.preprocess.tokenizer import BERT_UNCASED, PACKAGED

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_bert(**changes):
    config = ModelConfig(vision_width=64, vision_layers=1, patch_size=8, image_size=8, width=32,
                         heads=4, mlp_dim=64, vocab_size=120, max_positions=40, text_layers=2,
                         universal_layers=1, fusion_layers=1, decoder_layers=2)
    return dataclasses.replace(config, **changes)


def test_bert_fills_the_text_modules():
    tensors = official.read_weights(GOLDEN / "hf_bert_tiny.safetensors")
    converted = hugging_face.convert_bert(tensors, golden_bert(max_positions=30), "x.safetensors")
    params = converted.params
    assert {name.split("/")[0] for name in params} == {
        "text", "universal", "fusion", "decoder", "heads"}
    layer = "bert.encoder.layer.{}.intermediate.dense.weight"
    one, two, three = (tensors[layer.format(i)].load().T for i in range(3))
    np.testing.assert_array_equal(params["text/layers/layer/mlp/wi/kernel"], [one, two])
    np.testing.assert_array_equal(params["decoder/layers/layer/mlp/wi/kernel"], [one, two])
    np.testing.assert_array_equal(params["universal/layers_0/mlp/wi/kernel"], three)
    np.testing.assert_array_equal(params["fusion/layers/layer/mlp/wi/kernel"], [three])  # the last
    np.testing.assert_array_equal(params["heads/mlm/bias"], params["decoder/head/bias"])
    np.testing.assert_array_equal(
        params["text/embeddings/position"],
        tensors["bert.embeddings.position_embeddings.weight"].load()[:30])
    assert {"universal/latents", "universal/norm/scale",
            "fusion/layers/layer/cross_attention/key/kernel",
            "decoder/layers/layer/cross_attention/key/kernel"} <= set(converted.fresh)
    assert not any("self_attention" in name or "mlp" in name for name in converted.fresh)
    assert params["universal/latents"].std() > 0


def test_connected_fusion_layers_are_berts_too():
    tensors = official.read_weights(GOLDEN / "hf_bert_tiny.safetensors")
    config = golden_bert(fusion_layers=3, fusion_stride=2)
    params = hugging_face.convert_bert(tensors, config, "x.safetensors").params
    for i in range(3):
        np.testing.assert_array_equal(
            params[f"fusion/layers_{i}/mlp/wi/kernel"],
            tensors[f"bert.encoder.layer.{i}.intermediate.dense.weight"].load().T)


def test_bert_by_its_other_names(tmp_path):
    """`BertModel` without its prefix, LayerNorms by their old names, heads that nothing needs."""
    tensors = official.read_weights(GOLDEN / "hf_bert_tiny.safetensors")
    state = {name.removeprefix("bert.").replace("LayerNorm.weight", "LayerNorm.gamma")
             .replace("LayerNorm.bias", "LayerNorm.beta"): tensor.load()
             for name, tensor in tensors.items() if name.startswith("bert.")}
    state["pooler.dense.weight"] = np.ones((32, 32), np.float32)
    found = official.read_weights(write_state(tmp_path / "x.bin", state))
    converted = hugging_face.convert_bert(found, golden_bert(), "x.bin")
    expected = hugging_face.convert_bert(tensors, golden_bert(), "x.safetensors")
    assert converted.ignored["pooler"] == ["pooler.dense.weight"]
    assert not any(name.startswith("heads") for name in converted.params)
    for name, value in converted.params.items():
        if name not in converted.fresh:
            np.testing.assert_array_equal(value, expected.params[name])


@pytest.mark.parametrize("changes, match", [
    ({"text_layers": 3}, "model.text_layers .* = 3 . 1: .* has 3 layers"),
    ({"decoder_layers": 4}, "model.decoder_layers = 4: .* has only 3"),
    ({"fusion_layers": 4}, "model.fusion_layers = 4: .* has only 3"),
    ({"vocab_size": 99}, "of another shape: embeddings.word_embeddings.weight"),
    ({"max_positions": 41}, "40 positions, fewer than model.max_positions = 41"),
])
def test_a_bert_of_other_sizes_is_an_error(changes, match):
    tensors = official.read_weights(GOLDEN / "hf_bert_tiny.safetensors")
    with pytest.raises(ValueError, match=match):
        hugging_face.convert_bert(tensors, golden_bert(**changes), "x.safetensors")


def test_clip_starts_a_downsampling_encoder_as_the_image_encoder():
    """With temporal downsampling CLIP's kernel is the middle frame: an image sees nothing else."""
    tensors = official.read_weights(GOLDEN / "hf_clip_vision_tiny.safetensors")
    with np.load(GOLDEN / "hf_clip_vision_tiny.npz") as file:
        pixels, expected = file["pixel_values"], file["last_hidden_state_post_ln"]
    config = golden_bert(vision_width=128, vision_layers=2, image_size=24, width=128,
                         temporal_stride=2)
    converted = hugging_face.convert_clip(tensors, config, "x.safetensors")
    assert all("temporal" in name for name in converted.fresh)
    model = build(config, ("vision",), ())
    found = model.apply({"params": nest(converted.params)},
                        jnp.asarray(np.moveaxis(pixels, 1, -1))[:, None], method="encode_visual")
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("name, shape, match", [
    ("roberta.embeddings.word_embeddings.weight", (9, 32), "the weights of RoBERTa, whose"),
    ("lm_head.dense.weight", (32, 32), "the weights of RoBERTa"),
    ("embeddings.token_type_embeddings.weight", (1, 32), "the weights of RoBERTa"),  # no prefix
    ("distilbert.transformer.layer.0.attention.q_lin.weight", (32, 32), "DistilBERT"),
    ("transformer.layer.0.attention.q_lin.weight", (32, 32), "DistilBERT"),
    ("albert.encoder.albert_layer_groups.0.x", (1,), "ALBERT"),
    ("electra.embeddings.word_embeddings.weight", (9, 8), "ELECTRA"),
    ("deberta.encoder.rel_embeddings.weight", (9, 8), "DeBERTa"),
    ("encoder.relative_attention_bias.weight", (9, 8), "MPNet"),
    ("classifier.weight", (2, 32), r"1 unknown: classifier.weight$"),
])
def test_what_is_called_after_bert_is_refused_in_a_line(tmp_path, name, shape, match):
    tensors = official.read_weights(GOLDEN / "hf_bert_tiny.safetensors")
    state = {f"model.{key.removeprefix('bert.')}": np.asarray(x.load())
             for key, x in tensors.items()}
    state[f"model.{name}"] = np.ones(shape, np.float32)
    found = official.read_weights(write_state(tmp_path / "x.bin", state))
    with pytest.raises(ValueError, match=match) as error:
        hugging_face.convert_bert(found, golden_bert(), "x.bin")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content, match", [
    ('{"model_type": "bert", "num_attention_heads": 4}', None), ("{", None), ("[]", None),
    ('{"num_attention_heads": 4}', None),
    ('{"model_type": "bert", "num_attention_heads": 2}', "model.heads = 4: .* = 2"),
    ('{"model_type": "bert", "hidden_act": "gelu_python"}', None),
    ('{"model_type": "bert", "hidden_act": "relu"}', "hidden_act = relu: the text side computes"),
    ('{"hidden_act": ["gelu_new"]}', "hidden_act = ..gelu_new..: the text side computes gelu"),
    ("[" * 100_000, None),
    ('{"model_type": "xlm-roberta", "num_attention_heads": 4}', "is of xlm-roberta, expected bert"),
])
def test_heads_and_activation_of_bert_are_read_of_the_json_beside(tmp_path, content, match):
    (tmp_path / "config.json").write_text(content)
    for source in (tmp_path, tmp_path / "model.safetensors"):
        if match:
            with pytest.raises(ValueError, match=match):
                hugging_face.check_facts(golden_bert(), str(source))
        else:
            hugging_face.check_facts(golden_bert(), str(source))


@pytest.mark.parametrize("change, match", [
    (lambda pieces: pieces, None),
    (lambda pieces: [*pieces[:2000], pieces[2001], pieces[2000], *pieces[2002:]],
     "the first difference is piece 2000: "),
    (lambda pieces: pieces[:-1], "is another; the first difference is piece 30521: .. there, "),
])
def test_a_bert_of_another_vocabulary_is_refused(tmp_path, change, match):
    """As many pieces, but others: PubMedBERT's, legal-bert's."""
    pieces = change(hugging_face.pieces_of(PACKAGED[BERT_UNCASED]))
    listed = json.dumps({"model": {"vocab": {piece: i for i, piece in enumerate(pieces)}}})
    for name, content in (("vocab.txt", "\n".join(pieces) + "\n"), ("tokenizer.json", listed)):
        folder = tmp_path / name.split(".")[0]
        folder.mkdir()
        (folder / name).write_text(content, encoding="utf-8")
        for source in (folder, folder / "model.safetensors"):
            if match:
                with pytest.raises(ConfigError, match=match) as error:
                    hugging_face.check_vocabulary(str(source), BERT_UNCASED)
                assert "\n" not in str(error.value) and name in str(error.value)
            else:
                assert hugging_face.check_vocabulary(str(source), BERT_UNCASED) == []
    own = str(tmp_path / "vocab/vocab.txt")  # the run's own, whichever it is
    assert hugging_face.check_vocabulary(str(tmp_path / "tokenizer"), own) == []
    with pytest.raises(ConfigError, match="m.model: the vocab.txt .* another, a WordPiece"):
        hugging_face.check_vocabulary(str(tmp_path / "vocab"), "m.model")


@pytest.mark.parametrize("content", [None, '{"model": {"vocab": [["a", 0.1]]}}', "[" * 100_000])
def test_a_vocabulary_that_cannot_be_compared_is_noted(tmp_path, content):
    if content:
        (tmp_path / "tokenizer.json").write_text(content)
    note, = hugging_face.check_vocabulary(str(tmp_path), BERT_UNCASED)
    assert "no vocab.txt or tokenizer.json" in note and note.endswith("bert_uncased")
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    note, = hugging_face.check_vocabulary(str(tmp_path), str(tmp_path / "none.txt"))
    assert note.endswith("none.txt cannot be read")
