"""The whole path in small, as a user runs it: prepare, train, kill, go on, evaluate, err."""

import json
import re
import shutil
import signal
import subprocess
import time

import pytest
from commands import ROOT, command, losses, run, seen
from forks import Fork
from processes import wait_for

from mplug2_jax import tasks
from mplug2_jax.training import xplane
from mplug2_jax.training.ledger import LOST
from mplug2_jax.training.trace import place

CONFIG = "tests/e2e_config.py"
pytestmark = pytest.mark.slow


def train(data, workdir, *more, config=CONFIG):
    return ("train.py", f"--config={config}", f"--config.data.root={data}",
            f"--config.data.tokenizer={data}/vocab.model", f"--workdir={workdir}", *more)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A miniature of the demo corpus."""
    folder = tmp_path_factory.mktemp("data")
    sizes = {"video_train": 48, "video_validation": 8, "video_test": 20, "image_train": 4,
             "image_validation": 8, "image_test": 20, "text_train": 400, "text_validation": 8}
    run("-m", "data.prepare", "moving_digits", f"--out={folder}", "--processes=1",
        *(f"--{name}={size}" for name, size in sizes.items()))
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A work folder trained without interruption, and the output of the training.

    The best checkpoint is chosen on the test split of captions, which needs a key.
    """
    workdir = tmp_path_factory.mktemp("run") / "straight"
    return workdir, run(*train(
        data, workdir, "--profile=2",
        "--config.best=video_caption_cider", "--config.select_on_test",
        "--config.evals.video_caption.validation=video_test[held_out]+video_validation"))


def test_training_logs_learns_and_writes(trained):
    workdir, output = trained
    logged = losses(workdir)
    assert list(logged) == list(range(1, 13))
    for part in ("vtc", "vtm", "mlm", "prefix_lm", "instruct"):
        assert f"video/{part}" in logged[1]
    assert {"text/mlm", "text/prefix_lm"} <= logged[1].keys()
    assert logged[12]["loss"] < logged[1]["loss"]
    line = next(line for line in output.splitlines() if "step 12/12" in line)
    for part in ("loss", "video/vtc", "examples/s", "MFU", "left"):
        assert part in line
    assert "validation at step 12:" in output and "Total:" in output  # the parameter overview
    assert "best checkpoint: step 12, video_caption_cider" in output
    (validated,) = (workdir / "validation.jsonl").read_text().splitlines()
    validated = json.loads(validated)
    assert {"video_caption_cider", "image_qa_accuracy", "step"} <= validated.keys()
    assert validated["best_video_caption_cider"] == validated["video_caption_cider"]
    # Eight examples a step, of 48 records and of 400.
    assert (logged[12]["video/epoch"], logged[12]["text/epoch"]) == (2.0, 0.24)
    assert "| epoch text 0.24 video 2.00 |" in line
    assert list((workdir / "tensorboard").glob("events*"))
    # The rates of the steps themselves: a warm-up of two steps from where it ends, and back.
    rates = [logged[step]["learning_rate"] for step in logged]
    assert rates[0] == pytest.approx(1e-6, rel=1e-2) and rates[2] == max(rates)
    assert rates[-1] > rates[0]
    assert logged[1]["video/vtc_weight"] == logged[12]["text/mlm_weight"] == 1
    assert logged[1]["skipped"] == 0
    raw = json.loads((workdir / "train.jsonl").read_text().splitlines()[-1])
    assert raw["tokens_per_second"] > 0 and 0 < raw["padding"] < 1
    # Eight clips of four frames to 16 examples.
    assert raw["frames_per_second"] == pytest.approx(raw["examples_per_second"] * 32 / 16)
    assert_described(raw)
    assert raw["goodput"] + sum(raw[f"lost/{cause}"] for cause in LOST) == pytest.approx(1)
    assert raw["lost/profile"] > 0 and raw["lost/start"] > 0 == raw["lost/again"]
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()) == [
        "12", "8"]


def test_the_trace_names_the_modules_of_the_model(trained):
    workdir, output = trained
    (path,) = (workdir / "tensorboard").rglob("*.xplane.pb")
    modules = {place(one.instruction)[0] for one in xplane.read(path)}
    for module in ("vision", "universal", "text", "fusion", "decoder", "optimizer", "guard"):
        assert any(module in name for name in modules), (module, modules)
    table = output.partition(f"profile of 2 steps: {path}\n")[2].splitlines()[:11]
    assert table[0].split() == ["share", "ms", "a", "step", "module", "and", "operation"]
    shares = [float(line.split("%")[0]) for line in table[1:]]
    assert len(shares) == 10 and shares == sorted(shares, reverse=True) and sum(shares) <= 100


