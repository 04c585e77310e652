"""The same modules in other compositions: what a task holds, loads, shares, and how it is drawn."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from ml_collections import ConfigDict

from configs import checks, common, demo, demo_tasks
from mplug2_jax import tasks
from mplug2_jax.checkpoints.manager import CheckpointError, Checkpoints, write_params
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.convert import hugging_face, layout, official
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import build, init_params, part_of, union
from mplug2_jax.parallel.mesh import make_mesh
from mplug2_jax.parallel.sharding import path_name
from mplug2_jax.planning.describe import describe, find_calls, scaled
from mplug2_jax.planning.flops import count_flops
from mplug2_jax.planning.shapes import batch_shapes, placeholder_tokenizer

pytestmark = pytest.mark.slow
GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = small.model(vision_layers=1, universal_layers=2, scan=False)
CLASSES = ("a", "b", "c")


def shapes_of(task):
    return small.shapes(task.model)


def names(tree):
    return {path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def size(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def batch_of(task, **stream):
    """Shapes of a batch of four of one stream."""
    section = common.stream("", 4, image_size=16, **stream)
    return batch_shapes(task, tasks.streams(type(task), task.options, {"s": section}))


def examples(inputs, rows=4):
    """A batch of one stream of texts or images."""
    rng = np.random.default_rng(0)
    if inputs == "text":
        text, mask = small.texts(rng, rows, 10)
        fields = {"text": text, "text_mask": mask}
    else:
        fields = {"video": rng.integers(0, 256, (rows, 1, 16, 16, 3)).astype(np.uint8)}
    return fields | {"label": rng.integers(0, 3, rows).astype(np.int32),
                     "example_mask": np.ones(rows, bool)}


@pytest.mark.parametrize("inputs", ["text", "visual"])
def test_a_task_holds_its_own_modality_alone(inputs):
    task = small.task("classification", MODEL, inputs=inputs, classes=CLASSES)
    params = small.params_of(task.model)
    other = {"text": "vision", "visual": "text"}[inputs]
    own = {"text": "text", "visual": "vision"}[inputs]
    assert set(params) == {own, "universal", "heads"}
    cross = {name for name in names(params) if "cross_" in name or "latents" in name}
    assert bool(cross) == (inputs == "visual")  # what text does not go through is not there
    both = shapes_of(small.task("classification", MODEL, inputs="both", classes=CLASSES))
    assert size(params) < size(both) - size(both[other])
    # The compiled gradient takes no other arguments, and gives no others.
    batch = {"s": examples(inputs)}
    gradient = jax.jit(jax.grad(lambda p, b: task.loss(p, b, jax.random.key(0))[0]))
    memory = gradient.lower(params, batch).compile().memory_analysis()
    assert size(params) <= memory.output_size_in_bytes < 1.02 * size(params)
    whole = size(params) + size(batch)
    assert memory.argument_size_in_bytes < 1.02 * whole + 4096


def test_pretraining_on_text_alone_holds_no_vision():
    weights = dict(vtc=1.0, vtm=1.0, mlm=1.0, prefix_lm=1.0, instruct=1.0)
    task = small.task("pretrain", MODEL, inputs="text", objectives=weights)
    params = small.params_of(task.model)
    assert set(params) == {"text", "universal", "decoder", "heads"}
    assert set(params["heads"]) == {"mlm"}
    batch = {"t": {key: value for key, value in small.batch()["text"].items()}}
    loss, (metrics, _) = jax.jit(task.loss)(params, batch, jax.random.key(0))
    full = small.task("pretrain", MODEL)
    more = small.params_of(full.model) | {key: params[key] for key in ("text", "decoder")}
    more["heads"] = more["heads"] | params["heads"]
    more["universal"] = jax.tree.map(lambda x: x, more["universal"])
    for layer, values in params["universal"].items():
        more["universal"][layer] = more["universal"][layer] | values
    expected, _ = jax.jit(full.loss)(more, batch, jax.random.key(0))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert {"t/mlm", "t/prefix_lm"} <= set(metrics)
    only = small.task("pretrain", MODEL, inputs="text",
                      objectives=weights | {"prefix_lm": 0.0, "instruct": 0.0})
    assert set(shapes_of(only)) == {"text", "universal", "heads"}
    with pytest.raises(ConfigError, match="text alone needs mlm, prefix_lm or instruct"):
        small.task("pretrain", MODEL, inputs="text",
                   objectives=dict.fromkeys(weights, 0.0) | {"vtc": 1.0})
    config = demo.get_config()
    config.task.inputs = "text"
    with pytest.raises(ConfigError, match="stream image.frames = 1: task.inputs = 'text' needs 0"):
        checks.validate(config)


def load(tmp_path, converted, task):
    """The task's parameters from converted weights, its head drawn."""
    write_params(tmp_path / "hf", layout.nest(converted.params), {"model": {}})
    source = Checkpoints(tmp_path / "hf")
    loaded = source.load_params(shapes_of(task), make_mesh(1, -1, 1), ["heads/classify"])
    source.close()
    assert loaded["heads"] == {"classify": {"Dense_0": {"bias": None, "kernel": None}}}
    fresh = small.params_of(task.model)["heads"]
    return jax.tree.map(jnp.asarray, loaded | {"heads": fresh})


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_golden_bert_in_a_text_task(tmp_path):
    arrays = np.load(GOLDEN / "hf_bert_tiny.npz")
    facts = json.loads((GOLDEN / "hf_bert_tiny.json").read_text())
    model = ModelConfig(
        vision_width=64, vision_layers=1, patch_size=8, image_size=8, width=facts["hidden_size"],
        heads=facts["num_attention_heads"], mlp_dim=facts["intermediate_size"],
        vocab_size=facts["vocab_size"], max_positions=facts["max_position_embeddings"],
        text_layers=facts["num_hidden_layers"] - 1, universal_layers=1, fusion_layers=1,
        decoder_layers=1, dropout=0.0)
    weights = official.read_weights(GOLDEN / "hf_bert_tiny.safetensors")
    mask = arrays["mask"].astype(bool)
    batch = {"text": arrays["ids"].astype(np.int32), "text_mask": mask,
             "example_mask": np.ones(len(mask), bool)}
    hidden = arrays["last_hidden_state"]
    converted = hugging_face.convert_bert(weights, model, "bert")
    expected = {"class": hidden[:, 0],
                "mean": np.stack([row[used].mean(0) for row, used in zip(hidden, mask,
                                                                         strict=True)])}
    for pool, values in expected.items():
        task = sized_task(model, inputs="text", pool=pool)
        params = load(tmp_path / pool, converted, task)
        features = jax.jit(task.features)(params, batch)[:, 0]
        assert relative(features, values) < 1e-5
        logits = task.predict(params, batch)["logits"]
        head = params["heads"]["classify"]["Dense_0"]
        assert relative(logits, values @ head["kernel"] + head["bias"]) < 1e-5


