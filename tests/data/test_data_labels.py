"""Classes, scores, boxes, sentence pairs, several images and views: from records to batches."""

import io

import ml_collections
import numpy as np
import pytest
from PIL import Image
from raw_media import clip, image
from raw_miniatures import MINIATURES

from configs import common
from data import media, records
from data.datasets import DATASETS
from data.pipeline import SkipLog, eval_batches, train_batches
from data.pipeline.labels import box_field
from data.prepare import prepare
from mplug2_jax.contracts.errors import ConfigError, DataError, MediaError, RecordError
from mplug2_jax.preprocess.classes import class_names, count_outputs
from mplug2_jax.preprocess.image import decode_image, resize
from mplug2_jax.preprocess.video import decode_video

SIDE = 16


def make_stream(split, **changes) -> ml_collections.ConfigDict:
    expand = changes.pop("expand", "record")
    stream = common.stream(split, 4, **dict(image_size=SIDE) | changes)
    stream.expand = expand
    return stream


def evaluated(root, stream, tokenizer, skips=None) -> dict:
    """The one batch of a split."""
    (batch,) = list(eval_batches(root, stream, tokenizer, skips=skips))
    return batch


def trained(root, stream, tokenizer, steps=1) -> dict:
    """Fields of some training batches, one after the other."""
    batches = train_batches(root, {"s": stream}, tokenizer, seed=0, threads=0)
    made = [next(batches)["s"] for _ in range(steps)]
    return {key: np.concatenate([batch[key] for batch in made]) for key in made[0]}


def prepared(name, tmp_path) -> tuple:
    """A miniature raw dataset, written: its folder, and the records by split."""
    expected = MINIATURES[name](tmp_path / "raw")
    prepare(DATASETS[name], tmp_path / "raw", tmp_path / "out")
    return tmp_path / "out", expected


@pytest.mark.parametrize(("name", "frames"), [("kinetics400", 2), ("ssv2", 2)])
def test_action_classes_of_raw_datasets(name, frames, tmp_path, tokenizer):
    root, expected = prepared(name, tmp_path)
    labels = [record["label"] for record in expected["train"]]
    classes = ("something else", *sorted({label for label in labels if label}))
    stream = make_stream("train", frames=frames, classes=classes)
    batch = evaluated(root, stream, tokenizer)
    assert batch["label"].dtype == np.int32
    assert batch["label"].tolist() == [
        *(classes.index(label) if label else -1 for label in labels), *[-1] * (4 - len(labels))
    ]
    batch = trained(root, stream, tokenizer, 3)
    assert batch["label"].tolist() == [classes.index(labels[n]) for n in batch["pair_id"]]
    file = tmp_path / "classes.txt"
    file.write_text("\n".join(classes) + "\n")
    again = trained(root, make_stream("train", frames=frames, classes=str(file)), tokenizer, 3)
    np.testing.assert_array_equal(again["label"], batch["label"])


def test_hidden_and_unknown_labels(write_records, tokenizer):
    def sentence(number, label):
        return records.record(str(number), "text", texts=["a red three."], label=label)

    root = write_records({"train": [sentence(n, label) for n, label in enumerate("ab?")],
                          "test": [sentence(3, "")]})
    stream = make_stream("train", text_length=8, classes=("b", "a"))
    skips = SkipLog()
    batch = evaluated(root, stream, tokenizer, skips)
    assert batch["label"].tolist() == [1, 0, -1, -1]
    assert batch["example_mask"].tolist() == [True, True, False, False]
    assert skips.records["train"] == {"2": "unknown class: '?' is none of the 2"}
    assert set(trained(root, stream, tokenizer, 4)["pair_id"]) == {0, 1}  # others in its place
    test = make_stream("test", text_length=8, classes=("b", "a"))
    hidden = evaluated(root, test, tokenizer)
    assert hidden["label"][0] == -1 and hidden["example_mask"][0]
    with pytest.raises(DataError, match="no label: there is none to train on"):
        trained(root, test, tokenizer)


def test_scores(write_records, tokenizer):
    made = [records.record(str(n), "text", texts=["one", "two"], label=label)
            for n, label in enumerate(("3.75", "", "nan", "x"))]
    root = write_records({"train": made})
    stream = make_stream("train", text_length=8, text_pair=True, classes="score")
    skips = SkipLog()
    batch = evaluated(root, stream, tokenizer, skips)
    assert batch["label"].dtype == np.float32
    np.testing.assert_array_equal(batch["label"], [3.75, np.nan, np.nan, np.nan])
    assert batch["example_mask"].tolist() == [True, True, False, False]
    assert set(skips.records["train"]) == {"2", "3"}
    assert trained(root, stream, tokenizer)["label"].tolist() == [3.75] * 4


