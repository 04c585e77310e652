"""What a dataset is, as TFDS knows it: read once, and again where it was written again."""

import shutil

from tensorflow_datasets.core.read_only_builder import ReadOnlyBuilder

from data.pipeline.sources import open_split
from data.written import described, find_version


def test_opening_splits_again_keeps_nothing_new(corpus, tmp_path, monkeypatch):
    made = []
    begin = ReadOnlyBuilder.__init__
    monkeypatch.setattr(ReadOnlyBuilder, "__init__",
                        lambda self, *a, **k: (made.append(self), begin(self, *a, **k))[1])
    root = shutil.copytree(corpus, tmp_path / "copy")
    sizes = [len(open_split(root, split)) for split in ("video_train", "text_train") * 3]
    assert len(made) == 1 and sizes == sizes[:2] * 3
    # Written again: here, by another dataset of the same name and place.
    folder = find_version(root)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"version"', '"version" '))
    assert described(folder) is made[1] and len(made) == 2
