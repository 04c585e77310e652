"""The released captioning and question answering, from video files to the score, by the commands.

The golden videos are of normalised numbers; as pixels, rounded to 0..255, they have the same golden
answers. Files hold exactly those pixels.
"""

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
from commands import seen
from forks import finished

from data.prepare.__main__ import main as prepare
from mplug2_jax.convert import official
from mplug2_jax.model.vision import PIXEL_MEAN, PIXEL_STD
from mplug2_jax.preprocess.video import decode_video

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden"
CLS, SEP = 101, 102
# One word a number, so that texts and ids tell the same; BERT's special tokens in their places.
SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
WORDS = [SPECIAL.get(number, f"w{number}") for number in range(120)]
pytestmark = pytest.mark.slow


def pixels(normalised: np.ndarray) -> np.ndarray:
    """`[B, 3, T, H, W]` normalised to uint8 `[B, T, H, W, 3]`."""
    video = np.moveaxis(normalised, 1, -1) * np.array(PIXEL_STD) + np.array(PIXEL_MEAN)
    return (video * 255).round().clip(0, 255).astype(np.uint8)


def lossless(frames: np.ndarray) -> bytes:
    """A video file that decodes to exactly these frames `[T, H, W, 3]`."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream("ffv1", rate=4)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    np.testing.assert_array_equal(decode_video(file.getvalue(), len(frames)), frames)
    return file.getvalue()


def text(ids: np.ndarray) -> str:
    """`[CLS] words [SEP] ...` as words."""
    said = [int(number) for number in ids]
    assert said[0] == CLS
    end = said.index(SEP) if SEP in said else len(said)
    return " ".join(WORDS[number] for number in said[1:end])


def run(*arguments) -> None:
    done = finished(arguments, seen(), timeout=600)
    assert done.returncode == 0, done.stderr[-5000:]


def converted(tmp_path, kind: str, dataset: str, golden, **streams) -> list[str]:
    """Prepares the raw files and converts the golden weights; the flags of the released config."""
    raw, out = tmp_path / "raw", tmp_path / "prepared"
    for number, frames in enumerate(pixels(golden["video"])):
        (raw / f"video{number}.mkv").write_bytes(lossless(frames))
    assert prepare([dataset, f"--raw={raw}", f"--out={out}", "--processes=1"]) == 0
    (out / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    facts = json.loads((GOLDEN / f"tiny_{kind}.json").read_text())
    weights = GOLDEN / f"tiny_{kind}.pth"
    model = official.config_from_release(facts["config"], facts["bert_config"],
                                         official.read_weights(weights), str(weights))
    settings = {f"model.{key}": value for key, value in vars(model).items()
                if type(value) is int}
    settings |= {"data.root": out / dataset, "data.tokenizer": out / "vocab.txt"}
    settings |= {f"data.streams.video.{key}": value for key, value in streams.items()}
    settings |= {f"evals.video_{kind}.{key}": value for key, value in {
        "task.beams": golden["beam_size"], "task.min_length": golden["min_length"],
        "task.max_length": golden["max_length"], "stream.batch_size": 4,
        "stream.frames": golden["video"].shape[2], "stream.image_size": model.image_size,
        **{f"stream.{key}": value for key, value in streams.items()}}.items()}
    flags = [f"--config=configs/msrvtt_{kind}.py:tiny",
             *(f"--config.{key}={value}" for key, value in settings.items())]
    run("-m", "mplug2_jax.convert", "official", weights, f"--out={tmp_path / 'checkpoint'}", *flags)
    return flags


def evaluated(tmp_path, *flags: str) -> tuple[dict, list]:
    """The headline figures and the records of the one evaluation."""
    report = tmp_path / "report"
    run("eval.py", f"--checkpoint={tmp_path / 'checkpoint'}", f"--out={report}", "--order=split",
        *flags)
    (file,) = report.glob("video_*.jsonl")
    return (json.loads((report / "report.json").read_text())["figures"],
            [json.loads(line) for line in file.read_text().splitlines()])


def test_captions_from_video_files_are_the_golden_ones(tmp_path):
    golden = np.load(GOLDEN / "tiny_caption.npz")
    said = [text(ids) for ids in golden["beam_ids"]]
    assert len(set(said)) == 3  # the files cannot be mixed up unnoticed
    (tmp_path / "raw").mkdir()
    videos = [{"video_id": f"video{n}", "split": "test"} for n in range(3)]
    # A person says just that of the first video, and something else of the others.
    references = [said[0], "w20 w21 w22 w23", "w24 w25 w26 w27"]
    sentences = [{"video_id": f"video{n}", "caption": reference, "sen_id": n}
                 for n, reference in enumerate(references)]
    for name, part in (("test", {"videos": videos, "sentences": sentences}),
                       ("train_val", {"videos": [], "sentences": []})):
        (tmp_path / f"raw/{name}_videodatainfo.json").write_text(json.dumps(part))
    converted(tmp_path, "caption", "msrvtt", golden, text_length=12)
    figures, records = evaluated(tmp_path)
    assert [record["prediction"] for record in records] == said
    assert [record["references"] for record in records] == [[r] for r in references]
    own = [record["scores"]["video_caption_bleu4"] for record in records]
    assert own[0] == pytest.approx(1) and own[1] < 0.01 and own[2] < 0.01
    assert records[0]["scores"]["video_caption_cider"] == pytest.approx(10)
    assert figures["video_caption_cider"]["value"] == pytest.approx(10 / 3)


def test_answers_from_video_files_are_the_golden_ones(tmp_path):
    golden = np.load(GOLDEN / "tiny_qa.npz")
    said = [text(ids) for ids in golden["beam_ids"]]
    questions = [text(ids) for ids in golden["question_ids"]]
    answers = [said[0], "w1", said[2]]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/test_qa.json").write_text(json.dumps([
        {"id": n, "video_id": n, "question": f"{question}?", "answer": answer}
        for n, (question, answer) in enumerate(zip(questions, answers, strict=True))]))
    flags = converted(tmp_path, "qa", "msrvtt_qa", golden,
                      prompt_length=golden["question_ids"].shape[1])
    figures, records = evaluated(tmp_path)
    assert [record["prediction"] for record in records] == said
    assert [record["question"] for record in records] == [f"{q}?" for q in questions]
    assert figures["video_qa_accuracy"]["value"] == pytest.approx(2 / 3)

    # Ranked: without the best of the candidates, the best of the others.
    candidates = [text(ids) for ids in golden["candidate_ids"]]
    (first,), (second,) = ({int(n) for n in golden["rank_ids"][:, place]} for place in (0, 1))
    answers = tuple(answer for n, answer in enumerate(candidates) if n != first)
    _, records = evaluated(tmp_path, *flags, f"--config.evals.video_qa.task.answers={answers}",
                           f"--config.evals.video_qa.task.rank_keep={golden['rank_k'] - 1}")
    assert [record["prediction"] for record in records] == [candidates[second]] * 3