@pytest.mark.parametrize(("classes", "message"), [
    (("a",), "at least two"), (("a", "b", "a"), "name 3, 'a', is that of name 1 again"),
    ("nowhere.txt", "cannot be read as a file of names"),
])
def test_wrong_classes_are_said(classes, message):
    with pytest.raises(ConfigError, match=message):
        class_names(classes)


def test_outputs_of_classes():
    assert count_outputs("score") == 1 and count_outputs(("a", "b", "c")) == 3


def test_sentence_pairs_keep_their_punctuation(write_records, tokenizer):
    pair = ["a red three moves left.", "it's two"]
    root = write_records({"train": [records.record("0", "text", texts=pair, label="a"),
                                    records.record("1", "text", texts=pair[:1], label="a")]})
    stream = make_stream("train", text_length=40, text_pair=True, classes=("a", "b"))
    skips = SkipLog()
    batch = evaluated(root, stream, tokenizer, skips)
    ids = [tokenizer.cls_id, *tokenizer.encode(pair[0]), tokenizer.sep_id,
           *tokenizer.encode(pair[1]), tokenizer.sep_id]
    assert batch["text"][0][batch["text_mask"][0]].tolist() == ids
    assert tokenizer.encode(pair[0]) != tokenizer.encode(pair[0].removesuffix("."))
    assert (batch["text"][0][len(ids):] == tokenizer.pad_id).all()
    assert skips.records["train"] == {"1": "no pair: 1 texts, and two with words are needed"}
    assert set(trained(root, stream, tokenizer, 3)["pair_id"]) == {0}


def test_servers_want_a_row_for_empty_sentences_and_images_without_captions(write_records,
                                                                            tokenizer):
    root = write_records({
        "test": [records.record("0", "text", texts=["", "a red three"]),
                 records.record("1", "text", texts=["a red three", ""], label="a")],
        "images": [records.record(str(number), "image", media=image(number),
                                  texts=texts)
                   for number, texts in enumerate(([], ["?!", "a red three"]))]})
    pairs = make_stream("test", text_length=40, text_pair=True, classes=("a", "b"))
    batch = evaluated(root, pairs, tokenizer)
    assert batch["example_mask"].tolist()[:2] == [True, True]
    assert batch["label"].tolist()[:2] == [-1, 0]
    words = len(tokenizer.encode("a red three"))
    assert batch["text_mask"][:2].sum(axis=1).tolist() == [3 + words] * 2
    with pytest.raises(DataError):  # nothing to learn from
        trained(root, pairs, tokenizer, 2)
    captioned = make_stream("images", frames=1, text_length=9)
    skips = SkipLog()
    masks = []
    for captioned.text_optional in (True, False):
        masks += evaluated(root, captioned, tokenizer, skips)["example_mask"].tolist()[:2]
    assert masks == [True, True, False, False] and skips.total() == 2


def test_long_pairs_lose_the_longer_sentences_end(tokenizer):
    one, other = "a red three", "a blue two moves up and a green nine grows"
    short, long = tokenizer.encode(one), tokenizer.encode(other)
    for first, second in ((one, other), (other, one)):
        for length in range(2, len(short) + len(long) + 6):
            ids, mask = tokenizer.encode_pair(first, second, length)
            assert len(ids) == length and ids[0] == tokenizer.cls_id
            if length < 3:
                continue
            # By the rule of BERT: the longer loses an id, of equally long ones the second.
            a, b = tokenizer.encode(first), tokenizer.encode(second)
            while len(a) + len(b) > length - 3:
                (a if len(a) > len(b) else b).pop()
            expected = [tokenizer.cls_id, *a, tokenizer.sep_id, *b, tokenizer.sep_id]
            assert ids[mask].tolist() == expected


