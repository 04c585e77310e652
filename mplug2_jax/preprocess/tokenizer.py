"""One interface to SentencePiece models (own vocabularies) and WordPiece vocabularies (BERT).

Special tokens are known by id only. Neither backend turns text that looks like a special token into
one, so a caption that says "[SEP]" cannot end its own sequence.
"""

import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
import tokenizers
from tokenizers import models, pre_tokenizers

from mplug2_jax.contracts import paths
from mplug2_jax.preprocess.written import is_chinese, is_mark, join_words

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BERT_UNCASED = "bert_uncased"
# Vocabularies that come with the package, by the name that stands in the place of a file's.
PACKAGED = {BERT_UNCASED: Path(__file__).parent / "vocabularies" / "bert_uncased.txt"}
_RESERVED = re.compile(r"\[unused(\d+)\]")  # BERT's name for an entry that no text becomes
_FRACTIONS = {unicodedata.normalize("NFKC", char): char
              for char in "\u00bc\u00bd\u00be\u2150\u2151\u2152\u2153\u2154\u2155\u2156\u2157"
              "\u2158\u2159\u215a\u215b\u215c\u215d\u215e\u2189"}
_FRACTION = re.compile("|".join(f"{written}(?![0-9])" for written in _FRACTIONS))
_WORD_START = "\u2581"  # SentencePiece marks a piece that begins a word with this character


