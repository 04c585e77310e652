"""A third modality is one file outside of the tree: it is composed, sharded and trained as others.

It is `docs/examples/spectrogram.py`. Two tones after one another are described by two words.
"""

import importlib
import shutil
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from commands import ROOT
from jax.sharding import PartitionSpec
from trees import assert_gradients_equal

from configs import common
from mplug2_jax import tasks
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.model.modalities import MODALITIES
from mplug2_jax.model.mplug2 import build, init_params, part_of
from mplug2_jax.parallel.mesh import make_mesh, put_batch
from mplug2_jax.parallel.sharding import (
    init_sharded,
    path_name,
    sharded_share,
    tree_shardings,
)
from mplug2_jax.training.optimizer import (
    decay_mask,
    label_by_path,
    layer_factors,
    make_optimizer,
)
from mplug2_jax.training.state import create_state
from mplug2_jax.training.step import make_train_step

pytestmark = pytest.mark.slow
CONFIG = small.model(fusion_layers=1, decoder_layers=1)
NAMES = ("spectrogram", "text", "universal", "fusion", "decoder")
LEVELS = 4  # of pitch
FRAMES, MELS, RATE = 32, 24, 8_000
TASKS = {"retrieval": dict(rerank=0), "captioning": dict(memory="visual", max_length=4)}


