"""Self-critical training: captions drawn from the model, rewarded by CIDEr-D (SCST).

Each example's captions are sampled on the decoder's cache inside the compiled step, and judged on
the host, for CIDEr-D works on words. A caption's advantage is its reward less the mean of the
example's other ones, a baseline that costs nothing (Luo, 2020, https://arxiv.org/abs/2003.09971);
its gradient is that of -advantage x log-probability (Rennie et al., 2017,
https://arxiv.org/abs/1612.00563).

Only the backward pass needs the rewards: while the host judges, a runtime that runs callbacks
beside the rest computes the log-probabilities.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from mplug2_jax.metrics.cider import CiderD
from mplug2_jax.metrics.ptb import ptb_tokenize
from mplug2_jax.parallel.mesh import BATCH, mesh_in_use

Array = jax.Array


class CaptionReward:
    """CIDEr-D of captions against the references of training records, on the host.

    n-grams are weighed by the references of all records of all streams, and a caption's end counts
    as a word.

    Args:
      references: by stream, those of every record, in the order of `pair_id`.
      text: ids of one caption to its text.
      end_id: of the tokenizer.
    """

    def __init__(self, references: dict[str, Sequence[Sequence[str]]],
                 text: Callable[[np.ndarray], str], end_id: int):
        self.tokens = {name: [[ptb_tokenize(one) for one in texts] for texts in records]
                       for name, records in references.items()}
        corpus = [texts for records in self.tokens.values() for texts in records if texts]
        self.cider = CiderD(corpus, end=True)
        self.text, self.end_id = text, end_id

    def host(self, stream: str, pair_id: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Rewards float32 `[B, R]` of `ids [B, R, L]`, whose records are `pair_id [B]`.

        A record without references rewards nothing: 0 for all its captions.
        """
        pair_id, ids = np.asarray(pair_id), np.asarray(ids)
        rewards = np.zeros(ids.shape[:2], np.float32)
        known = [row for row, record in enumerate(pair_id) if self.tokens[stream][record]]
        if known:
            count = ids.shape[1]
            said = [ptb_tokenize(self.text(one)) for row in known for one in ids[row]]
            gold = [self.tokens[stream][pair_id[row]] for row in known for _ in range(count)]
            ended = [bool((one == self.end_id).any()) for row in known for one in ids[row]]
            rewards[known] = self.cider.score(said, gold, ended).reshape(-1, count)
        return rewards

    def __call__(self, stream: str, pair_id: Array, ids: Array) -> Array:
        """`host` from within a compiled step; on a mesh each device's rows on its own host."""
        def call(pair_id, ids):
            shape = jax.ShapeDtypeStruct(ids.shape[:2], jnp.float32)
            return jax.pure_callback(partial(self.host, stream), shape, pair_id, ids)

        if mesh_in_use() is None:
            return call(pair_id, ids)
        spec = PartitionSpec(BATCH)
        return jax.shard_map(call, in_specs=(spec, spec), out_specs=spec, check_vma=False)(
            pair_id, ids)


def advantages(rewards: Array) -> Array:
    """`[B, R]`, R >= 2: each reward less the mean of its row's others."""
    count = rewards.shape[1]
    return (rewards - rewards.mean(axis=1, keepdims=True)) * count / (count - 1)


def policy_gradient(logits: Array, ids: Array, counted: Array, advantage: Array) -> Array:
    """-advantage x log-probability of each sequence, float32 `[N]`.

    Args:
      logits: `[N, L, V]` of the inputs `ids[:, :-1]`.
      ids: int32 `[N, 1 + L]`.
      counted: bool `[N, L]`, False for padding among `ids[:, 1:]`.
      advantage: `[N]`; no gradient flows.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    own = jnp.take_along_axis(log_probs, ids[:, 1:, None], axis=-1)[..., 0]
    return -jax.lax.stop_gradient(advantage) * jnp.where(counted, own, 0.0).sum(axis=1)


def sample_keys(key: Any, numbers: Array, count: int) -> Array:
    """Keys `[B * count]` of the captions of examples `numbers [B]`, the same on any mesh."""
    numbers = numbers[:, None] * count + jnp.arange(count)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers.reshape(-1))
