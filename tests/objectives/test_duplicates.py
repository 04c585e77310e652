"""Equal texts and equal media are positives, never negatives: against all pairs, one by one."""

import logging

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from hypothesis import strategies

from configs import common
from mplug2_jax.checkpoints.manager import Checkpoints
from mplug2_jax.objectives import contrastive as contrast
from mplug2_jax.objectives.momentum import Momentum, empty_queue, push
from mplug2_jax.parallel import sharding
from mplug2_jax.parallel.mesh import make_mesh, put_batch
from mplug2_jax.tasks.base import held_out
from mplug2_jax.training.optimizer import make_optimizer
from mplug2_jax.training.state import create_state, restore_state

ROWS, QUEUED, CHUNK, DIM = 8, 6, 3, 5
TEMPERATURE, ALPHA = 0.2, 0.3
TINY = small.model(vision_layers=1, universal_layers=1, fusion_layers=1, decoder_layers=1)


def words(numbers):
    """Ids int32 [N, 2] of contents by number; 0 is none. Of some one word agrees, or is 0."""
    numbers = np.asarray(numbers)
    return np.stack([numbers % 3, numbers // 3], axis=1).astype(np.int32)


def features(rng, rows):
    x = rng.standard_normal((rows, DIM))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@strategies.composite
def contents(draw, rows):
    """Rows of a batch: records, of which some have equal media, and texts, some equal; some none.

    Few of each, so that a text is of several media, and a medium has several texts: chains too.
    """
    numbers = strategies.lists(strategies.integers(0, 6), min_size=rows, max_size=rows)
    record, text = np.array(draw(numbers)), np.array(draw(numbers))
    media = np.array([1, 2, 3, 4, 1, 3, 0])[record]
    real = draw(strategies.lists(strategies.booleans(), min_size=rows, max_size=rows))
    return {"pair_id": record.astype(np.int32), "media_id": words(media), "text_id": words(text),
            "example_mask": np.array(real)}


def related(one, i, other, j):
    """Whether row i of a batch and row j of a batch or queue are positives of each other."""
    if not (one["example_mask"][i] and other["example_mask"][j]):
        return False
    return bool(one["pair_id"][i] == other["pair_id"][j] or any(
        (0, 0) != tuple(one[name][i]) == tuple(other[name][j]) for name in ("media_id", "text_id")))


def softmax(logits):
    logits = np.exp(logits - logits.max())
    return logits / logits.sum()


def reference(batch, sides, teacher=None, queue=None):
    """Loss, and hits each way, in float64, row by row and column by column."""
    total, hits, rows = 0.0, {}, range(len(batch["pair_id"]))
    real = [i for i in rows if batch["example_mask"][i]]
    for name, one, other in (("vtc_v2t", "visual", "text"), ("vtc_t2v", "text", "visual")):
        columns = [(batch, j, (sides if queue is None else teacher)[other][j]) for j in real]
        soft = [teacher[other][j] for j in real] if teacher else []
        for j in range(QUEUED) if queue is not None else ():
            if queue["example_mask"][j]:
                columns.append((queue, j, queue[other][j]))
                soft.append(queue[other][j])
        hits[name] = []
        for i in real:
            logits = np.array([x.astype(float) @ sides[one][i] for *_, x in columns]) / TEMPERATURE
            positive = np.array([related(batch, i, *column[:2]) for column in columns], float)
            target = positive / positive.sum()
            if teacher:
                target = (1 - ALPHA) * target + ALPHA * softmax(
                    np.array([x.astype(float) @ teacher[one][i] for x in soft]) / TEMPERATURE)
            total -= target @ np.log(softmax(logits)) / (2 * len(real))
            hits[name].append(positive[logits.argmax()])
    return total, {name: np.mean(values) for name, values in hits.items()}


@jax.jit
def with_gradients(batch, sides, teacher, queue):
    def loss(sides):
        soft = teacher and contrast.Soft(**teacher, alpha=jnp.float32(ALPHA))
        return contrast.contrastive(
            sides["visual"], sides["text"], jnp.float32(TEMPERATURE), batch["pair_id"],
            batch["example_mask"], soft, queue, CHUNK, contrast.content_of(batch))

    return jax.value_and_grad(loss, has_aux=True)(sides)


def sides_of(rng, rows):
    return {"visual": features(rng, rows), "text": features(rng, rows)}


SETTINGS = hypothesis.settings(max_examples=60, derandomize=True, deadline=None, database=None)


@pytest.mark.parametrize("kind", ["batch", "teacher", "queue"])
@SETTINGS
@hypothesis.given(batch=contents(ROWS), queued=contents(QUEUED), seed=strategies.integers(0, 99))
def test_the_loss_is_that_of_all_pairs(kind, batch, queued, seed):
    hypothesis.assume(batch["example_mask"].any())
    rng = np.random.default_rng(seed)
    sides, teacher, queue = sides_of(rng, ROWS), None, None
    if kind != "batch":
        teacher = sides_of(rng, ROWS)
    if kind == "queue":
        queue = queued | sides_of(rng, QUEUED)
    (value, hits), gradient = with_gradients(batch, sides, teacher, queue)
    expected, expected_hits = reference(batch, sides, teacher, queue)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for name, share in expected_hits.items():
        np.testing.assert_allclose(hits[name], share, rtol=1e-6)
    step = {name: rng.standard_normal(x.shape) for name, x in sides.items()}
    up, down = (reference(batch, {name: x + sign * 1e-5 * step[name] for name, x in sides.items()},
                          teacher, queue)[0] for sign in (1, -1))
    got = sum((np.asarray(gradient[name], float) * step[name]).sum() for name in step)
    np.testing.assert_allclose(got, (up - down) / 2e-5, rtol=1e-3, atol=1e-4)


@jax.jit
def counted(batch):
    return contrast.duplicates({"pair_id": batch["pair_id"], **contrast.content_of(batch)},
                               batch["example_mask"], CHUNK)


@SETTINGS
@hypothesis.given(batch=contents(ROWS))
def test_duplicates_are_rows_that_another_record_equals(batch):
    rows = range(ROWS)
    assert counted(batch) == sum(any(
        related(batch, i, batch, j) and batch["pair_id"][i] != batch["pair_id"][j] for j in rows)
        for i in rows)


@jax.jit
def drawn(keys, batch, queries, candidates):
    def draw(key, block):
        return contrast.hard_negatives(key, queries, candidates, jnp.float32(1.0),
                                       batch["pair_id"], batch["example_mask"], block, CHUNK,
                                       contrast.content_of(batch))

    return [jax.vmap(lambda key, block=block: draw(key, block))(keys) for block in (0, 4)]


@SETTINGS
@hypothesis.given(batch=contents(ROWS), seed=strategies.integers(0, 99))
def test_no_hard_negative_is_a_duplicate(batch, seed):
    rng = np.random.default_rng(seed)
    found = drawn(jax.random.split(jax.random.key(seed), 400), batch, features(rng, ROWS),
                  features(rng, ROWS))
    for (rows, has), block in zip(jax.device_get(found), (ROWS, 4), strict=True):
        for i in range(ROWS):
            allowed = {j for j in range(ROWS) if i // block == j // block and
                       batch["example_mask"][j] and not related(batch, i, batch, j)}
            if not batch["example_mask"][i] or not allowed:
                assert not has[:, i].any()  # all of them are duplicates: there is no negative
            else:
                assert has[:, i].all() and set(rows[:, i]) == allowed


def chained():
    """Texts of 0 and 1 are equal, and media of 1 and 2: 0 and 2 are not of each other."""
    return {"pair_id": np.arange(ROWS, dtype=np.int32),
            "media_id": words([1, 2, 2, 3, 4, 5, 6, 7]), "text_id": words([1, 1, 2, 3, 4, 5, 0, 0]),
            "example_mask": np.ones(ROWS, bool)}


def test_relations_do_not_go_on_by_a_third_row():
    batch = chained()
    found = np.asarray(contrast.same(batch, batch))
    pairs = {(0, 1), (1, 0), (1, 2), (2, 1)} | {(i, i) for i in range(ROWS)}
    assert {(int(i), int(j)) for i, j in np.argwhere(found)} == pairs
    assert counted(batch) == 3
    padded = batch | {"example_mask": np.arange(ROWS) != 1}
    assert counted(padded) == 0
    far = batch | {"pair_id": np.array([0, 1, 1, 3, 4, 5, 6, 7], np.int32)}  # of one record
    assert counted(far) == 2


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)], ids=str)
def test_devices_change_nothing(shape):
    rng = np.random.default_rng(0)
    batch = chained() | {"example_mask": np.arange(ROWS) < 7}
    arguments = batch, sides_of(rng, ROWS), sides_of(rng, ROWS)
    queue = {name: x[:QUEUED] for name, x in chained().items()} | sides_of(rng, QUEUED)
    (value, hits), gradient = jax.device_get(with_gradients(*arguments, queue))
    keys = jax.random.split(jax.random.key(0), 20)
    negatives = jax.device_get(drawn(keys, batch, arguments[1]["visual"],
                                      arguments[1]["text"]))
    mesh = make_mesh(*shape)
    with jax.set_mesh(mesh):
        placed = put_batch(arguments, mesh)
        (value_2, hits_2), gradient_2 = with_gradients(*placed, queue)
        assert counted(placed[0]) == 3
        others = jax.device_get(drawn(keys, placed[0], placed[1]["visual"], placed[1]["text"]))
    np.testing.assert_allclose(value_2, value, rtol=1e-6)
    for name in hits:
        np.testing.assert_allclose(hits_2[name], hits[name], rtol=1e-6)
    for name in gradient:
        np.testing.assert_allclose(gradient_2[name], gradient[name], rtol=1e-4, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, others, negatives)


