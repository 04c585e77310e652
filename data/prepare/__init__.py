"""Raw public files, or none, to records on disk: probing, shards, Beam."""
