"""Each kind of file through what opens it, for `fuzz.py`; and what an error of it may be."""

import collections
import contextlib
import io
import json
import re
import shutil
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent


def read_video(folder: Path, name: str, data: bytes) -> str:
    """As probing does, then as training and predicting."""
    import numpy as np

    from mplug2_jax.preprocess.video import decode_video, video_facts

    del folder, name
    if not is_picture(data):
        video_facts(data)
    assert decode_video(data, 3).shape[0] == 3
    rng = np.random.default_rng(0)
    decode_video(data, 2, rng, start=0.1, end=0.3)
    decode_video(data, 2, rng, stride=2, clips=2)
    return ""


def is_picture(data: bytes) -> bool:
    from mplug2_jax.preprocess.pictures import read_as_picture

    return read_as_picture(data)


def read_image(folder: Path, name: str, data: bytes) -> str:
    """As probing does, then as training; and as boxes need it."""
    from data.media import probe
    from mplug2_jax.preprocess.image import decode_image
    from mplug2_jax.preprocess.pictures import as_annotated

    del folder, name
    in_this_process()
    facts = probe("image", data)
    assert decode_image(data).shape == (facts.height, facts.width, 3)
    as_annotated(data, (facts.height, facts.width))
    return ""


def in_this_process() -> None:
    """Has media be probed here, where their memory and what they open are seen."""
    from data import media

    media.guarded = lambda function, *arguments: function(*arguments)


def records_of(splits: dict, root: Path) -> str:
    """Makes the records of some entries as preparing does, and reads them back, their media in
    place; says the commonest reason of those that cannot be made."""
    from data import records
    from data.datasets import Missing
    from data.prepare import shards
    from data.written.tfds_examples import in_place
    from mplug2_jax.contracts.errors import MediaError

    in_this_process()
    reasons: collections.Counter[str] = collections.Counter()
    for entries in splits.values():
        for entry in entries:
            said = json.loads(json.dumps(asdict(entry)))
            if isinstance(entry.media, Missing):
                reasons["a record: " + entry.media.expected] += 1
                continue
            try:
                made, _, place = shards._record(str(root), said)
            except MediaError as error:
                one_line(error)
                reasons[f"a record: {error}"] += 1
                continue
            # By their words, for a number that is none equals nothing.
            read = in_place(records.serialize(made, place), str(root))
            assert repr(read) == repr(records.plain(made))
    return max(reasons, key=reasons.__getitem__, default="")


def read_tar(folder: Path, name: str, data: bytes) -> str:
    """As a shard of webdataset, and as where the media of a table lie."""
    from data.datasets import RawFolder, load, own

    root = folder / "raw"
    root.mkdir()
    (root / name).write_bytes(data)
    said = records_of(load("webdataset").read(RawFolder(root)), root)
    table = folder / "named.csv"
    table.write_text(f"path,caption\ns0.jpg,a\n{name}/s1.jpg,b\n{name}::d/00000.png,c\na.mp4,d\n")
    also = records_of(own.dataset(own.Options((str(table),))).read(RawFolder(root)), root)
    return said and also and said


def read_table(folder: Path, name: str, data: bytes) -> str:
    """As a table of one's own, whose media lie in the folder; as files of public datasets are."""
    from data.datasets import RawFolder, own
    from data.datasets.raw import OddItem, read_json, read_jsonl
    from data.datasets.raw import read_table as read_published
    from mplug2_jax.contracts.errors import DataError

    root, told = folder / "raw", io.StringIO()
    shutil.copytree(folder.parent / "media", root, symlinks=True)
    path = root / f"table{Path(name).suffix}"
    path.write_bytes(data)
    try:
        if path.suffix in (".csv", ".tsv"):
            list(read_published(path, ("path",), odd=lambda *odd: None))
        elif path.suffix == ".jsonl":
            list(read_jsonl(path, odd=lambda *odd: None))
        else:
            read_json(path)
    except (DataError, OddItem) as error:
        one_line(error)
    with contextlib.redirect_stdout(told):
        splits = own.dataset(own.Options((str(path),))).read(RawFolder(root))
    return records_of(splits, root)


def read_pth(folder: Path, name: str, data: bytes) -> str:
    """Every tensor, and the sizes that they imply."""
    from mplug2_jax.convert import official
    from mplug2_jax.convert.weights_file import read_weights

    path = folder / name
    path.write_bytes(data)
    tensors = read_weights(path)
    for tensor in tensors.values():
        assert tensor.load().shape == tensor.shape
    try:
        official.infer_sizes(tensors, str(path))
    except official.WeightsError as error:  # it is not of the release's model
        one_line(error)
    return ""


READ: dict[str, Callable[[Path, str, bytes], str]] = {
    "video": read_video, "image": read_image, "tar": read_tar, "jsonl": read_table,
    "csv": read_table, "pth": read_pth}


def one_line(error: BaseException) -> None:
    """Raises AssertionError where an error's message is not one printable line."""
    said = str(error)
    assert said and not re.search(r"[\n\r\x1b\0]", said), f"not one line: {said!r:.200}"
    assert len(said) < 3000, f"{len(said)} characters: {said[:200]}"


def foreseen() -> tuple[type[Exception], ...]:
    """What this project raises of bad files."""
    from mplug2_jax.contracts.errors import ConfigError, DataError, MediaError, RecordError
    from mplug2_jax.convert.stored import CheckpointFileError

    return MediaError, RecordError, DataError, ConfigError, CheckpointFileError


def outcome(kind: str, folder: Path, name: str, data: bytes) -> tuple[str, str]:
    """("good" or "refused", why), or ("FAILED", its last lines)."""
    try:
        said = READ[kind](folder, name, data)
        return ("refused", short(said)) if said else ("good", "")
    except foreseen() as error:
        try:
            one_line(error)
        except AssertionError as wrong:
            return "FAILED", str(wrong)
        return "refused", short(str(error))
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        where = next((f"{Path(one.filename).name}:{one.lineno} < " for one in reversed(
            traceback.extract_tb(error.__traceback__)) if str(HERE.parent) in one.filename
            and ".venv" not in one.filename), "")
        line = " ".join(f"{type(error).__name__}: {error}".split())
        return "FAILED", f"{where}{Path(at.filename).name}:{at.lineno}: {line:.200}"


def short(said: str) -> str:
    """The kind of a reason: without numbers, names and paths."""
    said = re.sub(r"(/[^\s:']+)+", "PATH", said)
    said = re.sub(r"'[^']*'|\"[^\"]*\"", "..", re.sub(r"\d[\d,.]*", "N", said))
    return " ".join(re.sub(r"[^ -~]", "?", said).split())[:60]