def test_golden_clip_in_an_image_task(tmp_path):
    arrays = np.load(GOLDEN / "hf_clip_vision_tiny.npz")
    facts = json.loads((GOLDEN / "hf_clip_vision_tiny.json").read_text())
    width = facts["hidden_size"]
    model = ModelConfig(
        vision_width=width, vision_layers=facts["num_hidden_layers"],
        patch_size=facts["patch_size"], image_size=facts["image_size"], width=width, heads=1,
        mlp_dim=width, vocab_size=32, text_layers=1, universal_layers=0, fusion_layers=1,
        decoder_layers=1, dropout=0.0)
    weights = official.read_weights(GOLDEN / "hf_clip_vision_tiny.safetensors")
    converted = hugging_face.convert_clip(weights, model, "clip")
    pixels = np.moveaxis(arrays["pixel_values"], 1, -1)[:, None]
    batch = {"video": pixels, "example_mask": np.ones(len(pixels), bool)}
    hidden = arrays["last_hidden_state_post_ln"]
    for pool, values in {"class": hidden[:, 0], "mean": hidden.mean(axis=1)}.items():
        task = sized_task(model, inputs="visual", pool=pool)
        params = load(tmp_path / pool, converted, task)
        assert set(params) == {"vision", "heads"}
        features = jax.jit(task.features)(params, batch)[:, 0]
        assert relative(features, values) < 1e-5


def sized_task(model, **options):
    """A classification task with a vocabulary of the model's size."""
    return tasks.make(tasks.section("classification", classes=CLASSES, **options), model,
                      placeholder_tokenizer(model.vocab_size))


