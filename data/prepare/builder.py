"""Writes a dataset once: records to ArrayRecord through TFDS, whole or not at all."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from etils import epath

from data import records
from data.prepare import index
from data.written import Part, folders
from data.written.writing import join
from mplug2_jax.contracts.errors import DataError

# Records of a split, made when they are written.
Splits = dict[str, Callable[[], Iterable[dict]]]



class RecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS builder of records; a dataset derives from it to give its name, version and docstring.

    Args:
        splits: {split: function that gives its records, in the order they are stored in}.
        settings: everything that the records depend on, kept beside them.
        **kwargs: for TFDS, such as `data_dir`.
    """

    # TFDS looks for a file of checksums beside this one, and its own search needs a package it does
    # not declare.
    code_path = epath.Path(__file__)

    def __init__(self, splits: Splits, settings: dict[str, int | str], **kwargs):
        self._splits = splits
        self._settings = settings
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=records.features(),
            disable_shuffling=True,  # the pipeline shuffles; on disk records keep their order
            metadata=tfds.core.MetadataDict(self._settings),
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        return {split: self._generate_examples(split) for split in self._splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        # TFDS decides on the shards at the end: all of a split are of one part of the index.
        with Part(index.part_path(Path(self.data_path), split)) as part:
            for number, made in enumerate(self._splits[split]()):
                said = records.plain(made)
                part.add(said, index.facts(said["kind"], said["media"]))
                yield number, made

    def _download_and_prepare(self, *arguments, **options) -> None:
        # The folder is unfinished yet, and gets its name when this returns.
        super()._download_and_prepare(*arguments, **options)
        folder = Path(self.data_path)
        for name, info in self.info.splits.items():
            part = index.part_path(folder, name)
            join([part], name, folders.shards(folder, info), folders.index_path(folder, name))
            part.unlink()


def write(
    builder_class: type[RecordBuilder], out: Path, splits: Splits, settings: dict[str, int | str]
) -> bool:
    """Writes a dataset to `out/name/version`, unless it is there.

    What an interrupted run left is removed first.

    Returns:
        Whether anything was written.

    Raises:
        DataError: the dataset is there, made with other settings.
    """
    folder = out / builder_class.name
    # TFDS writes to `<version>.incomplete<random>` and renames it at the end.
    for path in folder.glob("*incomplete*"):
        logging.warning("removing %s, which an interrupted run left", path)
        shutil.rmtree(path)
    if (folder / str(builder_class.VERSION)).exists():
        written = tfds.builder_from_directory(str(folder / str(builder_class.VERSION)))
        check_same(out, builder_class.name, dict(written.info.metadata or {}), settings)
        index.write_missing(folder / str(builder_class.VERSION))
        return False
    tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory() as downloads:  # TFDS wants one, though it downloads nothing
        builder = builder_class(splits, settings, data_dir=out)
        builder.download_and_prepare(download_dir=downloads)
    return True


def check_same(out: Path, name: str, written: dict, wanted: dict) -> None:
    """Raises DataError if what a dataset was written with is not what is wanted now."""
    for key, value in wanted.items():
        if written.get(key) != value:
            raise DataError(
                f"{out} holds {name} with {key}={written.get(key)}, not {value}: "
                "choose another --out, or delete it"
            )
