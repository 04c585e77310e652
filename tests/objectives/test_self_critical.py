"""Self-critical training: the reward by hand, the gradient, any mesh, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small

from configs import common
from mplug2_jax.metrics.cider import CiderD
from mplug2_jax.objectives.self_critical import CaptionReward, advantages, policy_gradient
from mplug2_jax.parallel.mesh import make_mesh, put_batch
from mplug2_jax.training.optimizer import make_optimizer
from mplug2_jax.training.step import make_train_step

TINY = small.model(vision_layers=1, decoder_layers=1)
KEY = jax.random.key(0)
REFERENCES = [["w1 w2 w3", "w1 w2"], ["w4 w5"], [], ["w1 w3 w7 w7"], ["w8"], ["w2 w2"],
              ["w6 w9"], ["w10"]]


def make(**options):
    task = small.task("captioning", TINY, memory="visual", **dict(samples=3) | options)
    task.prepare(lambda: {"s": REFERENCES})
    return task, small.params_of(task.model)


def batch(padding=1):
    return {"s": small.pairs(8, 1, padding=padding)}


def test_rewards_by_hand():
    task, _ = make()
    tokens, length = task.tokenizer, 5

    def ids(text, end=True):
        row = [tokens.cls_id, *tokens.encode(text), *[tokens.sep_id] * end]
        return np.array(row + [tokens.pad_id] * (length - len(row)), np.int32)

    said = np.array([[ids("w1 w2 w3"), ids("w1 w2 w3", end=False), ids("w9")],
                     [ids("w4 w5"), ids("w4"), ids("")],
                     [ids("w1")] * 3])
    rewards = task.reward.host("s", np.array([0, 1, 2]), said)
    cider = CiderD([texts for texts in REFERENCES if texts], end=True)
    for row, texts in ((0, ["w1 w2 w3", "w1 w2 w3", "w9"]), (1, ["w4 w5", "w4", ""])):
        expected = cider.score(texts, [REFERENCES[row]] * 3, [True, row == 1, True])
        np.testing.assert_allclose(rewards[row], expected, rtol=1e-6)
    assert rewards[0, 0] > rewards[0, 1] > rewards[0, 2] and rewards[1, 0] > rewards[1, 1]
    assert not rewards[2].any()  # it has no references


def test_an_advantage_is_over_the_mean_of_the_others():
    rewards = jnp.array([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]])
    np.testing.assert_allclose(advantages(rewards), [[-3, -1.5, 4.5], [0, 0, 0]], atol=1e-6)


def test_the_gradient_is_that_of_weighted_log_probabilities():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 3, 5)).astype("f")
    ids = np.array([[1, 4, 2, 0], [1, 3, 3, 2]])
    counted = np.array([[True, True, False], [True, True, True]])
    weights = np.array([2.0, -0.5], np.float32)
    value = policy_gradient(logits, ids, counted, weights)
    log_probs = np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    expected = [-2.0 * (log_probs[0, 0, 4] + log_probs[0, 1, 2]),
                0.5 * (log_probs[1, 0, 3] + log_probs[1, 1, 3] + log_probs[1, 2, 2])]
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_a_later_step_draws_other_captions_and_an_equal_key_the_same():
    task, params = make()
    loss = jax.jit(task.loss)
    one, again, other = (float(loss(params, batch(), jax.random.key(seed))[0])
                         for seed in (0, 0, 1))
    assert one == again != other


def test_the_trainer_s_step_runs_under_its_transfer_guard():
    """As `train.py` calls it, on a mesh; two runs of two steps are equal to the bit."""
    task, _ = make()
    config = common.base("tiny").optimizer
    config.update(dict(steps=4, warmup_steps=1))
    optimizer, _ = make_optimizer(config)
    mesh = make_mesh(1, 2, 1, jax.devices()[:2])
    step = make_train_step(task, optimizer, small.state_of(task, optimizer, mesh), mesh, seed=0)
    results = []
    for _ in range(2):
        state = small.state_of(task, optimizer, mesh)
        for _ in range(2):
            rows = {"s": put_batch(batch()["s"], mesh)}
            with jax.transfer_guard("disallow"):
                state, metrics = step(state, rows)
                jax.block_until_ready(metrics)
        results.append(jax.device_get((state.params, metrics)))
    jax.tree.map(np.testing.assert_array_equal, *results)
    assert results[0][1]["s/reward"] >= 0


def test_it_raises_the_reward():
    """From random parameters, every reference one word: the model learns to say it."""
    task, params = make(samples=8, max_length=3)
    task.prepare(lambda: {"s": [["w1 w2"]] * 4 + [["w3"]] * 4})
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state, key):
        (_, (metrics, _)), grads = jax.value_and_grad(task.loss, has_aux=True)(
            params, batch(padding=0), key)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, metrics["s/reward"]

    state, rewards = optimizer.init(params), []
    for number in range(60):
        params, state, reward = step(params, state, jax.random.key(number))
        rewards.append(float(reward))
    assert np.mean(rewards[-10:]) > 4 * max(np.mean(rewards[:10]), 0.1), rewards


def test_references_come_from_the_data_in_the_order_of_pair_ids():
    reward = CaptionReward({"a": [["A dog.", "dogs"], []], "b": [["it's"]]}, str, 3)
    assert reward.tokens == {"a": [["a dog", "dogs"], []], "b": [["it 's"]]}


@pytest.mark.parametrize("samples", [0, 2])
def test_only_who_needs_references_reads_them(samples):
    asked = []
    task = small.task("captioning", TINY, memory="visual", samples=samples)
    task.prepare(lambda: asked.append(1) or {"s": REFERENCES})
    assert bool(asked) == bool(samples)
