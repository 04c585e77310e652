"""Every decoding mode against plain NumPy, on random models; batches, caches, ends."""

import dataclasses

import decoding_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.decoding import beam_search, greedy, rank_answers, restrict, sample
from mplug2_jax.model.mplug2 import build, init_params

pytestmark = pytest.mark.slow
CONFIG = ModelConfig(
    vision_width=64, vision_layers=1, patch_size=8, image_size=8, width=16, heads=2, mlp_dim=24,
    vocab_size=13, max_positions=12, dropout=0.1, text_layers=1, universal_layers=1, latents=2,
    fusion_layers=1, decoder_layers=2,
)
MODEL = build(CONFIG, ("decoder",), ())
SHAPES = jax.eval_shape(lambda: init_params(build(CONFIG, ("vision", "decoder"), ()),
                                            jax.random.key(0)))["decoder"]
IDS = dict(start_id=1, end_id=2, pad_id=0)
SEEDS = range(50)
BATCH, MEMORY = 3, 4


def random_case(seed):
    """Parameters whose predictions depend on all that came before, a memory, and a mask of it."""
    rng = np.random.default_rng(seed)

    def draw(path, shape):
        name = path[-1].key
        if name == "scale":  # of a LayerNorm
            return rng.uniform(0.5, 1.5, shape.shape).astype(np.float32)
        spread = {"bias": 0.2, "kernel": 2 * CONFIG.width ** -0.5}.get(name, 1.0)
        return rng.normal(0, spread, shape.shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(draw, SHAPES)
    params["embeddings"]["word"] *= 0.6  # flatter predictions: beams compete
    # The end token is likelier than others, so that sequences of all lengths occur.
    params["head"]["bias"][2] += 1.5
    memory = rng.normal(0, 1, (BATCH, MEMORY, CONFIG.width)).astype(np.float32)
    mask = rng.random((BATCH, MEMORY)) < 0.7
    mask[:, 0] = True
    return {"decoder": params}, memory, mask


def references(params, memory, mask):
    return [reference.Decoder(params["decoder"], CONFIG.heads, m, seen)
            for m, seen in zip(memory, mask, strict=True)]


def test_logits_equal_the_reference():
    params, memory, mask = random_case(0)
    ids = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (BATCH, 5))
    logits = jax.jit(lambda p, *args: MODEL.apply({"params": p}, *args, method="decode")[0])(
        params, ids, None, memory, mask)
    for b, decoder in enumerate(references(params, memory, mask)):
        for length in range(1, 6):
            np.testing.assert_allclose(logits[b, length - 1], decoder.logits(ids[b, :length]),
                                       atol=1e-4)


def test_greedy():
    lengths = set()
    for seed in SEEDS:
        params, memory, mask = random_case(seed)
        ids = np.asarray(greedy(MODEL, params, memory, mask, max_length=8, **IDS))
        expected = [reference.greedy(d, max_length=8, **IDS)
                    for d in references(params, memory, mask)]
        np.testing.assert_array_equal(ids, expected)
        lengths |= {int((row != 0).sum()) for row in ids}
    assert len(lengths) > 3  # early ends and full lengths both occurred


@pytest.mark.parametrize("beams, min_length, max_length, alpha",
                         [(5, 3, 8, 0.6), (1, 0, 6, 0.6), (4, 2, 1, 0.6), (20, 0, 3, 1.5)])
def test_beam_search(beams, min_length, max_length, alpha):
    kw = dict(beams=beams, min_length=min_length, max_length=max_length, alpha=alpha, **IDS)
    extended = 0
    for seed in SEEDS:
        params, memory, mask = random_case(seed)
        ids, scores = map(np.asarray, beam_search(MODEL, params, memory, mask, **kw))
        assert ids.shape == (BATCH, beams, 1 + max_length) and scores.dtype == np.float32
        for b, decoder in enumerate(references(params, memory, mask)):
            expected_ids, expected = reference.beam_search(decoder, **kw)
            # Impossible hypotheses (an end before min_length, dead beams) tie; others do not.
            live = np.array(expected) > -1e10
            np.testing.assert_array_equal(live, scores[b] > -1e10)
            np.testing.assert_array_equal(ids[b][live], np.array(expected_ids)[live])
            np.testing.assert_allclose(scores[b][live], np.array(expected)[live], atol=1e-4)
        extended += sum((row[:-1] == 2).any() and row[(row == 2).argmax() + 1] != 0
                        for row in ids.reshape(-1, ids.shape[-1]))
    if beams > 1 and max_length > 1:
        assert extended > 0  # hypotheses that went on after an end token, as released


