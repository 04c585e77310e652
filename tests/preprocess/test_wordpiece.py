"""WordPiece from a user's vocabulary against a slow implementation of BERT's uncased rules."""

import random
import string
import sys

import numpy as np
import pytest
import tokenizers
import wordpiece_reference as reference

from configs import checks, common, sizes
from mplug2_jax import tasks
from mplug2_jax.contracts.errors import ConfigError
from mplug2_jax.model.config import ModelConfig
from mplug2_jax.preprocess.tokenizer import SPECIAL_TOKENS, load_tokenizer

LETTERS = string.ascii_lowercase + string.digits + "αβσςß日本語漢ıø"
WORDS = ["un", "##aff", "##able", "cafe", "video", "a", "of", "ofa", "man", "##man", "run",
         "##ning", "[", "]", "sep", "日", "don", "'", "t", "x" * 100, "\u2028", "##ing"]
MARKS = [c for c in string.punctuation if c not in "[]'"] + ["¿", "—", "。", "“", "€", "©"]
VOCABULARY = list(dict.fromkeys([*SPECIAL_TOKENS, *WORDS, *LETTERS, *MARKS,
                                 *("##" + c for c in LETTERS)]))
HARD = [
    "Unaffable CAFÉ, naïve Ångström", "cafe\u0301 e\u0302\u0323", "İstanbul DIŞ", "ΑΣ ΑΣΑ. ΣΑΣ",
    "Straße ﬁ ﬀ",
    "日本語の漢字abc漢", "a\x00b\ufffdc\x07d\x7fe", "a\u200bb\u00adc\ufeffd",
    "tab\tnew\nline\r\nend",
    "\u00a0\u3000\u2009spaces\u2028line\u2029para", "don't-stop!?...(now)", "`$+<=>^|~",
    "x" * 100,
    "x" * 101, "x" * 101 + " cafe", "é" * 101, "[SEP] [CLS] [PAD] [MASK] [UNK]", "", "   ",
    "\u0301",
    "𠀀𫝀豈 𐀀", "👩‍👩‍👧 ❤️", "un\u0301affable", "¿qué—tal? €5 ©", "\u0378unassigned\ue000private",
    "Ω Å ½ ² ① Ⅷ", "running runningrunning", "१२३ ٣", "가각 각",
]


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    path = tmp_path_factory.mktemp("wordpiece") / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return load_tokenizer(path)


def pieces(wordpiece, text):
    return [VOCABULARY[token] for token in wordpiece.encode(text)]


@pytest.mark.parametrize("text", HARD)
def test_hard_cases(wordpiece, text):
    assert pieces(wordpiece, text) == reference.tokenize(text, VOCABULARY)


def test_known_results(wordpiece):
    """By hand, so that a mistake shared with the reference would show."""
    for text, expected in (
        ("Unaffable CAFÉ!", ["un", "##aff", "##able", "cafe", "!"]),
        ("日man", ["日", "man"]), ("o\x07\u200bf", ["of"]), ("don't", ["don", "'", "t"]),
        ("[SEP]", ["[", "sep", "]"]), ("x" * 101, ["[UNK]"]), ("running", ["run", "##ning"]),
        ("of\u00a0\u3000man", ["of", "man"]), ("ΑΣ", ["α", "##ς"]),
    ):
        assert pieces(wordpiece, text) == expected, text


def test_every_character(wordpiece):
    for code in range(sys.maxunicode + 1):
        if 0xD800 <= code <= 0xDFFF:
            continue
        if code < 0x3000 or code % 37 == 0:
            text = f"a{chr(code)}b"
            assert pieces(wordpiece, text) == reference.tokenize(text, VOCABULARY), hex(code)


def test_random_unicode(wordpiece):
    rng = random.Random(0)
    blocks = [(0x20, 0x7E), (0, 0x20), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF),
              (0x2000, 0x206F), (0x3000, 0x303F), (0x4E00, 0x4E80), (0xFF00, 0xFFEF), (0, 0x10FFFF)]
    for _ in range(3000):
        text = ""
        for _ in range(rng.randint(0, 30)):
            low, high = rng.choice(blocks)
            char = chr(rng.randint(low, high))
            text += rng.choice(WORDS[:16]).removeprefix("##") if rng.random() < 0.2 else char
        text = "".join(c for c in text if not "\ud800" <= c <= "\udfff")
        assert pieces(wordpiece, text) == reference.tokenize(text, VOCABULARY), ascii(text)


def test_ascii_and_latin_text_equal_the_ready_made_bert_tokenizer(wordpiece):
    ready = tokenizers.BertWordPieceTokenizer(
        vocab={piece: i for i, piece in enumerate(VOCABULARY)}, lowercase=True)
    rng = random.Random(1)
    for _ in range(2000):
        text = "".join(chr(rng.choice((rng.randint(0, 0x7F), rng.randint(0x61, 0x7A),
                                       rng.randint(0xA0, 0x17F))))
                       for _ in range(rng.randint(0, 25)))
        expected = ready.encode(text, add_special_tokens=False).ids
        assert wordpiece.encode(text) == expected, ascii(text)


def test_released_captions(wordpiece):
    def released(caption, length):
        ids, mask = wordpiece.encode_released_caption(caption, "a video of", length)
        assert (ids[~mask] == wordpiece.pad_id).all()
        return [VOCABULARY[token] for token in ids[mask]]

    assert released("a man", 9) == ["[CLS]", "a", "video", "ofa", "man", "[SEP]", "[SEP]"]
    assert released("man", 7) == ["[CLS]", "a", "video", "of", "##man", "[SEP]", "[SEP]"]
    # Cut, as the release cuts: first one of the two end tokens, then the text's end.
    assert released("a man", 6) == ["[CLS]", "a", "video", "ofa", "man", "[SEP]"]
    assert released("a man", 5) == ["[CLS]", "a", "video", "ofa", "[SEP]"]
    # Only the appended token is special, not what a user writes.
    assert released("[SEP]", 20)[4:] == ["[", "sep", "]", "[SEP]", "[SEP]"]


def test_a_vocabulary_s_line_breaks_are_line_feeds_alone(wordpiece):
    assert wordpiece.vocab_size == len(VOCABULARY)


def test_the_captioning_loss_does_not_count_the_prompt(wordpiece):
    model = ModelConfig.from_mapping(dict(sizes.model("tiny"))
                                     | {"vocab_size": wordpiece.vocab_size})
    section = common.task("captioning", memory="visual", caption_prompt="a video of")
    task = tasks.make(section, model, wordpiece)
    _, mask = wordpiece.encode_released_caption("a man", "a video of", 9)
    # [CLS] a video ofa | man [SEP] [SEP] and padding; the prompt is [CLS] and three tokens.
    counted = np.asarray(task.counted(mask[None]))[0].tolist()
    assert counted == [False] * 4 + [True] * 3 + [False] * 2
    ids = wordpiece.encode("a video of") + wordpiece.encode("man") + [wordpiece.sep_id]
    assert task.text({"ids": np.array(ids)}) == "man"


def test_streams_have_the_caption_prompt_of_the_task_alone():
    config = common.base("tiny")
    config.data.root = config.data.tokenizer = "somewhere"
    config.task = common.task("captioning", memory="visual", caption_prompt="a video of")
    config.data.streams.train = common.stream("train", 2, frames=1, image_size=48, text_length=20)
    assert checks.validate(config).streams["train"].caption_prompt == "a video of"
    config.data.streams.train.caption_prompt = "a video of"
    with pytest.raises(ConfigError, match="data.streams.train.caption_prompt: task 'captioning' g"):
        checks.validate(config)
