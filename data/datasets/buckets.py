"""Raw files that lie in a bucket: listed there, and copied one by one to be read."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

from data.datasets.folders import Folders, Listing
from data.datasets.raw import Dataset, RawFolder
from data.stores import absolute, check_store, listed, local, protocol
from mplug2_jax.contracts.errors import DataError

DATASETS = ()  # it reads none of its own


class _Tree(Folders):
    """The folders of a bucket; paths are relative to an address."""

    def __init__(self, address: str):
        super().__init__(Path(address))  # of no use: nothing of this machine is listed
        self._address = address

    def _list(self, folder: str) -> Listing:
        return Listing(*listed(os.path.join(self._address, folder)))


class Bucket(RawFolder):
    """A raw folder at an address, of which `tree`, `place` and `local` can be used.

    Raises:
        DataError: nothing is there, or a package is missing that opens it.
    """

    def __init__(self, address: str):
        check_store(address)
        self.place = absolute(address)
        self.root = Path(self.place)
        self.tree, self.left_out = _Tree(self.place), []
        if not (self.tree.listing("").files or self.tree.inner("")):
            raise DataError(f"--raw={address} holds nothing")

    def local(self, path: str) -> AbstractContextManager[Path]:
        return local(f"{self.place}/{path}")


def open_raw(dataset: Dataset, raw: str | os.PathLike) -> RawFolder:
    """The raw folder of a dataset, here or in a bucket.

    Raises:
        DataError: it is not there, or is a bucket's, which the dataset's reader cannot read.
    """
    if not protocol(os.fspath(raw)):
        return RawFolder(raw)
    if not dataset.buckets:
        raise DataError(f"--raw={raw}: {dataset.name} is read from folders: copy it to one, or "
                        "mount the bucket")
    return Bucket(os.fspath(raw))