def test_rank_answers():
    for seed in SEEDS:
        params, memory, mask = random_case(seed)
        rng = np.random.default_rng(seed)
        candidates = np.zeros((9, 5), np.int32)
        firsts = rng.permutation(np.arange(3, 12))  # without ties among the first tokens
        for row, token in zip(candidates, firsts, strict=True):
            inner = rng.integers(3, 13, rng.integers(0, 3))
            row[:3 + len(inner)] = [1, token, *inner, 2]
        real = candidates != 0
        kept, probabilities = rank_answers(MODEL, params, memory, mask, candidates, real, keep=4,
                                           chunk=3)  # the second chunk is filled up
        for b, decoder in enumerate(references(params, memory, mask)):
            indices, expected = reference.rank_answers(decoder, candidates, real, 4)
            np.testing.assert_array_equal(kept[b], indices)
            np.testing.assert_allclose(probabilities[b], expected, atol=1e-4)


def test_all_candidates_are_kept_where_there_are_few():
    params, memory, mask = random_case(1)
    candidates = np.array([[1, 5, 2], [1, 3, 2]], np.int32)
    kept, probabilities = rank_answers(MODEL, params, memory, mask, candidates,
                                       np.ones((2, 3), bool), keep=10)
    assert kept.shape == (BATCH, 2) and set(np.asarray(kept)[0].tolist()) == {0, 1}
    np.testing.assert_allclose(np.asarray(probabilities).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("top_k", [0, 5])
def test_sampling(top_k):
    for seed in SEEDS:
        params, memory, mask = random_case(seed)
        kw = dict(temperature=0.5 + seed % 3, top_p=(1.0, 0.8, 0.4)[seed % 3])
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(BATCH))
        ids = sample(MODEL, params, memory, mask, keys, top_k=top_k, max_length=7, **kw, **IDS)
        noise = gumbels(keys)
        for b, decoder in enumerate(references(params, memory, mask)):
            expected = reference.sample(decoder, np.asarray(noise[b]), top_k=top_k, max_length=7,
                                        **kw, **IDS)
            np.testing.assert_array_equal(ids[b], expected)


@jax.jit
def gumbels(keys):
    """`[B, 7, V]`, the noise of every item and step."""
    return jax.vmap(lambda key: jax.vmap(lambda at: jax.random.gumbel(
        jax.random.fold_in(key, at), (CONFIG.vocab_size,)))(jnp.arange(7)))(keys)


def test_samples_have_the_model_s_distribution():
    params, memory, mask = random_case(3)
    draws, top_k, temperature = 4000, 6, 1.3
    one = np.broadcast_to(memory[:1], (draws, *memory.shape[1:]))
    seen = np.broadcast_to(mask[:1], (draws, MEMORY))
    keys = jax.random.split(jax.random.key(0), draws)
    ids = sample(MODEL, params, one, seen, keys, max_length=1, top_k=top_k,
                 temperature=temperature, **IDS)
    counts = np.bincount(np.asarray(ids)[:, 1], minlength=CONFIG.vocab_size)
    logits = references(params, memory, mask)[0].logits([1]) / temperature
    order = np.argsort(-logits)[:top_k]
    expected = np.zeros(CONFIG.vocab_size)
    expected[order] = np.exp(logits[order]) / np.exp(logits[order]).sum()
    assert (counts[expected == 0] == 0).all()
    deviation = np.sqrt(draws * expected * (1 - expected))
    assert (np.abs(counts - draws * expected) <= 4 * deviation).all()


def test_restrict_keeps_the_smallest_set_that_reaches_top_p():
    logits = np.log(np.array([[0.1, 0.4, 0.2, 0.3]], np.float32))
    for top_k, top_p, kept in ((0, 0.39, [1]), (0, 0.41, [1, 3]), (0, 0.75, [1, 2, 3]),
                               (0, 1.0, [0, 1, 2, 3]), (2, 1.0, [1, 3]), (2, 0.5, [1]),
                               (9, 1.0, [0, 1, 2, 3]), (0, 0.0, [1])):
        result = np.asarray(restrict(jnp.asarray(logits), top_k, top_p))[0]
        assert np.flatnonzero(np.isfinite(result)).tolist() == kept, (top_k, top_p)


def test_low_temperature_and_top_1_are_greedy():
    params, memory, mask = random_case(4)
    keys = jax.random.split(jax.random.key(0), BATCH)
    expected = greedy(MODEL, params, memory, mask, max_length=8, **IDS)
    for options in (dict(temperature=1e-4), dict(top_k=1)):
        np.testing.assert_array_equal(
            sample(MODEL, params, memory, mask, keys, max_length=8, **options, **IDS), expected)


def test_one_beam_is_greedy_but_for_the_end_token():
    """With one beam the search ends where greedy does: penalties cannot change the best token."""
    for seed in SEEDS:
        params, memory, mask = random_case(seed)
        ids, _ = beam_search(MODEL, params, memory, mask, beams=1, min_length=0, max_length=6,
                             **IDS)
        np.testing.assert_array_equal(ids[:, 0],
                                      greedy(MODEL, params, memory, mask, max_length=6, **IDS))


def test_an_item_does_not_depend_on_its_batch():
    params, memory, mask = random_case(5)
    keys = jax.random.split(jax.random.key(1), BATCH)
    candidates = np.array([[1, 3, 4, 2], [1, 5, 2, 0], [1, 6, 7, 2], [1, 8, 2, 0]], np.int32)
    beams = dict(beams=3, min_length=0, max_length=8, **IDS)

    def run(rows):
        items = memory[rows], mask[rows]
        return (greedy(MODEL, params, *items, max_length=8, **IDS),
                sample(MODEL, params, *items, keys[rows], max_length=8, **IDS),
                *beam_search(MODEL, params, *items, **beams),
                *rank_answers(MODEL, params, *items, candidates, candidates != 0, keep=3))

    whole, single = run(np.arange(BATCH)), [run(np.array([b])) for b in range(BATCH)]
    # The items end at different steps, so that some wait for others.
    assert len({int((row != 0).sum()) for row in np.asarray(whole[0])}) > 1
    for i, together in enumerate(whole):
        alone = np.concatenate([one[i] for one in single])
        if together.dtype == np.int32:
            np.testing.assert_array_equal(together, alone)
        else:
            np.testing.assert_allclose(together, alone, atol=1e-5)


def test_masked_memory_is_as_good_as_absent():
    params, memory, mask = random_case(6)
    mask[:] = [True, True, False, False]
    kw = dict(beams=3, min_length=1, max_length=6, **IDS)
    masked = beam_search(MODEL, params, memory, mask, **kw)
    noisy = np.where(mask[..., None], memory, 100.0).astype(np.float32)
    for other in (beam_search(MODEL, params, noisy, mask, **kw),
                  beam_search(MODEL, params, memory[:, :2], None, **kw)):
        np.testing.assert_array_equal(masked[0], other[0])
        np.testing.assert_allclose(masked[1], other[1], atol=1e-5)


def test_several_tokens_at_once_equal_one_at_a_time():
    params, memory, mask = random_case(7)
    ids = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (BATCH, 5))

    @jax.jit
    def cached(params, memory, mask):
        cache, out = MODEL.init_cache(BATCH, 5), []
        for part, given in ((slice(0, 2), memory), (slice(2, 3), None), (slice(3, 5), None)):
            logits, cache = MODEL.apply({"params": params}, ids[:, part], None, given, mask, cache,
                                        method="decode")
            out.append(logits)
        return jnp.concatenate(out, axis=1)

    whole = jax.jit(lambda p: MODEL.apply({"params": p}, ids, None, memory, mask,
                                          method="decode")[0])(params)
    np.testing.assert_allclose(cached(params, memory, mask), whole, atol=1e-5)


def test_neither_the_memory_nor_its_keys_are_repeated_for_beams():
    """No array of the compiled search holds the memory's length for every beam times its width."""
    length, beams = 37, 11
    memory = jnp.zeros((1, length, CONFIG.width))
    params = {"decoder": jax.tree.map(lambda s: jnp.zeros(s.shape), SHAPES)}
    text = beam_search.lower(MODEL, params, memory, None, beams=beams, min_length=0, max_length=5,
                             **IDS).as_text()
    head = CONFIG.width // CONFIG.heads
    assert f"tensor<1x{CONFIG.heads}x{head}x{length}x" in text  # the keys, once
    assert f"tensor<{beams}x{CONFIG.heads}x{head}x{length}x" not in text
    assert f"tensor<{beams}x{length}x" not in text


def test_more_tokens_than_positions_are_refused():
    params, memory, mask = random_case(0)
    with pytest.raises(ValueError, match="text of 13 tokens, but model.max_positions is 12"):
        greedy(MODEL, params, memory, mask, max_length=13, **IDS)


def test_bfloat16_decodes():
    params, memory, mask = random_case(0)
    model = build(dataclasses.replace(CONFIG, dtype="bfloat16"), ("decoder",), ())
    ids, scores = beam_search(model, params, memory, mask, beams=3, min_length=0, max_length=4,
                              **IDS)
    assert ids.dtype == jnp.int32 and scores.dtype == jnp.float32
    assert np.isfinite(np.asarray(scores)).all()