def stream(seed, padding=0, **changes):
    """A batch of the small model's, its rows related as `chained` has it."""
    rows = small.pairs(ROWS, 1, seed, padding)
    known = chained()
    return rows | {name: known[name] for name in ("pair_id", "media_id", "text_id")} | changes


def pretrain(**changes):
    only = dict.fromkeys(("vtc", "vtm"), 1.0) | dict.fromkeys(("mlm", "prefix_lm", "instruct"), 0.0)
    return small.task("pretrain", TINY, **dict(objectives=only) | changes)


@pytest.mark.parametrize("accumulation", [2, pytest.param(1, marks=pytest.mark.long)])  # in one
def test_one_queue_knows_the_content_of_all_streams(accumulation):
    """Two steps of two streams, by the features that the queue is given: the teacher is the model.

    One of the streams tells no content: its rows are of their pairs alone.
    """
    task = pretrain(accumulation=accumulation, momentum=dict(
        teacher=True, queue=True, queue_size=20, ramp_steps=10))
    params = small.params_of(task.model)
    state = task.init_state(params)
    told = {"a": stream(0, padding=1), "b": stream(1)}
    untold = stream(2)
    del untold["text_id"], untold["media_id"]
    untold["pair_id"] = untold["pair_id"] % 6
    loss = jax.jit(task.loss)
    temperature = float(task.call(params, "temperature"))
    for batch in (told, told | {"b": untold}, told | {"a": stream(4)}):
        before = jax.device_get(state["queue"])
        _, (metrics, pushed) = loss(params, batch, jax.random.key(0), state, 0)
        state = state | task.next_state(state, params, pushed)
        for number, (name, part) in enumerate(zip("ab", jax.device_get(pushed), strict=True)):
            assert part["pair_id"].tolist() == (batch[name]["pair_id"] * 2 + number).tolist()
            part = {key: np.zeros((ROWS, 2), np.int32) for key in contrast.CONTENT} | part
            whole = {key: np.concatenate([part[key], before[key]]) for key in before}
            expected, _ = dense(part, whole, temperature)
            np.testing.assert_allclose(metrics[f"{name}/vtc"], expected, rtol=1e-4)
            assert (f"{name}/duplicates" in metrics) == ("text_id" in batch[name])
        pushed_ids = np.asarray(state["queue"]["text_id"])
        assert pushed_ids[:8].any() and pushed_ids[8:16].any() == ("text_id" in batch["b"])
    assert metrics["a/duplicates"] == 3


