"""A third modality is one file outside of the tree: it is composed, sharded and trained as others.

The file registers spectrograms of tones. Two tones after one another are described by two words.
"""

import dataclasses
import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small
from jax.sharding import PartitionSpec
from trees import assert_gradients_equal

from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.model.modalities import MODALITIES
from mplug2_jax.model.mplug2 import build, init_params, part_of
from mplug2_jax.objectives.contrastive import contrastive
from mplug2_jax.objectives.losses import language_modelling
from mplug2_jax.parallel.mesh import make_mesh, put_batch
from mplug2_jax.parallel.sharding import path_name, sharded_share, tree_shardings
from mplug2_jax.preprocess.tokenizer import SPECIAL_TOKENS
from mplug2_jax.training.optimizer import decay_mask, label_by_path, layer_factors

pytestmark = pytest.mark.slow
FILE = '''
"""Spectrograms: log-mel energies in patches of a few frames, and a small encoder of them."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.layers import BERT_EPS, Repeat, bert_init
from mplug2_jax.model.modalities import Modality, register
from mplug2_jax.model.text import transformer_layer


@dataclasses.dataclass(frozen=True)
class Sizes:
    frames: int = 32
    mels: int = 24
    patch: int = 4
    layers: int = 2
    remat: str = "none"


class SpectrogramEncoder(nn.Module):
    config: ModelConfig
    sizes: Sizes = Sizes()

    @nn.compact
    def __call__(self, energies):
        """Log energies `[B, T, M]` to `[B, 1 + T / patch, D]`."""
        config, sizes = self.config, self.sizes
        width, dtype = config.width, config.compute_dtype
        x = energies.astype(dtype).reshape(
            energies.shape[0], -1, sizes.patch * sizes.mels)  # [B, N, patch * M]
        kernel = self.param("patch_kernel", nn.initializers.lecun_normal(), (x.shape[-1], width))
        x = x @ kernel.astype(dtype)
        init = bert_init(width)
        token = self.param("class_embedding", init, (width,)).astype(dtype)
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, width)), x], axis=1)
        rows = 1 + sizes.frames // sizes.patch
        x = x + self.param("position", init, (rows, width)).astype(dtype)[:x.shape[1]]
        x = nn.LayerNorm(epsilon=BERT_EPS, dtype=dtype, name="norm_pre")(x)
        return Repeat(transformer_layer(config), sizes.layers, config.scan, sizes.remat,
                      name="layers")(x)[0]


def entry(sizes=Sizes()):
    return Modality(
        "spectrogram", partial(SpectrogramEncoder, sizes=sizes), "energies",
        lambda config: jax.ShapeDtypeStruct((sizes.frames, sizes.mels), jnp.float32),
        lambda energies: jnp.log(energies + 1e-3) / 3)


register(entry())
'''
CONFIG = small.model(fusion_layers=1, decoder_layers=1)
NAMES = ("spectrogram", "text", "universal", "fusion", "decoder")
LEVELS = 4  # of pitch
FRAMES, MELS, RATE = 32, 24, 8_000


