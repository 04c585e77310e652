"""Words and marks, as BERT's tokenizer splits them, back to the written form: "10 : 30" to "10:30".

WordPiece keeps the space between two words and forgets it beside a mark. Each mark has a rule here
that says whether it is written close to what stands before and after it; where people write it both
ways ("8-9", "8 - 9"), the more frequent one is given. Text is changed beside marks and nowhere
else, so that encoding it again gives the same ids.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence

Sides = tuple[bool, bool]  # whether a mark is written close to what is before, and to what is after
_ALONE, _OPENING, _CLOSING, _WITHIN = (False, False), (False, True), (True, False), (True, True)

_APOSTROPHES = ("'", "\u2019", "`")
_CLITICS = set("s t m d re ve ll clock".split())
_PREFIXES = set("o d l j c y m t qu".split())  # "o'neill", "d'or", "qu'il"
_ELIDED = set("em til tis twas twere cause bout round n".split())  # "'em", "'til": own words
_SHORT = set("n ol lil mo th".split())  # "guns n' roses"
_VERBS = set("says reads is was as has this means spells yes".split())  # no plurals: "says 'stop'"
_AFTER_STOP = set("""
    com org net edu gov info co uk jpg jpeg png gif bmp pdf txt doc docx mp3 mp4 avi mov html htm
    php js json exe csv zip tar gz
""".split())
_DEGREES = {("ph", "d"), ("m", "sc"), ("b", "sc"), ("m", "phil"), ("d", "phil"), ("b", "com"),
            ("b", "tech"), ("m", "tech"), ("b", "ed"), ("m", "ed"), ("b", "eng"), ("m", "eng")}
_SIZE = re.compile(r"x?\d")  # after feet or inches: 5'10", 5'x7'
_CURRENCIES = set("us nz hk au ca nt sg".split())
# Before a number with a sign or without a first digit: "from -5 to .5".
_BEFORE_NUMBERS = set("""
    a about above and approximately around at below between by equals for from is of only or over
    than the to under was minus plus
""".split())


def join_words(words: Sequence[str]) -> str:
    """The text of words and marks, each mark a word of its own, in NFC; "" for none."""
    sides = [_sides(words, place) for place in range(len(words))]
    parts: list[str] = []
    for place, word in enumerate(words):
        close = not place or sides[place - 1][1] or sides[place][0] or (
            _chinese_gap(words[place - 1], word))
        parts += [word] if close else [" ", word]
    return unicodedata.normalize("NFC", "".join(parts))


def is_mark(char: str) -> bool:
    """Whether BERT takes it for punctuation, which stands alone: Unicode's, and ASCII symbols."""
    return unicodedata.category(char)[0] == "P" or char in "$+<=>^`|~"


def is_chinese(char: str) -> bool:
    """Whether it is of the blocks that the original BERT names, whose characters stand alone."""
    code = ord(char)
    return (0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0x20000 <= code <= 0x2A6DF
            or 0x2A700 <= code <= 0x2CEAF or 0xF900 <= code <= 0xFAFF
            or 0x2F800 <= code <= 0x2FA1F)


def _sides(words: Sequence[str], place: int) -> Sides:
    word = words[place]
    if len(word) != 1 or not is_mark(word):
        return _ALONE
    if face := _face(words, place):
        return place > face.start, place < face.stop - 1
    rule = _RULES.get(word) or _BY_CATEGORY[unicodedata.category(word)]
    if 0x3000 <= ord(word) <= 0x303F or 0xFF00 <= ord(word) <= 0xFFEF:
        rule = _within  # Chinese and Japanese have no spaces
    return rule(words, place)


def _face(words: Sequence[str], place: int) -> range | None:
    """The places of the face that a mark is of, ":)" or ";-(", whose bracket has no partner."""
    for eyes in range(max(0, place - 2), place + 1):
        mouth = eyes + 1 + (_at(words, eyes + 1) == "-")
        if words[eyes] not in (":", ";") or mouth < place:
            continue
        before = words[:eyes]
        if (_at(words, mouth) == ")" and before.count("(") <= before.count(")")
                or _at(words, mouth) == "(" and ")" not in words[mouth:]
                or eyes == 0 and mouth == len(words) - 1 and words[mouth] in ("d", "p", "o")):
            return range(eyes, mouth + 1)
    return None


