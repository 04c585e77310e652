"""Each loss against a plain NumPy computation, and the properties of what is random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mplug2_jax.objectives import contrastive as contrast
from mplug2_jax.objectives import losses

KEY = jax.random.key(0)


def log_softmax(x):
    x = np.asarray(x, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def features(seed, rows=6, dim=5):
    x = np.random.default_rng(seed).standard_normal((rows, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def numpy_contrastive(visual, text, temperature, pair_id, real):
    """The loss written out row by row, in float64."""
    total, rows = 0.0, np.flatnonzero(real)
    for one, other in ((visual, text), (text, visual)):
        for i in rows:
            logits = np.array([one[i].astype(np.float64) @ other[j] / temperature for j in rows])
            positive = np.array([pair_id[i] == pair_id[j] for j in rows])
            total -= log_softmax(logits)[positive].mean()
    return total / (2 * len(rows))


@pytest.mark.parametrize("pair_id", [[0, 1, 2, 3, 4, 5], [0, 1, 0, 3, 1, 0]])
@pytest.mark.parametrize("real", [[1] * 6, [1, 1, 1, 1, 0, 0]])
def test_contrastive(pair_id, real):
    visual, text = features(0), features(1)
    pair_id, real = np.array(pair_id, np.int32), np.array(real, bool)
    loss, metrics = contrast.contrastive(visual, text, jnp.float32(0.1), pair_id, real)
    np.testing.assert_allclose(loss, numpy_contrastive(visual, text, 0.1, pair_id, real), rtol=1e-5)
    logits = visual[real] @ text[real].T
    same = pair_id[real][:, None] == pair_id[real][None]
    hit = same[np.arange(real.sum()), logits.argmax(1)].mean()
    np.testing.assert_allclose(metrics["vtc_v2t"], hit, rtol=1e-6)


def test_contrastive_gradient_by_finite_differences():
    visual, text = features(2).astype(np.float64), features(3).astype(np.float64)
    pair_id, real = np.array([0, 1, 2, 0, 4, 5], np.int32), np.array([1, 1, 1, 1, 1, 0], bool)
    gradient = jax.grad(lambda v: contrast.contrastive(v, text.astype("f"), 0.2, pair_id, real)[0])(
        visual.astype(np.float32))
    direction = np.random.default_rng(4).standard_normal(visual.shape)
    up, down = (numpy_contrastive(visual + s * 1e-5 * direction, text, 0.2, pair_id, real)
                for s in (1, -1))
    np.testing.assert_allclose((gradient * direction).sum(), (up - down) / 2e-5, rtol=1e-4)
    assert not np.asarray(gradient)[5].any()  # padding takes no part


def test_padding_is_neither_row_nor_negative():
    visual, text = features(0), features(1)
    ids, real = np.arange(6, dtype=np.int32), np.array([1, 1, 1, 1, 0, 0], bool)
    whole = contrast.contrastive(visual, text, 0.1, ids, real)[0]
    part = contrast.contrastive(visual[:4], text[:4], 0.1, ids[:4], real[:4])[0]
    np.testing.assert_allclose(whole, part, rtol=1e-6)


def test_matching():
    rng = np.random.default_rng(0)
    positive, negative = (rng.standard_normal(s).astype("f") for s in ((4, 2), (2, 4, 2)))
    weights = np.array([1, 1, 1, 0], bool)
    negative_weights = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool)
    loss, accuracy = losses.matching(positive, negative, weights, negative_weights)
    terms, hits = [], []
    for logits, label, counted in ((positive, 1, weights), (negative[0], 0, negative_weights[0]),
                                   (negative[1], 0, negative_weights[1])):
        terms += list(-log_softmax(logits)[counted, label])
        hits += list(logits[counted].argmax(-1) == label)
    assert len(terms) == 8
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-5)
    np.testing.assert_allclose(accuracy, np.mean(hits), rtol=1e-6)


def test_language_modelling():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, 4, 7)).astype("f")
    target = rng.integers(0, 7, (3, 5)).astype(np.int32)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], bool)
    real = np.array([1, 1, 0], bool)
    loss, hits = losses.language_modelling(logits, target[:, 1:], losses.counted(mask, real))
    terms = [-log_softmax(logits[i, j])[target[i, j + 1]]
             for i in range(3) for j in range(4) if real[i] and mask[i, j + 1]]
    right = [logits[i, j].argmax() == target[i, j + 1]
             for i in range(3) for j in range(4) if real[i] and mask[i, j + 1]]
    assert len(terms) == 6
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-5)
    np.testing.assert_allclose(hits, np.mean(right), rtol=1e-6)


def test_soft_targets_are_the_teachers_over_the_vocabulary():
    rng = np.random.default_rng(0)
    logits, teacher = rng.standard_normal((2, 2, 3, 7)).astype("f")
    labels = rng.integers(0, 7, (2, 3)).astype(np.int32)
    weights = np.array([[1, 1, 0], [1, 0, 0]], bool)

    def loss(logits, teacher):
        return losses.language_modelling(logits, labels, weights, (teacher, jnp.float32(0.4)))[0]

    value, (_, of_teacher) = jax.value_and_grad(loss, argnums=(0, 1))(logits, teacher)
    terms = [-0.6 * log_softmax(logits[i, j])[labels[i, j]]
             - 0.4 * (np.exp(log_softmax(teacher[i, j])) * log_softmax(logits[i, j])).sum()
             for i, j in zip(*np.nonzero(weights), strict=True)]
    np.testing.assert_allclose(value, np.mean(terms), rtol=1e-5)
    assert not of_teacher.any()


def test_means_of_parts_add_up_with_shares():
    values = np.random.default_rng(0).standard_normal((4, 3)).astype("f")
    weights = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]], bool)
    share = losses.shares(weights)
    parts = [losses.weighted_mean(values[i], share[i]) for i in range(4)]
    np.testing.assert_allclose(sum(parts), values[weights].mean(), rtol=1e-6)
    assert not losses.shares(weights & False).any()


def test_no_real_example_gives_zero_and_finite_gradients():
    none = np.zeros(4, bool)
    ids = np.arange(4, dtype=np.int32)

    def total(x):
        return (contrast.contrastive(x, x, 0.1, ids, none)[0]
                + losses.language_modelling(jnp.zeros((4, 1, 3)) + x.sum(), np.zeros((4, 1), int),
                                            np.zeros((4, 1), bool))[0])

    value, gradient = jax.value_and_grad(total)(features(0, 4))
    assert value == 0 and np.isfinite(gradient).all()


def test_hard_negatives_follow_the_softmax_and_are_never_of_the_pair():
    queries, candidates = features(0, 4), features(1, 4)
    pair_id, real = np.array([0, 1, 0, 3], np.int32), np.array([1, 1, 1, 1], bool)
    draw = jax.jit(jax.vmap(lambda key: contrast.hard_negatives(
        key, queries, candidates, jnp.float32(0.5), pair_id, real, 0)))
    rows, found = draw(jax.random.split(KEY, 20_000))
    assert found.all()
    logits = queries @ candidates.T / 0.5
    for i in range(4):
        allowed = pair_id != pair_id[i]
        expected = np.exp(log_softmax(np.where(allowed, logits[i], -np.inf)))
        seen = np.bincount(rows[:, i], minlength=4) / len(rows)
        assert not seen[~allowed].any()
        np.testing.assert_allclose(seen, expected, atol=0.015)


def test_hard_negatives_stay_in_their_block_and_out_of_padding():
    queries, candidates = features(0, 8), features(1, 8)
    ids = np.arange(8, dtype=np.int32)
    real = np.array([1, 1, 1, 1, 1, 1, 0, 0], bool)
    rows, found = jax.vmap(lambda key: contrast.hard_negatives(
        key, queries, candidates, jnp.float32(1.0), ids, real, 4))(jax.random.split(KEY, 300))
    assert (rows // 4 == np.arange(8) // 4).all()
    assert found[:, :6].all() and not found[:, 6:].any()
    assert set(np.unique(rows[:, 4:6])) == {4, 5}
    assert (rows != np.arange(8))[:, :6].all()
    alone = contrast.hard_negatives(KEY, queries, candidates, jnp.float32(1.0), ids * 0, real, 0)[1]
    assert not alone.any()  # all of one pair: there is no negative
    with pytest.raises(ValueError, match="negative blocks of 3"):
        contrast.hard_negatives(KEY, queries, candidates, jnp.float32(1.0), ids, real, 3)


@pytest.mark.parametrize("block", [0, 4])
def test_take_rows(block):
    x = np.arange(24).reshape(8, 3)
    rows = np.array([1, 0, 3, 3, 6, 7, 4, 5])
    np.testing.assert_array_equal(contrast.take_rows(x, rows, block), x[rows])


def test_masking_chooses_fifteen_percent_and_changes_eighty_ten_ten():
    rng = np.random.default_rng(0)
    ids = rng.integers(10, 1000, (400, 42)).astype(np.int32)
    maskable = np.ones(ids.shape, bool)
    maskable[:, 0], maskable[:, 41] = False, False  # 40 may be chosen, 6 are
    masked, positions, original, chosen = jax.tree.map(np.asarray, losses.mask_tokens(
        KEY, ids, maskable, mask_id=4, vocab_size=1000))
    assert chosen.shape == (400, 7) and (chosen.sum(1) == 6).all()
    rows = np.arange(400)[:, None]
    np.testing.assert_array_equal(original, ids[rows, positions])
    assert maskable[rows, positions][chosen].all()
    assert all(len(set(row[keep])) == 6 for row, keep in zip(positions, chosen, strict=True))
    touched = np.zeros(ids.shape, bool)
    touched[np.repeat(rows, 7, 1)[chosen], positions[chosen]] = True
    np.testing.assert_array_equal(masked[~touched], ids[~touched])
    now, was = masked[rows, positions][chosen], original[chosen]
    shares = [(now == 4).mean(), ((now != 4) & (now != was)).mean(), (now == was).mean()]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.03)
    counts = np.bincount(positions[chosen], minlength=42)
    assert counts[[0, 41]].sum() == 0 and counts[1:41].min() > 30  # 60 each on average


def test_masking_of_short_texts():
    ids = np.array([[2, 9, 3, 0, 0, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0, 0]], np.int32)
    maskable = ids > 3
    _, positions, _, chosen = losses.mask_tokens(KEY, ids, maskable, 4, 10)
    assert chosen.sum(1).tolist() == [1, 0]  # at least one where there is one
    assert positions[0, 0] == 1


def test_prefix_is_cut_at_words_and_loses_nothing():
    # [CLS] a ##b c d ##e [SEP] pad pad; words start at 1, 3, 4
    ids = np.array([[2, 5, 6, 7, 8, 9, 3, 0, 0]] * 64, np.int32)
    mask = np.array([[1] * 7 + [0] * 2] * 64, bool)
    starts = np.array([[0, 1, 0, 1, 1, 0, 0, 0, 0]] * 64, bool)
    prefix, prefix_mask, target, target_mask = jax.tree.map(np.asarray, losses.split_prefix(
        KEY, ids, mask, starts, sep_id=3, pad_id=0))
    cuts = set()
    for row in range(64):
        before = prefix[row][prefix_mask[row]].tolist()
        after = target[row][target_mask[row]].tolist()
        assert before[0] == 2 and before[-1] == 3 and after[0] == 2 and after[-1] == 3
        assert before[1:-1] + after[1:-1] == [5, 6, 7, 8, 9]
        assert not prefix[row][~prefix_mask[row]].any()
        assert not target[row][~target_mask[row]].any()
        cuts.add(len(before) - 2)
    assert cuts == {0, 2, 3}


def test_prefix_of_a_text_without_words():
    ids, mask = np.array([[2, 3, 0, 0]], np.int32), np.array([[1, 1, 0, 0]], bool)
    prefix, prefix_mask, target, target_mask = losses.split_prefix(
        KEY, ids, mask, np.zeros((1, 4), bool), 3, 0)
    assert prefix[0][prefix_mask[0]].tolist() == [2, 3]
    assert target[0][target_mask[0]].tolist() == [2, 3]
