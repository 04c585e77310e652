"""The layers of every module: attention with its projections, MLP, embeddings, their repetition.

Dropout is active exactly where the caller gives a `dropout` rng to `apply`; there is no flag.
Masks are boolean, True where a query may attend, broadcastable to `[B, H, Lq, Lk]`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mplug2_jax.model.attention import cached_attention, dot_product_attention
from mplug2_jax.model.config import REMAT_POLICIES
from mplug2_jax.model.rows import Shared, for_each
from mplug2_jax.parallel.sharding import shard_batch, whole_rows

Array = jax.Array
KeyValue = tuple[Array, Array]  # each [B, S, H, Dh]
BERT_EPS = 1e-12  # LayerNorm of every BERT part
VISION_EPS = 1e-5  # LayerNorm of the vision encoder
BERT_STD, BERT_WIDTH = 0.02, 768  # BERT's initial standard deviation, and its smallest width


def bert_init(width: int, cross: bool = False) -> Callable[..., Array]:
    """BERT's normal initialiser from BERT-base's width on, wider for narrower models.

    At 0.02 a narrow layer adds next to nothing to its residual. Cross-attention starts from unit
    gain there, for a mean over all visual tokens has to be heard beside the text.
    """
    narrow = max(1.0, BERT_WIDTH / width)
    return nn.initializers.normal(
        width ** -0.5 if cross and narrow > 1 else BERT_STD * narrow ** 0.5)


def gelu(x: Array) -> Array:
    """Exact (erf) GELU, as BERT's."""
    return jax.nn.gelu(x, approximate=False)


def quick_gelu(x: Array) -> Array:
    """CLIP's approximation, `x * sigmoid(1.702 x)`."""
    return x * jax.nn.sigmoid(1.702 * x)


class Dropout(nn.Module):
    """Dropout that acts only when `apply` was given a `dropout` rng."""

    rate: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.rate == 0.0 or not self.has_rng("dropout"):
            return x
        return nn.Dropout(self.rate, deterministic=False)(x)


class StochasticDepth(nn.Module):
    """Leaves a residual out for some examples, where `apply` was given a `dropout` rng.

    Huang et al., 2016 (https://arxiv.org/abs/1603.09382); what is kept is scaled up, so that
    evaluation needs no change.
    """

    @nn.compact
    def __call__(self, residual: Array, rate: Array | None) -> Array:
        """`residual [B, ...]`, each example's 0 with probability `rate` (None: never)."""
        if rate is None or not self.has_rng("dropout"):
            return residual
        shape = (residual.shape[0], *(1,) * (residual.ndim - 1))
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, shape)
        return residual * (kept / (1 - rate)).astype(residual.dtype)


class Attention(nn.Module):
    """Multi-head attention whose keys and values may be given, so that a cache can hold them.

    Attributes:
      width: D, of inputs and outputs.
      heads: H, a divisor of D.
      kernel_init: of the four projections.
      dtype: of computation.
    """

    width: int
    heads: int
    kernel_init: Callable[..., Array]
    dtype: Any

    def setup(self):
        def dense(name):
            return nn.Dense(self.width, dtype=self.dtype, kernel_init=self.kernel_init, name=name)

        self.query, self.key = dense("query"), dense("key")
        self.value, self.out = dense("value"), dense("out")

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.heads, self.width // self.heads)  # [B, L, H, Dh]

    def key_value(self, memory: Array | Shared) -> KeyValue:
        """Keys and values `[B, S, H, Dh]` of `memory [B, S, D]`."""
        if isinstance(memory, Shared):
            own = (None, None) if memory.own is None else self.key_value(memory.own)
            key, value = (for_each(Shared(seen, memory.of, more)) for seen, more in zip(
                self.key_value(memory.items), own, strict=True))
            return key, value
        return self._split(self.key(memory)), self._split(self.value(memory))

    def cache_entry(self, memory: Array | Shared) -> KeyValue:
        """A cache of `memory [B, S, D]`: keys `[B, H, Dh, S]`, values `[B, H, S, Dh]`."""
        key, value = self.key_value(memory)
        return key.transpose(0, 2, 3, 1), value.swapaxes(1, 2)

    def __call__(self, x: Array, kv: KeyValue, mask: Array | None = None,
                 causal: bool = False, cached: bool = False) -> Array:
        """Attends from `x [B * R, L, D]` to `kv` of `[B, S, H, Dh]`; returns `[B * R, L, D]`.

        R > 1 means R query sequences for each item of the memory (several texts for one clip,
        several beams): they become extra query rows, so that keys and values are never repeated.
        The mask must then not depend on the query. `causal` also hides later keys (R = 1).
        `cached`: `kv` is laid out as `cache_entry`, and the mask says all.
        """
        query = self._split(self.query(x))  # [B * R, L, H, Dh]
        batch = kv[0].shape[0]
        folded = query.reshape(batch, -1, *query.shape[2:])  # [B, R * L, H, Dh]
        if cached:
            y = cached_attention(folded, *kv, mask)
        else:
            y = dot_product_attention(folded, *kv, mask, causal)
        return self.out(y.reshape(*x.shape[:-1], self.width))


class Mlp(nn.Module):
    """Two dense layers around an activation, `[..., D] -> [..., mlp_dim] -> [..., D]`."""

    width: int
    mlp_dim: int
    activation: Callable[[Array], Array]
    kernel_init: Callable[..., Array]
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        dense = dict(dtype=self.dtype, kernel_init=self.kernel_init)
        x = self.activation(nn.Dense(self.mlp_dim, name="wi", **dense)(x))
        return nn.Dense(self.width, name="wo", **dense)(x)


class TransformerLayer(nn.Module):
    """A post-norm BERT layer: self-attention, optional cross-attention, MLP.

    The one layer of the text encoder, the universal layers, the fusion encoder and the decoder.
    Cross-attention happens, and its parameters exist, where `memory` (or a cache of it) is given.

    Attributes:
      width, heads, mlp_dim, dropout, dtype: as in `ModelConfig`.
      cross_first: cross-attention before self-attention (the paper's figure of the queries).
      causal: self-attention hides later tokens; with a cache, its mask must.
    """

    width: int
    heads: int
    mlp_dim: int
    dropout: float
    dtype: Any
    cross_first: bool = False
    causal: bool = False

    def setup(self):
        attention = dict(width=self.width, heads=self.heads, dtype=self.dtype,
                         kernel_init=bert_init(self.width))
        self.self_attention = Attention(**attention)
        self.cross_attention = Attention(
            **attention | dict(kernel_init=bert_init(self.width, cross=True)))
        self.mlp = Mlp(self.width, self.mlp_dim, gelu, bert_init(self.width), self.dtype)
        self.self_norm = nn.LayerNorm(epsilon=BERT_EPS, dtype=self.dtype)
        self.cross_norm = nn.LayerNorm(epsilon=BERT_EPS, dtype=self.dtype)
        self.mlp_norm = nn.LayerNorm(epsilon=BERT_EPS, dtype=self.dtype)
        self.drop = Dropout(self.dropout)

    def __call__(
        self,
        x: Array,
        cache: dict[str, Array] | None = None,
        self_mask: Array | None = None,
        memory: Array | Shared | None = None,
        memory_mask: Array | None = None,
        index: Array | None = None,
    ) -> tuple[Array, dict[str, Array] | None]:
        """Runs the layer.

        Args:
          x: `[B, L, D]`.
          cache: this layer's `self_key [B, H, Dh, Lmax], self_value [B, H, Lmax, Dh]`, and, after
            the first call, `cross_key [B, H, Dh, S], cross_value [B, H, S, Dh]`; None outside of
            decoding.
          self_mask: over the queries and keys of self-attention.
          memory: `[B, S, D]` to cross-attend; not needed where the cache holds its keys.
          memory_mask: broadcastable to `[B, H, L, S]`.
          index: int32 scalar, the position of `x[:, 0]` in the cache.

        Returns:
          `[B, L, D]` and the new cache (None without one).
        """
        new_cache = {}  # not returned without a cache

        def self_attend(x):
            if cache is None:
                kv = self.self_attention.key_value(x)
            else:
                assert index is not None, "a cache is written at an index"
                key, value = self.self_attention.cache_entry(x)
                kv = (jax.lax.dynamic_update_slice(cache["self_key"], key, (0, 0, 0, index)),
                      jax.lax.dynamic_update_slice(cache["self_value"], value, (0, 0, index, 0)))
                new_cache["self_key"], new_cache["self_value"] = kv
            y = self.self_attention(x, kv, self_mask, self.causal, cached=cache is not None)
            return self.self_norm(x + self.drop(y))

        def cross_attend(x):
            if cache is not None and "cross_key" in cache:
                kv = cache["cross_key"], cache["cross_value"]
            else:
                assert memory is not None, "nothing to cross-attend to"
                kv = (self.cross_attention.key_value(memory) if cache is None
                      else self.cross_attention.cache_entry(memory))
            new_cache["cross_key"], new_cache["cross_value"] = kv
            y = self.cross_attention(x, kv, memory_mask, cached=cache is not None)
            return self.cross_norm(x + self.drop(y))

        x = shard_batch(x)
        crosses = memory is not None or (cache is not None and "cross_key" in cache)
        steps = [self_attend] + ([cross_attend] if crosses else [])
        for step in reversed(steps) if self.cross_first else steps:
            x = step(x)
        x = shard_batch(self.mlp_norm(x + self.drop(self.mlp(x))))
        return x, None if cache is None else new_cache


