"""Batches: their order is a function of seed and step alone, and bad records never break a run."""

import logging

import numpy as np
import pytest
from data_helpers import assert_same, good, take

from data import records
from data.demo import scenes as moving_digits
from data.pipeline import SkipLog, annotation, eval_batches, open_split, train_batches
from mplug2_jax.contracts.errors import ConfigError, DataError
from mplug2_jax.preprocess.image import decode_image, resize
from mplug2_jax.preprocess.video import decode_video


@pytest.fixture
def streams(stream):
    return {
        "video": stream(),
        "image": stream(split="image_train", frames=1, target_length=0, batch_size=4),
        "text": stream(split="text_train", frames=0, target_length=0, batch_size=12),
    }


def train(corpus, streams, tokenizer, count, seed=0, **options) -> list[dict]:
    return take(train_batches(corpus, streams, tokenizer, seed, **options), count)


def after(streams, steps: int) -> dict[str, int]:
    """The positions after a number of steps."""
    return {name: steps * stream.batch_size for name, stream in streams.items()}


def test_fields_shapes_and_dtypes(corpus, streams, tokenizer):
    (batch,) = train(corpus, streams, tokenizer, 1)
    assert batch.keys() == streams.keys()
    shapes = {key: (value.shape, str(value.dtype)) for key, value in batch["video"].items()}
    assert shapes == {
        "video": ((8, 3, 32, 32, 3), "uint8"),
        "text": ((8, 24), "int32"),
        "text_mask": ((8, 24), "bool"),
        "prompt": ((8, 16), "int32"),
        "prompt_mask": ((8, 16), "bool"),
        "target": ((8, 4), "int32"),
        "target_mask": ((8, 4), "bool"),
        "pair_id": ((8,), "int32"),
        "example_mask": ((8,), "bool"),
    }
    assert batch["image"]["video"].shape == (4, 1, 32, 32, 3)
    assert batch["text"].keys() == {"text", "text_mask", "pair_id", "example_mask"}
    assert all(part["example_mask"].all() for part in batch.values())


def test_rows_belong_to_their_record(corpus, stream, tokenizer):
    source = open_split(corpus, "video_train")
    whole = {"video": stream(crop_area=(1.0, 1.0), frames=16, image_size=moving_digits.SIDE)}
    for batch in train(corpus, whole, tokenizer, 3):
        batch = batch["video"]
        for row, index in enumerate(batch["pair_id"]):
            record = source[int(index)]
            np.testing.assert_array_equal(batch["video"][row], decode_video(record["media"], 16))
            assert tokenizer.decode(batch["text"][row]) in record["texts"]
            pair = (
                tokenizer.decode(batch["prompt"][row]) + "?",
                tokenizer.decode(batch["target"][row]),
            )
            assert pair in [(item["question"], item["answer"]) for item in record["questions"]]
            assert batch["text"][row][0] == tokenizer.cls_id
            length = batch["text_mask"][row].sum()
            assert batch["text"][row][length - 1] == tokenizer.sep_id
            assert (batch["text"][row][length:] == tokenizer.pad_id).all()


def test_captions_questions_frames_and_crops_vary(corpus, stream, tokenizer):
    batches = train(corpus, {"v": stream(batch_size=24)}, tokenizer, 12)
    seen = {}
    for batch in batches:
        for row, index in enumerate(batch["v"]["pair_id"]):
            seen.setdefault(int(index), []).append(
                {k: v[row].tobytes() for k, v in batch["v"].items()}
            )
    assert len(seen) == 24
    for key, least in (("text", 2.5), ("prompt", 3), ("video", 11)):
        assert np.mean([len({row[key] for row in rows}) for rows in seen.values()]) > least


def test_each_epoch_has_every_record_once_in_another_order(corpus, stream, tokenizer):
    batches = train(corpus, {"v": stream(frames=0)}, tokenizer, 12)
    order = np.concatenate([batch["v"]["pair_id"] for batch in batches]).reshape(4, 24)
    assert all(sorted(epoch) == list(range(24)) for epoch in order.tolist())
    assert len({tuple(epoch) for epoch in order.tolist()}) == 4


def test_unshuffled_records_come_as_they_were_written(corpus, stream, tokenizer):
    batches = train(corpus, {"v": stream(frames=0, shuffle=False)}, tokenizer, 12)
    order = np.concatenate([batch["v"]["pair_id"] for batch in batches]).reshape(4, 24)
    assert order.tolist() == [list(range(24))] * 4