def test_loading_says_what_became_of_every_module(tmp_path, caplog):
    source = small.task("retrieval", MODEL)
    params = small.params_of(source.model)
    write_params(tmp_path, params, {"model": {}})
    checkpoints, mesh = Checkpoints(tmp_path), make_mesh(1, -1, 1)
    task = small.task("classification", MODEL, inputs="visual", classes=CLASSES)
    shapes = shapes_of(task)
    with pytest.raises(CheckpointError, match=r"lacks 2 .*allow_new: 'heads/classify'$"):
        checkpoints.load_params(shapes, mesh)
    with caplog.at_level("INFO"):
        loaded = checkpoints.load_params(shapes, mesh, ["heads/classify"])
    counts = {name: sum(x.size for x in jax.tree.leaves(params[name]))
              for name in ("vision", "text", "fusion", "universal")}
    line = next(message for message in caplog.messages if "loaded" in message)
    assert f"loaded universal {counts['universal']:,}, vision {counts['vision']:,}; " in line
    assert f"dropped fusion {counts['fusion']:,}, heads/vtc " in line
    assert f", text {counts['text']:,}; new heads/classify {32 * 3 + 3}" in line
    np.testing.assert_array_equal(loaded["universal"]["latents"], params["universal"]["latents"])
    checkpoints.close()


def test_one_drawing_serves_all_evaluations():
    """A parameter's first value depends on its name and the seed, not on what else there is."""
    both = [small.task("captioning", MODEL, memory="visual"),
            small.task("classification", MODEL, inputs="text", classes=CLASSES)]
    together = union(task.model for task in both)
    draw = jax.jit(lambda: [init_params(model, jax.random.key(3))
                            for model in (together, *(task.model for task in both))])
    params, *alone = draw()
    assert set(params) == {"vision", "universal", "decoder", "text", "heads"}
    for task, expected in zip(both, alone, strict=True):
        part = part_of(params, task.model)
        assert set(part) == set(expected)
        found = dict(jax.tree_util.tree_leaves_with_path(part))
        for path, x in jax.tree_util.tree_leaves_with_path(expected):
            np.testing.assert_array_equal(found[path], x)
    other = small.task("classification", MODEL, inputs="text", classes=CLASSES[:2])
    with pytest.raises(ConfigError, match="one head, but the evaluations want heads of 2, 3"):
        union(task.model for task in (*both, other))


def test_a_head_of_other_classes_starts_fresh_if_allowed(tmp_path):
    params = small.params_of(small.task("classification", MODEL, inputs="text",
                                        classes=CLASSES).model)
    write_params(tmp_path, params, {"model": {}})
    checkpoints, mesh = Checkpoints(tmp_path), make_mesh(1, -1, 1)
    shapes = shapes_of(small.task("classification", MODEL, inputs="text", classes=("x", "y")))
    with pytest.raises(CheckpointError, match="heads/classify/Dense_0/bias has shape"):
        checkpoints.load_params(shapes, mesh)
    loaded = checkpoints.load_params(shapes, mesh, ["heads/classify"])
    assert loaded["heads"] == {"classify": {"Dense_0": {"bias": None, "kernel": None}}}
    np.testing.assert_array_equal(loaded["text"]["embeddings"]["word"],
                                  params["text"]["embeddings"]["word"])
    checkpoints.close()


@functools.cache
def both_paths(**changes):
    """A model with some universal layers, and a function of its parameters: both outputs."""
    model = build(small.model(vision_layers=1, scan=False, **changes),
                  ("vision", "text", "universal"), ())
    batch = small.pairs(4, 1)

    @jax.jit
    def run(params):
        def call(method, *args):
            return model.apply({"params": params}, *args, method=method)

        return (call("encode_visual", batch["video"]),
                call("encode_text", batch["text"], batch["text_mask"]))

    return model, run


def universal_model(params, **changes):
    """Outputs of both paths, and parameters, under some universal layers."""
    model, run = both_paths(**changes)
    params = small.params_of(model) if params is None else params
    return params, run(params)


