"""BERT's uncased tokenization, slowly, character by character.

Written from its description: clean, space out Chinese characters, split at white space, lower-case,
strip accents, split at punctuation, then the longest known pieces from the left.
"""

import unicodedata

CHINESE = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
           (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))


def clean(text):
    out = []
    for char in text:
        if char in "\t\n\r" or unicodedata.category(char) == "Zs":
            out.append(" ")
        elif char not in "\0\ufffd" and not unicodedata.category(char).startswith("C"):
            is_chinese = any(low <= ord(char) <= high for low, high in CHINESE)
            out.append(f" {char} " if is_chinese else char)
    return "".join(out)


def is_punctuation(char):
    ascii_symbol = ord(char) < 128 and char.isprintable() and not char.isalnum() and char != " "
    return ascii_symbol or unicodedata.category(char).startswith("P")


def words(text):
    for word in clean(text).split():
        word = unicodedata.normalize("NFD", word.lower())
        current = ""
        for char in word:
            if unicodedata.category(char) == "Mn":
                continue
            if is_punctuation(char):
                yield from (part for part in (current, char) if part)
                current = ""
            else:
                current += char
        # An accent's removal can leave nothing, and a decomposition can bring white space.
        yield from current.split()


def pieces(word, vocabulary):
    if len(word) > 100:
        return ["[UNK]"]
    found, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                break
        else:
            return ["[UNK]"]
        found.append(piece)
        start = end
    return found


def tokenize(text, vocabulary):
    return [piece for word in words(text) for piece in pieces(word, vocabulary)]
