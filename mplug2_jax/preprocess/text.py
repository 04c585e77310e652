"""Text cleaning of the released model: lower case, no punctuation, at most `max_words` words.

A text that the tokenizer then cuts at so many ids, or fewer, as there may be words, needs no
`max_words`: a word becomes an id or more, so that the ids that are kept are of those words.

Source: `pre_caption` and `pre_question` of ALBEF and mPLUG, which mPLUG-2 keeps. Captions and
questions differ in details (runs of spaces, `<person>`), and the released weights were trained with
both, so both are kept as they are.
"""

import re

_PUNCTUATION = re.compile(r"[,.'!?\"()*#:;~]")
_SPACES = re.compile(r"\s{2,}")


def clean_caption(text: str, max_words: int | None = None) -> str:
    """Caption, lower-cased, without punctuation, single-spaced, cut to `max_words` words."""
    text = _PUNCTUATION.sub("", text.lower()).replace("-", " ").replace("/", " ")
    text = _SPACES.sub(" ", text.replace("<person>", "person"))
    return _first_words(text.rstrip("\n").strip(" "), max_words)


def clean_question(text: str, max_words: int | None = None) -> str:
    """Question, lower-cased, without punctuation, cut to `max_words` words, spaces kept."""
    text = _PUNCTUATION.sub("", text.lower()).replace("-", " ").replace("/", " ")
    return _first_words(text.rstrip(" "), max_words)


def _first_words(text: str, max_words: int | None) -> str:
    # Split at single spaces, as the released code does: a doubled space counts as an empty word.
    return " ".join(text.split(" ")[:max_words])