def test_seed_and_step_decide_everything(corpus, streams, tokenizer):
    straight = train(corpus, streams, tokenizer, 6)
    assert_same(train(corpus, streams, tokenizer, 6), straight)
    assert_same(train(corpus, streams, tokenizer, 6, threads=0), straight)
    assert_same(train(corpus, streams, tokenizer, 6, threads=4), straight)
    assert_same(train(corpus, streams, tokenizer, 3, start=after(streams, 3)), straight[3:])
    other = train(corpus, streams, tokenizer, 6, seed=1)
    for key in streams:
        assert any(
            (a[key]["text"] != b[key]["text"]).any() for a, b in zip(straight, other, strict=True)
        )


def test_resuming_far_along_costs_nothing_and_is_the_same(corpus, streams, tokenizer):
    far = train(corpus, streams, tokenizer, 2, start=after(streams, 10**6))
    assert_same(train(corpus, streams, tokenizer, 1, start=after(streams, 10**6 + 1)), far[1:])


def test_a_stream_does_not_depend_on_the_others(corpus, streams, tokenizer):
    together = train(corpus, streams, tokenizer, 2)
    alone = train(corpus, {"image": streams["image"]}, tokenizer, 2)
    assert_same([batch["image"] for batch in together], [batch["image"] for batch in alone])
    twins = train(corpus, {"a": streams["text"], "b": streams["text"]}, tokenizer, 1)[0]
    assert (twins["a"]["pair_id"] != twins["b"]["pair_id"]).any()


@pytest.mark.parametrize("processes", [2, 4])
def test_slices_of_all_processes_are_the_global_batch(corpus, streams, tokenizer, processes):
    whole = train(corpus, streams, tokenizer, 3)
    slices = [
        train(corpus, streams, tokenizer, 3, process_index=index, process_count=processes)
        for index in range(processes)
    ]
    for step in range(3):
        joined = {
            name: {
                key: np.concatenate([part[step][name][key] for part in slices])
                for key in whole[step][name]
            }
            for name in streams
        }
        assert_same(joined, whole[step])


