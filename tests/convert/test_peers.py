"""Against `torch`, `transformers` and `open_clip`, where they are installed (`make setup-peers`):
what PyTorch reads of files that it wrote, and what small random models give, to 1e-5.
"""

import argparse
import collections
import dataclasses
import importlib.machinery
import sys
from unittest.mock import MagicMock

import jax.numpy as jnp
import numpy as np
import pytest

from mplug2_jax.convert import hugging_face
from mplug2_jax.convert.layout import nest
from mplug2_jax.convert.weights_file import read_weights
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import build

torch = pytest.importorskip("torch")
TEXT = dict(vision_width=64, vision_layers=1, patch_size=8, image_size=8, width=32, heads=4,
            mlp_dim=64, vocab_size=120, max_positions=40, text_layers=2, universal_layers=1,
            fusion_layers=1, decoder_layers=2, dropout=0.0)
VISION = TEXT | dict(vision_width=128, vision_layers=2, image_size=24, width=128)


def relative(found, expected):
    expected = np.asarray(expected)
    return float(np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected))


def numbers(tensor):
    return tensor.detach().float().numpy()


# Files.


class Ordered(collections.OrderedDict):
    """A config's class."""


def written():
    """A state of all that PyTorch shares and views, and what stands beside it."""
    torch.manual_seed(0)
    shared = torch.randn(4, 6)
    state = collections.OrderedDict(
        a=torch.randn(3, 4), half=torch.randn(5).half(), brain=torch.randn(5).bfloat16(),
        ids=torch.arange(7), tied=shared, twin=shared, rows=shared[1:3], turned=shared.t(),
        wide=shared[:1].expand(3, 6), scalar=torch.tensor(2.5), mask=torch.tensor([True, False]),
        empty=torch.zeros(0, 3), parameter=torch.nn.Parameter(torch.randn(3)))
    state["parameter"].partitioned = True  # an attribute: saved by another function
    beside = dict(config=Ordered(a=Ordered(b=1)), args=argparse.Namespace(lr=1e-4),
                  scalar=np.float32(2), sizes=torch.Size([1, 2]), device=torch.device("cpu"),
                  kind=torch.float16, random=torch.get_rng_state(),
                  optimizer={"state": {0: {"exp_avg": torch.zeros(3)}}})
    return state, beside


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("key", ["model", "module", "state_dict", "net"])
def test_files_are_read_as_torch_reads_them(tmp_path, zipped, protocol, key):
    state, beside = written()
    torch.save(beside | {key: state}, tmp_path / "x.pth", pickle_protocol=protocol,
               _use_new_zipfile_serialization=zipped)
    found = read_weights(tmp_path / "x.pth")
    assert list(found) == list(state) and not found.left_out
    for name, tensor in state.items():
        value = found[name].load()
        assert str(value.dtype) == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(np.asarray(value, np.float32), numbers(tensor))


