"""What pretraining starts from: CLIP and BERT, or the release's pretraining checkpoint."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small
from commands import run
from pretraining_states import DIM, GOLDEN, converted, pretrained, wrapped
from torch_files import table, tables, write

from configs import common
from mplug2_jax import tasks
from mplug2_jax.checkpoints import OPTIMIZER, CheckpointError, Checkpoints, write_params
from mplug2_jax.checkpoints.manager import module_of
from mplug2_jax.convert import hugging_face
from mplug2_jax.convert.layout import nest
from mplug2_jax.convert.official import read_weights
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.parallel.mesh import make_mesh
from mplug2_jax.parallel.sharding import init_sharded, path_name
from mplug2_jax.preprocess.tokenizer import SPECIAL_TOKENS, Tokenizer
from mplug2_jax.training.state import create_state

pytestmark = pytest.mark.slow
NEW = ("heads/vtc", "heads/vtm")  # what neither CLIP nor BERT has


def task_of(model, **options):
    """Pretraining with the small tokenizer, its vocabulary as large as the weights'."""
    words = small.tokenizer()
    pieces = [*SPECIAL_TOKENS, *(f"w{i}" for i in range(model.vocab_size - len(SPECIAL_TOKENS)))]
    tokenizer = Tokenizer(pieces, [True] * len(pieces), encode=words.encode, decode=words.decode)
    return tasks.make(common.task("pretrain", **options), model, tokenizer)


SHAPES = {}  # of states, by model and options


def shapes_of(task):
    known = task.model, repr(task.options)
    if known not in SHAPES:
        SHAPES[known] = jax.eval_shape(functools.partial(create_state, task, optax.identity(), 0))
    return SHAPES[known]


def loaded(task, folder, allow_new=()):
    """The parameters and the task's state that a folder gives for a run's start."""
    shapes, mesh, source = shapes_of(task), make_mesh(1, -1, 1), Checkpoints(folder)
    try:
        return (source.load_params(shapes.params, mesh, allow_new),
                source.load_task_state(shapes.task_state, mesh, allow_new))
    finally:
        source.close()


