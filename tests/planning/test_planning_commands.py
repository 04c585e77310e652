"""The planner's commands by name."""

import pytest

from mplug2_jax.planning import __main__ as planning


@pytest.mark.parametrize("arguments, given", [([], "none"), (["predict"], "predict")])
def test_a_command_that_there_is_not_is_one_line(arguments, given, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["planning", *arguments])
    with pytest.raises(SystemExit) as ended:
        planning.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"error: expected a command, describe or aot; got {given}\n")


def test_a_command_gets_the_flags_behind_it(monkeypatch):
    called = []
    monkeypatch.setattr("mplug2_jax.planning.describe.command", lambda: called.append(True))
    monkeypatch.setattr("sys.argv", ["planning", "describe", "--config=x"])
    planning.main()
    assert called == [True]
