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
    pairs,
    refcoco,
    release_jsonl,
    ssv2,
    tgif,
    vqa,
    webdataset,
    webvid_cc,
)
from data.datasets.raw import Dataset

_MODULES = (
    msrvtt,
    msvd,
    tgif,
    didemo,
    lsmdc,
    release_jsonl,
    karpathy,
    vqa,
    refcoco,
    webvid_cc,
    webdataset,
    kinetics,
    ssv2,
    class_folders,
    pairs,
    glue,
)
DATASETS: dict[str, Dataset] = {
    dataset.name: dataset for module in _MODULES for dataset in module.DATASETS
}
