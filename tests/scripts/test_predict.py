"""The command as a user runs it, on files, against the tasks' predictions on the same frames."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from predicting import WORDINGS, make, predict

from mplug2_jax import launch
from mplug2_jax.checkpoints.manager import write_params
from mplug2_jax.contracts.errors import MediaError
from mplug2_jax.preprocess.files import find_media, load_clip
from mplug2_jax.preprocess.text import clean_question

QUESTION, QUERY = "What is he doing?", "a red three moving left"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("predict"))


def test_captions_of_a_folder_are_the_tasks(made):
    lines, output = predict(made, "caption", made.folder / "media", "--batch_size=3",
                            f"--out={made.folder / 'out.jsonl'}")
    assert (made.folder / "out.jsonl").read_text() == "".join(
        json.dumps(line) + "\n" for line in lines)
    (error,) = [line for line in lines if "error" in line]
    assert error["file"].endswith("f.mp4") and "undecodable" in error["error"]
    assert "f.mp4" in output and "Traceback" not in output
    captions = {line["file"]: line["caption"] for line in lines if "caption" in line}
    task, expected = made.task("video_caption"), {}
    compute = jax.jit(task.predict)
    for file in made.files:
        (ids,) = compute(made.params, {"video": made.clip(file)})["ids"]
        expected[str(file)] = task.text({"ids": np.asarray(ids)})
    assert captions == expected
    assert len(set(expected.values())) > 2  # else the files could be mixed up unnoticed

    # One at a time, and none of them filling; the vocabulary and the checkpoint moved together.
    moved = made.folder / "moved"
    shutil.copytree(made.folder / "run", moved)
    shutil.copy(made.config.data.tokenizer, moved)
    Path(made.config.data.tokenizer).rename(made.folder / "away.model")
    try:
        single, _ = predict(made, "caption", *made.files[2::-1], "--batch_size=1",
                            checkpoint=moved)
    finally:
        (made.folder / "away.model").rename(made.config.data.tokenizer)
    assert [(line["file"], line["caption"]) for line in single] == [
        (str(file), expected[str(file)]) for file in made.files[2::-1]]


def test_answers_are_the_tasks(made):
    """Asked as the evaluation asks: with its instruction in front, in the first wording."""
    lines, _ = predict(made, "qa", *made.files[:2], QUESTION, devices=4)  # more than files
    task = made.task("video_qa")
    length = made.config.evals.video_qa.stream.prompt_length
    asked = clean_question(f"{WORDINGS[0]} {QUESTION}", length)
    ids, mask = task.tokenizer.encode_padded(asked, length)
    compute = jax.jit(task.predict)
    for file, line in zip(made.files[:2], lines, strict=True):
        batch = {"video": made.clip(file), "prompt": ids[None], "prompt_mask": mask[None]}
        (found,) = compute(made.params, batch)["ids"]
        assert line == {"file": str(file), "question": QUESTION,
                        "answer": task.text({"ids": np.asarray(found)})}


def test_retrieval_adds_matching_to_the_best(made):
    lines, _ = predict(made, "retrieve", QUERY, *made.files, "--batch_size=2")
    task = made.task("video_retrieval")
    ids, mask = (x[None] for x in task.tokenizer.encode_padded(QUERY, 24))
    similarity, added = {}, {}
    compute, match = jax.jit(task.predict), jax.jit(task.match)
    for file in made.files:
        row = compute(made.params, {"video": made.clip(file), "text": ids, "text_mask": mask})
        similarity[str(file)] = float(row["visual_features"][0] @ row["text_features"][0])
        added[str(file)] = float(match(made.params, row["visual"], row["text"], mask)[0])
    best = sorted(similarity, key=similarity.get, reverse=True)[:3]
    scores = {file: value + (added[file] if file in best else 0)
              for file, value in similarity.items()}
    assert [line["rank"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["file"] for line in lines] == sorted(
        scores, key=lambda file: (file in best, scores[file]), reverse=True)
    for line in lines:
        assert line["score"] == pytest.approx(scores[line["file"]], abs=1e-4)
    assert max(added.values()) - min(added.values()) > 0.01


def test_a_checkpoint_of_fewer_modules_and_sizes_alone(made):
    """Only what a task needs is asked for; without options in its config, sensible ones."""
    kept = {name: made.params[name] for name in ("vision", "text", "universal")}
    heads = {"heads": {"vtc": made.params["heads"]["vtc"]}}
    folder = made.folder / "dual"
    write_params(folder, kept | heads, {"model": launch.plain(made.config)["model"]})
    lines, output = predict(made, "retrieve", QUERY, *made.files[:2], "--frames=4",
                            f"--tokenizer={made.config.data.tokenizer}", checkpoint=folder)
    assert "not reranked" in output
    task = made.task("video_retrieval")
    ids, mask = (x[None] for x in task.tokenizer.encode_padded(QUERY, 25))
    compute = jax.jit(task.predict)
    for line in lines:
        row = compute(made.params, {
            "video": made.clip(Path(line["file"])), "text": ids, "text_mask": mask})
        assert line["score"] == pytest.approx(
            float(row["visual_features"][0] @ row["text_features"][0]), abs=1e-4)
    assert lines[0]["score"] > lines[1]["score"]


def test_exit_codes(made):
    broken = made.folder / "media" / "f.mp4"
    lines, _ = predict(made, "caption", broken, status=1)
    assert [line["file"] for line in lines] == [str(broken)] and "error" in lines[0]
    for arguments, message in (
            (("describe", broken), "command 'describe': expected caption, qa, retrieve, "),
            (("caption",), "expected at least 2 argument(s)"),
            (("caption", made.folder / "missing.mp4"), "missing.mp4: no such file or folder"),
            (("caption", broken, f"--out={broken}"), "is one of the files that are looked at"),
            (("caption", broken, f"--out={broken}/x"), "f.mp4 is no folder; make it, or give")):
        _, output = predict(made, *arguments, status=2)
        (line,) = [line for line in output.splitlines() if line.startswith("error:")]
        assert message in line and "Traceback" not in output and "loaded" not in output
    assert broken.stat().st_size  # not written over


def test_find_media(made, tmp_path):
    media = made.folder / "media"
    assert find_media([media]) == [*made.files, media / "f.mp4"]
    listed = tmp_path / "list.txt"
    listed.write_text(f"{made.files[1]}\n\n{made.files[0]}\n")
    assert find_media([listed, made.files[1]]) == [made.files[1], made.files[0]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image or video in it"):
        find_media([tmp_path / "empty"])
    assert load_clip(made.files[3], 4, 24).shape == (1, 24, 24, 3)
    with pytest.raises(MediaError, match="unreadable: No such file"):
        load_clip(tmp_path / "gone.mp4", 4, 24)
