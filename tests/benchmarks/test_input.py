"""The benchmark of the input measures by the cores that the process has."""

import os
import sys

import pytest

from benchmarks import input as benchmark


def test_cores_are_those_of_the_container(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(benchmark, "cores", lambda: 3)
    assert benchmark.usable() == [0, 1, 2]


def test_what_only_linux_has_is_one_line(monkeypatch, capsys):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(sys, "argv", ["input", "--cores"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert capsys.readouterr().err.splitlines()[-1].endswith(
        "--cores needs Linux, where a process can be given some of the cores")