def _chinese_gap(before: str, after: str) -> bool:
    """Whether a gap is one that BERT made: beside a Chinese character, not to Latin letters."""
    return any(is_chinese(one) and (is_chinese(other) or other.isdigit() or "\u3040" <= other
               <= "\u30ff") for one, other in ((before[-1], after[0]), (after[0], before[-1])))


def _at(words: Sequence[str], place: int) -> str:
    return words[place] if 0 <= place < len(words) else ""


def _around(words: Sequence[str], place: int) -> tuple[str, str]:
    return _at(words, place - 1), _at(words, place + 1)


def _is_word(word: str) -> bool:
    return bool(word) and not (len(word) == 1 and is_mark(word))


def _is_short(word: str) -> bool:
    """A number or a single letter, as in sums."""
    return word[:1].isdigit() or len(word) == 1 and word.isalpha()


def _alone(words: Sequence[str], place: int) -> Sides:
    return _ALONE


def _opening(words: Sequence[str], place: int) -> Sides:
    return _OPENING


def _closing(words: Sequence[str], place: int) -> Sides:
    return _CLOSING


def _within(words: Sequence[str], place: int) -> Sides:
    return _WITHIN


def _full_stop(words: Sequence[str], place: int) -> Sides:
    """Decimals, initials, addresses and names of files are close; sentences and "no. 5" are not."""
    before, after = _around(words, place)
    if after[:1].isdigit():
        if before[-1:].isdigit() or before in ("", "-", "+", "$", "<", ">", "=", "~"):
            return _WITHIN
        if before in _BEFORE_NUMBERS:
            return _OPENING
    if place > 1 and {*words[:place]} == {"."}:
        return _WITHIN  # "...and then"
    if not before or (before, after) in _DEGREES or after in _AFTER_STOP or _in_address(
            words, place):
        return _WITHIN
    # "u.s.", "9a.m", "j.r.r. tolkien"; but "plan b. i think".
    if re.fullmatch(r"\d*[^\W\d_]", before) and len(after) == 1 and after.isalpha():
        further = _at(words, place + 2)
        if not further or not _is_word(further) or after not in "ai":
            return _WITHIN
    return _CLOSING


def _in_address(words: Sequence[str], place: int) -> bool:
    """Whether a full stop is one of "www.a.b" or "a.b@c.d"."""
    def reaches(step: int, goals: tuple[str, ...]) -> bool:
        at = place + step
        while _is_word(_at(words, at)):
            if _at(words, at) in goals or _at(words, at + step) in goals:
                return True
            if _at(words, at + step) not in (".", "-", "_"):
                return False
            at += 2 * step
        return False

    return _is_word(_at(words, place + 1)) and (
        reaches(-1, ("www", "@")) or reaches(1, ("@",)))


def _at_sign(words: Sequence[str], place: int) -> Sides:
    before, after = _around(words, place)
    at = place + 1  # an address has a full stop in its host
    while _is_word(_at(words, at)) and _at(words, at + 1) == "-":
        at += 2
    if _is_word(before) and _is_word(after) and _at(words, at + 1) == "." and _is_word(
            _at(words, at + 2)) and _at(words, at + 3) != "@":
        return _WITHIN
    return _OPENING if after[:1].isalpha() else _ALONE


def _comma(words: Sequence[str], place: int) -> Sides:
    """Close in "1,000" and "1,00,000", whose last group has three digits, in "0,5" and "5,50 €"."""
    before, after = _around(words, place)
    price = after + _at(words, place + 2)[:1] * (len(after) == 2)
    grouped = _at(words, place - 2) == "." and re.fullmatch(r"\d{3}", before)  # "1.000,50"
    if before == "0" and after[:1].isdigit() or re.fullmatch(r"\d\d€", price) or (
            grouped and re.fullmatch(r"\d\d", after)):
        return _WITHIN
    run = re.search(r"\d+$", before)
    if run and len(run[0]) <= 3 and (re.match(r"\d{3}(?!\d)", after) or (
            re.fullmatch(r"\d{2}", after) and _at(words, place + 2) == ","
            and re.match(r"\d{2,3}(?!\d)", _at(words, place + 3)))):
        return _WITHIN
    return _CLOSING


