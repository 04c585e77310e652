"""What a trace says of a program: operations, their time and the module that they are of."""

import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from mplug2_jax.contracts import exits
from mplug2_jax.parallel.stopping import Stopped
from mplug2_jax.training import trace, xplane
from mplug2_jax.training.trace import Trace, place, table
from mplug2_jax.training.vigil import Vigil
from mplug2_jax.training.xplane import Instruction, Ran


class Model(nn.Module):
    """Two modules, one of them in a loop."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(256, name="vision")(x))

        class Body(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.tanh(nn.Dense(256, name="mlp")(x)), None

        stack = nn.scan(Body, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return stack(name="text")(x, None)[0].sum()


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A work folder with a trace of two steps of five, and what the vigil's ledger says."""
    folder = tmp_path_factory.mktemp("run")
    model, x = Model(), jnp.ones((128, 256))
    params = model.init(jax.random.key(0), x)
    step = jax.jit(lambda params: jax.tree.map(
        lambda p, g: p - 0.1 * g, params, jax.grad(model.apply)(params, x)))
    vigil = Vigil(folder, 30, 0)
    with Trace(2, 0, folder, vigil) as taken:
        for number in range(1, 6):
            with trace.stepping(number):
                params = step(params)
            metrics = {"loss": jax.tree.leaves(params)[0]}
            vigil.dispatched(number, metrics)
            taken.after(number, metrics)
    vigil.end("all")
    return folder, vigil.ledger.paused


def test_the_file_names_the_modules(traced):
    folder, seconds = traced
    (path,) = (folder / "tensorboard").rglob("*.xplane.pb")  # where TensorBoard looks
    ran = xplane.read(path)
    places = {place(one.instruction) for one in ran}
    assert {("vision", "dot_general"), ("text/mlp", "dot_general"),
            ("text/mlp", "dot_general backward")} <= places, places
    assert all(one.seconds >= 0 for one in ran) and 0 < sum(one.seconds for one in ran)
    assert not {one.instruction.code for one in ran} & xplane.CONTROL
    # Each product of the loop ran three times in each of two steps, of a layer outside of it once.
    for scope, times in (("vision", 2), ("text/mlp", 6)):
        products = [one for one in ran if place(one.instruction) == (scope, "dot_general")]
        names = {one.name for one in products if re.search("dot|fusion", one.name)}
        assert any(sum(one.name == name for one in products) == times for name in names)
    assert seconds > 0  # the time is no step's


# That it has no more steps is as in the trace above, which ends by itself.
@pytest.mark.parametrize("stopped", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_run_that_ends_within_it_ends_it(tmp_path, stopped, caplog):
    """By a stop, where nothing is told, for time is short; or for it has no more steps."""
    caplog.set_level("INFO")
    vigil, saved, x = Vigil(tmp_path, 30, 0), [], jnp.ones(8)
    vigil.stopping.listen = lambda: None  # no signal comes
    with (Trace(9, 0, tmp_path, vigil) as taken, vigil.saving(),
          vigil.over(0, lambda: None, saved.append)):
        for number in range(1, 5):
            x = x + 1
            vigil.dispatched(number, {"loss": x})
            taken.after(number, {"loss": x})
            if stopped and number == 4:
                raise Stopped("stopped by a test")
    (path,) = (tmp_path / "tensorboard").rglob("*.xplane.pb")
    assert path.stat().st_size and saved == [4] * stopped
    assert ("profile of 2 steps" in caplog.text) == (not stopped)
    assert vigil.end("all") == (exits.STOPPED if stopped else exits.DONE)


@pytest.fixture
def no_profiler(monkeypatch):
    """In its place, one that writes what is no trace."""
    places = []

    def stop():
        (folder := Path(places[-1]) / "plugins").mkdir(parents=True)
        (folder / "vm.xplane.pb").write_bytes(b"\xff\xff\xffno trace")

    monkeypatch.setattr(trace.jax.profiler, "start_trace",
                        lambda place, **_: places.append(place))
    monkeypatch.setattr(trace.jax.profiler, "stop_trace", stop)
    return places


def test_a_trace_that_cannot_be_read_ends_no_run(tmp_path, no_profiler, caplog):
    caplog.set_level("INFO")
    vigil = SimpleNamespace(during=lambda what: nullcontext(), step=4, stopped=False)
    with Trace(1, 0, tmp_path, vigil) as taken:
        for number in range(1, 5):
            taken.after(number, {"loss": jnp.ones(())})
    assert "not read here (Failed to parse XSpace" in caplog.text


def test_what_would_go_to_a_bucket_is_gone_where_the_run_fails(tmp_path, no_profiler, monkeypatch):
    monkeypatch.setattr(trace.paths, "in_bucket", lambda path: True)
    vigil = SimpleNamespace(during=lambda what: nullcontext())
    with pytest.raises(FloatingPointError), Trace(9, 0, tmp_path, vigil) as taken:
        for number in range(1, 5):
            taken.after(number, {"loss": jnp.ones(())})
        assert Path(no_profiler[0]).is_dir()
        raise FloatingPointError
    assert not Path(no_profiler[0]).exists()


def test_the_table_has_the_heaviest():
    def one(seconds, path, code="fusion"):
        return Ran("jit_step", "x", Instruction(code, path), seconds)

    ran = [one(0.010, "jit(step)/jvp(MPlug2.fuse)/vision/layers/while/body/attention/dot_general"),
           one(0.030, "jit(step)/transpose(jvp(MPlug2))/vision/layers/checkpoint/mlp/dot_general"),
           one(0.004, "jit(step)/guard/jit(_where)/select_n"), one(0.002, "", "copy"),
           one(0.002, "", "copy"), *(one(1e-4, f"jit(step)/small_{i}/add") for i in range(20))]
    lines = table(ran, 2).splitlines()
    assert len(lines) == 11
    assert lines[1].split() == ["60.0%", "15.00", "vision/layers/mlp:", "dot_general", "backward"]
    assert lines[2].split() == ["20.0%", "5.00", "vision/layers/attention:", "dot_general"]
    assert {line.split(maxsplit=2)[2] for line in lines[3:5]} == {"guard: select_n",
                                                                  "no module: copy"}


def test_time_within_another_counts_once():
    """A loop's own time is what none of its parts takes; a later event is none of its."""
    events = [(0.0, 100e9, "p", "while"), (10e9, 30e9, "p", "a"), (20e9, 5e9, "p", "b"),
              (50e9, 50e9, "p", "a"), (100e9, 7e9, "p", "c")]
    assert xplane._alone(events) == [
        ("p", "while", 20.0), ("p", "a", 25.0), ("p", "b", 5.0), ("p", "a", 50.0), ("p", "c", 7.0)]


def test_a_tpu_s_events_are_known_by_their_names():
    """They have no such figures as those of CPUs and GPUs, but the instruction's text."""
    event = SimpleNamespace(name="%fusion.12 = bf16[8]{0} fusion(%a)", stats=[("flops", 1)])
    assert xplane._place(event, True) == ("", "fusion.12")
    assert xplane._place(event, False) is None
    known = {"init": {"fusion.12": Instruction("copy", "")},
             "step": {"fusion.12": Instruction("fusion", "a"), "b": Instruction("dot", "b")}}
    assert xplane._look_up(known, "", "fusion.12").path == "a"
    assert xplane._look_up(known, "init", "fusion.12").code == "copy"
    assert xplane._look_up(known, "", "gone") == Instruction("", "")