def test_universal_layers_shared_separate_and_none():
    shared, outputs = universal_model(None)
    own = shared["universal"]
    assert set(own) == {"layers_0", "layers_1", "latents", "norm"}
    # Separate, but with equal weights: the same outputs.
    of_text = {name: {key: value for key, value in own[name].items() if "cross" not in key}
               for name in ("layers_0", "layers_1")}
    apart = {**shared, "universal": {**own, **{f"text_{name}": value
                                               for name, value in of_text.items()}}}
    fresh, _ = universal_model(None, universal_sharing="separate")
    assert names(fresh) == names(apart)
    _, same = universal_model(apart, universal_sharing="separate")
    for found, expected in zip(same, outputs, strict=True):
        np.testing.assert_array_equal(found, expected)
    # Then each path follows its own weights alone.
    for key, moved in (("text_layers_1", 1), ("layers_1", 0)):
        changed = {**apart, "universal": apart["universal"] | {
            key: jax.tree.map(lambda x: x * 1.5, apart["universal"][key])}}
        _, other = universal_model(changed, universal_sharing="separate")
        np.testing.assert_array_equal(other[1 - moved], outputs[1 - moved])
        assert np.abs(other[moved] - outputs[moved]).max() > 1e-3
    # In the shared ones a change moves both.
    _, other = universal_model({**shared, "universal": own | {
        "layers_1": jax.tree.map(lambda x: x * 1.5, own["layers_1"])}})
    assert min(np.abs(a - b).max() for a, b in zip(other, outputs, strict=True)) > 1e-3
    # None: what the encoders give.
    bare = {name: shared[name] for name in ("vision", "text")}
    params, other = universal_model(None, universal_layers=0)
    assert names(params) == names(bare)
    _, other = universal_model(bare, universal_layers=0)
    batch, model = small.pairs(4, 1), build(MODEL, ("vision", "text"), ())
    encoders = (model.apply({"params": bare}, batch["video"], method="encode_visual"),
                model.apply({"params": bare}, batch["text"], batch["text_mask"],
                            method="encode_text"))
    for found, expected in zip(other, encoders, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [dict(universal_sharing="separate"), dict(universal_layers=0),
                                     dict(universal_sharing="separate", universal_layers=1)])
def test_ablations_pretrain(changes):
    task = small.task("pretrain", small.model(vision_layers=1, fusion_layers=1, decoder_layers=1,
                                              **changes))
    batch = batch_of(task, frames=1, text_length=8)
    loss, _ = jax.eval_shape(task.loss, shapes_of(task), batch, jax.random.key(0))
    assert loss.shape == ()
    with pytest.raises(ConfigError, match="universal_sharing = 'some': expected one of shared"):
        small.model(universal_sharing="some")


def test_the_description_counts_what_a_step_computes():
    config = demo_tasks.get_config("image_digit")
    task = small.task("classification", MODEL, classes=CLASSES)
    shapes = shapes_of(task)
    batch = batch_of(task, frames=2)
    key = jax.random.key(0)
    calls = find_calls(task.loss, shapes, (), batch, key)
    assert [call.name for call in calls] == ["vision", "universal.vision", "heads/classify"]
    assert sum(call.flops for call in calls) == count_flops(task.loss, shapes, batch, key)
    for call, tree in zip(calls, (shapes["vision"], shapes["universal"],
                                  shapes["heads"]["classify"]), strict=True):
        assert call.parameters == call.trained == sum(x.size for x in jax.tree.leaves(tree))
        assert call.state == "trained" and call.kept > 0
    assert calls[0].inputs == ((4, 2, 16, 16, 3),) and calls[0].outputs == ((4, 9, 32),)
    assert calls[2].kept == 4 * 32 * 4  # of a linear layer its input
    probe = find_calls(task.loss, shapes, ("^(vision|universal)/",), batch, key)
    assert [call.state for call in probe] == ["frozen", "frozen", "trained"]
    assert [call.kept for call in probe[:2]] == [0, 0]
    part = find_calls(task.loss, shapes, ("^vision/.*kernel$",), batch, key)
    assert part[0].state == "in part" and part[1].kept == calls[1].kept
    # What remat computes again is not kept.
    again = small.task("classification", small.model(vision_layers=1, universal_layers=2,
                                                     scan=False, remat="full"), classes=CLASSES)
    less = find_calls(again.loss, shapes, (), batch, key)
    assert less[0].kept < 0.7 * calls[0].kept and less[0].flops == calls[0].flops

    text = describe(config)
    first, *_, last = text.splitlines()
    assert first == ("task classification: vision, universal; heads classify; without text, "
                     "fusion, decoder")
    model = build(ModelConfig.from_mapping(config.model), ("vision", "universal"), ("classify",),
                  10)
    total = sum(x.size for x in jax.tree.leaves(
        jax.eval_shape(lambda: init_params(model, jax.random.key(0)))))
    assert last.startswith(f"{total:,} parameters, {total:,} of them trained; ")


def test_every_demo_task_is_described():
    for config in (demo.get_config(), *(demo_tasks.get_config(family)
                                        for family in ("text_pair", "instructions"))):
        config = ConfigDict(config)
        text = describe(config)
        assert all(f"stream {name}\n" in text for name in config.data.streams)
    for args, said in (((999, 1000, "FLOPs"), "999 FLOPs"),
                       ((12_345, 1000, "FLOPs"), "12.3 kFLOPs"),
                       ((0, 1024, "iB"), "0 B"), ((1536, 1024, "iB"), "1.5 KiB"),
                       ((2_500_000, 1000, ""), "2.5 M")):
        assert scaled(*args) == said
