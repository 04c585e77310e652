"""Speed of the input pipeline: clips and images a second, beside what bare decoding takes.

    python -m benchmarks.input [--threads=2] [--clips=12] [--rounds=3]
    python -m benchmarks.input --cores

It makes its own clips (320 x 240, 250 frames; H.264, HEVC and AV1) and JPEGs (500 x 375) in a
temporary folder. Then it prints the table of docs/data.md, in Markdown.
Each figure is the median of the rounds; a round measures everything once, so that what else the
machine does weighs on all alike. Processor time a sample, of all threads (not of workers), hardly
depends on that. decord is measured too where it is installed.

With `--cores` it reads as training does, by 1, 2, 4 ... and all cores that the process may use, and
prints how many an accelerator takes that goes through 250 images or 32 clips a second.
"""

import argparse
import concurrent.futures
import importlib.util
import io
import math
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
from data.pipeline.ahead import BY_CORES
from data.prepare import builder
from mplug2_jax.parallel.cores import cores
from mplug2_jax.preprocess.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece
from mplug2_jax.preprocess.video import decode_video, frame_indices

FRAMES, SIZE, SAMPLED = 250, (240, 320), 16
# What an accelerator goes through in a second, by the stream that it reads, and a batch of it.
WANTED = {"images": (250, 64), "clips": (32, 8)}
FLOOR = "floor: every frame decoded by PyAV, nothing else"
FLOOR_IMAGES = "floor: decoded by Pillow, nothing else"
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
    parser.add_argument("--cores", action="store_true", help="by the number of cores instead")
    options = parser.parse_args()
    if options.cores and not hasattr(os, "sched_getaffinity"):
        parser.error("--cores needs Linux, where a process can be given some of the cores")
    clips = [make_clip(seed) for seed in range(options.clips)]
    pictures = [make_picture(seed) for seed in range(48)]
    print(f"{os.cpu_count()} processors, {options.threads} threads, PyAV {av.__version__}")
    print(f"clips of {np.mean([len(c) for c in clips]) / 1e3:.0f} kB, pictures of "
          f"{np.mean([len(p) for p in pictures]) / 1e3:.0f} kB")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = write(Path(folder), clips, pictures)
        if options.cores:
            by_cores(Path(folder), tokenizer, options.rounds)
        else:
            measure(Path(folder), tokenizer, clips, pictures, options)


def by_cores(folder: Path, tokenizer: Tokenizer, rounds: int) -> None:
    """Prints how many samples a second so many cores read, and how many cores the wanted take."""
    given, before = usable(), os.sched_getaffinity(0)
    busy = os.getloadavg()[0]
    print(f"{len(given)} cores, load {busy:.1f}" + ": NOT IDLE, these figures say little" * (
        busy > 0.5))
    text = dict(image_size=224, text_length=12, flip=True)
    streams = {
        "images": common.stream("image", WANTED["images"][1], frames=1, crop_area=(0.2, 1.0),
                                **text),
        "clips": common.stream("video", WANTED["clips"][1], frames=SAMPLED, crop_area=(0.5, 1.0),
                               **text),
    }
    counts = sorted({*(2**n for n in range(len(given).bit_length())), len(given)})
    speeds: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for count in counts:
            os.sched_setaffinity(0, given[:count])  # threads and workers that follow have the same
            for name, stream in streams.items():
                speeds.setdefault((name, count), []).append(steady(folder, tokenizer, stream))
    os.sched_setaffinity(0, before)
    print("\n| cores | " + " | ".join(f"{name} a second | a core" for name in streams)
          + " |\n|" + " --- |" * (1 + 2 * len(streams)))
    medians = {key: statistics.median(found) for key, found in speeds.items()}
    for count in counts:
        print(f"| {count} | " + " | ".join(
            f"{medians[name, count]:.0f} | {medians[name, count] / count:.1f}"
            for name in streams) + " |")
    print("\n| an accelerator that goes through | takes cores |\n| --- | --- |")
    for name, (wanted, _) in WANTED.items():
        enough = [count for count in counts if medians[name, count] >= wanted]
        takes = wanted * counts[-1] / medians[name, counts[-1]]
        print(f"| {wanted} {name} a second | {math.ceil(takes)}"
              + ("" if enough else f", if more read as fast each as {counts[-1]}") + " |")


def usable() -> list[int]:
    """The cores that this process may use: of its affinity, as many as its container gives it."""
    return sorted(os.sched_getaffinity(0))[:cores()]


def steady(folder: Path, tokenizer: Tokenizer, stream: ml_collections.ConfigDict,
           seconds: float = 5.0) -> float:
    """Samples a second that training reads, once what was prepared ahead is used up."""
    batches = train_batches(folder, {"s": stream}, tokenizer, 0, threads=BY_CORES,
                            workers=BY_CORES)
    for _ in range(6):  # two batches are ahead, or two parts of each thread
        next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(batches)
        count += 1
    found = count * stream.batch_size / (time.perf_counter() - start)
    batches.close()
    return found


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
        FLOOR: lambda: in_threads(bare_decode, clips, threads, count),
        "`decode_video`, 16 frames": lambda: in_threads(sample, clips, threads, count),
        "pipeline: crop, flip, batch": lambda: train(plain, count // 4),
        "pipeline with `rand_augment=(2, 5)`": lambda: train(strong, count // 4),
        "pipeline, 2 workers": lambda: train(plain, count // 4, workers=2, threads=1),
        "evaluation: resized as the release does": evaluate,
    }
    if importlib.util.find_spec("decord"):
        figures["decord, 16 frames"] = lambda: in_threads(decord_decode, clips, threads, count)
    for name, made in OTHERS.items():
        other = [make_clip(seed, *made) for seed in range(min(4, len(clips)))]
        for what, function in ((f"{name}: {FLOOR}", bare_decode),
                               (f"{name}: `decode_video`, 16 frames", sample)):  # fmt: skip
            figures[what] = lambda other=other, function=function: in_threads(
                function, other, threads, count // 2)  # fmt: skip
    figures |= {
        f"images of 500 x 375 pixels: {FLOOR_IMAGES}": lambda: in_threads(
            bare_picture, pictures, threads, 600
        ),
        "images of 500 x 375 pixels to 224": lambda: train(image, 36),
        "the same, over items": lambda: train(items, 36),
    }
    table(in_rounds(figures, options.rounds))
    stages(folder, tokenizer, {"crop and flip": (plain, 6), "RandAugment(2, 5)": (strong, 6),
                               "images": (image, 12)})


def in_rounds(figures: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Prints how many a second each gives, medians of rounds in turn, and what one costs."""
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
            f"{name:60} {statistics.median(values):8.1f} /s {statistics.median(cost):7.1f} ms of "
            "processor  (rounds: " + ", ".join(f"{value:.1f}" for value in values) + " /s)"
        )
    return {name: statistics.median(values) for name, values in measured.items()}


def table(figures: dict[str, float]) -> None:
    """Prints them in Markdown, each as a share of the last floor before it, too."""
    print("\n| | a second | of the floor |\n| --- | --- | --- |")
    floor = 0.0
    for name, value in figures.items():
        is_floor = name.endswith((FLOOR, FLOOR_IMAGES))
        floor = value if is_floor else floor
        share = "" if is_floor else f"{value / floor:.2f} "
        print(f"| {name} | {value:.{0 if value >= 100 else 1}f} | {share}|")


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