class Tower(torch.nn.Module):
    """Parameters, buffers and submodules, as a program has them."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.rest = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.LayerNorm(2))
        self.scale = torch.nn.Parameter(torch.randn(2).half())
        self.register_buffer("resolution", torch.tensor(224))
        self.names, self.sizes, self.number = ["a", "b"], [1, 2], 7

    def forward(self, x):
        return self.rest(self.first(x)) * self.scale.float()


@pytest.mark.parametrize("how", ["script", "trace"])
def test_programs_have_the_names_of_their_state(tmp_path, how):
    tower = Tower()
    program = (torch.jit.script(tower) if how == "script" else
               torch.jit.trace(tower, torch.randn(1, 3)))
    program.save(str(tmp_path / "x.pt"))
    found = read_weights(tmp_path / "x.pt")
    assert set(found) == set(tower.state_dict())
    for name, tensor in tower.state_dict().items():
        np.testing.assert_array_equal(np.asarray(found[name].load(), np.float32), numbers(tensor))


# Models. Weights are drawn wider than they are initialised, so that every layer counts.


def drawn(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, parameter.ndim == 1, 0.1)
    return module.eval()


def clip_features(path, pixels):
    """Class token and patches behind the last norm, of our vision encoder: `[B, 1 + N, D]`."""
    config = ModelConfig(**VISION)
    found = hugging_face.convert_clip(read_weights(path), config, str(path))
    return build(config, ("vision",), ()).apply(
        {"params": nest(found.params)}, jnp.asarray(np.moveaxis(pixels, 1, -1))[:, None],
        method="encode_visual"), found.notes


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).standard_normal((2, 3, 24, 24)).astype(np.float32)


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.mark.parametrize("which", ["CLIPVisionModel", "CLIPModel", "CLIPVisionModelWithProjection"])
def test_clips_of_transformers(transformers, tmp_path, pixels, which):
    vision = transformers.CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=2,
        patch_size=8, image_size=24)
    config = vision if which != "CLIPModel" else transformers.CLIPConfig(
        vision_config=vision.to_dict(), text_config=transformers.CLIPTextConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            vocab_size=50, bos_token_id=1, eos_token_id=2).to_dict())
    model = drawn(getattr(transformers, which)(config))
    model.save_pretrained(tmp_path, max_shard_size="300KB")  # several files and their index
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    tower = getattr(model, "vision_model", model)
    with torch.no_grad():
        expected = tower.post_layernorm(tower(torch.from_numpy(pixels)).last_hidden_state)
    found, notes = clip_features(tmp_path, pixels)
    assert relative(found, expected) < 1e-5 and notes == []


@pytest.fixture(scope="module")
def open_clip():
    """Without torchvision, of which it uses image transforms alone, a stand-in takes its place."""
    pytest.importorskip("torch")
    names = ["torchvision", *(f"torchvision.{name}" for name in (
        "ops", "ops.misc", "transforms", "transforms.functional", "transforms.v2")), "ftfy"]
    stood_in = {}
    for name in names:
        try:
            __import__(name)
        except ImportError:
            stood_in[name] = sys.modules[name] = MagicMock()
            sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
            sys.modules[name].__path__ = []
    if "torchvision.ops.misc" in stood_in:
        stood_in["torchvision.ops.misc"].FrozenBatchNorm2d = type("FrozenBatchNorm2d", (), {})
    try:
        yield pytest.importorskip("open_clip")
    finally:
        for name in stood_in:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("quick", [True, False])
def test_clips_of_open_clip(open_clip, tmp_path, pixels, quick):
    """Of quick GELU they give the same; of GELU they do not, and it is said."""
    model = drawn(open_clip.model.CLIP(
        16, open_clip.CLIPVisionCfg(layers=2, width=128, patch_size=8, image_size=24),
        open_clip.CLIPTextCfg(context_length=8, vocab_size=50, width=32, heads=2, layers=1),
        quick_gelu=quick))
    torch.save({"epoch": 1, "name": "x", "state_dict": {
        f"module.{name}": tensor for name, tensor in model.state_dict().items()}},
        tmp_path / "epoch_1.pt")
    (tmp_path / "open_clip_config.json").write_text(
        '{"model_cfg": {"vision_cfg": {}, "quick_gelu": ' + str(quick).lower() + "}}")
    model.visual.proj = None
    with torch.no_grad():
        expected = model.visual(torch.from_numpy(pixels))  # of the class token
    found, notes = clip_features(tmp_path / "epoch_1.pt", pixels)
    error = relative(found[:, 0], expected)
    if quick:
        assert error < 1e-5 and notes == []
    else:
        assert 1e-3 < error < 0.5 and "open_clip_config.json says gelu" in notes[0]


def test_a_torchscript_clip_is_read_as_its_state(open_clip, tmp_path, pixels):
    """OpenAI gave its models out so, in half precision."""
    tower = drawn(open_clip.model.CLIP(
        16, open_clip.CLIPVisionCfg(layers=2, width=128, patch_size=8, image_size=24),
        open_clip.CLIPTextCfg(context_length=8, vocab_size=50, width=32, heads=2, layers=1),
        quick_gelu=True)).half().float()
    traced = torch.jit.trace(tower.visual, torch.from_numpy(pixels), check_trace=False)
    tower.visual.proj, projection = None, tower.visual.proj
    with torch.no_grad():
        expected = tower.visual(torch.from_numpy(pixels))
    tower.visual.proj = projection
    traced.half().save(str(tmp_path / "x.pt"))  # makes the tower's own numbers halves, too
    assert "proj" in read_weights(tmp_path / "x.pt")
    assert relative(clip_features(tmp_path / "x.pt", pixels)[0][:, 0], expected) < 1e-5


@pytest.mark.parametrize("which", ["BertModel", "BertForMaskedLM", "BertForPreTraining"])
@pytest.mark.parametrize("form", ["folder", "bin", "legacy"])
def test_berts_of_transformers(transformers, tmp_path, which, form):
    model = drawn(getattr(transformers, which)(transformers.BertConfig(
        hidden_size=32, num_attention_heads=4, intermediate_size=64, num_hidden_layers=3,
        vocab_size=120, max_position_embeddings=40)))
    path = tmp_path
    if form == "folder":
        model.save_pretrained(tmp_path)
    else:
        path = tmp_path / "pytorch_model.bin"
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=form == "bin")
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(0, 120, (2, 9)), np.arange(9) < [[9], [5]]
    config = dataclasses.replace(ModelConfig(**TEXT))
    found = hugging_face.convert_bert(read_weights(path), config, str(path))
    headed = which != "BertModel"
    ours, variables = build(config, ("text", "universal"), ("mlm",) * headed), {
        "params": nest(found.params)}
    hidden = ours.apply(variables, jnp.asarray(ids), jnp.asarray(mask), method="encode_text")
    given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask).long()}
    with torch.no_grad():
        expected = getattr(model, "bert", model)(**given).last_hidden_state
        assert relative(np.asarray(hidden)[mask], expected.numpy()[mask]) < 1e-5
        if headed:
            logits = model(**given)
            logits = getattr(logits, "logits", None) if which == "BertForMaskedLM" else (
                logits.prediction_logits)
            found = ours.apply(variables, hidden, method="mlm_logits")
            assert relative(np.asarray(found)[mask], logits.numpy()[mask]) < 1e-5