def _colon(words: Sequence[str], place: int) -> Sides:
    before, after = _around(words, place)
    return _WITHIN if after[:1].isdigit() and (not before or before[-1].isdigit()) else _CLOSING


def _percent(words: Sequence[str], place: int) -> Sides:
    before, _ = _around(words, place)
    return (not _is_word(before) or before[-1].isnumeric()), False


def _dollar(words: Sequence[str], place: int) -> Sides:
    before, after = _around(words, place)
    if after[:1].isdigit() or after == ".":
        return place == 1 and before in _CURRENCIES, True  # "us$5", but "costs us $5"
    if not after or before == "$" or before[-1:].isdigit():
        return _CLOSING
    return (before.isalpha() and after.isalpha()), after.isalpha()


def _number_sign(words: Sequence[str], place: int) -> Sides:
    before, after = _around(words, place)
    if after[:1].isdigit():
        return _OPENING
    if before in ("#", "c", "f") or before[-1:].isdigit() and not after:
        return _CLOSING
    return False, after != "of"


def _ampersand(words: Sequence[str], place: int) -> Sides:
    """Close between initials, as in "r&b" and "at&t"; not in "salt & pepper" and "you & i"."""
    before, after = _around(words, place)
    initials = (before + after).isalpha() and min(len(before), len(after)) == 1 and max(
        len(before), len(after)) <= 2
    return _WITHIN if initials else _ALONE


def _asterisk(words: Sequence[str], place: int) -> Sides:
    before, after = _around(words, place)
    if not before:
        return _OPENING
    alike = before[0].isdigit() == after[:1].isdigit()  # "5*5", "m*a*s*h", but "5* hotel"
    return True, alike and (before == "*" or _is_short(before)) and _is_short(after)


def _plus(words: Sequence[str], place: int) -> Sides:
    before, after = _around(words, place)
    if not _is_word(before):
        return before == "+", not before or after[:1].isdigit()
    if not _is_word(after):
        return _CLOSING
    if _is_short(before):
        return True, _is_short(after)
    return False, after[0].isdigit()


def _equals(words: Sequence[str], place: int) -> Sides:
    before, after = _around(words, place)
    long = all(len(word) > 1 and word.isalpha() for word in (before, after))
    return _ALONE if long else _WITHIN


def _bar(words: Sequence[str], place: int) -> Sides:
    before, after = _around(words, place)
    return _ALONE if max(len(before), len(after)) > 1 else _WITHIN


def _compares(words: Sequence[str], place: int) -> Sides:
    """Of < and >: close within sums, arrows and after "<name"; before a number otherwise."""
    before, after = _around(words, place)
    if words[place] == ">" and before in ("-", "="):
        return _WITHIN
    if words[place] == ">" and "<" in words[max(0, place - 3):place]:
        return _CLOSING
    sums = _is_short(before) and _is_short(after) and before != "i"  # "i <3 you"
    return sums, True


def _tilde(words: Sequence[str], place: int) -> Sides:
    before, after = _around(words, place)
    return before[-1:].isdigit() and after[:1].isdigit(), True


def _slash(words: Sequence[str], place: int) -> Sides:
    before, after = _around(words, place)
    return True, before != "w" or len(after) == 1 or after in ("in", "out", "")  # "w/ cheese"


def _dash(words: Sequence[str], place: int) -> Sides:
    """Close on both sides; a sign to its number alone, as in "from -5 to -1"."""
    before, after = _around(words, place)
    signs = (before in _BEFORE_NUMBERS - {"a"} and (after[:1].isdigit() or after in (".", "$"))
             and _at(words, place - 2) != words[place])  # "9-to-5"
    return before not in (",", ";", ":") and not signs, True


def _bracket(words: Sequence[str], place: int) -> Sides:
    before, after = _around(words, place)
    plural = before.isalpha() and after in ("s", "es") and _at(words, place + 2) == ")"
    return plural, True


def _low_quote(words: Sequence[str], place: int) -> Sides:
    """U+201C opens in English, and closes what U+201E opened in German."""
    earlier = words[:place]
    return _CLOSING if earlier.count("\u201e") > earlier.count("\u201c") else _OPENING


