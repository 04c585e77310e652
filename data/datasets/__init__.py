"""Readers of the raw public files, one module a family of datasets."""

from data.datasets import (
    class_folders,
    didemo,
    glue,
    karpathy,
    kinetics,
    lsmdc,
    msrvtt,
    msvd,
    nocaps,
    pairs,
    refcoco,
    release_jsonl,
    ssv2,
    text_folder,
    tgif,
    vqa,
    webdataset,
    webvid_cc,
)
from data.datasets.raw import Dataset, Entry, Media, Missing, RawFolder

__all__ = ["DATASETS", "Dataset", "Entry", "Media", "Missing", "RawFolder"]

_MODULES = (
    msrvtt,
    msvd,
    tgif,
    didemo,
    lsmdc,
    release_jsonl,
    karpathy,
    nocaps,
    vqa,
    refcoco,
    webvid_cc,
    webdataset,
    kinetics,
    ssv2,
    class_folders,
    pairs,
    glue,
    text_folder,
)
DATASETS: dict[str, Dataset] = {
    dataset.name: dataset for module in _MODULES for dataset in module.DATASETS
}