@pytest.fixture(scope="module")
def spectrogram(tmp_path_factory):
    """The file, where Python finds it; the registry is as before when the tests here are done."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(ROOT / "docs" / "examples" / "spectrogram.py", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.dont_write_bytecode", True)
        patch.syspath_prepend(folder)
        tasks.read(common.task("retrieval", modality="spectrogram"))  # which finds and imports it
        yield sys.modules["spectrogram"]
        del MODALITIES["spectrogram"], sys.modules["spectrogram"]


@pytest.fixture(scope="module")
def model(spectrogram):
    return build(CONFIG, NAMES, ("vtc",))


def tones(module, seed):
    """A batch of all 16 pairs of pitches: a tone, then another, and the two words for them."""
    rng, time = np.random.default_rng(seed), np.arange(FRAMES * 128) / RATE
    energies, ids = [], []
    for pair in np.ndindex(LEVELS, LEVELS):
        waves = [rng.uniform(0.5, 1) * np.sin(2 * np.pi * (
            400 * 1.7 ** level * rng.uniform(0.95, 1.05) * time + rng.uniform())) for level in pair]
        wave = np.concatenate(waves)
        energies.append(module.mel_energies(wave + 0.05 * rng.standard_normal(wave.shape), RATE))
        ids.append(small.tokenizer().encode_padded(words(pair), 4)[0])
    rows = np.arange(len(ids), dtype=np.int32)
    return {"energies": np.stack(energies), "text": np.array(ids, np.int32),
            "text_mask": np.ones((len(ids), 4), bool), "pair_id": rows,
            "example_mask": np.ones(len(ids), bool)}


def words(pair):
    """Two words for the levels of two tones."""
    return f"{small.WORDS[pair[0]]} {small.WORDS[LEVELS + pair[1]]}"


def learner(name):
    """A task that hears."""
    return small.task(name, CONFIG, modality="spectrogram", **TASKS[name])


def test_its_shapes_and_its_place_among_the_modules(model, spectrogram):
    assert model.modules == NAMES[1:2] + NAMES[:1] + NAMES[2:]
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    assert set(shapes) == {*NAMES, "heads"}
    assert set(shapes["heads"]["vtc"]) == {"spectrogram", "text", "temperature"}
    batch = MODALITIES["spectrogram"].shapes(CONFIG, rows=3)
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {
        "energies": ((3, FRAMES, MELS), jnp.float32)}
    encode = partial(model.apply, method="encode")
    for frames in (FRAMES, FRAMES // 2):  # a shorter one has fewer patches
        energies = MODALITIES["spectrogram"].shapes(CONFIG, 3, frames)["energies"]
        heard = jax.eval_shape(lambda p, x: encode({"params": p}, "spectrogram", x),
                               shapes, energies)
        assert heard.shape == (3, 1 + frames // 4, CONFIG.width)


def test_with_another_modality_each_has_its_own_projection_and_checkpoints_fit(model):
    both = build(CONFIG, ("vision", *NAMES), ("vtc", "vtm"))
    shapes = jax.eval_shape(lambda: init_params(both, jax.random.key(0)))
    assert set(shapes["heads"]["vtc"]) == {"visual", "spectrogram", "text", "temperature"}
    own = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    part = part_of(shapes, model)
    assert set(part) == set(own)
    part["heads"]["vtc"] = {name: part["heads"]["vtc"][name] for name in own["heads"]["vtc"]}
    assert part == own


def test_what_does_not_fit_is_refused(spectrogram):
    with pytest.raises(ConfigError, match="'vtc' needs the module.* vision or spectrogram"):
        build(CONFIG, ("text",), ("vtc",))
    with pytest.raises(ConfigError, match="'spectrogram': registered twice"):
        importlib.reload(spectrogram)


def test_its_parameters_are_sharded_and_decayed_by_their_names(model):
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    own = {"spectrogram": shapes["spectrogram"]}
    mesh = make_mesh(1, 4, 2)
    assert sharded_share(own, mesh) > 0.9
    specs = {path_name(path): x.spec for path, x in
             jax.tree_util.tree_leaves_with_path(tree_shardings(own, mesh))}
    assert specs["spectrogram/position"] == PartitionSpec(None, "fsdp")
    assert specs["spectrogram/layers/layer/mlp/wi/kernel"] == PartitionSpec(None, "fsdp", "tensor")
    for path, decayed in jax.tree_util.tree_leaves_with_path(decay_mask(own)):
        assert decayed == (path[-1].key not in ("bias", "scale")), path_name(path)
    assert set(jax.tree.leaves(label_by_path(own))) == {"rest"}
    factors = layer_factors(own, 0.5)["spectrogram"]
    assert factors["layers"]["layer"]["mlp"]["wi"]["kernel"].ravel().tolist() == [0.25, 0.5]
    assert factors["position"] == factors["patch_kernel"] == 0.125


@pytest.mark.parametrize("name", TASKS)
def test_eight_devices_change_nothing(name, spectrogram):
    task, mesh, batch = learner(name), make_mesh(1, 4, 2), {"tones": tones(spectrogram, 0)}
    params = small.params_of(task.model)
    loss = jax.jit(lambda params, batch: task.loss(params, batch, jax.random.key(0))[0])
    with jax.set_mesh(mesh):
        many = loss(jax.device_put(params, tree_shardings(params, mesh)), put_batch(batch, mesh))
    np.testing.assert_allclose(many, loss(params, batch), rtol=1e-5)


def test_its_remat_policies_compute_the_same(spectrogram):
    energies = tones(spectrogram, 0)["energies"]
    weights = np.random.default_rng(0).standard_normal((16, 1 + FRAMES // 4, CONFIG.width))
    grads, params = {}, None
    for policy in ("none", "full", "dots"):
        entry = spectrogram.entry(policy)
        encoder = entry.encoder(CONFIG)
        if params is None:
            params = jax.jit(encoder.init)(jax.random.key(0), energies)

        def total(params, entry=entry, encoder=encoder):
            return (encoder.apply(params, entry.normalise(energies)) * weights).mean()

        grads[policy] = jax.jit(jax.grad(total))(params)
        assert_gradients_equal(grads[policy], grads["none"], 1e-5)


@pytest.mark.parametrize("name, part, right", [
    # `docs/test_examples.py` trains it by the command.
    pytest.param("retrieval", "vtc", lambda record: record["rank"] == 1, marks=pytest.mark.long),
    ("captioning", "lm", lambda record: [record["prediction"]] == record["references"])],
    ids=TASKS)
def test_it_learns_to_be_found_and_described(name, part, right, spectrogram):
    task, mesh = learner(name), make_mesh(1, 1, 1, jax.devices()[:1])
    optimizer, _ = make_optimizer(common.Optimizer(
        steps=60, warmup_steps=1, learning_rate=3e-3, final_learning_rate=1e-3))
    create = partial(create_state, task, optimizer, 0)
    state = init_sharded(create, mesh)
    step = make_train_step(task, optimizer, jax.eval_shape(create), mesh, seed=0)
    losses = []
    for seed in range(30):
        state, metrics = step(state, put_batch({"tones": tones(spectrogram, seed)}, mesh))
        losses.append(float(metrics[f"tones/{part}"]))
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3]), losses
    rows = np.arange(LEVELS ** 2, dtype=np.int32)
    held_out = tones(spectrogram, 1000) | {"index": rows, "item": np.zeros_like(rows)}
    _, records = task.evaluate(
        state.params, [held_out], lambda index: {"texts": [words(divmod(index, LEVELS))]}, "tone")
    assert sum(map(right, records)) > 4 * len(records) / LEVELS ** 2, records
