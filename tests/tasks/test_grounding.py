"""Boxes as location tokens: there and back, the loss by hand, decoding nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from configs import checks, common, sizes
from mplug2_jax import tasks
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.metrics.scores import keep
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import build, init_params
from mplug2_jax.objectives import losses
from mplug2_jax.preprocess.locations import Locations
from mplug2_jax.preprocess.tokenizer import SPECIAL_TOKENS, load_tokenizer, train_sentencepiece

TINY = small.model(vision_layers=1, decoder_layers=1, fusion_layers=1)
BINS = 9
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def grounding():
    task = small.task("grounding", TINY, location_bins=BINS)
    return task, small.params_of(task.model)


def boxes(rows=8, seed=7):
    low, high = np.sort(np.random.default_rng(seed).random((2, rows, 2)), axis=0)
    return np.concatenate([low, high], axis=1).astype(np.float32)


def batch(rows=8, padding=1, **changes):
    made = {key: value for key, value in small.pairs(rows, 1, padding=padding).items()
            if not key.startswith(("text", "target"))}
    return made | {"box": boxes(rows)} | changes


def test_a_box_comes_back_from_its_tokens():
    tokenizer = small.tokenizer(BINS)
    locations = Locations(tokenizer, BINS)
    assert locations.ids.tolist() == list(range(32 - BINS, 32))  # [unused0] and on
    box = boxes(50)
    ids, mask = locations.target(box, 8)
    assert ids.shape == (50, 8) and mask.sum(axis=1).tolist() == [6] * 50
    assert (ids[:, 0] == tokenizer.cls_id).all() and (ids[:, 5] == tokenizer.sep_id).all()
    assert (ids[:, 6:] == tokenizer.pad_id).all()
    found = np.asarray(locations.box(ids))
    assert np.abs(found - box).max() <= 0.5 / (BINS - 1) + 1e-6
    edges = np.float32([[0, 0, 1, 1], [-0.2, 0.25, 0.5, 1.3]])
    np.testing.assert_allclose(locations.box(locations.target(edges)[0]),
                               [[0, 0, 1, 1], [0, 0.25, 0.5, 1]], atol=1e-6)
    swapped = ids.at[:, 1:5].set(ids[:, jnp.array([3, 4, 1, 2])])
    np.testing.assert_array_equal(locations.box(swapped), found)
    assert tokenizer.decode(np.asarray(ids[0])) == ""


def test_both_kinds_of_vocabulary_have_reserved_entries(tmp_path):
    train_sentencepiece(["a red three moves left"] * 20, tmp_path / "v.model", 60, reserved=5)
    (tmp_path / "v.txt").write_text("\n".join(
        [SPECIAL_TOKENS[0], "[unused1]", "[unused0]", *SPECIAL_TOKENS[1:], "[", "unused", "##1",
         "]", "[unused10]"]) + "\n")
    pieces, words = load_tokenizer(tmp_path / "v.model"), load_tokenizer(tmp_path / "v.txt")
    assert pieces.reserved == (5, 6, 7, 8, 9) and words.reserved == (2, 1, 11)
    assert pieces.decode([7, *pieces.encode("a red three")]) == "a red three"
    for tokenizer in (pieces, words):  # no text becomes one, nor do they begin words
        assert not set(tokenizer.encode("[unused1]")) & set(tokenizer.reserved)
        assert not tokenizer.word_starts[list(tokenizer.reserved)].any()
    with pytest.raises(ConfigError, match="task.location_bins = 4: expected at least 2, and at "
                                          "most 3, the reserved entries"):
        Locations(words, 4)


def test_the_loss_by_hand(grounding):
    task, params = grounding
    rows = batch()

    @jax.jit
    def run(params):
        memory, mask = task.memory(params, rows)
        ids = task.target(rows)[0]
        return (task.call(params, "decode", ids[:, :-1], None, memory, mask)[0], ids,
                task.loss(params, {"s": rows}, KEY))

    logits, ids, (value, (metrics, _)) = jax.device_get(run(params))
    log_probs = jax.nn.log_softmax(logits)
    positions, words, parts = np.linspace(0, 1, BINS), [], []
    for row in range(7):  # the last only fills the batch
        words += [-log_probs[row, at, ids[row, at + 1]] for at in range(5)]
        said = []
        for side in range(4):
            chosen = np.exp(logits[row, side, 32 - BINS:])
            said.append(chosen @ positions / chosen.sum())
        (p0, q0, p1, q1), (x0, y0, x1, y1) = said, rows["box"][row]
        l1 = abs(p0 - x0) + abs(q0 - y0) + abs(p1 - x1) + abs(q1 - y1)
        inner = max(0, min(p1, x1) - max(p0, x0)) * max(0, min(q1, y1) - max(q0, y0))
        union = max(0, p1 - p0) * max(0, q1 - q0) + (x1 - x0) * (y1 - y0) - inner
        hull = max(0, max(p1, x1) - min(p0, x0)) * max(0, max(q1, y1) - min(q0, y0))
        parts.append(5 * l1 + 2 * (1 - inner / union + (hull - union) / hull))
    assert float(metrics["s/lm"]) == pytest.approx(np.mean(words), rel=1e-5)
    assert float(value) == pytest.approx(np.mean(words) + np.mean(parts), rel=1e-5)
    assert 0 <= metrics["s/box_hits"] <= 1
    lighter = small.task("grounding", TINY, location_bins=BINS, box_weight=0.2)
    assert float(jax.jit(lighter.loss)(params, {"s": rows}, KEY)[0]) == pytest.approx(
        np.mean(words) + 0.2 * np.mean(parts), rel=1e-5)


def test_a_decoder_may_read_the_prompt_alone(grounding):
    """It has the prompt's part of what it reads otherwise, and sees the image through that."""
    task, params = grounding
    alone = small.task("grounding", TINY, location_bins=BINS, memory="prompt")
    rows = batch()
    (both, both_mask), (prompt, mask) = (
        jax.jit(t.memory)(params, rows) for t in (task, alone))
    length = rows["prompt"].shape[1]
    assert prompt.shape[1] == length < both.shape[1]
    np.testing.assert_allclose(prompt, both[:, -length:], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(mask, both_mask[:, -length:])
    np.testing.assert_array_equal(mask, rows["prompt_mask"])
    other = rows | {"video": 255 - rows["video"]}
    assert np.abs(jax.jit(alone.memory)(params, other)[0] - prompt).max() > 1e-3
    assert set(params) == {"vision", "text", "universal", "fusion", "decoder"} == set(
        small.params_of(alone.model))
    assert jax.jit(alone.predict)(params, rows)["box"].shape == (8, 4)


def test_decoding_says_location_tokens_alone(grounding):
    """Step by step the most probable of the location tokens, whatever words are likelier."""
    task, params = grounding
    rows = batch()
    head = params["decoder"]["head"] | {"bias": np.linspace(9, -9, 32, dtype=np.float32)}
    params = params | {"decoder": params["decoder"] | {"head": head}}
    output = jax.device_get(jax.jit(task.predict)(params, rows))
    ids = output["ids"]
    assert ids.shape == (8, 5) and (ids[:, 1:] >= 32 - BINS).all()

    @jax.jit
    def forced(params):
        memory, mask = task.memory(params, rows)
        return task.call(params, "decode", ids[:, :-1], None, memory, mask)[0]

    logits = np.asarray(forced(params))
    assert (logits.argmax(-1) < 32 - BINS).all()
    np.testing.assert_array_equal(logits[..., 32 - BINS:].argmax(-1), ids[:, 1:] - (32 - BINS))
    assert (output["box"][:, 2:] >= output["box"][:, :2]).all()


def test_overlaps_by_counting_pixels():
    rng = np.random.default_rng(0)
    low, high = np.sort(rng.integers(0, 21, (2, 60, 2, 2)), axis=0)
    pairs = np.concatenate([low, high + 1], axis=-1)  # [60, 2, 4], none of them empty
    iou, giou = losses.overlap(jnp.asarray(pairs[:, 0] / 22), jnp.asarray(pairs[:, 1] / 22))
    for number, both in enumerate(pairs):
        masks = np.zeros((2, 22, 22), bool)
        for mask, (x0, y0, x1, y1) in zip(masks, both, strict=True):
            mask[y0:y1, x0:x1] = True
        union, inner = (masks[0] | masks[1]).sum(), (masks[0] & masks[1]).sum()
        rows, columns = (np.flatnonzero(masks.any((0, axis))) for axis in (2, 1))
        hull = (rows[-1] + 1 - rows[0]) * (columns[-1] + 1 - columns[0])
        assert float(iou[number]) == pytest.approx(inner / union, abs=1e-5)
        assert float(giou[number]) == pytest.approx(inner / union - (hull - union) / hull, abs=1e-5)
    nothing = jnp.zeros(4)
    assert losses.overlap(nothing, nothing) == (0, 0)
    gradient = jax.grad(lambda b: losses.overlap(b, nothing)[1])(nothing)
    assert np.isfinite(gradient).all()


def test_grounding_is_scored_by_hand():
    task = small.task("grounding", location_bins=BINS)
    boxes = [{"phrase": "p", "box": [0.0, 0.0, 1.0, 0.5], "id": "s1"},
             {"phrase": "q", "box": [0.0, 0.0, 1.0, 1.0], "id": ""}]
    outputs = [{"box": np.float32([0, 0, 1, 1]), "item": 0},
               {"box": np.float32([0, 0, 0.5, 0.5]), "item": 1}]
    records = [task.record(output, {"id": "r", "boxes": boxes}) for output in outputs]
    assert [r["id"] for r in records] == ["s1", "r"] and records[1]["phrase"] == "q"
    assert keep(records, task.score(records, "image")) == {"image_grounding_accuracy": 0.5,
                                                           "image_grounding_iou": 0.375}
    assert records[1]["scores"] == {"image_grounding_accuracy": 0.0, "image_grounding_iou": 0.25}


def test_wrong_configs_are_named():
    config = common.base("tiny")
    config.data.root = config.data.tokenizer = "somewhere"
    config.task = common.task("grounding")
    stream = config.data.streams.s = common.stream("train", 8, image_size=48, frames=1)
    for changes, message in (
        ({}, "stream s.prompt_length = 0: task 'grounding' needs prompt"),
        (dict(prompt_length=9), "stream s.ask = 'question', frames = 1: task 'grounding' needs"),
        (dict(ask="box"), None),
    ):
        stream.update(changes)
        if message:
            with pytest.raises(ConfigError, match=message):
                checks.validate(config)
    checks.validate(config)
    config.task.memory = "visual"
    with pytest.raises(ConfigError, match="must be 'fused' or 'prompt'"):
        checks.validate(config)
    with pytest.raises(ConfigError, match="task.beams: unknown key"):  # a box is decoded greedily
        common.task("grounding", beams=3)


def test_real_models_hold_just_their_modules():
    model = ModelConfig.from_mapping(sizes.model("large"))
    task, options = tasks.read(common.task("grounding"))
    shapes = jax.eval_shape(lambda: init_params(build(model, *task.composition(options)), KEY))
    assert set(shapes) == {"vision", "text", "universal", "fusion", "decoder"}