class Tokenizer:
    """Text to ids and back; made by `load_tokenizer`.

    Attributes:
        vocab_size: number of ids.
        pad_id, unk_id, cls_id, sep_id, mask_id: ids of the special tokens.
        word_starts: bool [vocab_size], True for pieces that begin a word, False for specials
            (whole-word masking).
        reserved: ids of the entries `[unused0]`, `[unused1]`, ... in the order of their numbers:
            a task may give them a meaning of its own. No text becomes one, and `decode` leaves
            them out.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        word_starts: Sequence[bool],
        encode: Callable[[str], list[int]],
        decode: Callable[[list[int]], str],
        said: Callable[[str], str] = str,
    ):
        ids = {piece: index for index, piece in enumerate(pieces)}
        missing = [token for token in SPECIAL_TOKENS if token not in ids]
        if missing:
            raise ValueError(f"vocabulary without {', '.join(missing)}: it needs {SPECIAL_TOKENS}")
        self.vocab_size = len(pieces)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            ids[token] for token in SPECIAL_TOKENS
        )
        numbers = {int(found[1]): ids[piece] for piece in ids
                   if (found := _RESERVED.fullmatch(piece))}
        self.reserved = tuple(numbers[number] for number in sorted(numbers))
        self._specials = {*(ids[token] for token in SPECIAL_TOKENS), *self.reserved}
        self.word_starts = np.array(word_starts, bool)
        self.word_starts[list(self._specials)] = False
        self._encode = encode
        self._decode = decode
        self._said = said

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens around it."""
        return self._encode(text)

    def encode_padded(self, text: str, length: int) -> tuple[np.ndarray, np.ndarray]:
        """`[CLS] text [SEP] [PAD]...`, `length` ids; a longer text loses its end, not its [SEP].

        Returns:
            ids int32 [length], and mask bool [length], False on padding.

        Raises:
            ValueError: if `length` leaves no room for [CLS] and [SEP].
        """
        return self._padded(self._encode(text), length)

    def _padded(self, tokens: list[int], length: int) -> tuple[np.ndarray, np.ndarray]:
        if length < 2:
            raise ValueError(f"{length=} leaves no room for [CLS] and [SEP]")
        tokens = [self.cls_id, *tokens[: length - 2], self.sep_id]
        ids = np.full(length, self.pad_id, np.int32)
        ids[: len(tokens)] = tokens
        return ids, np.arange(length) < len(tokens)

    def encode_pair(self, first: str, second: str, length: int) -> tuple[np.ndarray, np.ndarray]:
        """`[CLS] first [SEP] second [SEP] [PAD]...`, `length` ids, as BERT reads two sentences.

        Where both do not fit, the longer one loses its last ids, and of equally long ones the
        second. Token types are not told apart: the released model has only the first of them.

        Returns:
            ids int32 [length], and mask bool [length], False on padding.

        Raises:
            ValueError: if `length` leaves no room for [CLS] and [SEP].
        """
        one, other = self._encode(first), self._encode(second)
        room = max(length - 3, 0)
        # The shorter half is whole where it can be; what it leaves is the longer one's.
        kept = max(room - len(other), min(len(one), -(-room // 2)))
        one = one[:kept]
        return self._padded([*one, self.sep_id, *other[: room - len(one)]], length)

    def encode_parts(self, parts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        """`[CLS] one [SEP] other [SEP] ... [PAD]...`, `length` ids; what is too much is cut off.

        Returns:
            ids int32 [length], and mask bool [length], False on padding.

        Raises:
            ValueError: if `length` leaves no room for [CLS] and [SEP].
        """
        tokens = self._encode(parts[0])
        for part in parts[1:]:
            tokens = [*tokens, self.sep_id, *self._encode(part)]
        return self._padded(tokens, length)

    def encode_released_caption(
        self, caption: str, prompt: str, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """A caption as the released model was trained on: `[CLS] prompt+caption [SEP] [SEP]`.

        Prompt and caption are joined with no space between, so that the prompt's last word and the
        caption's first become one; the release appends "[SEP]" to the text and its tokenizer
        another. A longer text loses its end, and then the first [SEP] of the two.

        Returns:
            ids int32 [length], and mask bool [length], False on padding.

        Raises:
            ValueError: if `length` leaves no room for [CLS] and [SEP].
        """
        return self._padded([*self._encode(prompt + caption), self.sep_id], length)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids up to the first [SEP]; special tokens are left out."""
        tokens = [int(token) for token in ids]
        if self.sep_id in tokens:
            tokens = tokens[: tokens.index(self.sep_id)]
        return self._decode([token for token in tokens if token not in self._specials]).strip()

    def said(self, text: str) -> str:
        """A text in the form that a generated one has, for comparing them.

        As it would come back were there a piece for each letter: by a WordPiece vocabulary in lower
        case, without accents; by SentencePiece in the form that its model normalises to.
        """
        return self._said(text)


def vocabulary_file(given: str | os.PathLike) -> Path:
    """The file of a vocabulary: of one that comes with the package by its name, else as given."""
    return PACKAGED.get(str(given)) or paths.parse(given)


def load_tokenizer(given: str | os.PathLike) -> Tokenizer:
    """Loads a SentencePiece `*.model`, a BERT uncased WordPiece vocabulary `*.txt`, or BERT's own
    by its name, "bert_uncased".

    Raises:
        ValueError: the file is missing, of another kind, damaged, or lacks a special token.
    """
    path = vocabulary_file(given)
    if not path.is_file():
        raise ValueError(f"no vocabulary at {path}: expected a SentencePiece .model, a WordPiece "
                         f".txt, or {' or '.join(PACKAGED)}, which is in the package")
    if path.suffix == ".model":
        return _load_sentencepiece(path)
    if path.suffix == ".txt":
        return _load_wordpiece(path)
    raise ValueError(f"unknown kind of vocabulary {path}: expected .model, .txt or "
                     + " or ".join(PACKAGED))


def _load_sentencepiece(path: Path) -> Tokenizer:
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except RuntimeError as error:
        raise ValueError(f"{path} is not a SentencePiece model") from error
    pieces = [processor.id_to_piece(index) for index in range(processor.vocab_size())]
    return Tokenizer(
        pieces,
        [piece.startswith(_WORD_START) for piece in pieces],
        encode=lambda text: processor.encode(text, out_type=int),
        decode=lambda ids: _restore_fractions(processor.decode(ids)),
        said=lambda text: _restore_fractions(
            processor.normalize(text).replace(_WORD_START, " ")).strip() or text,
    )


def _load_wordpiece(path: Path) -> Tokenizer:
    # Not `splitlines`: a piece may be one of Unicode's other line breaks.
    pieces = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    # Built from its parts: the ready-made BERT tokenizer would read "[SEP]" in a text as the
    # special token, and its normalizer has older Unicode tables and no final sigma.
    wordpiece = tokenizers.Tokenizer(
        models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token=UNK)
    )
    wordpiece.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(
        pieces,
        [not piece.startswith("##") for piece in pieces],
        encode=lambda text: wordpiece.encode(split_words(text), add_special_tokens=False).ids,
        decode=lambda ids: _join_wordpieces([pieces[token] for token in ids]),
        said=lambda text: join_words(split_words(text).split()) or text,
    )


def split_words(text: str) -> str:
    """BERT's uncased words and punctuation marks, with single spaces between.

    Control characters go; Chinese characters and punctuation stand alone; letters are lower-cased
    and lose their accents.
    """
    cleaned = []
    for char in text:
        category = unicodedata.category(char)
        if char in "\t\n\r" or category == "Zs":
            cleaned.append(" ")
        elif category[0] != "C" and char != "\ufffd":
            cleaned.append(f" {char} " if is_chinese(char) else char)
    words = []
    for word in "".join(cleaned).split():
        letters = (char for char in unicodedata.normalize("NFD", word.lower())
                   if unicodedata.category(char) != "Mn")
        words += "".join(f" {char} " if is_mark(char) else char for char in letters).split()
    return " ".join(words)


def _join_wordpieces(pieces: list[str]) -> str:
    """Pieces to words, and these to text as it is written."""
    words: list[str] = []
    for piece in pieces:
        if words and piece.startswith("##"):
            words[-1] += piece[2:]
        else:
            words.append(piece)
    return join_words(words)


def _restore_fractions(text: str) -> str:
    """"1\u20442", as SentencePiece's normalisation has it, to the one character that it was."""
    return _FRACTION.sub(lambda found: _FRACTIONS[found[0]], text)


def train_sentencepiece(
    sentences: Iterable[str], out_path: str | os.PathLike, vocab_size: int, reserved: int = 0
) -> None:
    """Trains a lower-casing BPE vocabulary with BERT's special tokens and writes it to `out_path`.

    The same sentences give the same bytes. `vocab_size` is an upper limit: a small corpus may not
    have that many pieces. `reserved` of them are entries that no text becomes (see `Tokenizer`).
    Frequent words become one piece each (unigram models split them where the corpus is small).

    Raises:
        ValueError: `vocab_size` cannot hold the letters of the corpus, or there are no sentences.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,  # not a file: its path would become part of the model
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            model_type="bpe",
            character_coverage=1.0,
            normalization_rule_name="nmt_nfkc_cf",
            # All but [UNK] are control symbols, which no text is ever split into.
            pad_id=0, pad_piece=PAD,
            unk_id=1, unk_piece=UNK, unk_surface=" ",
            bos_id=2, bos_piece=CLS,
            eos_id=3, eos_piece=SEP,
            control_symbols=[MASK, *(f"[unused{number}]" for number in range(reserved))],
            num_threads=1,  # sums of several threads come in any order, and the bytes differ
            shuffle_input_sentence=False,
            minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot train a vocabulary of {vocab_size} pieces: {reason}") from error
    paths.write(paths.parse(out_path), model.getvalue())
