"""The chunked contrastive loss against the dense one; negatives; what a device holds of them."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import assert_gradients_equal

from mplug2_jax.objectives import contrastive as contrast
from mplug2_jax.objectives import losses
from mplug2_jax.parallel.mesh import batch_sharding, make_mesh, put_batch

MESHES = [(1, 1, 1), (8, 1, 1), (2, 2, 2)]
KEY = jax.random.key(0)


def mesh_of(shape):
    return make_mesh(*shape, jax.devices()[:math.prod(shape)])


def features(seed, rows, dim=5):
    x = np.random.default_rng(seed).standard_normal((rows, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def pairs(rows, padding=2):
    """Pair ids of which some are equal, and a mask."""
    ids = np.arange(rows, dtype=np.int32)
    ids[3], ids[rows // 2] = 1, 1
    return ids, np.arange(rows) < rows - padding


def dense(visual, text, temperature, pair_id, real):
    """The loss with all similarities at once, and the share of hits each way."""
    positive = (pair_id[:, None] == pair_id) & real[:, None] & real
    positive = positive | jnp.eye(len(pair_id), dtype=bool)
    target = positive / positive.sum(axis=1, keepdims=True)
    values, hits = [], []
    for one, other in ((visual, text), (text, visual)):
        logits = jnp.where(real | positive, one @ other.T / temperature, losses.NEGATIVE)
        values.append(-(target * jax.nn.log_softmax(logits)).sum(axis=1))
        hits.append(positive[jnp.arange(len(pair_id)), logits.argmax(axis=1)])
    values, hits = ((jnp.stack(x) * real).sum(axis=1) / real.sum() for x in (values, hits))
    return values.mean(), {"vtc_v2t": hits[0], "vtc_t2v": hits[1]}


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_chunks_equal_the_dense_loss(shape):
    arguments = features(0, 16), features(1, 16), jnp.float32(0.1)
    ids, real = pairs(16)
    (value, metrics), grads = jax.value_and_grad(
        dense, argnums=(0, 1, 2), has_aux=True)(*arguments, ids, real)
    assert 0 < metrics["vtc_v2t"] < 1
    for chunk in (5, 16, 4096) if shape == (1, 1, 1) else (5,):

        def chunked(visual, text, temperature, ids, real, chunk=chunk):
            return contrast.contrastive(visual, text, temperature, ids, real, chunk=chunk)

        mesh = mesh_of(shape)
        rows = put_batch((*arguments[:2], ids, real), mesh)
        with jax.set_mesh(mesh):
            (value_2, metrics_2), grads_2 = jax.jit(
                jax.value_and_grad(chunked, argnums=(0, 1, 2), has_aux=True))(
                    *rows[:2], arguments[2], *rows[2:])
        np.testing.assert_allclose(value_2, value, rtol=1e-5)
        for name in metrics:
            np.testing.assert_allclose(metrics_2[name], metrics[name], rtol=1e-6)
        for got, wanted in zip(grads_2, grads, strict=True):
            assert_gradients_equal([got], [wanted], 1e-5)


def largest_array(compiled):
    """Elements of the largest array that a compiled program of one device names."""
    return max(math.prod(map(int, filter(None, dims.split(","))))
               for dims in re.findall(r"\b(?:f32|s32|u32|pred|s64|u64|f64)\[([\d,]*)\]",
                                      compiled.as_text()))


def test_no_device_holds_more_than_its_rows_times_a_chunk():
    batch, dim, chunk = 8192, 16, 128
    rows = batch // 8
    assert rows * chunk == batch * dim  # of one device, and the features of all: the bound
    mesh = mesh_of((8, 1, 1))
    one = jax.ShapeDtypeStruct((batch, dim), jnp.float32, sharding=batch_sharding(mesh))
    ids, real = (jax.ShapeDtypeStruct((batch,), dtype, sharding=batch_sharding(mesh))
                 for dtype in (jnp.int32, bool))

    def loss(visual, text, temperature, ids, real):
        return contrast.contrastive(visual, text, temperature, ids, real, chunk=chunk)[0]

    def draw(visual, text, temperature, ids, real):
        return contrast.hard_negatives(KEY, visual, text, temperature, ids, real, 0, chunk)

    for function in (jax.value_and_grad(loss, argnums=(0, 1, 2)), draw):
        with jax.set_mesh(mesh):
            compiled = jax.jit(function).lower(one, one, jnp.float32(0.1), ids, real).compile()
        assert rows * chunk // 2 < largest_array(compiled) <= rows * chunk
        # Far below the device's rows against all columns at once.
        assert compiled.memory_analysis().temp_size_in_bytes < rows * batch * 4 / 4


@pytest.mark.parametrize("block, chunk", [(0, 4096), (0, 3), (8, 3)])
def test_negatives_are_the_same_on_every_mesh(block, chunk):
    ids, real = pairs(16)
    drawn = []
    for shape in MESHES:
        mesh = mesh_of(shape)
        rows = put_batch((features(0, 16), features(1, 16), ids, real), mesh)
        with jax.set_mesh(mesh):
            drawn.append(jax.device_get(jax.jit(
                lambda v, t, ids, real: contrast.hard_negatives(
                    KEY, v, t, jnp.float32(0.3), ids, real, block, chunk))(*rows)))
    for rows, found in drawn:
        np.testing.assert_array_equal(rows, drawn[0][0])
        np.testing.assert_array_equal(found, drawn[0][1])
        assert found[:14].all() and not found[14:].any()
        assert (rows[:14] < 14).all() and (ids[rows] != ids)[:14].all()


@pytest.mark.parametrize("shape, block", [((8, 1, 1), 0), ((2, 2, 2), 0), ((2, 2, 2), 8),
                                          ((2, 2, 2), 4)])
def test_rows_of_other_devices(shape, block):
    """Equal to indexing, backward too, and no device ever holds the whole."""
    x = np.random.default_rng(0).standard_normal((16, 3, 64)).astype(np.float32)
    within = block or 16
    rows = (np.random.default_rng(1).integers(0, within, 16)
            + np.arange(16) // within * within).astype(np.int32)
    weights = np.random.default_rng(2).standard_normal(x.shape).astype(np.float32)
    mesh = mesh_of(shape)

    def pick(x, rows, weights):
        picked, back = jax.vjp(lambda x: contrast.take_rows(x, rows, block), x)
        return picked, back(weights)[0]

    arguments = put_batch((x, rows, weights), mesh)
    with jax.set_mesh(mesh):
        compiled = jax.jit(pick).lower(*arguments).compile()
        picked, gradient = compiled(*arguments)
    np.testing.assert_array_equal(picked, x[rows])
    expected = np.zeros_like(x)
    np.add.at(expected, rows, weights)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6)
    assert largest_array(compiled) <= x.size / 2
    # A block within a device's rows asks for nothing of the others.
    assert ("collective-permute" in compiled.as_text()) == (block != 4)
    assert "all-gather" not in compiled.as_text() and "all-reduce" not in compiled.as_text()


def log_softmax(x):
    x = np.asarray(x, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.mark.parametrize("queued", [False, True])
def test_soft_targets_and_queue(queued):
    """Against the loss written out row by row, in float64."""
    temperature, alpha, rows = 0.2, 0.3, 6
    student = {"visual": features(0, rows), "text": features(1, rows)}
    teacher = {"visual": features(2, rows), "text": features(3, rows)}
    ids, real = np.array([0, 1, 0, 3, 4, 5], np.int32), np.array([1, 1, 1, 1, 1, 0], bool)
    queue = {"visual": features(4, 7), "text": features(5, 7),
             "pair_id": np.array([9, 8, 4, 1, 7, 3, 2], np.int32),
             "example_mask": np.array([1, 1, 1, 0, 1, 0, 1], bool)}
    value, metrics = contrast.contrastive(
        student["visual"], student["text"], jnp.float32(temperature), ids, real,
        contrast.Soft(teacher["visual"], teacher["text"], jnp.float32(alpha)),
        queue if queued else None, chunk=4)
    total, hits = 0.0, {}
    for name, one, other in (("vtc_v2t", "visual", "text"), ("vtc_t2v", "text", "visual")):
        columns, soft_columns, column_ids, valid = student[other], teacher[other], ids, real
        if queued:
            columns = soft_columns = np.concatenate([teacher[other], queue[other]])
            column_ids = np.concatenate([ids, queue["pair_id"]])
            valid = np.concatenate([real, queue["example_mask"]])
        hits[name] = []
        for i in range(5):
            logits = log_softmax((columns @ student[one][i])[valid] / temperature)
            soft = np.exp(log_softmax((soft_columns @ teacher[one][i])[valid] / temperature))
            positive = (column_ids == ids[i])[valid]
            assert positive.sum() == {0: 2, 2: 2, 4: 1 + queued}.get(i, 1)
            target = (1 - alpha) * positive / positive.sum() + alpha * soft
            total -= (target * logits).sum() / 10
            hits[name].append(positive[logits.argmax()])
    np.testing.assert_allclose(value, total, rtol=1e-5)
    for name, values in hits.items():
        np.testing.assert_allclose(metrics[name], np.mean(values), rtol=1e-6)


def test_with_a_queue_gradients_reach_the_rows_alone():
    ids, real = np.arange(4, dtype=np.int32), np.ones(4, bool)
    queue = {"visual": features(4, 3), "text": features(5, 3),
             "pair_id": np.arange(10, 13, dtype=np.int32), "example_mask": np.ones(3, bool)}

    def total(visual, text, soft):
        return contrast.contrastive(visual, text, jnp.float32(0.2), ids, real,
                                    contrast.Soft(*soft, jnp.float32(0.5)), queue)[0]

    visual, text, soft = features(0, 4), features(1, 4), (features(2, 4), features(3, 4))
    of_visual, of_text, of_soft = jax.grad(total, argnums=(0, 1, 2))(visual, text, soft)
    assert np.abs(of_visual).min() > 0 and np.abs(of_text).min() > 0
    assert not any(np.any(x) for x in of_soft)
    # A row's gradient does not know the other rows of its own side: they are no columns.
    changed = text.copy()
    changed[1] = features(9, 1)[0]
    np.testing.assert_array_equal(jax.grad(total)(visual, changed, soft)[0], of_visual[0])
