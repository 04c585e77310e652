"""Lines of the docs, typed as they stand, in a folder that has what they name: small files.

Those that are quick. Others that are run as they stand: the first five of `docs/own_data.md`
(`tests/configs/test_own.py`), the docstrings of the configs (`tests/configs/test_walks.py`), and
those of the package alone in `docs/predict.md` (`make test-install`).
"""

import glob
import shlex
import shutil

import pytest
import raw_images
import raw_videos
from commands import ROOT, seen
from forks import finished
from pages import PAGES, lines
from raw_media import image, put

from mplug2_jax.metrics.submissions import GLUE

# What each leaves, and prints.
TYPED = {
    "python -m data.prepare msrvtt --raw=MSRVTT --out=prepared":
        ("prepared/msrvtt/1.0.0/dataset_info.json", "train: found 2 records, 3 texts"),
    "python -m data.inspect --overlap prepared/msrvtt:train prepared/msrvtt:test":
        ("overlap.tsv", "media in both: 1"),
    "python -m data.prepare webdataset --raw=LAION --out=OUT --in_place":
        ("OUT/webdataset/1.0.0/dataset_info.json", ""),
    "python -m data.prepare index DIR": ("DIR/webdataset/1.0.0/train.index.arrow", ""),
    "python -m data.prepare table --raw=IMAGES --table=boxes.json --out=prepared "
    "--media=img --phrase=objects.name --box=objects.bbox --boxes=xywh,absolute":
        ("prepared/table/1.0.0/dataset_info.json", "train: found 2 records"),
    "python -m mplug2_jax.metrics.submissions glue.zip runs/*/*.tsv --fill WNLI AX":
        ("glue.zip", ""),
    "python -m mplug2_jax.metrics.submissions results.zip "
    "runs/coco_server/captions_*_results.json": ("results.zip", ""),
    "python train.py --config=configs/demo.py --help_config": ("", " different keys, "),
}


@pytest.fixture
def folder(tmp_path):
    for name in ("configs", "train.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    raw_videos.msrvtt(tmp_path / "MSRVTT")
    # A clip that was trained on.
    shutil.copy(tmp_path / "MSRVTT/TrainValVideo/video0.mp4",
                tmp_path / "MSRVTT/TestVideo/video3.mkv")
    raw_images.webdataset(tmp_path / "LAION")
    for number in range(2):
        put(tmp_path / f"IMAGES/{number}.jpg", image(number))
    put(tmp_path / "boxes.json", [
        {"img": f"{number}.jpg", "objects": {"name": ["a thing"], "bbox": [[1, 2, 30, 15]]}}
        for number in range(2)])
    for name, (rows, labels) in GLUE.items():
        if name not in ("WNLI.tsv", "AX.tsv"):
            put(tmp_path / "runs/glue" / name, "index\tprediction\n" + "".join(
                f"{row}\t{labels[0] if labels else 2.5}\n" for row in range(rows)))
    for split in ("val2014", "test2014"):
        put(tmp_path / f"runs/coco_server/captions_{split}_own_results.json",
            [{"image_id": 1, "caption": "a thing"}])
    return tmp_path


@pytest.mark.slow
def test_what_is_quick_does_what_the_docs_say(folder):
    written = {" ".join(line.partition("#")[0].split()) for page in PAGES for line in lines(page)}
    for line, (made, said) in TYPED.items():
        assert line in written, f"no page has it any more: {line}"
        if line.endswith(" DIR"):  # as it was before there were indexes
            shutil.copytree(folder / "OUT", folder / "DIR",
                            ignore=shutil.ignore_patterns("*.index.arrow"))
        words = [found for word in shlex.split(line)[1:] for found in (
            sorted(glob.glob(word, root_dir=folder)) if "*" in word else [word])]
        done = finished(words, seen(), folder)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
        assert (folder / made).exists() and said in done.stdout + done.stderr, (
            f"{line}\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
