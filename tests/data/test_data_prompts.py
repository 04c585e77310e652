"""What a decoder is asked: questions, captions, boxes, instructions; one by one and mixed."""

import numpy as np
import pytest
from raw_images import image

from configs import common
from data import records
from data.pipeline import SkipLog, eval_batches, references, resolve, train_batches
from data.pipeline.sources import find_version
from mplug2_jax.contracts.errors import ConfigError, DataError
from mplug2_jax.contracts.options import read
from mplug2_jax.contracts.streams import Stream, batch_shapes

QUESTIONS = [{"question": "what colour is it?", "answer": "red", "answers": ["red", "red", "blue"]},
             {"question": "?", "answer": "no"}, {"question": "which digit?", "answer": ""}]
BOXES = [{"phrase": "the red three", "box": [0.25, 0.5, 0.75, 1.0]},
         {"phrase": "?!", "box": [0, 0, 1, 1]}]
LENGTHS = dict(frames=1, image_size=32, prompt_length=12, target_length=8)


@pytest.fixture
def written(write_records):
    """Twelve records with all there is, and one that has neither words nor boxes."""
    made = [records.record(f"r{n}", "image", image(n), ["a red three", "?!"], QUESTIONS, BOXES)
            for n in range(12)]
    bare = [{"question": "!", "answer": "red"}]
    made.append(records.record("bare", "image", image(0), ["!"], bare, BOXES[1:]))
    return write_records({"train": made})


def said(batch, name, tokenizer):
    """The texts of a field, and whether its mask ends with its last token."""
    ids, mask = batch[name], batch[f"{name}_mask"]
    assert ((ids != tokenizer.pad_id) == mask).all()
    return [tokenizer.decode(row) for row in ids]


def test_tags_of_an_image_follow_its_question_after_separators(write_records, tokenizer):
    """As the release joins them: the question as it is, what was read cleaned, then the objects."""
    asked = {"question": "which digit?", "answer": "red", "ocr": "Red! " * 40,
             "objects": "three five"}
    root = write_records({"train": [
        records.record("r0", "image", image(0), [], [asked]),
        records.record("r1", "image", image(1), [], [asked | {"ocr": "?!", "objects": ""}])]})
    lengths = LENGTHS | dict(prompt_length=60)

    def ids(*parts: str) -> list[int]:
        joined = []
        for part in parts:
            joined += [*tokenizer.encode(part), tokenizer.sep_id]
        return [tokenizer.cls_id, *joined]

    question, read = "which digit?", " ".join(["red"] * 30)
    for tags, wanted in (
        ("", [(question.removesuffix("?"),)] * 2),
        ("ocr", [(question, read), (question,)]),
        ("objects", [(question, "three five"), (question,)]),
        ("ocr+objects", [(question, read, "three five"), (question,)]),
    ):
        stream = common.stream("train", 2, tags=tags, **lengths)
        (tested,) = list(eval_batches(root, stream, tokenizer))
        trained = next(train_batches(root, {"s": stream}, tokenizer, 0, threads=0))["s"]
        for batch, rows in ((tested, (0, 1)), (trained, trained["pair_id"])):
            for row, number in enumerate(rows):
                found = batch["prompt"][row][batch["prompt_mask"][row]]
                assert found.tolist() == ids(*wanted[number])


@pytest.mark.parametrize(("ask", "prompt", "targets"), [
    ("question", "see the image what colour is it", {"red", "blue"}),
    ("caption", "see the image", {"a red three"}),
    ("box", "see the image the red three", {""}),
])
def test_what_is_asked_in_training(written, tokenizer, ask, prompt, targets):
    stream = common.stream("train", 64, ask=ask, instruction="see the image", **LENGTHS)
    skips = SkipLog(1.0)
    batch = next(train_batches(written, {"s": stream}, tokenizer, 0, skips=skips))["s"]
    assert set(said(batch, "prompt", tokenizer)) == {prompt}
    assert set(said(batch, "target", tokenizer)) == targets
    assert ("box" in batch) == (ask == "box")
    reason = {"question": "no question", "caption": "empty caption", "box": "no box"}[ask]
    assert skips.counts["train", reason] >= 1  # the bare record, counted
    if ask == "question":  # of three people two said red
        red = [text == "red" for text in said(batch, "target", tokenizer)]
        assert 0.45 < np.mean(red) < 0.85


