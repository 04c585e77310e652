"""Every number of a recipe has a source, and every source a number; parameters are counted."""

import importlib

import pytest

from configs import recipe, sizes
from docs import make, parameters, recipes

WORDS = [f"{size},{preset}" for size in sizes.SIZES for preset in sizes.PRESETS]
FOUND = list(recipes.modules(make.configs()))


def of_all_words(module, choices) -> dict[str, set]:
    """The numbers of a config's file in every size, preset and choice: key to values."""
    found: dict[str, set] = {}
    for choice in choices:
        for words in WORDS:
            config = module.get_config(",".join(filter(None, [choice, words])))
            for key, value in recipes.numbers(config, *words.split(",")).items():
                found.setdefault(key, set()).add(value)
    return found


@pytest.mark.parametrize("file, module, choices", FOUND, ids=[file for file, *_ in FOUND])
def test_numbers_and_sources_are_each_others(file, module, choices):
    numbers, known = of_all_words(module, choices), recipes.sources(module)
    assert not set(numbers) - set(known), "numbers without a source"
    assert not set(recipe.flat(module.SOURCES)) - set(numbers), "sources of nothing"
    for key, source in known.items():
        for part in source.removeprefix("with `scst` ").split("; with `scst` "):
            reference, _, where = part.partition(":")
            assert reference in recipe.REFERENCES and where.strip(), f"{key}: {part}"


def test_every_config_of_a_real_dataset_has_sources():
    files = {name.partition(":")[0] for name, _ in make.configs()}
    without = files - {file for file, *_ in FOUND}
    assert {file for file in without if not file.startswith("demo")} <= {
        "zero_shot.py"}  # it trains nothing


def test_shared_sources_are_of_something():
    used = set().union(*(recipes.numbers(config) for _, _, choices in FOUND
                         for config in choices.values()))
    assert set(recipe.flat(recipe.SHARED)) <= used


def test_a_number_without_a_source_is_found():
    module = importlib.import_module("configs.didemo_retrieval")
    config = module.get_config("tiny")
    config.optimizer.b2, config.task.objectives.vtm = 0.98, 0.5
    config.optimizer.ema_decay = 0.999
    config.data.streams.video.frame_stride = 4
    config.evals.video_retrieval.stream.frames = 8
    found = recipes.numbers(config, "tiny")
    assert found["optimizer.b2"] == 0.98 and found["task.objectives.vtm"] == 0.5
    assert set(found) - set(recipes.sources(module)) == {
        "optimizer.ema_decay", "stream.frame_stride", "evaluation.frames"}


def test_parameters_are_counted_once():
    counts = parameters.counted("large", "release")
    assert parameters.total("large", "release") / 1e6 == pytest.approx(1031.5, abs=0.1)
    assert parameters.total("large", "paper") / 1e6 == pytest.approx(1025.1, abs=0.1)
    # Published: BERT-large 335.1 with its pooler; CLIP's ViT-L/14 304.0 with its projection.
    bert = sum(counts[part] for part in ("text: embeddings", "text: layers",
                                         "universal: self-attention and MLP"))
    assert (bert + 1024 * 1025) / 1e6 == pytest.approx(335.1, abs=0.1)
    vit = counts["vision: the ViT, as CLIP's"]
    assert (vit + 1024 * 768) / 1e6 == pytest.approx(304.0, abs=0.1)
    assert (vit + 1024 * 768 + parameters.clip_text()) / 1e6 == pytest.approx(427.6, abs=0.1)
    assert all(counts.values())
