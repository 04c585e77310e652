"""Evaluations whose examples share media give what they give where every row has its own."""

import collections
import functools
import io
import json
import os
import socket
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
import small
import tensorflow_datasets as tfds
from commands import ROOT
from data_helpers import good
from PIL import Image

from data import records
from data.pipeline import Reading
from data.pipeline import examples as examples_module
from data.prepare import builder
from mplug2_jax import evaluation
from mplug2_jax.contracts.options import read
from mplug2_jax.contracts.streams import MEDIUM, Stream, shared
from mplug2_jax.evaluation.run import Evaluation
from mplug2_jax.metrics.scores import mean
from mplug2_jax.parallel import sharding
from mplug2_jax.parallel.mesh import data_slice, make_mesh, put_batch, shards_of
from mplug2_jax.tasks.base import Task, fetch, for_rows

pytestmark = pytest.mark.slow
BINS = 9
MODEL = small.model(vision_layers=1, universal_layers=1, fusion_layers=1, decoder_layers=1)
TOKENIZER = small.tokenizer(BINS)
COUNTS = (5, 3, 40, 4, 0, 6, 3, 7, 4)  # items of each record; one has more than a batch
JUNK = 3  # the record whose media are damaged
FIRST = 100  # number of the first clip, from which on a fresh model says many things
CLASSES = tuple(f"w{number}" for number in range(10))
STREAM = dict(batch_size=32, image_size=16)
KINDS = {
    "qa": dict(split="clips", expand="question", frames=2, prompt_length=6, target_length=4),
    "grounding": dict(split="images", expand="box", ask="box", frames=1, prompt_length=6),
    "classification": dict(split="clips", expand="question", frames=2, text_length=6,
                           classes=CLASSES, views=(2, 1)),
    "similar": dict(split="clips", expand="text", frames=2, text_length=6),
}


class Similar(Task):
    """How like each caption its clip is: of plain rows, and of media that rows share."""

    expansion = "text"
    fields = ("text",)

    @classmethod
    def composition(cls, options):
        return ("vision", "text", "universal"), ("vtc",)

    def predict(self, params, batch):
        def features(batch):
            visual = self.call(params, "encode_visual", batch["video"])
            return self.call(params, "contrastive", visual, "visual")

        text = self.call(params, "encode_text", batch["text"], batch["text_mask"])
        text = self.call(params, "contrastive", text, "text")
        return {"like": (features(batch) * text).sum(axis=-1),
                "once": (for_rows(features, batch, "video") * text).sum(axis=-1),
                "light": batch["video"].astype(np.float32).mean(axis=(1, 2, 3, 4))}

    def record(self, output, annotation):
        assert output["once"] == pytest.approx(output["like"], abs=1e-5)
        return {"prediction": float(output["once"]), "light": float(output["light"]),
                "text": annotation["texts"][int(output["item"])]}

    def score(self, records, kind):
        return {f"{kind}_like": mean([record["prediction"] for record in records])}


class Light(Similar):
    """One that makes its records of batches itself."""

    def evaluate(self, params, batches, annotate, kind, reference=()):
        found = []
        for batch in map(fetch, batches):
            for row in np.flatnonzero(batch["example_mask"]):
                index, item = int(batch["index"][row]), int(batch["item"][row])
                found.append({"index": index, "item": item, "light": batch["video"][row].mean(),
                              "prediction": 0.0, "text": annotate(index)["texts"][item]})
        return self.score(found, kind), found


class Several(builder.RecordBuilder):
    """Clips and images of which much is said."""

    name = "several"
    VERSION = tfds.core.Version("1.0.0")


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    rng = np.random.default_rng(0)

    def words():
        return " ".join(f"w{number}" for number in rng.integers(0, 10, 3))

    clips, images = [], []
    for number, count in enumerate(COUNTS):
        texts = [words() for _ in range(count)]
        asked = [{"question": text, "answer": words()[:2], "type": f"t{i % 2}"}
                 for i, text in enumerate(texts)]
        low, high = np.sort(rng.random((2, count, 2)), axis=0)
        boxes = [{"phrase": text, "box": [*map(float, a), *map(float, b)]}
                 for text, a, b in zip(texts, low, high, strict=True)]
        damage = {"media": b"junk"} if number == JUNK else {}
        clips.append(good(f"clip_{FIRST + number}", texts=texts, questions=asked, boxes=[],
                          **damage))
        images.append(records.record(f"image_{number}", "image", damage.get("media", png(number)),
                                     texts, [], boxes))
    folder = tmp_path_factory.mktemp("several")
    builder.write(Several, folder, {"clips": lambda: clips, "images": lambda: images}, {"seed": 0})
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """How often each medium is decoded, by its bytes."""
    counts, lock = collections.Counter(), threading.Lock()

    def counted(function):
        def count(data, *arguments):
            with lock:
                counts[data] += 1
            return function(data, *arguments)
        return count

    for name in ("decode_video", "decode_image"):
        monkeypatch.setattr(examples_module, name, counted(getattr(examples_module, name)))
    return counts


@functools.cache
def task_of(name):
    """The task, and parameters larger than fresh ones, by which it says many things."""
    if name in ("similar", "light"):
        task = {"similar": Similar, "light": Light}[name](Task.Options(), MODEL, TOKENIZER)
    else:
        own = {"grounding": {"location_bins": BINS}, "qa": {"max_length": 4},
               "classification": {"classes": CLASSES, "inputs": "both", "expand": "question"}}
        task = small.task(name, MODEL, **own[name])
        task.tokenizer = TOKENIZER
    return task, jax.tree_util.tree_map_with_path(
        lambda path, x: x if path[-1].key in ("scale", "temperature") else 4 * x,
        small.params_of(task.model))


