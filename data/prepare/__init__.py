"""Raw public files, or none, to records on disk: probing, shards, Beam."""

from data.prepare import builder
from data.prepare.run import prepare

__all__ = ["builder", "prepare"]
