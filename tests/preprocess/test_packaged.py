"""BERT's own vocabulary, which comes with the package: its bytes, where it is found, its ids."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from data.pipeline.fingerprint import fingerprint
from mplug2_jax.inference.specs import Given, find_vocabulary
from mplug2_jax.preprocess.tokenizer import (
    BERT_UNCASED,
    PACKAGED,
    SPECIAL_TOKENS,
    load_tokenizer,
    vocabulary_file,
)

ROOT = Path(__file__).parents[2]
MINILM = ROOT / "tests" / "golden" / "minilm_l6"
# Of google-research/bert's vocab.txt.
SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


@pytest.fixture(scope="module")
def bert():
    return load_tokenizer(BERT_UNCASED)


def test_it_is_berts_with_its_licence_beside_it():
    file = PACKAGED[BERT_UNCASED]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == SHA256
    assert "Apache License" in (file.parent / "LICENSE").read_text()
    assert file.name in (file.parent / "NOTICE").read_text()


def test_ids_are_those_of_transformers_tokenizer(bert):
    """`tests/golden/minilm_l6.npz`: ids of odd texts by `transformers` (all-MiniLM-L6-v2)."""
    texts = json.loads(MINILM.with_suffix(".json").read_text())["sentences"]
    with np.load(MINILM.with_suffix(".npz")) as file:
        expected, expected_mask = file["ids"], file["mask"]
    assert bert.vocab_size == 30_522 and bert.pad_id == 0 and len(bert.reserved) == 994
    for text, ids, mask in zip(texts, expected, expected_mask, strict=True):
        found, found_mask = bert.encode_padded(text, len(ids))
        assert found.tolist() == ids.tolist(), text
        assert found_mask.tolist() == mask.tolist()


def test_it_is_found_from_another_folder_and_in_an_installed_package(tmp_path):
    """As `pip install` lays it: the package elsewhere, and nothing of the tree to be found."""
    shutil.copytree(ROOT / "mplug2_jax", tmp_path / "site" / "mplug2_jax",
                    ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "elsewhere").mkdir()
    code = ("from mplug2_jax.preprocess import tokenizer as t; print(t.__file__); "
            "print(t.load_tokenizer(t.BERT_UNCASED).encode('the hello'))")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "elsewhere",
                          env={"PYTHONPATH": str(tmp_path / "site")}, capture_output=True,
                          text=True, check=True)
    place, ids = done.stdout.splitlines()
    assert place.startswith(str(tmp_path)) and ids == "[1996, 7592]"


def test_the_package_says_that_it_has_data():
    import tomllib
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = tool["package-data"]["mplug2_jax"]
    folder = ROOT / "mplug2_jax"
    packed = {path for pattern in patterns for path in folder.glob(pattern)}
    others = {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".py"
              and "__pycache__" not in path.parts}
    assert packed == others


def write(folder, name="vocab.txt", words=("red",)):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join((*SPECIAL_TOKENS, *words)) + "\n")
    return folder / name


def test_a_file_that_is_given_wins_and_what_is_no_file_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_tokenizer(write(tmp_path)).vocab_size == 6
    assert vocabulary_file("vocab.txt") == Path("vocab.txt")
    for name in ("prepared/vocab.txt", "bert_uncased.txt", "BERT_UNCASED"):
        with pytest.raises(ValueError, match=f"no vocabulary at {name}: .*or bert_uncased, which"):
            load_tokenizer(name)


def test_hosts_see_which_vocabulary_the_others_read(tmp_path):
    def of(tokenizer):
        return fingerprint(SimpleNamespace(root="", tokenizer=tokenizer, streams={}))["tokenizer"]

    assert of(BERT_UNCASED) == SHA256[:12] == of(str(PACKAGED[BERT_UNCASED]))
    assert of(str(write(tmp_path))) != SHA256[:12]


# What --tokenizer is, what the config says, what lies beside the checkpoint, the model's pieces.
PREDICTIONS = [
    (None, BERT_UNCASED, "vocab.txt", 30_522, BERT_UNCASED),  # by its name: no file is looked for
    (None, "", None, 30_522, BERT_UNCASED),  # converted weights
    (None, "", "vocab.txt", 30_522, "run/vocab.txt"),
    (None, "", "vocab.model", 30_522, "run/vocab.model"),
    (None, "away/own.txt", "own.txt", 6, "run/own.txt"),
    ("own.txt", BERT_UNCASED, "vocab.txt", 30_522, "own.txt"),
    (BERT_UNCASED, "away/own.txt", "own.txt", 30_522, BERT_UNCASED),
    (None, "away/own.txt", None, 30_522, "no vocabulary away/own.txt, .*tokenizer=bert_uncased if"),
    (None, "away/own.txt", None, 6, "no vocabulary away/own.txt, .* give --tokenizer=FILE$"),
    (None, "", None, 6, "no vocabulary in the config, .* give --tokenizer=FILE$"),
]


@pytest.mark.parametrize("flag, stated, beside, pieces, expected", PREDICTIONS)
def test_the_vocabulary_of_a_prediction(flag, stated, beside, pieces, expected, tmp_path,
                                        monkeypatch):
    monkeypatch.chdir(tmp_path)
    if beside:
        write(tmp_path / "run", beside)
    config = ConfigDict({"model": {"vocab_size": pieces}}
                        | ({"data": {"tokenizer": stated}} if stated else {}))
    given = Given("run", tokenizer=flag)
    if " " in expected:
        with pytest.raises(ValueError, match=f"^{expected}"):
            find_vocabulary(config, Path("run"), given)
    else:
        assert str(find_vocabulary(config, Path("run"), given)) == expected


def test_a_config_of_another_size_is_an_error_of_one_line(bert):
    from mplug2_jax import tasks
    from mplug2_jax.model.config import ModelConfig
    config = common.base("tiny")
    assert config.data.tokenizer == BERT_UNCASED
    with pytest.raises(ValueError, match="model.vocab_size = 512: the tokenizer has 30522"):
        tasks.make(common.task("qa"), ModelConfig.from_mapping(config.model), bert)