def dense(part, whole, temperature):
    """The loss of rows against columns, float64, and which are positives."""
    real, columns = part["example_mask"], whole["example_mask"]
    positive = np.array([[related(part, i, whole, j) for j in np.flatnonzero(columns)]
                         for i in np.flatnonzero(real)])
    total = 0.0
    for one, other in (("visual", "text"), ("text", "visual")):
        logits = part[one][real].astype(float) @ whole[other][columns].T / temperature
        target = positive / positive.sum(axis=1, keepdims=True)
        total -= sum(row @ np.log(softmax(line)) for row, line in zip(target, logits, strict=True))
    return total / (2 * real.sum()), positive


# Pretraining's losses are those of retrieval.
@pytest.mark.parametrize("name", ["retrieval", pytest.param("pretrain", marks=pytest.mark.long)])
def test_micro_batches_and_devices_give_the_same_losses(name):
    batch = {"s": stream(0, padding=1)}

    def losses(batch, **options):
        task = pretrain(**options) if name == "pretrain" else small.task(name, TINY, **options)
        return jax.device_get(jax.jit(task.loss)(params, batch, jax.random.key(1))[1][0])

    params = small.params_of((pretrain() if name == "pretrain" else small.task(name, TINY)).model)
    whole = losses(batch)
    assert whole["s/duplicates"] == 3
    plain = losses({"s": {key: x for key, x in batch["s"].items() if key not in contrast.CONTENT}})
    assert plain.keys() == whole.keys() - {"s/duplicates"} and plain["s/vtc"] != whole["s/vtc"]
    split = losses(batch, accumulation=2)
    mesh = make_mesh(4, 2, 1)
    with jax.set_mesh(mesh):
        spread = losses(put_batch(batch, mesh))
    for figure, value in whole.items():
        np.testing.assert_allclose(split[figure], value, rtol=1e-5, atol=1e-6, err_msg=figure)
        np.testing.assert_allclose(spread[figure], value, rtol=1e-4, atol=1e-6, err_msg=figure)


