"""Marks of tests that compile for chips which are not there."""

import importlib.util

import pytest


def needs_libtpu(test):
    """Marks a test that compiles for a TPU topology; no TPU is needed."""
    missing = importlib.util.find_spec("libtpu") is None
    reason = "libtpu (requirements/dev.txt) is not installed"
    return pytest.mark.tpu(pytest.mark.skipif(missing, reason=reason)(test))
