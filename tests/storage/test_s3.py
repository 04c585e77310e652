"""Paths of s3:// against moto's server; what is not of one store alone is in the other files."""

import os

import boto3
import pytest
from moto.server import ThreadedMotoServer

from data import stores
from mplug2_jax import places
from mplug2_jax.checkpoints import Checkpoints
from mplug2_jax.checkpoints.errors import CheckpointError
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.evaluation.records import write_records
from mplug2_jax.training.ledger import Ledger
from mplug2_jax.training.runlog import RunLog

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def s3():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield "s3://bucket"
    server.stop()


def test_folders_and_files(s3):
    folder = paths.parse(f"{s3}/files")
    assert not folder.exists() and not list(folder.iterdir()) and paths.sizes(folder) == {}
    (folder / "a" / "b.txt").write_text("né\n")
    (folder / "c.json").write_bytes(b"{}")
    assert (folder / "a").is_dir() and (folder / "a" / "b.txt").is_file()
    assert (folder / "a" / "b.txt").read_text() == "né\n"
    assert [one.name for one in folder.iterdir()] == ["a", "c.json"]
    assert paths.sizes(folder) == {"a/b.txt": 4, "c.json": 2}
    before = (folder / "c.json").stat()
    (folder / "c.json").write_bytes(b"[]")
    now, inner = folder.listing()
    assert before.mark != now["c.json"].mark == (folder / "c.json").stat().mark
    assert ([*now], inner, now["c.json"].st_size) == (["c.json"], ["a"], 2)
    paths.move_tree(folder, paths.parse(f"{s3}/moved"))
    assert not folder.exists()
    assert paths.sizes(paths.parse(f"{s3}/moved")) == {"a/b.txt": 4, "c.json": 2}
    with pytest.raises(FileNotFoundError):
        (folder / "nothing").read_bytes()


def test_logs_and_records(s3):
    folder = places.check_folder("--out", f"{s3}/run", ["train.jsonl"])
    for start in (0, 1):
        with RunLog(folder, start, Ledger(lambda: 0.0)) as log:
            assert log.validated == (start == 1)
            for step in (start + 1, start + 2):
                log.step(step, {"loss": 2.0})
            log.validation(start + 1, {"accuracy": 0.5})
    lines = (folder / "train.jsonl").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == [f'{{"step": {n}' for n in (1, 2, 3)]
    assert len([one for one in (folder / "tensorboard").iterdir() if "events" in one.name]) >= 1
    write_records(folder / "said.jsonl", [{"id": 1}, {"id": 2}])
    assert (folder / "said.jsonl").read_text() == '{"id": 1}\n{"id": 2}\n'


def test_what_cannot_be_is_said(s3):
    with pytest.raises(ConfigError, match="^--out=s3://none/x: there is no bucket none; giv"):
        places.check_folder("--out", "s3://none/x")
    with pytest.raises(CheckpointError, match="^s3://bucket/run/checkpoints: checkpoints are in a"):
        Checkpoints(f"{s3}/run/checkpoints", keep=1)
    assert not os.path.exists("s3:")


def test_parts_of_an_object_end_with_it(s3):
    (paths.parse(s3) / "parts").write_bytes(b"0123")
    assert [stores.read_range(f"{s3}/parts", at, 3) for at in (0, 2, 4, 9)] == [
        b"012", b"23", b"", b""]
    with pytest.raises(FileNotFoundError):
        stores.read_range(f"{s3}/nothing", 0, 3)
