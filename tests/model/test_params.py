"""Reading a parameter: what Flax gives and refuses, without tracing its initialiser again."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick_params
from flax import errors
from flax.core.scope import Scope

DRAWN = []  # calls of an initialiser


class Layers(nn.Module):
    """Parameters of every kind that the model has."""

    width: int

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(7, self.width)(ids)
        x = nn.LayerNorm()(nn.Dense(self.width)(x))

        def init(key, shape):
            DRAWN.append(shape)
            return jax.random.normal(key, shape)

        x = x * self.param("scale", init, (self.width,))
        return x + self.param("bias", nn.zeros_init(), ())


IDS = jnp.arange(6).reshape(2, 3)


def test_what_is_read_is_what_flax_reads(monkeypatch):
    DRAWN.clear()
    model = Layers(4)
    variables = model.init(jax.random.key(0), IDS)
    assert DRAWN == [(4,)]
    quickly = model.apply(variables, IDS)
    assert Scope.param is quick_params._read
    assert DRAWN == [(4,)]  # nothing was traced again
    monkeypatch.setattr(Scope, "param", quick_params._param)
    np.testing.assert_array_equal(model.apply(variables, IDS), quickly)
    assert DRAWN == [(4,)] * 2
    again = model.init(jax.random.key(0), IDS)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_what_does_not_fit_is_flaxs_own_error():
    variables = Layers(4).init(jax.random.key(0), IDS)
    with pytest.raises(errors.ScopeParamShapeError, match="embedding"):
        Layers(5).apply(variables, IDS)
    odd = {"params": variables["params"] | {"scale": jnp.ones((4, 1))}}
    with pytest.raises(errors.ScopeParamShapeError, match="scale"):
        Layers(4).apply(odd, IDS)
    del odd["params"]["scale"]
    with pytest.raises(errors.ScopeParamNotFoundError, match="scale"):
        Layers(4).apply(odd, IDS)

    class Twice(nn.Module):
        @nn.compact
        def __call__(self):
            self.param("same", nn.zeros_init(), (2,))
            self.param("same", nn.zeros_init(), (2,))

    with pytest.raises(errors.NameInUseError):
        Twice().apply({"params": {"same": jnp.zeros(2)}})


def test_boxes_are_opened_as_asked():
    class Boxed(nn.Module):
        unbox: bool

        @nn.compact
        def __call__(self):
            return self.param("x", nn.with_partitioning(nn.zeros_init(), ("rows",)), (3,),
                              unbox=self.unbox)

    variables = Boxed(True).init(jax.random.key(0))
    assert isinstance(Boxed(False).apply(variables), nn.Partitioned)
    assert isinstance(Boxed(True).apply(variables), jax.Array)
