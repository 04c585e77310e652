"""Shows what the model is given: what the data holds, a sheet of one batch, the time of each stage.

    python -m data.inspect --config=configs/demo.py [--stream=video] [--out=sheet.png]

What the data holds, its classes and how many records each has, is of its indexes (docs/data.md).
The sheet has a row an example: its frames, and beside them the texts that its ids stand for. The
table is of one thread; `data.threads` and `data.workers` run several.

    python -m data.inspect --overlap prepared/msrvtt:train prepared/msrvtt:test

lists the media and the texts that stand in both: bytes that are equal, words that are. All of them
are written to a table, `--out=overlap.tsv`; `--rows` are printed.
"""

import csv
import sys
import textwrap

import numpy as np
from absl import flags
from PIL import Image, ImageDraw, ImageFont

from configs import checks
from data.pipeline import Epochs, Stopwatch, TrainStream, summary
from data.pipeline.content import repeated
from data.written import Index, find_version
from data.written.folders import find_index
from data.written.overlap import overlap
from data.written.reading import command
from data.written.split import open_index
from mplug2_jax import launch
from mplug2_jax.contracts import paths
from mplug2_jax.contracts.errors import ConfigError, DataError
from mplug2_jax.contracts.streams import Stream
from mplug2_jax.preprocess.tokenizer import Tokenizer, load_tokenizer

_TEXT_WIDTH = 420  # pixels
_LINE = 16
_GAP = 4


def contact_sheet(batch: dict[str, np.ndarray], tokenizer: Tokenizer, rows: int) -> Image.Image:
    """Draws the first examples of a batch of `data.pipeline`, one below the other."""
    font = ImageFont.load_default(13)
    drawn = [_row(batch, row, tokenizer, font) for row in range(min(rows, len(batch["pair_id"])))]
    width = max(image.width for image in drawn)
    sheet = Image.new("RGB", (width, sum(image.height + _GAP for image in drawn)), "white")
    top = 0
    for image in drawn:
        sheet.paste(image, (0, top))
        top += image.height + _GAP
    return sheet


def _row(batch: dict[str, np.ndarray], row: int, tokenizer: Tokenizer, font) -> Image.Image:
    lines = [f"record {batch['pair_id'][row]}"]
    for field, ids, used in _texts(batch, row):
        said = f"{field} ({used} of {len(ids)} ids): {tokenizer.decode(ids)}"
        lines += textwrap.wrap(said, 60)
    lines += [f"{field}: {batch[field][row]}" for field in ("label", "box") if field in batch]
    clip = batch["video"][row] if "video" in batch else np.zeros((0, 0, 0, 3), np.uint8)
    frames, height, width, _ = clip.shape
    scale = max(1, -(-96 // max(height, 1)))  # small frames are enlarged, pixel by pixel
    tall = max(height * scale, _LINE * len(lines))
    image = Image.new("RGB", (frames * (width * scale + _GAP) + _TEXT_WIDTH, tall), "white")
    for number, pixels in enumerate(clip):
        large = pixels.repeat(scale, 0).repeat(scale, 1)
        image.paste(Image.fromarray(large), (number * (width * scale + _GAP), 0))
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        place = (frames * (width * scale + _GAP) + _GAP, number * _LINE)
        draw.text(place, line, fill="black", font=font)
    return image


def _texts(batch: dict[str, np.ndarray], row: int) -> list[tuple[str, np.ndarray, int]]:
    """The texts of a row: field, ids [L] and how many are used; each question before its answer."""
    found = []
    for place, field in enumerate(("text", "prompt", "target")):
        if field in batch:
            ids, mask = (np.atleast_2d(batch[key][row]) for key in (field, f"{field}_mask"))
            for number, (one, kept) in enumerate(zip(ids, mask, strict=True)):
                found.append((number if place else -1, field, one, int(kept.sum())))
    found.sort(key=lambda entry: entry[0])
    return [entry[1:] for entry in found]


def inspect(
    config, streams: dict[str, Stream], out: str, rows: int, batches: int
) -> None:
    """Writes the sheet of the first of the streams and prints the table of each."""
    tokenizer = load_tokenizer(config.data.tokenizer)
    for name, given in streams.items():
        watch = Stopwatch()
        stream = TrainStream(name, config.data.root, given, tokenizer, config.seed, watch=watch)
        made = [stream.batch(number * stream.batch_size) for number in range(batches)]
        print(f"stream {name}: {batches} batches of {stream.batch_size}")
        print("\n".join(f"  {line}" for line in summary(config.data.root, given)))
        units, said = Epochs(config.data.root, {name: given}, config.seed).lengths()[name]
        print(f"  an epoch goes over {units:,} {said}")
        for field, value in made[0].items():
            print(f"  {field:14} {value.dtype} {list(value.shape)}")
        if "text_id" in made[0]:
            found = [int(repeated(batch).sum()) for batch in made]
            print(f"  rows with an equal text or medium of another record: {found} a batch")
        print(watch.table(batches * stream.batch_size), flush=True)
        if name == next(iter(streams)):
            contact_sheet(made[0], tokenizer, rows).save(out)
            print(f"sheet of {min(rows, stream.batch_size)} examples: {out}")


def indexes_of(said: str) -> list[Index]:
    """The indexes of `FOLDER:SPLIT`, or of `FOLDER:SPLIT+SPLIT`.

    Raises:
        DataError: there is no such split, or no index of it.
    """
    root, colon, names = said.rpartition(":")
    if not colon or not names:
        raise DataError(f"{said}: expected FOLDER:SPLIT, such as prepared/msrvtt:train")
    folder, found = find_version(paths.parse(root)), []
    for name in names.split("+"):
        path = find_index(folder, name)
        if path is None:
            raise DataError(f"{folder} has no index of {name!r}: is it a split of it? An index is "
                            f"written by: {command(folder)}")
        found.append(open_index(path, folder))
    return found


def show_overlap(first: str, second: str, out: str, rows: int) -> None:
    """Prints what two splits have in common, and writes all of it as a table of tabs.

    Args:
        first, second: `FOLDER:SPLIT` each.
        out: the table's file.
        rows: how many lines are printed of each kind.
    """
    found = overlap(indexes_of(first), indexes_of(second))
    print(f"A is {first}, B is {second}")
    for kind, many in (("medium", "media"), ("text", "texts")):
        own = [one for one in found if one.kind == kind]
        in_a = {name for one in own for name in one.first}
        in_b = {name for one in own for name in one.second}
        print(f"{many} in both: {len(own):,}, of {len(in_a):,} records of A and "
              f"{len(in_b):,} of B")
        for one in own[:rows]:
            print(f"  {kind} {one.what!r:.80}: {', '.join(one.first[:3])} in A, "
                  f"{', '.join(one.second[:3])} in B")
    with open(out, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(("kind", "what", "records of A", "records of B"))
        table.writerows((one.kind, one.what, " ".join(one.first), " ".join(one.second))
                        for one in found)
    print(f"all of it: {out}", flush=True)


def main(*splits: str) -> None:
    if splits:
        show_overlap(*splits, OUT.value or "overlap.tsv", ROWS.value)
        return
    config = CONFIG.value
    streams = checks.validate(config).streams
    if STREAM.value and STREAM.value not in streams:
        raise ConfigError(f"--stream={STREAM.value}: the config has {', '.join(streams)}")
    if STREAM.value:
        streams = {STREAM.value: streams[STREAM.value]}
    inspect(config, streams, OUT.value or "sheet.png", ROWS.value, BATCHES.value)


if __name__ == "__main__":
    CONFIG = launch.define_config("The run's config.")
    STREAM = flags.DEFINE_string("stream", "", "Which stream; all of them, if it is not given.")
    OVERLAP = flags.DEFINE_bool("overlap", False, "List what two splits have in common: "
                                "A B, each FOLDER:SPLIT.")
    OUT = flags.DEFINE_string("out", "", "Where the contact sheet is written (sheet.png), or what "
                              "is common (overlap.tsv).")
    ROWS = flags.DEFINE_integer("rows", 16, "Examples on the sheet, at most; lines of what is "
                                "common.", lower_bound=1)
    BATCHES = flags.DEFINE_integer("batches", 2, "Batches that are timed.", lower_bound=1)
    wanted = any(word in ("--overlap", "-overlap") for word in sys.argv[1:])
    flags.register_multi_flags_validator(
        ["config", "overlap"], lambda given: given["overlap"] or given["config"] is not None,
        "--config: expected a run's config, or --overlap and two splits")
    launch.main(main, ("A", "B") if wanted else ())