def test_a_caption_that_is_the_text_needs_no_target(written, tokenizer):
    """As captioning with an instruction reads it: in training and evaluation alike."""
    stream = common.stream("train", 16, ask="caption", instruction="see the image",
                           text_length=8, prompt_length=8)
    skips = SkipLog(1.0)
    batch = next(train_batches(written, {"s": stream}, tokenizer, 0, skips=skips))["s"]
    stream.expand = "record"
    held_out = next(iter(eval_batches(written, stream, tokenizer, skips=skips)))
    for part in (batch, held_out):
        rows = {key: value[part["example_mask"]] for key, value in part.items()}
        assert set(said(rows, "prompt", tokenizer)) == {"see the image"}
        assert set(said(rows, "text", tokenizer)) == {"a red three"}
        assert "target" not in part
    assert set(skips.counts) == {("train", "empty caption")}  # the bare record


def test_what_is_asked_in_evaluation(written, tokenizer):
    skips, found = SkipLog(), {}
    for ask, expand in (("question", "question"), ("caption", "record"), ("box", "box")):
        stream = common.stream("train", 64, ask=ask, instruction="", **LENGTHS)
        stream.expand = expand
        (found[ask],) = eval_batches(written, stream, tokenizer, skips=skips)
    usable = found["question"]["example_mask"]
    assert usable[:37].tolist() == [True, False, True] * 12 + [False]
    asked = said(found["question"], "prompt", tokenizer)
    assert asked[0] == "what colour is it" and asked[2] == "which digit"
    assert found["caption"]["example_mask"][:13].all()  # nothing of the caption is read
    assert set(said(found["caption"], "prompt", tokenizer)) == {""}
    np.testing.assert_array_equal(found["box"]["box"][0], np.float32([0.25, 0.5, 0.75, 1.0]))
    assert found["box"]["example_mask"][:2].tolist() == [True, False]
    assert skips.counts["train", "no box"] == 13 and skips.counts["train", "no question"] == 13


def test_sources_of_one_stream_ask_differently(written, corpus, tokenizer):
    sources = {
        "captions": common.source("image_train", 2, root=str(corpus), ask="caption",
                                  instruction="what is this image showing"),
        "boxes": common.source("train", 1, ask="box", instruction="where is"),
        "questions": common.source("train", 1, instruction="the image"),
    }
    stream = common.stream(sources, 200, **LENGTHS)
    batch = next(train_batches(written, {"s": stream}, tokenizer, 0, skips=SkipLog(1.0)))["s"]
    prompts = said(batch, "prompt", tokenizer)
    kinds = {"captions": "what is this image showing", "boxes": "where is the red three",
             "questions": "the image what colour is it"}
    rows = {name: np.array([text == prompt for text in prompts]) for name, prompt in kinds.items()}
    assert sum(rows.values()).tolist() == [1] * 200
    assert 80 < rows["captions"].sum() < 120 and 35 < rows["boxes"].sum() < 65
    assert (batch["box"][rows["boxes"]] == np.float32([0.25, 0.5, 0.75, 1])).all()
    assert not batch["box"][~rows["boxes"]].any()
    targets = np.array(said(batch, "target", tokenizer))
    assert set(targets[rows["questions"]]) == {"red", "blue"}
    assert not any(targets[rows["boxes"]]) and all(targets[rows["captions"]])


def test_a_stream_may_have_a_folder_of_its_own(written, corpus, tokenizer):
    stream = common.stream("train", 4, root=str(written), **LENGTHS)
    batch = next(train_batches(corpus, {"s": stream}, tokenizer, 0, skips=SkipLog(1.0)))["s"]
    assert set(said(batch, "prompt", tokenizer)) == {"what colour is it"}
    stream.expand = "question"
    rows = sum(b["example_mask"].sum() for b in eval_batches(corpus, stream, tokenizer))
    assert rows == 24