def assert_described(values):
    """Each logged name is in the table of the docs, and what a task logs among its figures."""
    page = (ROOT / "docs" / "training.md").read_text()
    table = page.partition("### What is logged")[2].partition("\n\nThe ")[0]
    names = [name for row in re.findall(r"^\| (`.*?) \|", table, re.M)
             for name in re.findall("`(.*?)`", row)]
    told = {name: re.compile(re.sub("[A-Z]+", r"[^/]+", name)) for name in names}
    used = set()
    for name in values:
        found = [entry for entry, pattern in told.items() if pattern.fullmatch(name)]
        assert found, name
        if found == ["STREAM/PART"]:
            assert tasks.load("pretrain").figure(name), name
        used.update(found)
    assert set(told) - used <= {  # of mixtures, damaged records, several hosts and other devices
        "STREAM/SOURCE/epoch", "skipped/REASON", "slowest/process", "slowest/seconds",
        "memory/device", "memory/device_peak"}


@pytest.mark.long
def test_a_run_goes_on_from_a_checkpoint_with_the_same_bits(data, trained, tmp_path):
    """All that came after it is lost, but for two lines of the log. Validation changes nothing.

    `test_stops.py` compares bits of texts, `storage/test_bucket_run.py` of clips, too.
    """
    workdir = tmp_path / "again"
    shutil.copytree(trained[0], workdir)
    shutil.rmtree(workdir / "checkpoints" / "12")
    log = workdir / "train.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:10]))
    assert "going on from step 8" in run(*train(data, workdir, "--config.eval_every=0"))
    straight, resumed = losses(trained[0]), losses(workdir)
    assert resumed == straight  # equal to the last bit, the data of every step included
    steps = [json.loads(line)["step"] for line in log.open()]
    assert steps == list(range(1, 13))  # no step twice in the log


@pytest.mark.long
def test_a_killed_run_goes_on_with_the_same_bits(data, trained, tmp_path):
    """At any moment, by all streams; `test_stops.py` kills a run of one."""
    workdir = tmp_path / "killed"
    arguments = train(data, workdir, "--config.eval_every=0")
    process = subprocess.Popen(**command(*arguments))
    log, deadline = workdir / "train.jsonl", time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if (workdir / "checkpoints" / "4").exists() and len(log.read_text().splitlines()) >= 6:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 6 <= max(losses(workdir)) < 12, "the run ended before it could be killed"
    output = run(*arguments)
    assert "going on from step" in output
    straight, resumed = losses(trained[0]), losses(workdir)
    assert resumed == straight  # equal to the last bit, the data of every step included
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, 13))  # no step twice in the log


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """The folder of the report on all evaluations, and what was said."""
    out = tmp_path_factory.mktemp("report")
    return out, run("eval.py", f"--checkpoint={trained[0]}", "--which=best", f"--out={out}",
                    "--untrained", "--cards=3")


def test_a_killed_evaluation_goes_on(trained, evaluated, tmp_path):
    """With what is not done yet; figures and records are those of one that was not killed."""
    names = ["video_caption", "image_qa"]
    arguments = ["eval.py", f"--checkpoint={trained[0]}", "--which=best", f"--out={tmp_path}",
                 "--untrained", "--cards=3", f"--only={','.join(names)}"]
    kept = tmp_path / "report.partial"
    process = Fork(arguments, seen())
    wait_for((kept / f"{names[0]}.json").exists, [process])
    process.kill()
    process.communicate()
    assert not (kept / f"{names[1]}.json").exists() and not (tmp_path / "report.json").exists()
    output = run(*arguments)
    assert f"done already: {names[0]}\n" in output and not kept.exists()
    for name in names:
        assert re.search(rf"{name}: .*; \d+ examples in [\d.]+ s, [\d.]+ examples/s", output)
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (
            evaluated[0] / f"{name}.jsonl").read_bytes()
    report, whole = (json.loads((folder / "report.json").read_text())
                     for folder in (tmp_path, evaluated[0]))
    assert report["evaluation_examples_per_second"].keys() == set(names)
    figures = {key for key in whole if key.startswith(tuple(names))}
    assert len(figures) > 9 and {key: report[key] for key in figures} == {
        key: whole[key] for key in figures}


