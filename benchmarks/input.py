"""Speed of the input pipeline: clips and images a second, beside what bare decoding takes.

    python -m benchmarks.input [--threads=2] [--clips=12] [--rounds=3]

It makes its own clips (320 x 240, 250 frames; H.264, HEVC and AV1) and JPEGs (500 x 375) in a
temporary folder.
Each figure is the median of the rounds; a round measures everything once, so that what else the
machine does weighs on all alike. Processor time a sample, of all threads (not of workers), hardly
depends on that. decord is measured too where it is installed.
"""

import argparse
import concurrent.futures
import importlib.util
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import ml_collections
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from configs import common
from data import records
from data.pipeline import Stopwatch, TrainStream, eval_batches, train_batches
from data.prepare import builder
from mplug2_jax.preprocess.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece
from mplug2_jax.preprocess.video import decode_video, frame_indices

FRAMES, SIZE, SAMPLED = 250, (240, 320), 16
# Other codecs than H.264, as fast as their encoders are, with their own distance of keyframes.
OTHERS = {
    "HEVC": ("libx265", {"preset": "veryfast", "x265-params": "log-level=none"}),
    "AV1": ("libsvtav1", {"preset": "10"}),
}


class Clips(builder.RecordBuilder):
    """Made clips and pictures."""

    name = "clips"
    VERSION = tfds.core.Version("1.0.0")


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Soft shapes with detail: float32 [height, width, 3] in 0..255."""
    layers = [
        np.asarray(
            Image.fromarray(
                rng.integers(0, 255, (height // cell, width // cell, 3)).astype(np.uint8)
            ).resize((width, height), Image.Resampling.BICUBIC),
            np.float32,
        )
        for cell in (48, 16, 4)
    ]
    return 0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]


def make_clip(seed: int, codec: str = "libx264", options: dict[str, str] | None = None) -> bytes:
    """A panning picture, things that cross it, and grain, at x264's default settings or others.

    Some 200 kbit/s, as web videos of this size have.
    """
    rng = np.random.default_rng(seed)
    height, width = SIZE
    background = texture(rng, height, 2 * width)
    things = [texture(rng, 96, 96) for _ in range(3)]
    places, speeds = rng.integers(0, 240, (3, 2)), rng.integers(-3, 4, (3, 2))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        output = container.add_stream(codec, rate=25, options=options or {})
        output.height, output.width, output.pix_fmt = height, width, "yuv420p"
        for number in range(FRAMES):
            pixels = background[:, number : number + width].copy()
            for thing, place, speed in zip(things, places, speeds, strict=True):
                y, x = (place + number * speed) % (height - 96, width - 96)
                pixels[y : y + 96, x : x + 96] = thing
            pixels = (pixels + rng.normal(0, 3, pixels.shape)).clip(0, 255).astype(np.uint8)
            container.mux(output.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(output.encode())
    return file.getvalue()


def make_picture(seed: int) -> bytes:
    """500 x 375, with edges, gradients and grain."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (24, 32, 3)).astype(np.uint8))
    pixels = np.asarray(small.resize((500, 375), Image.Resampling.BICUBIC)).astype(float)
    pixels = (pixels + rng.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def write(folder: Path, clips: list[bytes], pictures: list[bytes]) -> Tokenizer:
    """The records of the benchmark, and a vocabulary for their captions."""
    captions = ["a red block moves left", "waves run over the picture"]

    def made(kind: str, media: list[bytes]) -> list[dict]:
        return [records.record(f"{kind}{i}", kind, m, captions) for i, m in enumerate(media)]

    splits = {"video": lambda: made("video", clips), "image": lambda: made("image", pictures)}
    builder.write(Clips, folder, splits, {"seed": 0})
    train_sentencepiece(captions * 20, folder / "vocab.model", 60)
    return load_tokenizer(folder / "vocab.model")


def bare_decode(data: bytes) -> None:
    """Every frame decoded by PyAV, and nothing else."""
    with av.open(io.BytesIO(data)) as container:
        container.streams.video[0].thread_type = "NONE"
        for _ in container.decode(video=0):
            pass


def bare_picture(data: bytes) -> None:
    """A JPEG decoded by Pillow, and nothing else."""
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB")


def decord_decode(data: bytes) -> None:
    import decord

    reader = decord.VideoReader(io.BytesIO(data), num_threads=1)
    reader.get_batch(frame_indices(len(reader), SAMPLED)).asnumpy()


def in_threads(function: Callable, media: list[bytes], threads: int, count: int) -> float:
    """Calls a second of a function of one file, by several threads."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(function, [media[number % len(media)] for number in range(count)]))
        return count / (time.perf_counter() - start)


def batches_a_second(make: Callable, size: int, count: int) -> float:
    """Samples a second of an iterator of batches, after its first batch."""
    iterator = make()
    next(iterator)
    start = time.perf_counter()
    for _ in range(count):
        next(iterator)
    return size * count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clips", type=int, default=12, help="different clips that are made")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    clips = [make_clip(seed) for seed in range(options.clips)]
    pictures = [make_picture(seed) for seed in range(48)]
    print(f"{os.cpu_count()} processors, {options.threads} threads, PyAV {av.__version__}")
    print(f"clips of {np.mean([len(c) for c in clips]) / 1e3:.0f} kB, pictures of "
          f"{np.mean([len(p) for p in pictures]) / 1e3:.0f} kB")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = write(Path(folder), clips, pictures)
        measure(Path(folder), tokenizer, clips, pictures, options)


def measure(folder, tokenizer, clips, pictures, options) -> None:
    text = dict(image_size=224, text_length=12)
    recipe = dict(frames=SAMPLED, crop_area=(0.5, 1.0), flip=True, **text)
    plain = common.stream("video", 4, **recipe)
    strong = common.stream("video", 4, rand_augment=(2, 5), **recipe)
    image = common.stream("image", 16, frames=1, crop_area=(0.2, 1.0), flip=True, **text)
    items = common.stream(**image.to_dict(), epoch_unit="items")
    whole = common.stream("video", 4, frames=SAMPLED, **text)
    threads = options.threads

    def train(stream: ml_collections.ConfigDict, count: int, **change) -> float:
        given = dict(threads=threads) | change
        return batches_a_second(
            lambda: train_batches(folder, {"s": stream}, tokenizer, 0, **given),
            stream.batch_size, count,
        )  # fmt: skip

    def evaluate() -> float:
        start, seen = time.perf_counter(), 0
        for batch in eval_batches(folder, whole, tokenizer, threads=threads):
            seen += int(batch["example_mask"].sum())
        return seen / (time.perf_counter() - start)

    def sample(data: bytes) -> None:
        decode_video(data, SAMPLED)

    count = 4 * len(clips)
    figures = {
        "floor: bare PyAV decode": lambda: in_threads(bare_decode, clips, threads, count),
        "decode_video, 16 frames": lambda: in_threads(sample, clips, threads, count),
        "pipeline, crop and flip": lambda: train(plain, count // 4),
        "pipeline, RandAugment(2, 5)": lambda: train(strong, count // 4),
        "pipeline, 2 workers": lambda: train(plain, count // 4, workers=2, threads=1),
        "evaluation, resized by Pillow": evaluate,
        "images: floor, bare Pillow decode": lambda: in_threads(
            bare_picture, pictures, threads, 600
        ),
        "images: pipeline": lambda: train(image, 36),
        "images: pipeline, over items": lambda: train(items, 36),
    }
    for name, made in OTHERS.items():
        other = [make_clip(seed, *made) for seed in range(min(4, len(clips)))]
        for what, function in (("floor", bare_decode), ("decode_video", sample)):
            figures[f"{name}: {what}"] = lambda other=other, function=function: in_threads(
                function, other, threads, count // 2)  # fmt: skip
    if importlib.util.find_spec("decord"):
        figures["decord, 16 frames"] = lambda: in_threads(decord_decode, clips, threads, count)
    in_rounds(figures, options.rounds)
    stages(folder, tokenizer, {"crop and flip": (plain, 6), "RandAugment(2, 5)": (strong, 6),
                               "images": (image, 12)})


def in_rounds(figures: dict[str, Callable[[], float]], rounds: int) -> None:
    """Prints how many a second each gives, the median of rounds in turn, and what one costs."""
    measured: dict[str, list[float]] = {name: [] for name in figures}
    busy: dict[str, list[float]] = {name: [] for name in figures}  # processors in use
    for _ in range(rounds):
        for name, function in figures.items():
            wall, processor = time.perf_counter(), time.process_time()
            measured[name].append(function())
            used = time.process_time() - processor
            busy[name].append(used / (time.perf_counter() - wall))
    for name, values in measured.items():
        cost = [1e3 * used / rate for used, rate in zip(busy[name], values, strict=True)]
        print(
            f"{name:36} {statistics.median(values):8.1f} /s {statistics.median(cost):7.1f} ms of "
            "processor  (rounds: " + ", ".join(f"{value:.1f}" for value in values) + " /s)"
        )


def stages(folder, tokenizer, streams: dict) -> None:
    """How long each stage takes, in one thread; `streams` has a stream and a number of batches."""
    for name, (stream, count) in streams.items():
        watch = Stopwatch()
        source = TrainStream("s", folder, stream, tokenizer, 0, watch=watch)
        for number in range(count):
            source.batch(number * source.batch_size)
        print(f"\nstages, one thread, {name}\n{watch.table(count * source.batch_size)}")


if __name__ == "__main__":
    main()
