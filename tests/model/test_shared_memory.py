"""A memory of which rows have parts in common, against the same laid out for every row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from mplug2_jax.model.decoding import beam_search, greedy, rank_answers
from mplug2_jax.model.mplug2 import build
from mplug2_jax.model.rows import Shared, for_each, with_visual
from mplug2_jax.parallel.mesh import batch_sharding, make_mesh
from mplug2_jax.parallel.sharding import take_shared

ENDS = dict(start_id=2, end_id=3, pad_id=0)
OF = np.array([0, 0, 2, 1, 1, 1], np.int32)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_shared_memory_laid_out():
    items, own = drawn(3, 4, 8), drawn(6, 2, 8, seed=1)
    seen = Shared(items, OF)
    assert seen.shape == (6, 4, 8)
    np.testing.assert_array_equal(for_each(seen), items[OF])
    memory, mask = with_visual(seen, own, np.ones((6, 2), bool))
    assert memory.shape == (6, 6, 8) and mask.shape == (6, 6)
    np.testing.assert_array_equal(for_each(memory), np.concatenate([items[OF], own], axis=1))
    np.testing.assert_array_equal(for_each(own), own)


@pytest.mark.parametrize("stride", [1000, 1])
def test_fusion_and_decoding_of_a_shared_memory(stride):
    config = small.model(fusion_stride=stride)
    model = build(config, ("vision", "text", "fusion", "decoder"), ())
    params = small.params_of(model)
    items, text = drawn(3, 5, config.width), drawn(6, 4, config.width, seed=1)
    mask = np.arange(4) < np.array([[4], [2], [3], [4], [1], [2]])
    answers, answer_mask = small.texts(np.random.default_rng(2), 7, 5)

    @jax.jit
    def say(visual):
        seen, fused = model.apply({"params": params}, visual, text, mask, method="fuse")
        memory, memory_mask = with_visual(seen, fused, mask)
        given = model, params, memory, memory_mask
        return (fused, for_each(memory), greedy(*given, max_length=5, **ENDS),
                beam_search(*given, beams=3, max_length=5, min_length=0, **ENDS),
                rank_answers(*given, jnp.asarray(answers), jnp.asarray(answer_mask), keep=4))

    expected, found = say(jnp.asarray(items[OF])), say(Shared(jnp.asarray(items), OF))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found,
                 expected)
    np.testing.assert_array_equal(found[2], expected[2])


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_taking_what_is_shared_sends_nothing(shape):
    mesh = make_mesh(*shape)
    ways = shape[0] * shape[1]
    items = drawn(2 * ways, 3, 4)
    of = (np.repeat(np.arange(ways) * 2, 5) + np.tile([0, 0, 1, 1, 0], ways)).astype(np.int32)
    placed = jax.device_put((items, of), batch_sharding(mesh))
    with jax.set_mesh(mesh):
        compiled = jax.jit(take_shared).lower(*placed).compile()
    np.testing.assert_array_equal(compiled(*placed), items[of])
    said = compiled.as_text()
    for sends in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert sends not in said, sends