def test_clip_and_bert_start_pretraining_but_for_two_heads(tmp_path):
    model = ModelConfig(
        vision_width=128, vision_layers=2, patch_size=8, image_size=24, width=32, heads=4,
        mlp_dim=64, vocab_size=120, max_positions=40, text_layers=2, universal_layers=1,
        fusion_layers=1, decoder_layers=1, contrastive_dim=16)
    bert = hugging_face.convert_bert(read_weights(GOLDEN / "hf_bert_tiny.safetensors"), model, "b")
    clip = hugging_face.convert_clip(
        read_weights(GOLDEN / "hf_clip_vision_tiny.safetensors"), model, "c")
    write_params(tmp_path, nest(bert.params | clip.params), {"model": {}})
    task = task_of(model)
    with pytest.raises(CheckpointError, match="'heads/vtc', 'heads/vtm'$"):
        loaded(task, tmp_path)
    for one in NEW:  # all of them are needed
        with pytest.raises(CheckpointError, match=f"allow_new: '{one}'$"):
            loaded(task, tmp_path, [name for name in NEW if name != one])
    params, _ = loaded(task, tmp_path, NEW)
    np.testing.assert_array_equal(params["heads"]["mlm"]["bias"], bert.params["heads/mlm/bias"])
    new = {module_of(path_name(at)) for at, x in jax.tree_util.tree_leaves_with_path(
        params, is_leaf=lambda x: x is None) if x is None}
    assert new == set(NEW)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A pretraining checkpoint, converted by the command with its teacher; what was printed."""
    folder = tmp_path_factory.mktemp("release")
    state = pretrained("tiny_qa") | {"extra.weight": np.ones(2, "f")}
    pickles, storages = tables(module=wrapped(state))
    path = write(folder / "mPLUG2_Pretrain.pth", table(pickles), storages)
    model = dataclasses.asdict(converted(path, "tiny_qa", drop=["extra"]).config)
    (folder / "run.py").write_text(
        "from configs import common\n"
        "def get_config():\n"
        "    config = common.base('tiny')\n"
        "    config.task = common.task('pretrain')\n"
        f"    config.model.update({model!r})\n"
        "    return config\n")
    words = ("-m", "mplug2_jax.convert", "official", path, f"--config={folder}/run.py",
             f"--out={folder}/start", "--teacher")
    refused = run(*words, status=2)
    assert "1 unknown: extra.weight; what the model does not need" in refused.splitlines()[-1]
    assert not (folder / "start").exists()
    return folder / "start", path, run(*words, r"--drop=^extra\.")


def test_the_command_says_what_became_of_everything(release):
    _, _, printed = release
    for line in ("dropped: 1: extra.weight", "heads: heads/vtc, heads/vtm, heads/mlm\n",
                 "ignored, queues of momentum features: 4 (image_queue, ...)",
                 "note: teacher: its fusion, matching head", "; teacher"):
        assert line in printed
    assert "allow_new" not in printed
    # Flags that another command would ignore are errors.
    for words in (("bert", "x", "--drop=y"), ("clip", "x", "--teacher")):
        assert "Traceback" not in run("-m", "mplug2_jax.convert", *words, status=2)


def test_pretraining_goes_on_from_the_release_with_its_teacher(release, tmp_path):
    folder, path, _ = release
    found = converted(path, "tiny_qa", drop=["extra"], with_teacher=True)
    task = task_of(found.config, momentum={"teacher": True})
    params, kept = loaded(task, folder)
    jax.tree.map(np.testing.assert_array_equal, params, nest(found.params))
    create = functools.partial(create_state, task, optax.identity(), 0, False)
    state = init_sharded(create, make_mesh(1, -1, 1), params, kept)
    jax.tree.map(np.testing.assert_array_equal, state.task_state, {"teacher": nest(found.teacher)})
    jax.tree.map(np.testing.assert_array_equal, state.params, nest(found.params))
    assert state.params["heads"]["vtc"]["text"]["bias"].shape == (DIM,)

    # Without a teacher nothing is made of it.
    assert loaded(task_of(found.config), folder)[1] == {}
    # With a head of another width, that of the teacher is as fresh as the model's.
    wider = task_of(dataclasses.replace(found.config, contrastive_dim=8),
                    momentum={"teacher": True})
    with pytest.raises(CheckpointError, match="heads/vtc/text/bias has shape"):
        loaded(wider, folder)
    teacher = loaded(wider, folder, ["heads/vtc"])[1]["teacher"]
    new = {path_name(at) for at, x in jax.tree_util.tree_leaves_with_path(
        teacher, is_leaf=lambda x: x is None) if x is None}
    assert new == {f"heads/vtc/{side}/{name}" for side in ("text", "visual")
                   for name in ("bias", "kernel")}
    # A run's own teacher is that run's: another one that starts from it has a fresh one.
    checkpoints = Checkpoints(tmp_path, keep=1)
    items = state.items() | {OPTIMIZER: {"count": jnp.zeros(())}}
    checkpoints.save(1, items, {"model": {}}, {})
    checkpoints.wait()
    assert loaded(task, tmp_path)[1] == {}
    checkpoints.close()


class Learner:
    """A task of one weight and of a copy of it."""

    def init_params(self, rng):
        return {"a": jnp.zeros(2), "b": jnp.ones(2)}

    def init_state(self, params):
        return {"teacher": jax.tree.map(jnp.copy, params)}


def test_what_a_start_lacks_of_a_teacher_is_as_the_parameters_are():
    state = create_state(Learner(), optax.identity(), 0, False, {"a": jnp.full(2, 3.0), "b": None},
                         {"teacher": {"a": jnp.full(2, 4.0), "b": None}})
    assert {name: x.tolist() for name, x in state.params.items()} == {"a": [3, 3], "b": [1, 1]}
    assert {name: x.tolist() for name, x in state.task_state["teacher"].items()} == {
        "a": [4, 4], "b": [1, 1]}
