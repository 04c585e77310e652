"""Several processes, for real: equal to one, and ended by what happens to any of them."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time

import hosts_config
import pytest
from commands import ROOT, losses, run
from processes import end, error_line, start, start_all, wait_for

from data.pipeline.fingerprint import fingerprint

pytestmark = pytest.mark.slow
CONFIG, SCRIPT = "tests/hosts_config.py", "tests/hosts_script.py"
TEXT = "tests/stops_config.py"  # where it does not matter what is trained
LABELLED = "video_motion_zero_shot", "video_motion_knn"  # evaluations of labelled records
JOIN, LOST = 3, 5  # seconds: --join_timeout and --lost_after
SLACK = 45  # seconds more for two processes to import and to end, on a busy machine


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A miniature of the demo corpus, with a test split that is no multiple of the batch.

    Beside it, named `<folder>_tasks`, are labelled records.
    """
    folder = tmp_path_factory.mktemp("data")
    run("-m", "data.prepare", "moving_digits_tasks", f"--out={folder}_tasks", "--train=20",
        "--validation=1", "--test=11", "--gallery=1")
    sizes = {"video_train": 24, "video_validation": 4, "video_test": 11, "image_train": 4,
             "image_validation": 4, "image_test": 4, "text_train": 64, "text_validation": 4}
    run("-m", "data.prepare", "moving_digits", f"--out={folder}", "--processes=1",
        *(f"--{name}={size}" for name, size in sizes.items()))
    return folder


def train(data, workdir, *more):
    return ("train.py", f"--config={CONFIG}", f"--config.data.root={data}",
            f"--config.data.tokenizer={data}/vocab.model", f"--workdir={workdir}",
            *(f"--config.evals.{name}.stream.root={data}_tasks" for name in LABELLED), *more)


@pytest.fixture(scope="module")
def both(data, tmp_path_factory):
    """Work folders of the same training: one process of 4 devices, and two of 2."""
    folder = tmp_path_factory.mktemp("run")
    outputs, codes = end([start(*train(data, folder / "one"), devices=4)])
    assert codes == [0], outputs[0][-5000:]
    outputs, codes = end(start_all(*train(data, folder / "two"), devices=2))
    assert codes == [0, 0], "\n".join(output[-5000:] for output in outputs)
    assert "step 4/4" in outputs[0] and "step 4/4" not in outputs[1]  # one of them tells
    return folder / "one", folder / "two"


def assert_equal_losses(actual, expected):
    assert actual.keys() == expected.keys()
    for step, values in expected.items():
        assert actual[step] == pytest.approx(values, rel=1e-5, abs=1e-6), step


def test_two_processes_train_as_one(both):
    one, two = map(losses, both)
    assert list(one) == [1, 2, 3, 4] and {"video/vtc", "video/vtm"} <= one[1].keys()
    assert_equal_losses(two, one)
    assert len(list((both[1] / "tensorboard").glob("events*"))) == 1
    one, two = (json.loads((workdir / "validation.jsonl").read_text()) for workdir in both)
    assert two == pytest.approx(one, rel=1e-5) and "video_held_out_vtc" in one
    assert [path.name for path in (both[1] / "best").iterdir() if path.name.isdigit()] == ["4"]


