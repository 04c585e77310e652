"""The corpus of the tests of buckets, and what of it was read there."""

SIZES = {"video_train": 6, "video_validation": 2, "video_test": 2, "image_train": 2,
         "image_validation": 2, "image_test": 2, "text_train": 30, "text_validation": 2}


def downloads(server):
    """Names of the objects whose bytes were asked for."""
    return [one.name.rpartition("/")[2] for one in server.requests
            if one.method == "GET" and "alt=media" in one.path]
