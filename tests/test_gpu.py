"""What only a GPU shows; where there is one, and not by `make test`, which simulates devices:

    JAX_PLATFORMS=cuda,cpu python -m pytest tests/test_gpu.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from attention_cases import CASES, output_and_gradients

from configs import common
from mplug2_jax.model import attention
from mplug2_jax.model.decoding import beam_search
from mplug2_jax.parallel import sharding
from mplug2_jax.parallel.mesh import make_mesh, put_batch
from mplug2_jax.training.optimizer import make_optimizer
from mplug2_jax.training.state import create_state
from mplug2_jax.training.step import make_train_step

pytestmark = pytest.mark.skipif(jax.default_backend() != "gpu", reason="no GPU here")


@pytest.fixture(autouse=True)
def exact_products():
    """By default a GPU multiplies float32 numbers with ten bits of their fractions."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.mark.parametrize("case", CASES)
def test_cudnn_equals_plain_products(case):
    """Output and gradients; the error is relative to the largest value, as of the TPU's kernel."""
    for ours, theirs in zip(output_and_gradients("cudnn", case, jnp.bfloat16),
                            output_and_gradients("xla", case, jnp.bfloat16), strict=True):
        assert np.abs(ours - theirs).max() <= 2e-2 * np.abs(theirs).max()


def test_the_kernel_runs_where_it_is_chosen():
    shape = jax.ShapeDtypeStruct((2, 257, 4, 64), jnp.bfloat16)
    text = jax.jit(attention.dot_product_attention).lower(shape, shape, shape).compile().as_text()
    assert "__cudnn$fmha" in text


@pytest.mark.parametrize("name", ["pretrain", "captioning"])
def test_training_follows_a_cpu(name):
    losses = {}
    options = common.base("tiny").optimizer
    options.update(dict(steps=8, warmup_steps=1, learning_rate=1e-3, vision_learning_rate=1e-3))
    batches = [small.batch(seed=i) for i in range(4)]
    if name != "pretrain":
        batches = [{"video": batch["video"]} for batch in batches]
    for platform in ("gpu", "cpu"):
        task, optimizer = small.task(name), make_optimizer(options)[0]
        mesh = make_mesh(1, 1, 1, jax.devices(platform)[:1])

        def create(task=task, optimizer=optimizer):
            return create_state(task, optimizer, 0)

        with jax.default_device(jax.devices(platform)[0]):
            state = sharding.init_sharded(create, mesh)
            step = make_train_step(task, optimizer, jax.eval_shape(create), mesh, seed=0)
            losses[platform] = []
            for batch in batches:
                state, metrics = step(state, put_batch(batch, mesh))
                losses[platform].append(jax.device_get(metrics))
    for ours, theirs in zip(losses["gpu"], losses["cpu"], strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            np.testing.assert_allclose(ours[key], value, rtol=1e-3, atol=1e-5, err_msg=key)


def test_beam_search_finds_what_a_cpu_finds():
    task = small.task("captioning")
    memory = np.random.default_rng(0).normal(size=(4, 6, small.MODEL.width)).astype(np.float32)
    found = {}
    for platform in ("gpu", "cpu"):
        with jax.default_device(jax.devices(platform)[0]):
            ids, scores = beam_search(task.model, small.params_of(task.model), jnp.asarray(memory),
                                      None, beams=4, min_length=0, max_length=8, start_id=2,
                                      end_id=3, pad_id=0)
            found[platform] = np.asarray(ids), np.asarray(scores)
    live = found["cpu"][1] > -1e10
    np.testing.assert_array_equal(found["gpu"][0][live], found["cpu"][0][live])
    np.testing.assert_allclose(found["gpu"][1][live], found["cpu"][1][live], atol=1e-4)