@pytest.mark.long
def test_one_process_goes_on_where_two_stopped(data, both, tmp_path):
    """Not validated, which changes nothing of the steps; `test_elastic.py` does so with texts."""
    workdir = tmp_path / "resumed"
    shutil.copytree(both[1], workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    outputs, codes = end([start(*train(data, workdir, "--config.mesh.fsdp=2", "--config.best=",
                                       "--config.eval_every=0"), devices=2)])
    assert codes == [0] and "going on from step 2" in outputs[0], outputs[0][-5000:]
    assert_equal_losses(losses(workdir), losses(both[0]))


def test_two_processes_evaluate_as_one(both, tmp_path):
    reports, said = [], []
    for name, processes in (
            ("one", lambda *a: [start(*a, devices=4)]),
            ("two", lambda *a: start_all(*a, devices=2))):
        outputs, codes = end(processes("eval.py", f"--checkpoint={both[1]}", "--which=best",
                                       "--cards=2", f"--out={tmp_path / name}"))
        assert not any(codes), "\n".join(output[-5000:] for output in outputs)
        reports.append(json.loads((tmp_path / name / "report.json").read_text()))
        said.append({(kind, r["index"]): (r["label"], *r["best"]) for kind in LABELLED
                     for r in map(json.loads, (tmp_path / name / f"{kind}.jsonl").open())})
    one, two = reports
    assert one["gallery"] == two["gallery"] and one["gallery"]["video_retrieval"] == 33  # captions
    scores = {key: value for key, value in one.items() if key.startswith(("video", "text_to"))}
    assert len(scores) >= 12
    assert {key: two[key] for key in scores} == pytest.approx(scores, rel=1e-5)
    # Each record once, and voted on or compared with the prompts as by one process.
    for kind in LABELLED:
        assert two["gallery"][kind] == 11 and f"{kind}_class_accuracy" in scores
    # Four steps tell examples apart by neighbours; by prompts all may be of one class.
    assert len({tuple(said[0][key][1:]) for key in said[0] if key[0] == LABELLED[1]}) > 1
    assert said[0] == said[1] and len(said[0]) == 22


@pytest.mark.long
def test_a_lost_host_ends_the_training(data, tmp_path):
    """As below, in the midst of steps; that one that stands still is seen in them:
    `test_stopping.py`.
    """
    workdir = tmp_path / "run"
    log = workdir / "train.jsonl"
    processes = start_all("train.py", f"--config={TEXT}", f"--config.data.root={data}",
                          f"--config.data.tokenizer={data}/vocab.model", f"--workdir={workdir}",
                          "--config.optimizer.steps=100000", lost_after=LOST, devices=2)
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) > 2, processes)
    processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    outputs, codes = end(processes, timeout=LOST + SLACK)
    assert time.monotonic() - killed < LOST + SLACK
    assert codes == [3, -signal.SIGKILL]
    assert f"process 1 ({socket.gethostname()}) is lost" in error_line(outputs[0])
    assert "start all processes again" in error_line(outputs[0])


@pytest.mark.parametrize("lost, signal_", [(0, signal.SIGKILL), (1, signal.SIGSTOP)],
                         ids=["first dies", "second hangs"])
def test_a_lost_process_ends_the_others(lost, signal_):
    processes = start_all(SCRIPT, each=({}, {}, {}), lost_after=LOST)
    for process in processes:
        assert "met\n" in iter(process.stdout.readline, "")
    time.sleep(2)
    processes[lost].send_signal(signal_)
    others = [process for number, process in enumerate(processes) if number != lost]
    outputs, codes = end(others, timeout=LOST + SLACK)
    processes[lost].kill()
    assert codes == [3, 3], outputs
    for output in outputs:
        assert f"process {lost} ({socket.gethostname()}) is lost" in error_line(output)


def test_counts_of_different_names_are_summed():
    """Also where one process has none, and where they take more than one unit of room."""
    own = [{"damaged record": 2, "no question": 1}, {}, {f"reason {i}": i for i in range(200)}]
    own[2]["no question"] = 5
    outputs, codes = end(start_all(SCRIPT, each=[{"counts": json.dumps(one)} for one in own],
                                   devices=1), timeout=120)
    expected = dict(sorted((own[2] | {"damaged record": 2, "no question": 6}).items()))
    assert codes == [0, 0, 0], outputs
    for output in outputs:
        assert json.loads(output.splitlines()[-1]) == [{}, expected]


@pytest.mark.parametrize("failing, fault, code, message", [
    (0, "bug", 1, "TypeError: nobody foresaw this"),
    (1, "raises", 2, "a record that only this process reads")])
def test_an_error_of_one_process_ends_all_with_its_words(failing, fault, code, message):
    each = [{}, {}]
    each[failing] = {"fault": fault}
    outputs, codes = end(start_all(SCRIPT, each=each), timeout=60)
    assert codes[failing] == code and codes[1 - failing] == 3
    assert message in error_line(outputs[failing])
    line = error_line(outputs[1 - failing])
    assert line == f"error: process {failing} ({socket.gethostname()}) ended: {message}"
    assert ("Traceback" in outputs[failing]) == (fault == "bug")