def test_boxes_of_refcoco(tmp_path, tokenizer):
    root, expected = prepared("refcoco", tmp_path)
    phrases = {box["phrase"]: box["box"] for box in expected["train"][0]["boxes"]}
    options = dict(frames=1, prompt_length=8, ask="box")
    batch = evaluated(root, make_stream("train", expand="box", **options), tokenizer)
    assert batch["box"].dtype == np.float32 and batch["item"].tolist() == [0, 1, -1, -1]
    for row, (phrase, box) in enumerate(phrases.items()):
        assert tokenizer.decode(batch["prompt"][row]) == phrase
        np.testing.assert_array_equal(batch["box"][row], np.float32(box))
    assert not batch["box"][2:].any()
    batch = trained(root, make_stream("train", flip=True, crop_area=(0.3, 1.0), **options),
                    tokenizer, 8)
    said = {tokenizer.decode(ids) for ids in batch["prompt"]}
    assert said == {"left", "man"}
    assert (batch["box"][:, 2:] > batch["box"][:, :2]).all()
    assert (batch["box"] >= 0).all() and (batch["box"] <= 1).all()
    assert len(np.unique(batch["box"], axis=0)) > 20


@pytest.mark.parametrize(("box", "message"), [
    ([0.2, 0.2, 1.3, 0.5], r"box outside: box \(0.2, 0.2, 1.3, 0.5\) of 'dog' is not within 0..1"),
    ([float("nan"), 0.2, 0.3, 0.5], "box outside"),
    ([0.5, 0.6, 0.7, 0.5], "empty box"),
])
def test_bad_boxes_are_counted_and_named(box, message, write_records, tokenizer):
    with pytest.raises(RecordError, match=message):
        box_field({"phrase": "dog", "box": box})
    good = {"phrase": "dog", "box": [0.0, 0.1, 0.5, 1.004]}  # hardly outside: cut off
    made = [records.record("bad", "image", image(0), boxes=[{"phrase": "dog", "box": box}]),
            records.record("good", "image", image(1), boxes=[good])]
    root = write_records({"train": made})
    stream = make_stream("train", frames=1, prompt_length=8, ask="box", expand="box")
    skips = SkipLog()
    batch = evaluated(root, stream, tokenizer, skips)
    assert batch["example_mask"].tolist() == [False, True, False, False]
    np.testing.assert_array_equal(batch["box"][1], np.float32([0, 0.1, 0.5, 1]))
    assert list(skips.records["train"]) == ["bad"]
    assert set(trained(root, stream, tokenizer, 2)["pair_id"]) == {1}


def test_answers_are_drawn_as_often_as_people_gave_them(write_records, tokenizer):
    question = {"question": "what is it?", "answer": "two",
                "answers": ["two"] * 6 + ["three"] * 3 + [" "], "id": "7"}
    root = write_records({"train": [records.record("0", "image", image(0), questions=[question])]})
    stream = make_stream("train", prompt_length=8, target_length=4)
    batch = trained(root, stream, tokenizer, 100)
    said = [tokenizer.decode(ids) for ids in batch["target"]]
    assert set(said) == {"two", "three"}
    # Of 400 draws with 2/3: 6 standard deviations to either side.
    assert abs(said.count("two") / 400 - 2 / 3) < 0.14
    stream.expand = "question"
    assert tokenizer.decode(evaluated(root, stream, tokenizer)["target"][0]) == "two"


def test_vqa_test_splits_without_answers_give_examples(tmp_path, tokenizer):
    root, _ = prepared("vqav2", tmp_path)
    options = dict(frames=1, prompt_length=12, target_length=6)
    batch = evaluated(root, make_stream("test", expand="question", **options), tokenizer)
    assert batch["example_mask"].tolist() == [True, False, False, False]
    assert tokenizer.decode(batch["prompt"][0]) == "how many"
    assert batch["target"][0].tolist()[:3] == [tokenizer.cls_id, tokenizer.sep_id,
                                               tokenizer.pad_id]
    with pytest.raises(DataError, match="no question"):
        trained(root, make_stream("test", **options), tokenizer)


