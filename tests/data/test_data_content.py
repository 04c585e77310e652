"""Ids of content: what tells equal texts and equal media, over records, sources and processes."""

import numpy as np
import pytest
from data_helpers import good, take
from hypothesis import given
from hypothesis import strategies as st

from configs import common
from data.pipeline import eval_batches, train_batches
from data.pipeline.content import content_ids, repeated
from data.pipeline.sources import open_split
from mplug2_jax.preprocess.tokenizer import SPECIAL_TOKENS, load_tokenizer

TEXT = "a red three moves left"
EQUAL = [TEXT, "A Red three moves LEFT.", "  a red\t three moves  left \n",
         "a red-three moves left!", "\"a red three\" (moves) left",
         "a r\u00e9d thr\u0117e moves left"]  # fmt: skip
OTHER = ["a red three moves right", "a red three moves", "red a three moves left",
         "a red three moves left left", "aredthree moves left"]  # fmt: skip


@pytest.fixture(scope="module")
def uncased(tmp_path_factory):
    """A WordPiece vocabulary: letters, their continuations, and a few words."""
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [*SPECIAL_TOKENS, *letters, *(f"##{one}" for one in letters), "red", "three", "moves"]
    path.write_text("\n".join(pieces) + "\n")
    return load_tokenizer(path)


@pytest.fixture
def pairs(stream):
    """A stream of pairs as a task that contrasts them gives it."""

    def make(**changes):
        defaults = dict(split="train", frames=2, image_size=16, prompt_length=0, target_length=0,
                        contrasts=True)
        return stream(**defaults | changes)

    return make


def trained(root, stream, tokenizer, steps=1, **options) -> list[dict]:
    made = take(train_batches(root, {"s": stream}, tokenizer, 0, **options), steps)
    return [batch["s"] for batch in made]


def by_record(batch: dict, field: str) -> dict[int, tuple[int, int]]:
    return {int(number): tuple(one) for number, one in
            zip(batch["pair_id"], batch[field].tolist(), strict=True)}  # fmt: skip


def groups(ids: dict) -> set[tuple]:
    """Keys of equal ids, each as a tuple."""
    found = {}
    for key in sorted(ids):
        found.setdefault(ids[key], []).append(key)
    return {tuple(keys) for keys in found.values()}


def test_texts_are_equal_where_the_encoder_reads_the_same(write_records, pairs, uncased):
    texts = [*EQUAL, *OTHER]
    root = write_records({"train": [good(f"n_{n}", texts=[text]) for n, text in enumerate(texts)]})
    (batch,) = trained(root, pairs(batch_size=len(texts)), uncased)
    assert batch["text_id"].shape == (len(texts), 2) and batch["text_id"].dtype == np.int32
    one, *others = sorted(groups(by_record(batch, "text_id")))
    assert one == tuple(range(len(EQUAL)))
    assert others == [(n,) for n in range(len(EQUAL), len(texts))]
    assert groups(by_record(batch, "media_id")) == {(n,) for n in range(len(texts))}
    assert batch["text_id"].any(axis=1).all() and batch["media_id"].any(axis=1).all()
    # Cut to the same length they may be equal; a longer field changes nothing.
    (short,) = trained(root, pairs(batch_size=len(texts), text_length=4), uncased)
    assert sorted(groups(by_record(short, "text_id")))[0] == tuple(
        n for n, text in enumerate(texts) if text not in (OTHER[2], OTHER[4]))
    (longer,) = trained(root, pairs(batch_size=len(texts), text_length=40), uncased)
    assert by_record(longer, "text_id") == by_record(batch, "text_id")


def test_sentencepiece_keeps_accents_and_so_do_ids(write_records, pairs, tokenizer):
    root = write_records({"train": [good(f"n_{n}", texts=[t]) for n, t in enumerate(EQUAL)]})
    (batch,) = trained(root, pairs(batch_size=len(EQUAL)), tokenizer)
    assert groups(by_record(batch, "text_id")) == {(0, 1, 2, 3, 4), (5,)}


@given(texts=st.lists(st.text("aBb .,-\u00e9\u4e2d", max_size=6), min_size=2, max_size=5))
def test_ids_of_texts_are_equal_just_where_the_ids_read_are(uncased, texts):
    made = []
    for text in texts:
        ids, mask = uncased.encode_padded(text, 5)
        record = {"media": b"", "kind": "text"}
        own = content_ids(record, {"text": ids, "text_mask": mask}, uncased)
        assert own["media_id"].tolist() == [0, 0]
        made.append((ids.tobytes(), tuple(own["text_id"].tolist()), mask.sum() > 2))
    for ids, own, said in made:
        assert (own == (0, 0)) == (not said)
        for other, theirs, _ in made:
            assert (ids == other) == (own == theirs)