def test_bad_records_are_replaced_counted_and_named(write_records, stream, tokenizer, caplog):
    clip = moving_digits.make_record("video", "train", 0, 0)["media"].item()
    wordless = [{"question": "?!", "answer": "left", "type": "motion"}]
    bad = {
        "cut_90": ("undecodable media", good("cut_90", media=clip[: len(clip) // 2])),
        "junk_91": ("undecodable media", good("junk_91", media=b"junk")),
        "mute_92": ("empty caption", good("mute_92", texts=["", " ?!"])),
        "bare_93": ("empty caption", good("bare_93", texts=[])),
        "asks_94": ("no question", good("asks_94", questions=wordless)),
    }
    every = [good(f"good_{number}") for number in range(11)] + [
        record for _, record in bad.values()
    ]
    root = write_records({"train": every})
    streams = {"v": stream(split="train", text_length=24)}
    skips = SkipLog()
    with caplog.at_level(logging.WARNING):
        batches = train(root, streams, tokenizer, 6, skips=skips, threads=0)
    for batch in batches:
        assert batch["v"]["video"].shape == (8, 3, 32, 32, 3)
        assert batch["v"]["example_mask"].all()
        assert batch["v"]["pair_id"].max() < 11
    assert skips.records["train"].keys() == bad.keys()
    for name, (reason, _) in bad.items():
        assert reason in skips.records["train"][name]
    # Three epochs: each bad record came up three times, and more if it was drawn as a substitute.
    assert skips.counts["train", "undecodable media"] >= 6
    assert skips.counts["train", "empty caption"] >= 6
    assert skips.counts["train", "no question"] >= 3
    assert skips.total() == sum(skips.counts.values())
    assert len(caplog.records) == 5
    assert all("\n" not in record.message for record in caplog.records)
    assert sum("'cut_90'" in record.message for record in caplog.records) == 1
    # What is bad for one stream is good for another that does not need it.
    assert_same(train(root, streams, tokenizer, 6), batches)
    quiet = SkipLog()
    train(
        root,
        {"v": stream(split="train", text_length=0, target_length=0)},
        tokenizer,
        2,
        skips=quiet,
        threads=0,
    )
    assert set(quiet.records["train"]) == {"cut_90", "junk_91"}


def test_substitutes_leave_all_other_rows_alone(write_records, stream, tokenizer, tmp_path):
    sound = [good(f"good_{number}") for number in range(8)]
    broken = [*sound[:3], good("good_3", media=b"junk"), *sound[4:]]
    root = write_records({"sound": sound, "broken": broken})
    one = train(root, {"v": stream(split="sound")}, tokenizer, 4)
    other = train(root, {"v": stream(split="broken")}, tokenizer, 4)
    replaced = 0
    for a, b in zip(one, other, strict=True):
        same = a["v"]["pair_id"] != 3
        replaced += (~same).sum()
        assert_same(
            {k: v[same] for k, v in a["v"].items()}, {k: v[same] for k, v in b["v"].items()}
        )
        assert (b["v"]["pair_id"] != 3).all()
    assert replaced == 4


@pytest.mark.parametrize("threads", [0, 2])
def test_a_split_of_bad_records_is_an_error_not_a_loop(write_records, stream, tokenizer, threads):
    root = write_records({"train": [good(f"bad_{n}", media=b"junk") for n in range(4)]})
    with pytest.raises(DataError, match="in a row of split 'train'.*undecodable media"):
        train(root, {"v": stream(split="train")}, tokenizer, 1, threads=threads)


def test_damaged_bytes_on_disk_are_skipped(corpus, stream, tokenizer, monkeypatch):
    original, damaged = records.parse, open_split(corpus, "video_train")[5]["id"].encode()
    monkeypatch.setattr(
        records, "parse", lambda raw: original(raw[:-20] if damaged in raw else raw)
    )
    skips = SkipLog()
    batches = train(corpus, {"v": stream()}, tokenizer, 3, skips=skips, threads=0)
    assert skips.counts["video_train", "damaged record"] >= 1
    assert 5 not in np.concatenate([batch["v"]["pair_id"] for batch in batches])


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("limit", [0, 5])
def test_evaluation_gives_each_example_once(corpus, stream, tokenizer, processes, limit):
    source = open_split(corpus, "video_test")
    total = limit or len(source)
    parts = [
        list(
            eval_batches(
                corpus, stream(split="video_test"), tokenizer, index, processes, limit=limit
            )
        )
        for index in range(processes)
    ]
    assert {len(batches) for batches in parts} == {-(-total // 8)}
    rows = [
        {key: value[row] for key, value in part[number].items()}
        for number in range(len(parts[0]))
        for part in parts
        for row in range(8 // processes)
    ]
    assert len(rows) == len(parts[0]) * 8
    for number, row in enumerate(rows):
        if number >= total:
            assert not row["example_mask"] and row["index"] == row["pair_id"] == -1
            assert not row["text_mask"].any() and not row["video"].any()
            continue
        record = source[number]
        assert row["example_mask"] and row["index"] == row["pair_id"] == number and row["item"] == 0
        np.testing.assert_array_equal(row["video"], resize(decode_video(record["media"], 3), 32))
        assert tokenizer.decode(row["text"]) == record["texts"][0]
        assert tokenizer.decode(row["target"]) == record["questions"][0]["answer"]


def test_evaluation_of_images(corpus, stream, tokenizer):
    images = stream(split="image_test", frames=1)
    (first, _) = eval_batches(corpus, images, tokenizer)
    expected = resize(decode_image(open_split(corpus, "image_test")[3]["media"])[None], 32)
    np.testing.assert_array_equal(first["video"][3], expected)


@pytest.mark.parametrize(
    ("expand", "key", "field"), [("text", "texts", "text"), ("question", "questions", "prompt")]
)
def test_evaluation_expands_captions_and_questions(corpus, stream, tokenizer, expand, key, field):
    source = open_split(corpus, "video_test")
    expected = []
    for index in range(len(source)):
        for item, entry in enumerate(annotation(source, index)[key]):
            text = entry if expand == "text" else entry["question"].rstrip("?")
            expected.append((index, item, text))
    found = []
    for batch in eval_batches(corpus, stream(split="video_test", expand=expand), tokenizer):
        for row in np.flatnonzero(batch["example_mask"]):
            index, item = int(batch["index"][row]), int(batch["item"][row])
            found.append((index, item, tokenizer.decode(batch[field][row])))
            clip = resize(decode_video(source[index]["media"], 3), 32)
            np.testing.assert_array_equal(batch["video"][row], clip)
    assert found == expected


def test_evaluation_masks_what_it_cannot_read(write_records, stream, tokenizer):
    every = [good(f"good_{number}") for number in range(6)]
    every[2] = good("junk_2", media=b"junk")
    every[4] = good("mute_4", texts=["a red one moves left", ""])
    root = write_records({"test": every})
    skips = SkipLog()
    (batch,) = eval_batches(root, stream(split="test"), tokenizer, skips=skips)
    assert batch["index"].tolist() == [0, 1, 2, 3, 4, 5, -1, -1]
    assert batch["example_mask"].tolist() == [True, True, False, True, True, True, False, False]
    assert skips.records == {"test": {"junk_2": skips.records["test"]["junk_2"]}}
    expanded = list(
        eval_batches(
            root, stream(split="test", expand="text", frames=0, target_length=0), tokenizer
        )
    )
    index, item, mask = (
        np.concatenate([b[k] for b in expanded]) for k in ("index", "item", "example_mask")
    )
    assert (~mask & (index >= 0)).sum() == 1
    assert (index[~mask][0], item[~mask][0]) == (4, 1)


def test_annotation_is_what_the_record_says_without_media(corpus):
    source = open_split(corpus, "video_test")
    found = annotation(source, 3)
    said = {"id", "kind", "texts", "questions", "boxes", "label", "group", "start", "end"}
    assert found.keys() == said
    assert found["id"] == "video_test_000003" and len(found["texts"]) == 3
    assert all(0 <= value <= 1 for box in found["boxes"] for value in box["box"])


def test_missing_data_says_how_to_get_it(tmp_path, corpus, stream, tokenizer):
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(
            DataError, match="python -m data.prepare moving_digits --out="
        ) as caught:
            open_split(root, "video_train")
        assert "\n" not in str(caught.value)
    with pytest.raises(
        DataError, match="no split 'video_trian'.*video_test, video_train, video_validation"
    ):
        open_split(corpus, "video_trian")
    with pytest.raises(DataError, match="no split 'nope'"):
        next(train_batches(corpus, {"v": stream(split="nope")}, tokenizer, 0))
    assert len(open_split(corpus / "moving_digits" / "1.1.0", "video_test")) == 12


def test_several_datasets_in_a_folder_must_be_told_apart(write_records, corpus):
    root = write_records({"train": [good("good_0")]})
    (root / "moving_digits").symlink_to(corpus / "moving_digits")
    with pytest.raises(DataError, match="several datasets"):
        open_split(root, "train")
    assert len(open_split(root / "hand_made", "train")) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 6}, "stream 'v': batch_size=6 is not a multiple of 4"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"frames": 0, "text_length": 0, "target_length": 0}, "all 0"),
        ({"frames": -1}, "frames=-1"),
        ({"image_size": 0}, "image_size=0"),
        ({"text_length": 2}, "text_length=2"),
        ({"prompt_length": 0}, "prompt_length=0"),
        ({"crop_area": (0.0, 1.0)}, "crop_area"),
        ({"crop_area": (0.9, 0.5)}, "crop_area"),
        ({"expand": "words"}, "expand='words'"),
        ({"split": "text_train"}, "has no media, set frames=0"),
        ({"split": "image_train"}, "has images, set frames=1"),
    ],
)
def test_impossible_streams_are_refused_in_one_line(corpus, stream, tokenizer, changes, message):
    with pytest.raises(DataError) as caught:
        train_batches(corpus, {"v": stream(**changes)}, tokenizer, 0, process_count=4)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_key_is_refused_in_one_line(corpus, stream, tokenizer):
    for make in (
        lambda key: train_batches(corpus, {"v": stream(**{key: (4,)})}, tokenizer, 0),
        lambda key: eval_batches(corpus, stream(**{key: (4,)}), tokenizer),
    ):
        for key in ("frame", "text_buckets"):
            with pytest.raises(ConfigError, match=rf"^stream\.{key}: unknown key; known: .*$"):
                make(key)


def test_captions_needed_to_expand(write_records, stream, tokenizer):
    root = write_records({"test": [good("good_0", questions=[])]})
    with pytest.raises(DataError, match="no questions: use expand='record'"):
        eval_batches(root, stream(split="test", expand="question"), tokenizer)


def test_media_bytes_survive_storage(write_records):
    media = b"\x00\x01end in zeros\x00\x00\x00"
    made = records.record(
        "x", "image", media, ["Ünï"], [], [{"phrase": "p", "box": [0.25, 0, 1, 0.5]}]
    )
    source = open_split(write_records({"train": [made]}), "train")
    assert source[0]["media"] == media
    assert source[0]["texts"] == ["Ünï"]
    assert source[0]["boxes"] == [{"phrase": "p", "box": [0.25, 0.0, 1.0, 0.5], "id": ""}]
    with pytest.raises(ValueError, match="unknown kind 'sound'"):
        records.record("x", "sound")
