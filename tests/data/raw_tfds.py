"""Data sets as TFDS writes them."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from raw_media import image


def write(out: Path, name: str, features: dict[str, Any],
          splits: Mapping[str, list[dict[str, Any]]], version: str = "5.1.0") -> Path:
    """A data set of TFDS of that name, with the features that TFDS has for it."""

    class Examples(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)
        code_path = epath.Path(__file__)

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(examples)
                    for split, examples in splits.items()}

        def _generate_examples(self, examples):
            yield from enumerate(examples)

    Examples.name = name
    builder = Examples(data_dir=out, file_format="array_record")
    builder.download_and_prepare(download_dir=out / "downloads")
    return out / name


def _images(out: Path, name: str, splits: tuple[str, ...], version: str) -> None:
    classes = tfds.features.ClassLabel(names=["tench", "goldfish"])
    examples = {split: [{"image": io.BytesIO(image(n)), "label": n % 2, "file_name": f"{n}.JPEG"}
                        for n in range(4)] for split in splits}
    write(out, name, {"image": tfds.features.Image(encoding_format="jpeg"), "label": classes,
                      "file_name": tfds.features.Text()}, examples, version)


# By data set a miniature that `out` holds then, prepared.
PREPARED = {
    "imagenet2012": lambda out: _images(out, "imagenet2012", ("train", "validation"), "5.1.0"),
    "oxford_flowers102": lambda out: _images(
        out, "oxford_flowers102", ("train", "validation", "test"), "2.1.1"),
}
