"""What is said to be float32 is multiplied as float32, on chips too that would round by default."""

import math
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from marks import needs_libtpu
from products import BFLOAT16, TENSORFLOAT32, inexact, products, rounded

from configs import common
from mplug2_jax.objectives import contrastive as contrast
from mplug2_jax.objectives import losses
from mplug2_jax.parallel.mesh import batch_sharding, make_mesh
from mplug2_jax.training.optimizer import make_optimizer
from mplug2_jax.training.state import create_state
from mplug2_jax.training.step import make_train_step

ROOT = Path(__file__).parents[2]
MESHES = [(1, 1, 1), (2, 2, 2), (8, 1, 1)]
ROWS, DIM = 64, 32
FLOAT, TEMPERATURE = jnp.float32, 0.07


def unit(seed, rows, dim=DIM, together=0.9):
    """Unit vectors that have a direction in common, as features of a model have."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, dim)) + 9 * together * np.ones(dim) / math.sqrt(dim)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def arguments(rows=ROWS, dim=DIM, queue=False):
    """Of `loss`: features, the temperature, and what a teacher gives."""
    visual = unit(0, rows, dim)
    noise = np.random.default_rng(1).standard_normal(visual.shape)
    text = visual + 0.1 * noise  # pairs are alike
    text = (text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float32)
    soft = queued = None
    if queue:
        soft = contrast.Soft(unit(2, rows, dim), unit(3, rows, dim), np.float32(0.4))
        queued = {"visual": unit(4, rows, dim), "text": unit(5, rows, dim),
                  "pair_id": np.arange(rows, 2 * rows, dtype=np.int32),
                  "example_mask": np.ones(rows, bool)}
    return visual, text, np.float32(TEMPERATURE), soft, queued


def loss(visual, text, temperature, soft=None, queue=None, chunk=16):
    rows = len(visual)
    return contrast.contrastive(visual, text, temperature, np.arange(rows, dtype=np.int32),
                                np.ones(rows, bool), soft, queue, chunk)[0]


GRADIENT = jax.grad(loss, argnums=(0, 1, 2))


def draw(visual, text, temperature, block=0):
    rows = len(visual)
    return contrast.hard_negatives(jax.random.key(0), visual, text, temperature,
                                   np.arange(rows, dtype=np.int32), np.ones(rows, bool), block, 16)


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_the_contrastive_loss_is_lowered_exact(shape):
    mesh = make_mesh(*shape, jax.devices()[:math.prod(shape)])
    with jax.set_mesh(mesh):
        for queue in (False, True):
            given = jax.tree.map(lambda x: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=batch_sharding(mesh) if x.ndim else None),
                arguments(queue=queue))
            for function in (loss, GRADIENT):
                lowered = jax.jit(function).lower(*given)
                # A product each way, of the teacher as many; two more each way backward.
                assert len(products(lowered)) >= 2 * (1 + queue) * (1 + (function is GRADIENT))
                assert inexact(lowered) == []
        for block in (0, 8):
            lowered = jax.jit(partial(draw, block=block)).lower(*given[:3])
            assert len(products(lowered)) == 1 and inexact(lowered) == []


def test_the_heads_are_lowered_exact():
    """Of a model that computes in bfloat16: projections, matching, classes, boxes, prompts."""
    model = small.model(dtype="bfloat16")
    pretrain = small.task("pretrain", model)
    classes = small.task("classification", model, classes=("a", "b"), inputs="both")
    prompted = small.task("zero_shot", model, classes=("w1", "w2"), templates=("{}",))
    tokens = jax.ShapeDtypeStruct((4, 3, model.width), jnp.bfloat16)
    box = np.linspace(0, 1, 8, dtype=np.float32)
    heads = {
        "project": (pretrain, lambda call, x: (call("contrastive", x, "visual"),
                                               call("contrastive", x, "text")), 2),
        "match": (pretrain, lambda call, x: call("match_logits", x), 1),
        "classify": (classes, lambda call, x: call("class_logits", x[:, 0]), 2),
        "box": (pretrain, lambda _, x: losses.expected_box(x, np.arange(8), box), 1),
        "compare": (prompted, lambda call, x: prompted.compare(
            {"heads": {"vtc": {"temperature": FLOAT(TEMPERATURE)}}}, x.astype(FLOAT),
            x[:2, 0].astype(FLOAT), np.arange(2)), 1)}
    for name, (task, head, count) in heads.items():
        params = jax.eval_shape(partial(task.init_params, jax.random.key(0)))

        def total(params, x, task=task, head=head):
            values = head(partial(task.call, params), x)
            return sum(value.astype(FLOAT).sum() for value in jax.tree.leaves(values))

        for function in (total, jax.grad(total, argnums=(0, 1))):
            lowered = jax.jit(function).lower(params, tokens)
            assert len(products(lowered)) >= count, name
            assert inexact(lowered) == [], name


@pytest.mark.slow
def test_of_a_step_in_bfloat16_only_gradients_of_two_products_are_rounded():
    """The backward passes of the attention's logits and of the vocabulary's.

    Both multiply bfloat16 numbers by a float32 gradient, and forward nothing is rounded.
    """
    options = common.base("tiny").optimizer
    options.update(dict(steps=8, warmup_steps=1))
    task, optimizer = small.task(model=small.model(dtype="bfloat16")), make_optimizer(options)[0]
    shapes = jax.eval_shape(lambda: create_state(task, optimizer, 0))
    mesh = make_mesh(2, 2, 2, jax.devices())
    step = make_train_step(task, optimizer, shapes, mesh, 0)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), small.batch())
    del batch["image"]  # to the losses, a video of one frame
    lowered = step.lower(shapes, batch)
    rounds = [one for one in inexact(lowered)
              if not one.place.split('"')[1].endswith(("...qhd,...khd->...hqk/dot_general",
                                                       "...d,vd->...v/dot_general"))]
    assert rounds == []
    exact = [one for one in products(lowered) if one.precision == ("HIGHEST", "HIGHEST")]
    assert len(exact) >= 2 * 3  # the contrastive loss alone
    assert {one.types for one in exact} == {("f32", "f32")}


def written_out(visual, text, temperature):
    """The gradient of `loss` in float64, of pairs that all differ."""
    visual, text = np.float64(visual), np.float64(text)
    logits = visual @ text.T / temperature

    def softmax(x):
        x = np.exp(x - x.max(axis=1, keepdims=True))
        return x / x.sum(axis=1, keepdims=True)

    slope = (softmax(logits) + softmax(logits.T).T - 2 * np.eye(len(logits))) / 2 / len(logits)
    return (slope @ text / temperature, slope.T @ visual / temperature,
            -(slope * logits).sum() / temperature)


def errors(found, expected):
    return [np.linalg.norm(np.float64(one) - other) / np.linalg.norm(other)
            for one, other in zip(found, expected, strict=True)]


@pytest.mark.parametrize("fraction", [BFLOAT16, TENSORFLOAT32])
def test_gradients_on_a_chip_are_those_of_float64(fraction):
    given = arguments(256, 256)[:3]
    expected = written_out(*given)
    assert max(errors(rounded(GRADIENT, fraction)(*given), expected)) < 2e-5

    def by_default(visual, text, temperature):
        logits = visual @ text.T / temperature
        each = jnp.diag(jax.nn.log_softmax(logits)) + jnp.diag(jax.nn.log_softmax(logits.T))
        return -each.mean() / 2

    gradient = jax.grad(by_default, argnums=(0, 1, 2))
    assert max(errors(gradient(*given), expected)) < 2e-5  # of a CPU, which rounds nothing
    assert max(errors(rounded(gradient, fraction)(*given), expected)) > {
        BFLOAT16: 1e-3, TENSORFLOAT32: 1e-4}[fraction]


COMPILED = """
import sys
sys.path[:0] = ["tests", "tests/objectives"]
import jax
from jax.sharding import SingleDeviceSharding
from mplug2_jax.planning.topology import devices_of, parse_topology
from test_precision import GRADIENT, arguments
place = SingleDeviceSharding(devices_of(parse_topology("v5e:2x2"))[0])
shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
                      arguments()[:3])
print(jax.jit(GRADIENT).lower(*shapes).compile().as_text())
"""


@pytest.mark.slow
@needs_libtpu
def test_a_tpu_multiplies_the_similarities_in_float32():
    """In a process of its own, for what libtpu is told of this machine holds for all of it."""
    text = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True,
                          check=True, cwd=ROOT).stdout
    found = re.findall(r"= f32\[[\d,]+\]\S* (?:convolution|dot)\(.*", text)
    assert len(found) >= 6 and all("operand_precision={highest,highest}" in one for one in found)