def test_evaluation_reports(trained, evaluated):
    tmp_path, output = evaluated
    report = json.loads((tmp_path / "report.json").read_text())
    chosen = report["checkpoint"]
    assert (chosen["which"], chosen["step"], chosen["figure"]) == ("best", 12,
                                                                   "video_caption_cider")
    assert f"best checkpoint, step 12 (video_caption_cider {chosen['value']:.4g} on " in (
        report["summary"])
    assert report["warning"].startswith("selected on test") and "selected on test" in output
    assert set(chosen["selected_on"]) == {"video_caption", "video_qa", "video_retrieval"}
    assert "selected on test" in (tmp_path / "report.html").read_text()
    assert 0 <= report["text_to_video_r1"] <= 1
    assert report["gallery"]["video_retrieval"] == 3 * 20  # every caption asks
    for name in ("qa_accuracy", "qa_majority", "caption_cider", "caption_cider_untrained"):
        assert report[f"video_{name}"] >= 0
    units = report["units"]
    assert units["text_to_video_r1"] == {"media": 20, "captions": 60}
    assert units["video_to_text_r1"] == units["video_caption_cider"] == {"media": 20}
    for kind in ("video", "image"):
        figure = f"{kind}_qa_accuracy"
        assert report[f"{figure}_low"] <= report[figure] <= report[f"{figure}_high"]
        asked = [json.loads(line) for line in (tmp_path / f"{kind}_qa.jsonl").open()]
        assert units[figure] == {"media": len({r["unit"] for r in asked}),
                                 "questions": len(asked)}
        assert {r["unit"] for r in asked} <= {f"{kind}_test_{i:06d}" for i in range(20)}
    for name in ("video_caption_meteor", "video_caption_spice"):
        assert name not in report and "--java" in report["absent"][name]
    records = [json.loads(line) for line in (tmp_path / "video_caption.jsonl").open()]
    own = [r["scores"]["video_caption_cider"] for r in records]
    assert own == sorted(own) and len({r["index"] for r in records}) == len(own) == 20
    assert sum(own) / 20 == pytest.approx(report["video_caption_cider"])
    assert report["seed"] == 0 and report["step"] == 12 and report["examples_per_second"] > 0
    assert report["config"]["model"]["width"] == 32
    page = (tmp_path / "report.html").read_text()
    assert "20 media, 60 captions" in page
    assert page.count("<article") == page.count("<h3>") == 4 * 3 and "data:image/jpeg" in page


@pytest.mark.long
def test_eight_devices_train_the_same(data, tmp_path):
    """By the command; `test_sharding.py` and `test_hosts.py` compare losses of meshes."""
    found = []
    for devices, mesh in ((1, (1, 1)), (8, (4, 2))):
        workdir = tmp_path / str(devices)
        run(*train(data, workdir, "--config.optimizer.steps=3", f"--config.mesh.fsdp={mesh[0]}",
                   f"--config.mesh.tensor={mesh[1]}", "--config.task.objectives.instruct=0",
                   config=f"{CONFIG}:start"), devices=devices)
        found.append(losses(workdir))
    one, eight = found
    assert one.keys() == eight.keys() == {1, 2, 3}
    for name in one[1]:
        assert eight[1][name] == pytest.approx(one[1][name], rel=1e-4, abs=1e-6), name


@pytest.mark.long
def test_a_damaged_record_is_skipped_counted_and_named(data, tmp_path):
    """Of clips; `docs/test_examples.py` trains on sounds of which one is none."""
    damaged = tmp_path / "data"
    shutil.copytree(data, damaged)
    # The header of one clip: what follows is no video any more, or no record by its checksum.
    (shard,) = damaged.glob("moving_digits/*/*video_train.array_record*")
    raw = shard.read_bytes()
    first = raw.index(b"ftypisom")
    shard.write_bytes(raw[:first] + b"XXXXXXXX" + raw[first + 8:])
    workdir = tmp_path / "run"
    output = run(*train(damaged, workdir, "--config.optimizer.steps=6",
                        "--config.optimizer.warmup_steps=1", "--config.eval_every=0",
                        "--config.data.max_skipped=1.0", *(
                            f"--config.task.objectives.{name}=0"
                            for name in ("instruct", "vtm", "prefix_lm")),
                        config=f"{CONFIG}:start"))
    logged = losses(workdir)
    assert max(logged) == 6
    reasons = {name: count for name, count in logged[6].items() if name.startswith("skipped/")}
    assert sum(reasons.values()) == logged[6]["skipped"] > 0
    assert reasons.keys() <= {"skipped/damaged record", "skipped/undecodable media"}
    assert "skipping record" in output and "skipped" in output.splitlines()[-2]


@pytest.mark.parametrize("arguments, message", [
    (["--config.optimizer.learning_rat=1"], "learning_rat"),
    (["--config.optimizer.steps=many"], "steps"),
    (["--config.model.heads=5"], "model.width = 32: expected a multiple of model.heads = 5"),
    (["--config.data.root=nowhere"], "data folder nowhere does not exist: run `python -m data."),
    (["--config.data.streams.video.batch_size=6"],
     "data.streams.video.batch_size = 6: expected a multiple of 4"),
    (["--config.mesh.fsdp=3"], "expected a product of 4, the number of devices"),
])
def test_wrong_input_is_one_line(data, tmp_path, arguments, message):
    output = run(*train(data, tmp_path / "run", *arguments), devices=4, status=2)
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert message in line
    assert "Traceback" not in output
