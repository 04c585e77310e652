"""A dataset as it lies on disk: its folder, its shards' records, and its indexes without media."""

from data.written.folders import described, find_version
from data.written.reading import Annotations, Index, Scan
from data.written.split import Written
from data.written.writing import Part, Shard

__all__ = ["Annotations", "Index", "Part", "Scan", "Shard", "Written", "described",
           "find_version"]
