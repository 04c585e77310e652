"""The planner's commands by name."""

import jax
import pytest

from configs import msrvtt_caption
from mplug2_jax.planning import __main__ as planning
from mplug2_jax.planning.shapes import batch_shapes, planned


@pytest.mark.parametrize("arguments, given", [([], "none"), (["predict"], "predict")])
def test_a_command_that_there_is_not_is_one_line(arguments, given, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["planning", *arguments])
    with pytest.raises(SystemExit) as ended:
        planning.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"error: expected a command, describe, aot, suggest or goodput; got {given}\n")


def test_a_command_gets_the_flags_behind_it(monkeypatch):
    called = []
    monkeypatch.setattr("mplug2_jax.planning.describe.command", lambda: called.append(True))
    monkeypatch.setattr("sys.argv", ["planning", "describe", "--config=x"])
    planning.main()
    assert called == [True]


def test_a_step_that_asks_the_host_for_rewards_is_planned_without_references():
    config = msrvtt_caption.get_config("tiny,scst")
    config.data.streams.video.batch_size = 2
    task, streams = planned(config)
    params = jax.eval_shape(task.init_params, jax.random.key(0))
    loss, (metrics, _) = jax.eval_shape(task.loss, params, batch_shapes(task, streams),
                                        jax.random.key(0))
    assert loss.shape == () and {"video/reward"} <= set(metrics)
