"""The tokenizer against frozen outputs of CoreNLP 3.4.1, as pycocoevalcap calls and filters it."""

import json
from pathlib import Path

import pytest

from mplug2_jax.metrics.ptb import ptb_tokenize

PAIRS = json.loads((Path(__file__).parents[1] / "golden" / "ptb_tokens.json").read_text("utf-8"))


@pytest.mark.parametrize(("text", "tokens"), PAIRS)
def test_same_as_corenlp(text, tokens):
    assert ptb_tokenize(text) == tokens


@pytest.mark.parametrize("text", ["", " ", " . ", '"..."', "\n", "\u200d"])
def test_nothing_but_punctuation_is_empty(text):
    assert ptb_tokenize(text) == ""


def test_any_unicode_ends_and_keeps_no_space():
    text = "".join(map(chr, range(32, 0x3100))) + "\U0001f600"
    tokens = ptb_tokenize(text)
    assert tokens == " ".join(tokens.split(" ")) and "  " not in tokens