@pytest.fixture(scope="module")
def spectrogram(tmp_path_factory):
    """The file, imported; the registry is as before when the tests here are done."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "spectrogram_file.py").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.dont_write_bytecode", True)
        patch.syspath_prepend(folder)
        yield importlib.import_module("spectrogram_file")
        del MODALITIES["spectrogram"]


@pytest.fixture(scope="module")
def model(spectrogram):
    return build(CONFIG, NAMES, ("vtc",))


def mel_energies(wave):
    """Mel energies float32 `[T, M]` of a wave `[T * 256]`, frame by frame."""
    power = np.abs(np.fft.rfft(wave.reshape(FRAMES, -1) * np.hanning(256))) ** 2  # [T, 129]
    mel = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), MELS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.fft.rfftfreq(256, 1 / RATE)
    filters = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clip(0)
    return (power @ filters.T).astype(np.float32)


def tones(seed):
    """A batch of all 16 pairs of pitches: a tone, then another, and the two words for them."""
    rng, time = np.random.default_rng(seed), np.arange(FRAMES * 128) / RATE
    energies, ids = [], []
    for pair in np.ndindex(LEVELS, LEVELS):
        waves = [rng.uniform(0.5, 1) * np.sin(2 * np.pi * (
            400 * 1.7 ** level * rng.uniform(0.95, 1.05) * time + rng.uniform())) for level in pair]
        wave = np.concatenate(waves)
        energies.append(mel_energies(wave + 0.05 * rng.standard_normal(wave.shape)))
        first = len(SPECIAL_TOKENS)
        ids.append([SPECIAL_TOKENS.index("[CLS]"), first + pair[0], first + LEVELS + pair[1],
                    SPECIAL_TOKENS.index("[SEP]")])
    ids = np.array(ids, np.int32)
    return {"energies": np.stack(energies), "text": ids, "text_mask": np.ones(ids.shape, bool),
            "pair_id": np.arange(len(ids), dtype=np.int32),
            "example_mask": np.ones(len(ids), bool)}


def features(model, params, batch):
    """The embedding `[B, S, D]` of the tones, and both modalities' features `[B, C]`."""
    call = partial(model.apply, {"params": params})
    heard = call("spectrogram", batch["energies"], method="encode")
    text = call("text", batch["text"], batch["text_mask"], method="encode")
    return (heard, call(heard, "spectrogram", method="contrastive"),
            call(text, "text", method="contrastive"))


def objective(model, params, batch):
    """Contrastive + captioning, and the two by themselves."""
    heard, *pair = features(model, params, batch)
    temperature = model.apply({"params": params}, method="temperature")
    vtc, _ = contrastive(*pair, temperature, batch["pair_id"], batch["example_mask"])
    logits, _ = model.apply({"params": params}, batch["text"][:, :-1], None, heard, None,
                            method="decode")
    caption, _ = language_modelling(logits, batch["text"][:, 1:], batch["text_mask"][:, 1:])
    return vtc + caption, (vtc, caption)


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


def test_eight_devices_change_nothing(model):
    mesh, batch, params = make_mesh(1, 4, 2), tones(0), small.params_of(model)
    loss = jax.jit(lambda *args: objective(model, *args)[0])
    with jax.set_mesh(mesh):
        many = loss(jax.device_put(params, tree_shardings(params, mesh)), put_batch(batch, mesh))
    np.testing.assert_allclose(many, loss(params, batch), rtol=1e-5)


def test_its_remat_policies_compute_the_same(spectrogram):
    energies = tones(0)["energies"]
    weights = np.random.default_rng(0).standard_normal((16, 1 + FRAMES // 4, CONFIG.width))
    grads, params = {}, None
    for policy in ("none", "full", "dots"):
        entry = spectrogram.entry(dataclasses.replace(spectrogram.Sizes(), remat=policy))
        encoder = entry.encoder(CONFIG)
        if params is None:
            params = jax.jit(encoder.init)(jax.random.key(0), energies)

        def total(params, entry=entry, encoder=encoder):
            return (encoder.apply(params, entry.normalise(energies)) * weights).mean()

        grads[policy] = jax.jit(jax.grad(total))(params)
        assert_gradients_equal(grads[policy], grads["none"], 1e-5)


def test_it_learns_to_be_found_and_described(model):
    params = jax.jit(partial(init_params, model))(jax.random.key(0))
    optimizer = optax.adamw(3e-3, weight_decay=0.01, mask=decay_mask)

    @jax.jit
    def step(params, state, batch):
        (loss, parts), grads = jax.value_and_grad(partial(objective, model), has_aux=True)(
            params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss, parts

    state, losses = optimizer.init(params), []
    for seed in range(30):
        params, state, loss, parts = step(params, state, tones(seed))
        losses.append([float(loss), *map(float, parts)])
    start, end = np.mean(losses[:3], axis=0), np.mean(losses[-3:], axis=0)
    assert (end < 0.7 * start).all(), (start, end)
    _, heard, text = jax.jit(partial(features, model))(params, tones(1000))
    found = np.asarray(heard @ text.T).argmax(axis=1) == np.arange(LEVELS ** 2)
    assert found.mean() > 4 / LEVELS ** 2, found.mean()
