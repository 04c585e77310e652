"""Instructions: rows of captions, answers and boxes in one batch, each as it would be alone."""

import jax
import numpy as np
import pytest
import small

from configs import checks, demo_tasks
from mplug2_jax.contracts.errors import ConfigError

TINY = small.model(vision_layers=1, decoder_layers=1, fusion_layers=1)
BINS = 9
KEY = jax.random.key(0)


def batch(rows=6, padding=1):
    """Rows 0, 3, ... ask for a box, whose targets are empty; the last rows only fill it."""
    rng = np.random.default_rng(3)
    made = small.pairs(rows, 1, padding=padding)
    made = {key: value for key, value in made.items() if not key.startswith(("text", "target"))}
    made["target"], made["target_mask"] = small.texts(rng, rows, 8)
    low, high = np.sort(rng.random((2, rows, 2)), axis=0)
    box = np.concatenate([low, high], axis=1).astype(np.float32)
    asks = np.arange(rows) % 3 == 0
    made["box"] = np.where(asks[:, None], box, 0)
    made["target"][asks, 1:], made["target_mask"][asks, 2:] = 0, False
    return made


def only(rows, chosen):
    return {key: value[chosen] for key, value in rows.items()}


@pytest.fixture(scope="module")
def instructions():
    task = small.task("instructions", TINY, location_bins=BINS)
    return task, small.params_of(task.model)


def test_a_mixed_batch_is_the_mean_of_its_examples(instructions):
    """Of each example the mean over its own tokens; of the two boxes also what grounding adds."""
    task, params = instructions
    rows = batch()
    loss = jax.jit(task.loss)
    value, (metrics, _) = loss(params, {"s": rows}, KEY)
    boxes = only(rows, [0, 3])
    grounding = small.task("grounding", TINY, location_bins=BINS)
    boxed = {k: v for k, v in boxes.items() if not k.startswith("target")}
    _, (alone, _) = jax.jit(grounding.loss)(params, {"s": boxed}, KEY)
    qa = jax.jit(small.task("qa", TINY).loss)
    words = [float(qa(params, {"s": only(rows, [row])}, KEY)[1][0]["s/lm"]) for row in (1, 2, 4)]
    # A box has five tokens, so that the mean over two is the mean over their tokens.
    assert float(metrics["s/lm"]) == pytest.approx(
        (sum(words) + 2 * float(alone["s/lm"])) / 5, rel=1e-4)
    more = 2 / 5 * float(5 * alone["s/box_l1"] + 2 * alone["s/box_giou"])
    assert float(value) == pytest.approx(float(metrics["s/lm"]) + more, rel=1e-4)


def test_streams_without_boxes_have_none(instructions):
    task, params = instructions
    rows = {key: value for key, value in batch().items() if key != "box"}
    _, (metrics, _) = jax.jit(task.loss)(params, {"s": rows}, KEY)
    assert set(metrics) == {"s/lm", "s/lm_hits"}


def test_the_demo_s_mixture_is_evaluated_by_its_tasks():
    config = demo_tasks.get_config("instructions")
    checks.validate(config)
    sources = config.data.streams.train.split
    assert {name: (source["ask"], bool(source["instruction"]))
            for name, source in sources.items()} == {
        "caption": ("caption", True), "qa": ("question", True), "grounding": ("box", True),
        "corpus": ("box", True)}
    for name, entry in config.evals.items():
        alone = demo_tasks.get_config(name)
        alone.evals[name].task.memory = config.task.memory  # one decoder, which reads one memory
        assert entry.task == alone.evals[name].task
        assert entry.stream.instruction == sources[name]["instruction"]
        assert (entry.stream.root or config.data.root) == alone.data.root
    config.task.memory = "visual"
    with pytest.raises(ConfigError, match="must be 'fused'"):
        checks.validate(config)
