"""Hosts that feed the same rows skip the same records: each skip is counted once."""

import importlib

import pytest

from mplug2_jax.parallel import mesh


@pytest.mark.parametrize("processes, parts, expected", [(1, 1, 1), (4, 4, 1), (4, 2, 2), (4, 1, 4)])
def test_processes_that_feed_alike_are_counted(monkeypatch, processes, parts, expected):
    monkeypatch.setattr(mesh.jax, "process_count", lambda: processes)
    monkeypatch.setattr(mesh, "data_slice", lambda _: (0, parts))
    assert mesh.feeding_alike(None) == expected
    run = importlib.import_module("mplug2_jax.evaluation.run")  # the room hands on a function `run`
    assert run.feeding_alike is mesh.feeding_alike