def test_media_are_equal_where_bytes_and_parts_are(write_records, pairs, tokenizer):
    """One video under two names, parts of it, another one, and images."""
    data = [good(f"n_{n}")["media"].item() for n in (0, 1)]
    given = [(0, 0, 0), (0, 0, 0), (0, 0, 1), (0, 0, 1), (0, 1, 2), (0, 0, 2), (1, 0, 0), (1, 0, 1)]
    root = write_records({"train": [
        good(f"n_{n}", media=data[medium], start=start / 2, end=end / 2, texts=[f"a text {n}"])
        for n, (medium, start, end) in enumerate(given)]})  # fmt: skip
    (batch,) = trained(root, pairs(batch_size=8), tokenizer)
    assert groups(by_record(batch, "media_id")) == {(0, 1), (2, 3), (4,), (5,), (6,), (7,)}
    assert (batch["video"][:, 0] != batch["video"][:1, 0]).any()  # frames and crops are drawn


def test_sources_epochs_and_processes_agree(corpus, write_records, pairs, tokenizer):
    """Some of the corpus once more in another dataset, in two processes, in every epoch."""
    source = open_split(corpus, "video_train")
    first = len(source)  # the number of the other dataset's first record
    root = write_records({"train": [
        good(f"n_{n}", media=source[n]["media"], texts=source[n]["texts"]) for n in range(8)
    ]})  # fmt: skip
    mixture = {"a": common.source("video_train", 1, root=str(corpus)),
               "b": common.source("train", 1)}  # fmt: skip
    stream = pairs(split=mixture, batch_size=16)
    whole = trained(root, stream, tokenizer, 12)
    media, said = {}, {}
    for batch in whole:
        for number, one in by_record(batch, "media_id").items():
            media.setdefault(number, set()).add(one)
        for ids, one in zip(batch["text"], batch["text_id"].tolist(), strict=True):
            said.setdefault(ids.tobytes(), set()).add(tuple(one))
    assert len(media) == first + 8 and all(len(ids) == 1 for ids in [*media.values(),
                                                                     *said.values()])
    assert len(set.union(*said.values())) == len(said)
    assert groups({number: ids.pop() for number, ids in media.items()}) == {
        (n, first + n) if n < 8 else (n,) for n in range(first)}
    slices = [trained(root, stream, tokenizer, 2, process_index=n, process_count=2) for n in (0, 1)]
    for step, parts in enumerate(zip(*slices, strict=True)):
        for name in ("media_id", "text_id", "pair_id"):
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]),
                                          whole[step][name])  # fmt: skip


def test_an_evaluation_tells_them_too(write_records, pairs, tokenizer):
    root = write_records({"train": [good(f"n_{n}", texts=[f"a {n}"]) for n in range(3)]})
    (tested,) = eval_batches(root, pairs(batch_size=5), tokenizer)
    (batch,) = trained(root, pairs(batch_size=3), tokenizer)
    for name in ("media_id", "text_id"):
        assert by_record(tested, name) == {-1: (0, 0), **by_record(batch, name)}
        assert tested[name][:3].any(axis=1).all()


def test_ids_are_where_they_are_asked_for(corpus, pairs, tokenizer):
    for changes in (dict(contrasts=False), dict(duplicates=False), dict(text_length=0)):
        stream = pairs(split="video_train", **changes)
        assert not stream.get("text_length") or "text" in trained(corpus, stream, tokenizer)[0]
        assert not {"media_id", "text_id"} & trained(corpus, stream, tokenizer)[0].keys()


def test_repeated_rows_are_counted(write_records, pairs, tokenizer):
    """By a text, by a medium, by both; not those of one record, which comes twice."""
    data = [good(f"n_{n}")["media"].item() for n in range(4)]
    root = write_records({"train": [
        good(f"n_{n}", media=data[medium], texts=[text])
        for n, (medium, text) in enumerate([(0, "one"), (1, "One."), (1, "two"), (2, "three"),
                                            (3, "four"), (3, "four")])]})  # fmt: skip
    (batch,) = trained(root, pairs(batch_size=12, shuffle=False), tokenizer)
    assert batch["pair_id"].tolist() == [*range(6), *range(6)]
    rows = {name: x[:6] for name, x in batch.items()}
    assert repeated(rows).tolist() == [True, True, True, False, True, True]
    assert repeated(batch).tolist() == repeated(rows).tolist() * 2