def test_where_all_are_duplicates_matching_has_no_negatives():
    """Then nothing of its loss is drawn; and of the similarities none is wrong."""
    task = pretrain(objectives=dict(vtc=1.0, vtm=1.0, mlm=0.0, prefix_lm=0.0, instruct=0.0))
    params, loss = small.params_of(task.model), jax.jit(task.loss)
    other = np.arange(1, ROWS + 1)
    for alike in ("text_id", "media_id"):
        batch = stream(0, media_id=words(other), text_id=words(other)) | {
            alike: words(np.full(ROWS, 4))}
        found = [jax.device_get(loss(params, {"s": batch}, jax.random.key(seed))[1][0])
                 for seed in range(3)]
        assert len({float(metrics["s/vtm"]) for metrics in found}) == 1
        assert found[0]["s/vtc_v2t"] == found[0]["s/vtc_t2v"] == 1
        assert found[0]["s/duplicates"] == ROWS
    apart = stream(0, media_id=words(other), text_id=words(other))
    assert len({float(loss(params, {"s": apart}, jax.random.key(seed))[1][0]["s/vtm"])
                for seed in range(3)}) == 3


def test_held_out_losses_know_duplicates_too():
    task = pretrain()
    params = small.params_of(task.model)
    numbers = {"index": np.arange(ROWS, dtype=np.int32), "item": np.zeros(ROWS, np.int32)}
    batch = stream(0) | numbers
    scores, _ = task.evaluate(params, [batch], None, "image")
    assert scores["image_held_out_duplicates"] == 3
    key = jax.random.fold_in(jax.random.key(held_out.SEED), 0)
    metrics = jax.jit(task.loss)(params, {"s": batch}, key)[1][0]
    assert scores["image_held_out_vtc"] == pytest.approx(float(metrics["s/vtc"]), rel=1e-5)
    for name in scores:
        assert task.figure(name, "image").low <= scores[name]
    assert task.figure("image_held_out_duplicates", "image").better == ""