def test_unequal_configs_are_named(data, tmp_path):
    processes = start_all(*train(data, tmp_path / "run"),
                          each=({}, {"config.optimizer.learning_rate": 0.5}))
    outputs, codes = end(processes, timeout=120)
    assert 2 in codes and set(codes) <= {2, 3}  # who sees it first tells the other
    for output in outputs:
        assert (f"config.optimizer.learning_rate is 0.5 on process 1 ({socket.gethostname()}), "
                f"but 0.0005 on process 0") in error_line(output)
    assert not (tmp_path / "run").exists()  # nothing was begun


def test_an_abort_while_a_process_ends_does_not_hold_it():
    """JAX aborts from a thread of its own; what another thread asks of it is then not answered."""
    script = """
import os, threading, time
from mplug2_jax.parallel.watch import Watch

class Store:
    def key_value_set(self, key, *_, **__):
        if key.startswith("failed/"):
            threading.Thread(target=os.abort).start()
            time.sleep(600)

    def blocking_key_value_get(self, *_):
        time.sleep(600)

# Nobody answers at the address of process 0.
Watch(Store(), 1, 2, "localhost:1", 600).fail("the disk is full", 2)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, text=True, timeout=SLACK,
                           capture_output=True, check=False)
    assert ended.returncode == 2 and error_line(ended.stderr) == "error: the disk is full"


def test_data_is_known_by_its_files_not_by_its_place(data, tmp_path):
    def known(root):
        config = hosts_config.get_config().data
        config.root, config.tokenizer = str(root), str(root / "vocab.model")
        return list(fingerprint(config).values())

    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    tokenizer, records = known(copy)
    assert known(data) == [tokenizer, records]
    (shard,) = copy.glob("*/*/*video_train.array_record*")
    with shard.open("ab") as file:
        file.write(b"more")
    assert known(copy)[0] == tokenizer and known(copy)[1] != records
    (copy / "vocab.model").write_bytes(b"other")
    assert known(copy)[0] != tokenizer


@pytest.mark.parametrize("process", [0, 1])
def test_a_wrong_coordinator_is_one_line(process):
    """Nobody listens there, or nobody comes."""
    with socket.create_server(("", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    began = time.monotonic()
    outputs, codes = end([start(SCRIPT, coordinator=address, processes=2, process=process,
                                join_timeout=JOIN)], timeout=JOIN + SLACK)
    assert codes == [2] and JOIN <= time.monotonic() - began < JOIN + SLACK
    assert address in error_line(outputs[0]) and f"in {JOIN} s" in error_line(outputs[0])
    assert "Traceback" not in outputs[0] and "stack trace" not in outputs[0]


@pytest.mark.parametrize("flags, message", [
    ({"coordinator": "localhost:1", "process": 1}, "--processes is missing"),
    ({"coordinator": "localhost", "processes": 2, "process": 0}, "expected HOST:PORT"),
    ({"coordinator": "localhost:1", "processes": 2, "process": 2}, "--process=2: expected 0 to 1"),
])
def test_wrong_flags_are_one_line(flags, message):
    outputs, codes = end([start(SCRIPT, **flags)], timeout=60)
    assert codes == [2] and message in error_line(outputs[0])


def test_a_port_in_use_is_one_line():
    with socket.create_server(("", 0)) as used:
        address = f"localhost:{used.getsockname()[1]}"
        outputs, codes = end([start(SCRIPT, coordinator=address, processes=2, process=0)], 60)
    assert codes == [2]
    assert "process 0 cannot listen at port" in error_line(outputs[0])


def test_unequal_numbers_of_processes_are_named():
    outputs, codes = end(start_all(SCRIPT, each=({"processes": 2}, {"processes": 3})), timeout=60)
    assert set(codes) <= {2, 3} and 2 in codes
    for output in outputs:
        assert "process 0" in error_line(output) and "one of 2" in error_line(output)
        assert "process 1" in error_line(output) and "one of 3" in error_line(output)