def png(height: int, width: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_several_images_of_different_sizes(write_records, tokenizer):
    pair, alone = [png(20, 30, 0), png(40, 24, 1)], [png(8, 8, 2)]
    assert media.unpack_images(media.pack_images(pair)) == pair
    made = [records.record("two", "images", media.pack_images(pair), texts=["both"], label="yes"),
            records.record("one", "images", media.pack_images(alone), texts=["both"], label="no"),
            records.record("bad", "images", b"PK nothing", texts=["both"], label="no")]
    root = write_records({"train": made})
    stream = make_stream("train", frames=2, text_length=8, classes=("no", "yes"))
    skips = SkipLog()
    batch = evaluated(root, stream, tokenizer, skips)
    assert batch["video"].shape == (4, 2, SIDE, SIDE, 3)
    expected = [resize(decode_image(data)[None], SIDE)[0] for data in pair]
    np.testing.assert_array_equal(batch["video"][0], expected)
    assert skips.records["train"]["one"] == "number of images: 1 for frames=2"
    assert skips.records["train"]["bad"].startswith("undecodable media: not several images")
    batch = trained(root, make_stream("train", frames=2, text_length=8, classes=("no", "yes"),
                                      crop_area=(0.3, 1.0), flip=True), tokenizer)
    assert batch["video"].shape == (4, 2, SIDE, SIDE, 3) and (batch["label"] == 1).all()
    with pytest.raises(DataError, match="several images a record, set frames to so many"):
        trained(root, make_stream("train", frames=1, text_length=8), tokenizer)


def test_a_flipped_bit_of_packed_images_is_a_media_error_or_harmless():
    packed = media.pack_images([b"abc" * 5, b"xyz"])
    refused = 0
    for position in range(8 * len(packed)):
        damaged = bytearray(packed)
        damaged[position // 8] ^= 1 << position % 8
        try:
            media.unpack_images(bytes(damaged))
        except MediaError:
            refused += 1
    assert refused > 500  # content, names and sizes are checked; dates and the like are not


def test_views_are_clips_between_each_other_and_crops_along_the_side(write_records, tokenizer):
    data = clip(3, frames=24)  # 32 x 24 pixels
    root = write_records({"test": [records.record("0", "video", data, label="a")]})
    stream = make_stream("test", frames=2, views=(3, 2), classes=("a", "b"))
    batch = evaluated(root, stream, tokenizer)
    assert batch["video"].shape == (4, 6, 2, SIDE, SIDE, 3)
    frames = decode_video(data, 6)  # the middles of six segments
    for number in range(3):
        for crop, left in enumerate((0, 8)):
            view = frames[[number, number + 3]][:, :, left : left + 24]
            np.testing.assert_array_equal(batch["video"][0, 2 * number + crop],
                                          resize(view, SIDE))
    one = evaluated(root, make_stream("test", frames=2, classes=("a", "b")), tokenizer)
    np.testing.assert_array_equal(one["video"][0], resize(decode_video(data, 2), SIDE))


@pytest.mark.parametrize(("changes", "message"), [
    (dict(ask="box", frames=1), "ask='box' needs a prompt_length"),
    (dict(ask="boxes", frames=1), "ask='boxes' must be one of question, caption, class, box"),
    (dict(ask="box", frames=1, prompt_length=8, target_length=5),
     "target_length=5 must be at least 6 with ask='box'"),
    (dict(text_pair=True, frames=1), "text_pair needs a text_length"),
    (dict(ask="box", prompt_length=8), "ask='box' is for images with frames=1, and split"),
    (dict(frames=1, views=(0, 1)), r"views=\(0, 1\) must be"),
    (dict(frames=1, views=(2, 1)), "has no videos"),
])
def test_streams_that_fit_nothing(changes, message, write_records, tokenizer):
    root = write_records({"train": [records.record("0", "image", image(0), texts=["a"])]})
    with pytest.raises(DataError, match=message):
        evaluated(root, make_stream("train", **dict(text_length=0) | changes), tokenizer)


def test_questions_are_classified_where_a_record_has_no_class(write_records, tokenizer):
    asked = [{"question": "A red three.", "answer": "yes", "id": "1"},
             {"question": "a blue two", "answer": "no", "id": "2"},
             {"question": "...", "answer": "no", "id": "3"}]
    root = write_records({"train": [records.record("0", "image", image(0), questions=asked)]})
    stream = make_stream("train", frames=1, text_length=8, classes=("no", "yes"),
                         expand="question")
    skips = SkipLog()
    batch = evaluated(root, stream, tokenizer, skips)
    assert batch["label"].tolist() == [1, 0, -1, -1] and batch["item"].tolist() == [0, 1, 2, -1]
    assert [tokenizer.decode(ids) for ids in batch["text"][:2]] == ["a red three", "a blue two"]
    assert skips.records["train"] == {"0": "no question: question 2 has no word"}
    batch = trained(root, stream, tokenizer, 4)
    said = {(tokenizer.decode(ids), int(label))
            for ids, label in zip(batch["text"], batch["label"], strict=True)}
    assert said == {("a red three", 1), ("a blue two", 0)}