def evaluate(root, name, shape, shares, **more):
    """Figures and records on a mesh of so many devices, and the shapes of its batches."""
    task, params = task_of(name)
    size = int(np.prod(shape))
    mesh = make_mesh(*shape, jax.devices()[:size])
    stream = read(Stream, STREAM | KINDS["similar" if name == "light" else name], "stream")
    shapes = []

    def opened(stream):
        def put(batch):
            shapes.append({key: value.shape for key, value in batch.items()})
            return put_batch(batch, mesh)

        return Reading(str(root), stream, TOKENIZER, data_slice(mesh), put,
                       shards=shards_of(mesh) if shares else 0)

    params = jax.device_put(params, sharding.tree_shardings(params, mesh))
    figures, found = evaluation.run({"x": Evaluation(task, stream, "some")}, opened, params, mesh,
                                    with_intervals=True, **more)
    return figures, found["x"], shapes


@functools.cache
def plain(root, name):
    """The reference: one device, every row its own medium."""
    figures, found, shapes = evaluate(root, name, (1, 1, 1), shares=False)
    assert not any(MEDIUM in one for one in shapes)
    return figures, found


def assert_equal_records(found, expected):
    assert len(found) == len(expected) == sum(COUNTS) - COUNTS[JUNK]
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"scores", "prediction", "light"}:
            assert one[key] == other[key], key
        for key in ("prediction", "light") & one.keys():
            said = one[key] == other[key] if isinstance(one[key], str) else (
                one[key] == pytest.approx(other[key], rel=1e-6, abs=1e-6))
            assert said, (one, other)


@pytest.mark.parametrize(("name", "shape"), [
    ("qa", (8, 1, 1)), ("grounding", (2, 2, 2)), ("classification", (1, 1, 1)),
    ("similar", (8, 1, 1)), ("light", (8, 1, 1))])
def test_figures_are_those_of_plain_rows(root, decoded, name, shape):
    expected_figures, expected = plain(root, name)
    decoded.clear()
    figures, found, shapes = evaluate(root, name, shape, shares=True)
    assert_equal_records(found, expected)
    assert figures == pytest.approx(expected_figures, rel=1e-6, abs=1e-6)
    assert figures["x_skipped"] == 1
    # Each medium once, whatever number of batches and devices it is for.
    assert set(decoded.values()) == {1} and len(decoded) == len(COUNTS) - COUNTS.count(0)
    media = {one[shared("video")][0] for one in shapes}
    assert len(media) == 1 and media.pop() < STREAM["batch_size"] and "video" not in shapes[0]
    if name in ("qa", "grounding", "classification"):
        assert len({str(record["prediction"]) for record in found}) > 2


def test_a_limit_and_one_example_alone(root):
    _, expected = plain(root, "qa")
    for limit in (1, 10):
        _, found, _ = evaluate(root, "qa", (1, 1, 1), shares=True, limit=limit)
        assert [(one["index"], one["item"], one["prediction"]) for one in found] == [
            (one["index"], one["item"], one["prediction"]) for one in expected[:limit]]


TWO = """
import json, sys
import jax, numpy as np, small
from data.pipeline import Reading
from data.pipeline import examples as examples_module
from mplug2_jax import tasks
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.parallel.mesh import data_slice, make_mesh, put_batch, shards_of

root, address, process = sys.argv[1:]
jax.distributed.initialize(address, 2, int(process))
stream = Stream(**json.loads(sys.stdin.read()))
real, decoded = examples_module.decode_video, []
examples_module.decode_video = lambda data, *more: decoded.append(data) or real(data, *more)

def parts(array):
    return {(x.index[0].start or 0): np.asarray(x.data) for x in array.addressable_shards}

found = []
for shape in ((4, 1, 1), (2, 1, 2), (1, 1, 4)):
    mesh, read = make_mesh(*shape), []
    for shards in (0, shards_of(mesh)):
        decoded.clear()
        reading = Reading(root, stream, small.tokenizer(9), data_slice(mesh),
                          lambda batch: put_batch(batch, mesh), 0, shards=shards)
        with jax.set_mesh(mesh):
            read.append([tasks.with_rows(batch) for batch in reading.batches()])
    rows = 0
    for plain, shared in zip(*read, strict=True):
        used, seen = parts(plain["example_mask"]), parts(shared["video"])
        for start, clips in parts(plain["video"]).items():
            np.testing.assert_array_equal(seen[start][used[start]], clips[used[start]])
            rows += int(used[start].sum())
    media = {x["shared_video"].shape[0] for x in read[1]}
    found.append([*data_slice(mesh), rows, len(decoded), len(set(decoded)), *media])
print(json.dumps(found))
"""


def test_two_processes_share_media_of_their_own_rows(root):
    """Each decodes what is in its slices alone, whichever devices hold the same rows."""
    with socket.create_server(("", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"}
    processes = [subprocess.Popen(
        [sys.executable, "-c", TWO, str(root), address, str(number)], cwd=ROOT, env=environment,
        text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for number in range(2)]
    try:
        for process in processes:
            process.stdin.write(json.dumps(STREAM | KINDS["qa"]))
            process.stdin.close()
            process.stdin = None
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    one, two = (json.loads(output.splitlines()[-1]) for output in said)
    whole = sum(COUNTS) - COUNTS[JUNK]
    for counts, both in zip(([2, 2], [2, 2], [1, 1]), zip(one, two, strict=True), strict=True):
        assert [part[1] for part in both] == counts
        rows = {tuple(part[:2]): part[2] for part in both}  # of the last, both feed all rows
        assert sum(rows.values()) == whole
        assert all(part[3] == part[4] for part in both)  # a medium once a process
        assert both[0][5] == both[1][5] < STREAM["batch_size"]
