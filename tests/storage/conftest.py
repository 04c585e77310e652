"""A bucket that answers on this machine: one server a process of tests, a folder in it a test."""

import os

import pytest
from bucket_corpus import SIZES
from gcs_server import BUCKET, Server

from data.prepare.__main__ import main as prepare


@pytest.fixture(scope="session")
def server():
    """The server; the clients of this process and of those that it starts come to it."""
    with Server() as server:
        os.environ.update(server.environment)
        yield server
        for name in server.environment:
            del os.environ[name]


@pytest.fixture
def place(server, request):
    """An empty folder in the bucket, as a user would type it; requests from here on are its own."""
    server.before = server.reading = lambda method, name: None
    server.requests = []
    return f"gs://{BUCKET}/{request.node.name}"


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """The folder of the corpus."""
    folder = tmp_path_factory.mktemp("data")
    assert prepare(["moving_digits", f"--out={folder}", "--processes=1",
                    *(f"--{name}={size}" for name, size in SIZES.items())]) == 0
    return folder
