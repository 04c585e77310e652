"""A checkpoint far enough from zero, and files of each kind, for what predicts."""

import dataclasses
import json
from pathlib import Path

import e2e_config
import jax
import numpy as np
from commands import seen
from forks import finished
from PIL import Image

from data.demo.scenes import encode_video
from mplug2_jax import launch, tasks
from mplug2_jax.checkpoints.manager import write_params
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.model.mplug2 import init_params
from mplug2_jax.preprocess.files import load_clip
from mplug2_jax.preprocess.tokenizer import load_tokenizer, train_sentencepiece

WORDINGS = ("a blue three", "is it red")
SENTENCES = [f"a {color} {digit} moving {way} what is he doing" for color in ("red", "blue")
             for digit in ("three", "seven") for way in ("left", "right")]


@dataclasses.dataclass
class Run:
    """A checkpoint, its config and parameters, and files to predict from."""

    folder: Path
    config: object
    params: dict
    files: list[Path]

    def task(self, entry):
        model = ModelConfig.from_mapping(self.config.model)
        tokenizer = load_tokenizer(self.config.data.tokenizer)
        return tasks.make(self.config.evals[entry].task, model, tokenizer)

    def clip(self, file):
        """Frames `[1, T, H, W, 3]` of a file under the config."""
        size = self.config.model.image_size
        return load_clip(file, self.config.evals.video_caption.stream.frames, size)[None]


def make(folder):
    """Three videos, two images and a broken video; parameters far enough from zero to tell them."""
    rng = np.random.default_rng(0)
    media = folder / "media"
    media.mkdir()
    for name in "abc":
        frames = rng.integers(0, 256, (1, 8, 8, 3)).repeat(9, 0).repeat(9, 1).repeat(9, 2)
        frames[::2] //= 2
        (media / f"{name}.mp4").write_bytes(encode_video(frames[:, :72, :72].astype(np.uint8)))
    for name in ("d.png", "e.jpg"):
        pixels = rng.integers(0, 256, (6, 8, 3)).repeat(10, 0).repeat(10, 1)
        Image.fromarray(pixels.astype(np.uint8)).save(media / name)
    (media / "f.mp4").write_bytes(b"not a video at all")
    train_sentencepiece(SENTENCES, folder / "vocab.model", 60)
    config = e2e_config.get_config()
    config.data.tokenizer = str(folder / "vocab.model")
    tokenizer = load_tokenizer(config.data.tokenizer)
    config.model.vocab_size = tokenizer.vocab_size
    config.evals.video_qa.stream.instruction = WORDINGS
    for entry in config.evals.values():
        entry.task.update({"rerank": 3} if entry.task.name == "retrieval" else {"max_length": 6})
    model = ModelConfig.from_mapping(config.model)
    shapes = jax.eval_shape(lambda: init_params(
        tasks.make(config.task, model, tokenizer).model, jax.random.key(0)))
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: (rng.normal(0, 0.2, x.shape) + (path[-1].key == "scale")).astype(
            np.float32), shapes)
    params["heads"]["vtc"]["temperature"] = np.float32(0.5)  # matching counts the more
    write_params(folder / "run" / "checkpoints", params, launch.plain(config))
    return Run(folder, config, params, [media / n for n in ("a.mp4", "b.mp4", "c.mp4", "d.png",
                                                            "e.jpg")])


def predict(made, *arguments, status=0, checkpoint=None, devices=1):
    """Lines of a real run, and what it said besides."""
    done = finished(["-m", "mplug2_jax.inference", *arguments,
                     f"--checkpoint={checkpoint or made.folder / 'run'}"], seen(devices))
    assert done.returncode == status, done.stderr[-5000:]
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr
