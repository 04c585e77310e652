"""One device against many, whole batches against split ones; what is sharded and what is not."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import small
from jax.sharding import PartitionSpec
from trees import assert_gradients_equal

from configs import common, sizes
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import HEADS, MODULES, build, init_params
from mplug2_jax.model.vision import DualVisionEncoder
from mplug2_jax.parallel import sharding
from mplug2_jax.parallel.mesh import batch_sharding, make_mesh, put_batch
from mplug2_jax.planning.hlo import Program
from mplug2_jax.training.optimizer import make_optimizer
from mplug2_jax.training.step import make_train_step

pytestmark = pytest.mark.slow
# (mesh, accumulation, frames of a video on several devices)
SPLITS = [((2, 2, 2), 1, True), ((1, 1, 1), 8, False)]
# What (2, 2, 2) splits along every axis at once, along fewer of them; both at once; whole frames,
# as every task has them in `tasks/test_equal_steps.py`.
MORE = [((2, 2, 2), 1, False), ((2, 1, 2), 2, False), ((8, 1, 1), 1, False), ((1, 8, 1), 1, False),
        ((4, 1, 2), 1, False)]
# One layer of everything that repeats: each mesh is a compilation.
SINGLE = small.model(vision_layers=1, fusion_layers=1, decoder_layers=1)


def mesh_of(data, fsdp, tensor):
    return make_mesh(data, fsdp, tensor, jax.devices()[:data * fsdp * tensor])


@functools.cache
def gradients(shape, accumulation, frames=False):
    """The pretraining loss with its parts, its gradient, and the bytes of temporaries."""
    model = dataclasses.replace(SINGLE, shard_frames=frames)
    task, mesh = small.task(model=model, accumulation=accumulation), mesh_of(*shape)
    params = jax.device_put(initial(), sharding.tree_shardings(initial(), mesh))
    batch = small.batch(padding=1)
    del batch["image"]  # to the losses, a video of one frame
    arguments = params, put_batch(batch, mesh), jax.random.key(1)
    with jax.set_mesh(mesh):
        step = jax.jit(jax.value_and_grad(task.loss, has_aux=True)).lower(*arguments).compile()
        return *jax.device_get(step(*arguments)), step.memory_analysis().temp_size_in_bytes


@functools.cache
def initial():
    return small.params_of(small.task(model=SINGLE).model)


@pytest.mark.parametrize("shape, accumulation, frames", [
    *SPLITS, *(pytest.param(*split, marks=pytest.mark.long) for split in MORE)], ids=str)
def test_loss_and_gradients_do_not_depend_on_the_mesh_and_the_split(shape, accumulation, frames):
    (one, (one_parts, _)), one_grads, memory = gradients((1, 1, 1), 1)
    (many, (many_parts, _)), many_grads, many_memory = gradients(shape, accumulation, frames)
    np.testing.assert_allclose(many, one, rtol=1e-5)
    assert many_parts.keys() == one_parts.keys()
    for name, value in one_parts.items():
        np.testing.assert_allclose(many_parts[name], value, rtol=1e-5, err_msg=name)
    assert_gradients_equal(many_grads, one_grads, 1e-5)
    if shape == (1, 1, 1):
        assert many_memory < memory / 4  # of 8 micro-batches


def test_sharded_frames_take_less_memory():
    video = jax.ShapeDtypeStruct((1, 8, 128, 128, 3), np.float32)  # more of them than of weights
    mesh, temporary = mesh_of(1, 1, 8), {}
    for frames in (False, True):
        encoder = DualVisionEncoder(small.model(image_size=128, shard_frames=frames))
        shapes = jax.eval_shape(encoder.init, jax.random.key(0), video)["params"]
        where = sharding.tree_shardings({"vision": shapes}, mesh)["vision"]
        with jax.set_mesh(mesh):
            compiled = jax.jit(lambda p, v, encoder=encoder: encoder.apply({"params": p}, v),
                               in_shardings=(where, batch_sharding(mesh))).lower(
                                   shapes, video).compile()
        temporary[frames] = compiled.memory_analysis().temp_size_in_bytes
    assert temporary[True] < 0.7 * temporary[False]


@pytest.mark.parametrize("module", ["text", "visual"])
def test_weights_are_sent_and_not_activations(module):
    """Of many examples; without constraints between layers the compiler prefers the opposite."""
    task, mesh = small.task(), mesh_of(1, 8, 1)
    shapes = jax.eval_shape(lambda: init_params(task.model, jax.random.key(0)))
    rows = {name: jax.ShapeDtypeStruct((512, *x.shape[1:]), x.dtype)
            for name, x in small.pairs().items()}
    names = ("video",) if module == "visual" else ("text", "text_mask")
    with jax.set_mesh(mesh):
        encode = jax.jit(lambda p, *args: task.call(p, f"encode_{module}", *args),
                         in_shardings=(sharding.tree_shardings(shapes, mesh),
                                       *[batch_sharding(mesh)] * len(names)))
        program = Program(encode.lower(shapes, *(rows[n] for n in names)).compile().as_text())
    modules = {"text": ("text",), "visual": ("vision",)}[module] + ("universal",)
    weights = sum(4 * x.size for m in modules for x in jax.tree.leaves(shapes[m]))
    assert 0 < sum(c.moved for c in program.collectives()) < 1.5 * weights


def test_training_on_eight_devices_follows_one_device():
    losses = {}
    options = common.base("tiny").optimizer
    options.update(dict(steps=8, warmup_steps=1, learning_rate=1e-3, vision_learning_rate=1e-3))
    for shape in ((1, 1, 1), (1, 4, 2)):
        task, mesh = small.task("retrieval", SINGLE), mesh_of(*shape)
        optimizer, _ = make_optimizer(options)
        state = small.state_of(task, optimizer, mesh)
        step = make_train_step(task, optimizer, state, mesh, seed=0)
        losses[shape] = []
        for i in range(4):
            batch = {"video": small.pairs(seed=i)}
            state, metrics = step(state, put_batch(batch, mesh))
            losses[shape].append(float(metrics["loss"]))
        kernel = state.opt_state[1].mu["text"]["layers"]["layer"]["mlp"]["wi"]["kernel"]
        assert kernel.sharding.spec == (PartitionSpec(None, "fsdp", "tensor"))
    np.testing.assert_allclose(losses[1, 4, 2], losses[1, 1, 1], rtol=1e-4)


def test_nearly_all_of_large_is_sharded():
    config = ModelConfig.from_mapping(sizes.model("large"))
    shapes = jax.eval_shape(lambda: init_params(build(config, MODULES, HEADS), jax.random.key(0)))
    assert sharding.sharded_share(shapes, mesh_of(1, 8, 1)) >= 0.995
    assert sharding.sharded_share(shapes, mesh_of(1, 4, 2)) >= 0.995
    assert sharding.sharded_share(shapes, mesh_of(1, 1, 1)) == 0


def test_a_dimension_that_does_not_divide_is_replicated():
    mesh = mesh_of(1, 4, 2)
    name = "decoder/embeddings/word"
    assert sharding.spec_for(name, (30522, 1024), mesh) == PartitionSpec("tensor", "fsdp")
    assert sharding.spec_for(name, (30523, 1024), mesh) == PartitionSpec(None, "fsdp")