class Repeat(nn.Module):
    """`length` equal layers, their parameters stacked `[length, ...]` whether looped or scanned.

    One parameter layout for both, so that a checkpoint fits either. `scan` compiles one body and
    loops over it (compile time and code size do not grow with depth); without it the loop is laid
    out, which suits small models on a CPU.

    Attributes:
      layer: builds one layer; called as `layer(x, xs_of_this_layer, *args) -> (x, ys)`.
      length: number of layers.
      scan: loop or lay out.
      remat: a name of `REMAT_POLICIES`.
      rates: a number for each layer, given to it as its second argument; none if empty.
    """

    layer: partial[Any]  # a module class with its attributes
    length: int
    scan: bool
    remat: str
    rates: tuple[float, ...] = ()

    @nn.compact
    def __call__(self, x: Array, xs: Any = None, *args: Any) -> tuple[Array, Any]:
        """Threads `x [B, L, D]` through.

        With `xs`, a decoding cache of one entry a layer, the layers are laid out, for a loop would
        copy every layer's weights out of their stack for every token. `unstack` does that once.

        Returns:
          `x` and, with `xs`, a tuple of the layers' second results.
        """
        if xs is not None:
            params: Any = self.get_variable("params", "layer")
            layers = params if isinstance(params, tuple) else unstack(params, self.length)
            module, ys = self.layer(parent=None), []
            for layer_params, entry in zip(layers, xs, strict=True):
                x, y = module.apply({"params": layer_params}, x, entry, *args)
                ys.append(y)
            return x, tuple(ys)
        cls = remat_module(self.layer.func, self.remat)
        scanned = nn.scan(
            cls,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0 if self.rates else nn.broadcast, *(nn.broadcast,) * len(args)),
            length=self.length,
            unroll=1 if self.scan else self.length,
        )
        rates = jnp.array(self.rates) if self.rates else None
        return scanned(**self.layer.keywords, name="layer")(x, rates, *args)


def unstack(stacked: Any, length: int) -> tuple[Any, ...]:
    """The parameters of each of `length` layers, out of `Repeat`'s stack `[length, ...]`."""
    return tuple(jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(length))


def remat_module(cls: Callable[..., Any], policy: str) -> Callable[..., Any]:
    """`cls` whose backward pass recomputes what the policy (`REMAT_POLICIES`) does not keep."""
    if policy == "none":
        return cls
    # Common-subexpression elimination cannot undo remat inside a scan; elsewhere it must not.
    return nn.remat(cls, policy=REMAT_POLICIES[policy], prevent_cse=True)


class Embeddings(nn.Module):
    """BERT embeddings: word + position + token type 0, LayerNorm, dropout.

    Attributes:
      vocab_size, max_positions, width, dropout, dtype: as in `ModelConfig`.
    """

    vocab_size: int
    max_positions: int
    width: int
    dropout: float
    dtype: Any

    def setup(self):
        init = nn.initializers.normal(BERT_STD)
        # Token types keep the two rows that BERT checkpoints have, though only row 0 is used.
        self.word = self.param("word", init, (self.vocab_size, self.width))
        self.position = self.param("position", init, (self.max_positions, self.width))
        self.token_type = self.param("token_type", init, (2, self.width))
        self.norm = nn.LayerNorm(epsilon=BERT_EPS, dtype=self.dtype)
        self.drop = Dropout(self.dropout)

    def __call__(self, ids: Array, start: Array | int = 0) -> Array:
        """Embeds `ids int32 [B, L]` at positions `start ...`; returns `[B, L, D]`.

        Raises:
          ValueError: L is larger than the table of positions.
        """
        length = ids.shape[1]
        if length > self.max_positions:
            raise ValueError(f"text of {length} tokens, but model.max_positions is "
                             f"{self.max_positions}: shorten the text or raise it")
        position = jax.lax.dynamic_slice_in_dim(self.position, start, length)  # [L, D]
        word = whole_rows(self.word)[ids]
        x = shard_batch(word + position + self.token_type[0])
        return self.drop(self.norm(x))


class TiedHead(nn.Module):
    """BERT's prediction head: dense, GELU, LayerNorm, then the word embeddings plus a bias."""

    width: int
    vocab_size: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, word: Array) -> Array:
        """Logits `float32 [..., V]` of `x [..., D]` with the tied embeddings `word [V, D]`."""
        x = nn.Dense(self.width, dtype=self.dtype, kernel_init=bert_init(self.width),
                     name="dense")(x)
        x = nn.LayerNorm(epsilon=BERT_EPS, dtype=self.dtype, name="norm")(gelu(x))
        bias = self.param("bias", nn.initializers.zeros, (self.vocab_size,))
        logits = jnp.einsum("...d,vd->...v", x, word.astype(self.dtype),
                            preferred_element_type=jnp.float32)
        return logits + bias