def test_a_queue_that_is_older_than_ids_of_content_goes_on(tmp_path, caplog):
    """As it was: its rows are known by their pairs alone, until they have fallen out."""
    task = pretrain(momentum=dict(teacher=True, queue=True, queue_size=20))
    values = common.base("tiny").optimizer
    values.update(dict(steps=10, warmup_steps=0))
    optimizer, _ = make_optimizer(values)
    params = small.params_of(task.model)

    def create(params=None):
        return create_state(task, optimizer, 0, params=params)

    mesh = make_mesh(1, 1, 1, jax.devices()[:1])
    shapes = jax.eval_shape(create)
    state = sharding.init_sharded(create, mesh, params)
    rows = stream(0)
    of_rows = sides_rows(ROWS)
    old = push(empty_queue(20, TINY.contrastive_dim), [
        {"pair_id": rows["pair_id"], "example_mask": rows["example_mask"],
         "media_id": rows["media_id"], "text_id": rows["text_id"], **of_rows}])
    kept = {name: x for name, x in old.items() if name not in contrast.CONTENT}
    items = state.items()
    items["task_state"] = dict(items["task_state"], queue=jax.device_get(kept))
    checkpoints = Checkpoints(tmp_path / "run", keep=1)
    checkpoints.save(3, items, {"model": {}}, {"s": 8})
    checkpoints.wait()
    for size in ((1, 1, 1), (2, 2, 1)):
        mesh = make_mesh(*size, jax.devices()[:int(np.prod(size))])
        caplog.clear()
        with caplog.at_level(logging.INFO, "absl"):
            restored = restore_state(checkpoints, shapes, mesh, task)
        assert "its queue is older than media_id and text_id" in caplog.text
        assert "afresh" not in caplog.text and "dropped" not in caplog.text
        queue = jax.device_get(restored.task_state["queue"])
        assert queue.keys() == old.keys()
        for name, x in kept.items():
            np.testing.assert_array_equal(queue[name], x)
        assert not any(queue[name].any() for name in contrast.CONTENT)
    # Equal texts of old rows are not known, equal pairs are; new rows come with all.
    momentum = Momentum(params, queue, jnp.float32(0))
    _, (metrics, pushed) = jax.jit(task.loss)(params, {"s": stream(0, padding=1)},
                                              jax.random.key(0),
                                              {"teacher": momentum.params, "queue": queue}, 0)
    (part,) = jax.device_get(pushed)
    whole = {key: np.concatenate([part[key], queue[key]]) for key in queue}
    expected, positive = dense(part, whole, float(task.call(params, "temperature")))
    assert positive[0].sum() == 3 and positive[4].sum() == 2  # its own, a duplicate's, the queue's
    np.testing.assert_allclose(metrics["s/vtc"], expected, rtol=1e-4)
    np.testing.assert_array_equal(push(queue, pushed)["text_id"][:ROWS], part["text_id"])
    checkpoints.close()


def sides_rows(rows):
    rng = np.random.default_rng(9)
    made = rng.standard_normal((2, rows, TINY.contrastive_dim)).astype(np.float32)
    made /= np.linalg.norm(made, axis=2, keepdims=True)
    return {"visual": made[0], "text": made[1]}