def test_references_stand_at_their_pair_ids(written, corpus, tokenizer):
    sources = {"b": common.source("train", 1), "a": common.source("image_train", 1,
                                                                  root=str(corpus))}
    stream = common.stream(sources, 64, ask="caption", **LENGTHS)
    texts = list(references(written, {"s": stream})["s"])
    assert len(texts) == 24 + 13 and texts[-1] == ["!"]
    batch = next(train_batches(written, {"s": stream}, tokenizer, 0, skips=SkipLog(1.0)))["s"]
    for row, text in zip(batch["pair_id"], said(batch, "target", tokenizer), strict=True):
        assert any(one.startswith(text) for one in texts[row])


def test_unequal_fields_cannot_come_about():
    stream = resolve(common.stream(
        {"a": common.source("x", 1, ask="box"), "b": common.source("y", 1)}, 8, **LENGTHS))
    assert stream.boxes
    assert not resolve(common.stream("x", 8, **LENGTHS)).boxes


@pytest.fixture
def classes(write_records):
    """Images and sentences with classes, and a record of each that has none."""
    kinds = {"image": [records.record(f"i{n}", "image", image(n), ["never said"],
                                      label=("ice_cream", "")[n // 5]) for n in range(6)],
             "sentence": [records.record(f"s{n}", "text", texts=["Red is a colour!"],
                                         label="not_true") for n in range(4)],
             "pair": [records.record(f"p{n}", "text", texts=["Is it red?", "it is."],
                                     label="true") for n in range(4)],
             "numbered": [records.record("n", "image", image(0), label="n01440764")]}
    return write_records(kinds)


def test_classes_are_asked_by_the_instruction_and_of_sentences_by_these(classes, tokenizer):
    """Sentences as they are; what is said of an image would give its class away."""
    skips = SkipLog(1.0)
    asked = {"image": ("see the image", "ice cream"),
             "sentence": ("see the image Red is a colour!", "not true"),
             "pair": ("see the image Is it red?", "true")}
    for split, (prompt, target) in asked.items():
        stream = common.stream(split, 8, ask="class", instruction="see the image", **LENGTHS | (
            {} if split == "image" else dict(frames=0)))
        batch = next(train_batches(classes, {"s": stream}, tokenizer, 0, skips=skips))["s"]
        if split == "pair":
            ids, mask = tokenizer.encode_pair(prompt, "it is.", LENGTHS["prompt_length"])
        else:
            ids, mask = tokenizer.encode_padded(prompt, LENGTHS["prompt_length"])
        assert (batch["prompt"] == ids).all() and (batch["prompt_mask"] == mask).all()
        assert set(said(batch, "target", tokenizer)) == {
            tokenizer.decode(tokenizer.encode_padded(target, 8)[0])}
        stream.expand = "record"
        held_out = next(iter(eval_batches(classes, stream, tokenizer, skips=skips)))
        assert (held_out["prompt"][:4] == ids).all()
        assert said(held_out, "target", tokenizer)[5:6] in ([""], [])  # a hidden class
    assert set(skips.counts) == {("image", "no class")}


def test_classes_that_are_numbers_are_said_in_the_dataset_s_words(classes, tokenizer):
    stream = common.stream("numbered", 2, ask="class", **LENGTHS)

    def batch():
        return next(train_batches(classes, {"s": stream}, tokenizer, 0, skips=SkipLog(1.0)))["s"]

    with pytest.raises(DataError, match="'n01440764' has no words in the dataset's label_words.tx"):
        batch()
    words = find_version(classes) / "label_words.txt"
    words.write_text("n01440764 red, a colour\n\nn01443537 blue\n")
    assert set(said(batch(), "target", tokenizer)) == {"red"}
    words.write_text("n01440764\n")
    with pytest.raises(DataError, match="label_words.txt, line 1: 'n01440764' is no label with"):
        batch()


def test_training_draws_a_wording_and_evaluation_takes_the_first(written, tokenizer):
    wordings = ("see the image", "what is it", "")
    stream = common.stream("train", 96, ask="caption", instruction=wordings, **LENGTHS)
    batch = next(train_batches(written, {"s": stream}, tokenizer, 0, skips=SkipLog(1.0)))["s"]
    drawn = said(batch, "prompt", tokenizer)
    assert all(20 < drawn.count(wording) < 44 for wording in wordings)
    again = next(train_batches(written, {"s": stream}, tokenizer, 0, skips=SkipLog(1.0)))["s"]
    assert said(again, "prompt", tokenizer) == drawn  # of the position, not of the run
    # One wording takes no draw: the captions are those of a stream with a text for it.
    alone, one = (next(train_batches(written, {"s": common.stream(
        "train", 32, ask="caption", instruction=instruction, **LENGTHS)}, tokenizer, 0,
        skips=SkipLog(1.0)))["s"] for instruction in ("what is it", ("what is it",)))
    assert all((alone[name] == one[name]).all() for name in alone)
    stream.ask, stream.expand = "question", "question"
    held_out = next(iter(eval_batches(written, stream, tokenizer, skips=SkipLog(1.0))))
    assert said(held_out, "prompt", tokenizer)[0] == "see the image what colour is it"
    for wrong in ((), (1, "a"), ("a", None)):
        with pytest.raises(ConfigError, match=r"stream.instruction = .*: expected a text, or seve"):
            common.stream("train", 8, instruction=wrong)
        with pytest.raises(ConfigError, match=r"source.instruction = .*: expected a text, or seve"):
            common.source("train", 1, instruction=wrong)


def test_several_questions_of_a_medium_are_asked_at_once(write_records, tokenizer):
    """Different ones that can be used, with their answers; where there are fewer, padding."""
    asked = [{"question": f"which digit is {colour}?", "answer": digit} for colour, digit in
             (("red", "one"), ("blue", "two"), ("green", "three"), ("white", "four"))]
    root = write_records({"train": [
        records.record("many", "image", image(0), [], [*asked, {"question": "?", "answer": "no"}]),
        records.record("two", "image", image(1), [], asked[:2])]})
    stream = common.stream("train", 2, questions=3, **LENGTHS)
    pairs = {(one["question"].removesuffix("?"), one["answer"]) for one in asked}
    drawn = set()
    for _, batch in zip(range(12), train_batches(root, {"s": stream}, tokenizer, 0, threads=0),
                        strict=False):
        batch = batch["s"]
        shapes = {name: (one.shape, one.dtype)
                  for name, one in batch_shapes(read(Stream, dict(stream), "s")).items()}
        assert shapes == {name: (one.shape, one.dtype) for name, one in batch.items()}
        for row, number in enumerate(batch["pair_id"]):
            one = {name: values[row] for name, values in batch.items()}
            found = list(zip(*(said(one, name, tokenizer) for name in ("prompt", "target")),
                             strict=True))
            real = [pair for pair in found if any(pair)]
            assert set(real) <= pairs and len(set(real)) == len(real) == (2 if number else 3)
            assert one["target_mask"].any(axis=1).sum() == len(real)
            drawn |= set() if number else set(real)
    assert drawn == pairs


@pytest.mark.parametrize(("changes", "message"), [
    (dict(questions=0), "questions=0 must be 1 or more"),
    (dict(questions=2, ask="caption"), "needs ask='question' and a target_length"),
    (dict(questions=2, epoch_unit="items"), "set data.epoch_over='media', or questions=1"),
])
def test_several_questions_that_cannot_be_are_named(written, tokenizer, changes, message):
    with pytest.raises(DataError, match=message):
        next(train_batches(written, {"s": common.stream("train", 2, **LENGTHS, **changes)},
                           tokenizer, 0, threads=0))