def _quote(words: Sequence[str], place: int) -> Sides:
    """A straight quotation mark opens, closes, or stands for inches."""
    opened = False
    marks = [at for at, word in enumerate(words) if word == '"']
    for number, at in enumerate(marks):
        rest = marks[number + 1:]
        inches = not opened and _at(words, at - 1)[-1:].isnumeric() and (
            len(rest) % 2 == 0 or _at(words, rest[0] - 1)[-1:].isnumeric())
        if at == place and inches:
            return True, bool(_SIZE.match(_at(words, at + 1)))
        if at == place:
            return _CLOSING if opened else _OPENING
        opened = opened if inches else not opened
    raise IndexError(place)


def _prime(words: Sequence[str], place: int) -> Sides:
    return True, bool(_SIZE.match(_at(words, place + 1)))


def _apostrophe(words: Sequence[str], place: int) -> Sides:
    """Of one within a word, of a quotation, or at the end of a plural: "the dogs' toys"."""
    opened, found = False, _ALONE
    for at in range(place + 1):
        if words[at] not in _APOSTROPHES:
            continue
        before, after = _around(words, at)
        within = _contraction(words, at)
        if within is not None:
            found = within
        elif opened or not after or _shortened(before):
            opened, found = False, _CLOSING
        elif _is_word(after) and (not _is_word(before) or _closes_later(words, at)):
            opened, found = True, _OPENING
        else:
            found = _WITHIN if _is_word(before) else _CLOSING
    return found


def _contraction(words: Sequence[str], place: int) -> Sides | None:
    """Of an apostrophe within a word, or in front of a shortened one, or of feet; else None."""
    before, after = _around(words, place)
    if _enclosed(words, place + 1):
        return _OPENING
    if _enclosed(words, place - 1):
        return _CLOSING
    if before[-1:].isdigit():
        return (True, bool(_SIZE.match(after)) or after in _CLITICS)
    if after[:1].isdigit():
        return _OPENING  # "the '90s"
    if _is_word(before) and after in _CLITICS and before not in _CLITICS - {"t", "d"}:
        return _WITHIN
    if after in _ELIDED:
        return _WITHIN if (before, after) == ("cap", "n") else _OPENING
    if before in _PREFIXES and _at(words, place - 2) not in _APOSTROPHES and _is_word(after):
        return _WITHIN
    return None


def _enclosed(words: Sequence[str], place: int) -> bool:
    """Whether it is the letter of "rock 'n' roll" and "toys 'r' us"."""
    letter, around = _at(words, place), _around(words, place)
    return letter.isalpha() and len(letter) == 1 and letter not in "stdm" and (
        around[0] == around[1] != "" and around[0] in _APOSTROPHES
        and _is_word(_at(words, place - 2)) and _is_word(_at(words, place + 2)))


def _shortened(word: str) -> bool:
    """Whether a word may end in an apostrophe: a plural, "singin'", "ol' man"."""
    return word in _SHORT or len(word) > 2 and word not in _VERBS and (
        word[-1] in "szx" or word.endswith("in") and len(word) > 3)


def _closes_later(words: Sequence[str], place: int) -> bool:
    """Whether another apostrophe, of no contraction, comes before which there is a word."""
    return any(words[at] == words[place] and _is_word(words[at - 1])
               and _contraction(words, at) is None for at in range(place + 2, len(words)))


Rule = Callable[[Sequence[str], int], Sides]
_RULES: dict[str, Rule] = {
    ".": _full_stop, ",": _comma, ":": _colon, "%": _percent, "\u2030": _percent, "$": _dollar,
    "#": _number_sign, "@": _at_sign, "&": _ampersand, "*": _asterisk, "+": _plus, "=": _equals,
    "|": _bar, "<": _compares, ">": _compares, "~": _tilde, "^": _within, "/": _slash,
    "\\": _within, "(": _bracket, "\u201c": _low_quote, '"': _quote, "\u2032": _prime,
    **dict.fromkeys(_APOSTROPHES, _apostrophe),
    **dict.fromkeys("\u00bf\u00a1\u00a7", _opening), **dict.fromkeys("\u2022\u2020\u2021", _alone),
    **dict.fromkeys("\u00b7\u2027\u05f3\u05f4", _within),
}
# Marks without a rule of their own: opening and closing ones, dashes, and what ends a sentence.
_BY_CATEGORY: dict[str, Rule] = {
    "Ps": _opening, "Pi": _opening, "Pe": _closing, "Pf": _closing, "Po": _closing,
    "Pd": _dash, "Pc": _within,
}
