"""What every command shares."""

import pytest
from commands import run


@pytest.mark.parametrize("module, own", [
    ("mplug2_jax.aot", ("topology", "search")), ("mplug2_jax.describe", ("config",)),
    ("mplug2_jax.convert", ("bert_json", "with"))])
def test_help_lists_a_commands_flags_wherever_they_are_defined(module, own):
    """--help of absl lists the flags of the main module, and ends with code 1."""
    shown = run("-m", module, "--help", status=1)
    for name in (*own, "[no]debug"):
        assert f"\n  --{name}: " in shown or f"\n  --[no]{name}: " in shown
    assert "--verbosity" not in shown  # the libraries' are in --helpfull
