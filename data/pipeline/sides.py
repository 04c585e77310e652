"""Whether words hold of a picture and not of its mirror image: English, and a few of others.

So do words of sides, of turning and of handedness, positions and times on a clock, directions of a
map, and what is read in the picture: letters and numbers. In doubt a text counts as one of these: a
picture that is not mirrored is right, too. Short and misspelt words are those of RefCOCO's phrases.
"""

import re
import unicodedata

# In a word of its own or as the beginning of one, such as "leftmost", "righthand", "left2";
_LEFT_RIGHT = re.compile(r"""
    (?:\d+(?:st|nd|rd|th)?)?
    (?:upper|lower|top|bottom|bott?|btm|far|mid|middle|cent(?:er|re)|front|back|rear|most)*
    (?:left(?!overs?$) | right(?!(?:s|ly|ful|fully|fulness|ness|ed|eous\w*)$)
       | (?:lft|lf|lt|lef|letf|elft|lefft|lfet|rt|rht|rgt|rght|righ|rigth|rihgt|rigt|rigjt)
         (?:hand|side|most)?\d*$ | [lr](?:hs?|hand|side|most)?$)
    """, re.VERBOSE)
# and others, each alone.
_WORDS = set("""
    tl tr bl br ul lr l2r r2l ltr rtl clockwise anticlockwise counterclockwise cw ccw acw
    southpaw southpaws dextral sinistral starboard portside widdershins contraclockwise
    links linke linker linkes linken linkem rechts rechte rechter rechtes rechten rechtem
    gauche gauches droite droites izquierda izquierdo derecha derecho izq sinistra sinistro destra
    destro esquerda esquerdo direita direito vänster höger venstre højre kiri kanan lewo lewej prawo
    prawej uhrzeigersinn
""".split())
# Languages without blanks between words, or with many endings: anywhere in a word.
_ANYWHERE = re.compile("[左右]|왼쪽|오른쪽|слева|справа|лев(?:ый|ая|ое|ой|ого|ом|ую)\\b"
                       "|прав(?:ый|ая|ое|ой|ого|ом|ую)\\b|влево|вправо|налево|направо"
                       "|顺时针|逆时针|時計回り")
_COMPASS = re.compile(r"(?:north|south)?(?:east|west)(?:bound|wards?|erly)?|(?:north|south)"
                      r"(?:east|west)ern")
# What looks like these and is not: initials, litres, "right now", names.
_OTHERWISE = re.compile(r"""
    \b(?:[a-z]\.\ ?){2,} | \b[a-z]\ ?&\ ?[a-z]\b | ['\u2019](?:ll|re|ve|[a-z])\b
    | \b[lr]['\u2019](?=[a-z]) | \btoys\ ['"]?r['"]?\ us\b
    | \b(?:r\ u|u\ r|(?:who|how|we|they)\ r)\b
    | \b\d+(?:\.\d+)?\ ?l\ (?:of|bottles?|cans?|jugs?|engines?|milk|water)\b
    | \bright\ (?:now|away|angles?|answers?|after|side\ up|of\ way)\b | \bright-(?:of-way|side-up)\b
    | \ball\ right\b | \b(?:human|civil|equal|gay|voting)\ rights?\b | \bleft[ -]overs?\b
    | \brt\.?\ \d\d+ | \bbrand[ -]new\b | \brite\ aid\b
    | \b(?:kanye|mae|adam|wild|old|key|middle|far)\ (?:west|east)\b
    | \b(?:west|east)\ (?:virginia|coast|ham|indies|germany|africa|asia|point)\b
    | \btime\ of\ (?:the\ )?(?:day|year)\b
    """, re.VERBOSE)
# Several words of a side, of a clock, and of what is read.
_PHRASES = re.compile(r"""
    \b[ns][ew]\ (?:corner|side)\b | \bport\ side\b
    | \b(?:driver|passenger)s?'?\ +(?:side|seat|door|window)\b | \brite\b(?!\ of\b)
    | \bo\ ?['\u2019]?\ ?clock\b | \b\d\d?:\d\d\b | \b\d\d?\ ?[ap]\.?m\b | \bwhat\ time\b
    | \bhalf\ past\b | \bquarter\ (?:past|to)\b
    | \b(?:letters?|words?|texts?|written\ (?:on|at|above|under|below|across)|writings?
           |spell(?:s|ed)?|logos?|brands?|subtitles?|says?|saying|reads|initials?|alphabets?
           |speed\ limits?|(?:license|number)\ plates?|(?:street|store)\ names?
           |(?:what|which)\ numbers?|numbers?\ (?:on|\d+))\b
    | \#\ ?\d | \bno\.\ ?\d | \b(?:player|jersey|shirt|bib|uniform|bus|train|horse|route)\ \d+
    | \b\d+\ (?:jersey|shirt|bib|uniform|bus)\b | \d+\ on\ (?:the\ |his\ |her\ |its\ )?
      (?:jersey|shirt|bib|uniform|back|chest|front)\b
    | (?<!\d)["\u201c][^"\u201d]*[a-z]
    """, re.VERBOSE)
_NUMBERS = set("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty
""".split())
# What stands beside a letter or a number in the name of its class.
_KINDS = set("""
    digit number numeral num letter character char class upper uppercase lower lowercase capital
    small caps
""".split())


def names_side(text: str) -> bool:
    """Whether a caption, a phrase, a question or an answer would be wrong of the mirrored picture.

    Words are found in whatever writing: "Turning_Left", "TurnLeft", "LEFT", "left-hand".
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", text))
    text = " ".join(text.replace("_", " ").lower().split())
    text = _OTHERWISE.sub(" ", text)
    return bool(_PHRASES.search(text) or _ANYWHERE.search(text)) or any(
        _LEFT_RIGHT.match(word) or word in _WORDS or _COMPASS.fullmatch(word)
        # "rigghtt"
        or len(word) > 4 and _LEFT_RIGHT.match(re.sub(r"(.)\1+", r"\1", word))
        for word in re.findall(r"[^\W_]+", text))


def as_class(label: str) -> str:
    """A class in words: of one letter, or a number, it is what is read in the picture."""
    label = label.strip()
    words = re.findall(r"[^\W\d_]+|\d+|[^\w\s]+", re.sub(r"[ _-]+", " ", label.lower()))
    rest = [word for word in words if word not in _KINDS]
    said = rest[0] if len(rest) == 1 else ""
    read = said.isdigit() or said in _NUMBERS or len(said) == 1 and said.isalpha()
    return f"it reads {label}" if read else label
