"""What every command shares."""

import importlib
import subprocess
import sys

import jax
import pytest
from commands import command, run
from ml_collections import ConfigDict

from mplug2_jax import launch
from mplug2_jax.contracts.errors import ConfigError


@pytest.mark.parametrize("module, own", [
    ("mplug2_jax.aot", ("topology", "search")), ("mplug2_jax.describe", ("config",)),
    ("mplug2_jax.convert", ("bert_json", "with"))])
def test_help_lists_a_commands_flags_wherever_they_are_defined(module, own):
    """--help of absl lists the flags of the main module, and ends with code 1."""
    shown = run("-m", module, "--help", status=1)
    for name in (*own, "[no]debug"):
        assert f"\n  --{name}: " in shown or f"\n  --[no]{name}: " in shown
    assert "--verbosity" not in shown  # the libraries' are in --helpfull


def test_the_code_of_a_run_is_the_project_s_and_what_nobody_installed(tmp_path, monkeypatch):
    (tmp_path / "own_code.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("own_code")
    first = launch.code()
    assert len(first["own_code"]) == 12 and "mplug2_jax/launch.py" in first
    assert not any("site-packages" in name or name.startswith("jax/") for name in first)
    assert "json" not in first and "numpy" not in first
    (tmp_path / "own_code.py").write_text("VALUE = 2\n")
    second = launch.code()
    del sys.modules["own_code"]
    assert {name for name in first if first[name] != second[name]} == {"own_code"}


def test_a_config_as_plain_values_and_what_differs_from_a_stored_one():
    config = ConfigDict({"a": (1, 2), "b": {"c": "d"}})
    assert launch.plain(config) == {"a": [1, 2], "b": {"c": "d"}}
    launch.require_same("model", {"a": 1, "how": 1}, {"a": 1, "how": 2}, ("how",))
    with pytest.raises(ConfigError, match="model.a = 2, but the checkpoint was made with 1"):
        launch.require_same("model", {"a": 1}, {"a": 2})
    with pytest.raises(ValueError, match="--workdir is missing"):
        launch.given("workdir", "")
    assert launch.given("workdir", "runs") == "runs"
    assert launch.one_line(KeyError("'x'")) == "there is no key or section 'x'"
    assert launch.one_line(ValueError("a\n  b")) == "a b"


def test_a_config_s_key_keeps_its_number_below_zero():
    """Its flag is known only once the config was read."""
    for given in (["x", "--config.a.b", "-5"], ["x", "--config.c[0]", "-.5e3"],
                  ["x", "--config.a=-5", "b"], ["x", "--config.a.b", "-5", "--config.d", "-1"]):
        assert launch.mark_words(given) == given
    assert launch.mark_words(["x", "--config.a=1", "-5"])[2] == "\0-5"
    assert launch.mark_words(["x", "--config.a", "-5", "-5"])[2:] == ["-5", "\0-5"]


BUCKET = """
import sys
from pathlib import Path
import fsspec, jax, jax.numpy as jnp
from fsspec.implementations.local import LocalFileSystem
from mplug2_jax import launch

class Bucket(LocalFileSystem):
    protocol = "s3"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("s3:/", sys.argv[1]))

fsspec.register_implementation("s3", Bucket, clobber=True)
jax.config.update("jax_compilation_cache_dir", sys.argv[2])
launch.keep_compilations()
print(jax.jit(lambda x: jnp.sin(x) * 7)(2.0))
"""


def test_what_was_compiled_may_lie_in_a_bucket(tmp_path):
    """A folder stands in for it; a second process reads what the first one wrote."""
    def start(place):
        return subprocess.run(**command("-c", BUCKET, tmp_path, place) | {
            "stderr": subprocess.PIPE}, timeout=120)

    assert start("s3://runs/compiled").returncode == 0
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs/compiled").iterdir()}
    assert any(path.name.startswith("jit__lambda") for path in files)
    assert start("s3://runs/compiled").returncode == 0
    assert {path: path.stat().st_mtime_ns
            for path in (tmp_path / "runs/compiled").iterdir()} == files


def test_a_bucket_that_nothing_here_opens_is_one_line():
    name = "jax_compilation_cache_dir"
    before = jax.config.values[name]
    jax.config.update(name, "nowhere://runs")
    try:
        with pytest.raises(ConfigError, match="JAX_COMPILATION_CACHE_DIR=nowhere://runs: Protocol"):
            launch.keep_compilations()
    finally:
        jax.config.update(name, before)
