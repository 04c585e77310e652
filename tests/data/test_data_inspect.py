"""`python -m data.inspect`: the sheet shows the batch, the table its stages."""

import subprocess

import numpy as np
import pytest
from commands import seen
from forks import finished
from PIL import Image

from data.demo.builder import VOCABULARY
from data.inspect import contact_sheet
from data.pipeline import Stopwatch, TrainStream


def run(*arguments: str) -> subprocess.CompletedProcess:
    return finished(["-m", "data.inspect", "--config=configs/demo.py", *arguments], seen())


def test_command_writes_the_sheet_and_prints_the_table(corpus, tmp_path):
    data = f"--config.data.root={corpus}", f"--config.data.tokenizer={corpus / VOCABULARY}"
    out = tmp_path / "sheet.png"
    result = run(*data, "--stream=video", f"--out={out}", "--rows=3", "--batches=1")
    assert result.returncode == 0, result.stderr
    with Image.open(out) as sheet:
        assert sheet.width > 4 * 96 and sheet.height >= 3 * 96
    for stage in ("read", "text", "decode", "augment", "batch", "total"):
        assert f"\n{stage} " in result.stdout
    assert "video          uint8 [20, 4, 48, 48, 3]" in result.stdout
    wrong = run(*data, "--stream=sound", f"--out={out}")
    assert wrong.returncode == 2
    assert "--stream=sound: the config has" in wrong.stderr.splitlines()[-1]


def test_sheet_shows_the_frames_of_the_batch(corpus, stream, tokenizer):
    watch = Stopwatch()
    source = TrainStream("v", corpus, stream(image_size=96), tokenizer, 0, watch=watch)
    batch = source.batch(0)
    sheet = np.asarray(contact_sheet(batch, tokenizer, 2))
    for row in range(2):
        for number in range(3):
            part = sheet[row * 100 : row * 100 + 96, number * 100 : number * 100 + 96]
            np.testing.assert_array_equal(part, batch["video"][row, number])
    beside = sheet[:96, 300:]
    assert (beside < 128).any() and (beside == 255).mean() > 0.7  # black text on white
    assert set(watch.seconds) == {"read", "text", "decode", "augment", "batch"}
    assert min(watch.seconds.values()) > 0
    assert watch.seconds["decode"] > watch.seconds["text"]
    text = TrainStream("t", corpus, stream(split="text_train", frames=0, target_length=0),
                       tokenizer, 0).batch(0)  # fmt: skip
    assert contact_sheet(text, tokenizer, 4).height >= 4 * 16


def test_table_adds_up():
    watch = Stopwatch()
    watch.seconds.update({"read": 1.0, "decode": 3.0})
    lines = watch.table(8).splitlines()
    assert [line.split()[0] for line in lines] == ["stage", "read", "decode", "total"]
    assert lines[2].split() == ["decode", "375.00", "75.0%", "2.7"]
    assert lines[3].split() == ["total", "500.00", "100.0%", "2.0"]
    with pytest.raises(RuntimeError), watch("read"):
        raise RuntimeError
    assert watch.seconds["read"] > 1
