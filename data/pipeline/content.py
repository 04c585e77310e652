"""What tells equal texts and equal media of a batch, whatever records and sources they are of.

An id is 64 bits of a hash, as two int32; two zeros are no id, which equals nothing. Among the rows
and columns of a step, 65,536 and 131,072 of them, two different ones agree with a probability of 5
in ten billion, and would then be taken for one duplicate more.
"""

import hashlib
import struct

import numpy as np

from data.written.schema import content_hash
from mplug2_jax.preprocess.tokenizer import Tokenizer

_NONE = np.zeros(2, np.int32)


def content_ids(record: dict, fields: dict, tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    """`media_id` and `text_id` of an example, int32 [2].

    Texts are equal where the text encoder reads equal ids: after cleaning, by the tokenizer's own
    folding of case, spaces and accents, and cut to the stream's length; padding does not count.
    Media are equal where their bytes are, and of videos the part that counts, too. So another
    encoding of a video is another medium, while frames and crops, drawn at random, tell nothing.

    Args:
        record: the record (see `data.records`).
        fields: of the example, with `text [L]` and its mask.
        tokenizer: of the text.
    """
    return {"media_id": media_id(record), "text_id": text_id(fields, tokenizer)}


def repeated(batch: dict[str, np.ndarray]) -> np.ndarray:
    """bool [b]: which rows have an equal medium, or an equal text, of another record."""
    found = np.zeros(len(batch["pair_id"]), bool)
    for name in ("media_id", "text_id"):
        records: dict[bytes, set[int]] = {}
        keys = [one.tobytes() for one in batch[name]]
        for key, number in zip(keys, batch["pair_id"].tolist(), strict=True):
            records.setdefault(key, set()).add(number)
        found |= batch[name].any(axis=1) & [len(records[key]) > 1 for key in keys]
    return found


def media_id(record: dict) -> np.ndarray:
    """Of what is seen alone, see `content_ids`."""
    content = content_hash(record["media"])
    if content is None:
        return _NONE
    window = record.get("start", 0.0), record.get("end", 0.0)
    if record["kind"] == "video" and any(window):
        content = hashlib.sha256(content + struct.pack("<2d", *window)).digest()
    return _words(content)


def text_id(fields: dict, tokenizer: Tokenizer) -> np.ndarray:
    """Of the text alone, see `content_ids`."""
    ids = fields["text"][fields["text_mask"]]
    if ((ids == tokenizer.cls_id) | (ids == tokenizer.sep_id)).all():  # no text at all
        return _NONE
    return _words(hashlib.sha256(ids.astype("<i4").tobytes()).digest())


def _words(digest: bytes) -> np.ndarray:
    return np.frombuffer(digest, "<i4", 2).astype(np.int32)
