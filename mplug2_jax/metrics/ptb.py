r"""Penn-Treebank tokenisation of captions, as the COCO caption scores expect it, without Java.

`pycocoevalcap` runs Stanford CoreNLP 3.4.1 (`PTBTokenizer -preserveLines -lowerCase`) in a JVM and
then drops a fixed list of punctuation. This module gives the same tokens in Python. It was written
from the observed behaviour of that program (outputs frozen in `tests/golden/ptb_tokens.json`), odd
sides included, because published scores were computed with them: brackets stay, as `-lrb-`, since
the list names the upper-case form and the tokens are lower case; `!!` stays, since only `!` is
listed. Differences are left in forms that captions hardly have: e-mail and web addresses with
punctuation attached, version numbers such as `0.11.x`.
"""

import re

# pycocoevalcap's list, less the entries that lower-cased tokens never equal. Double quotation
# marks are not here because they are separators below; "---" and "----" are written "--" there.
_DROPPED = set("' '' ` `` . ? ! , : - -- --- ---- ... ; \u2010 \u2011 \u058a".split())

# Written forms that come out as another token; everything else comes out lower-cased.
_RENAMED = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
    "£": "#",
    "¢": "cents",
    "€": "$",
    "¤": "$",
    "½": "1/2",
    "¼": "1/4",
    "¾": "3/4",
    "⅓": "1/3",
    "⅔": "2/3",
}

# Abbreviations that keep their full stop: wherever they stand,
_ABBREVIATIONS = """
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri
    mr mrs ms dr drs mme mlle messrs msgr jr sr st ste esq hon prof profs pres rev
    rep reps sen sens gov govs adm atty brig capt cmdr col cpl det ens gen insp lieut lt maj
    pfc pvt sfc sgt spc supt assn assoc asst bancorp bhd bldg bros cie co corp cos dept elec ext
    inc ind intl invt ltd mfg mtg natl plc ppte ppty ptes ptys pte pty sys tel univ
    ave blvd ft mt rd rt sq adj adv al cf etc est ph seq vs alex jos wm
    ala ariz calif colo conn ct dak fla ga kan kans ky md mich minn mo mont neb nev okla penn
    tenn va vt wis wisc wyo
""".split()
# with a capital only, being words otherwise,
_CAPITAL_ABBREVIATIONS = "Az La Pa Ark Del Ill Ore Tex Mass Miss Wash".split()
# and in front of a number only.
_NUMBER_ABBREVIATIONS = "ca no nos op pp art fig figs prop".split()

_L = r"[^\W\d_]"  # a letter
# A letter, digit or combining mark, but no superscript, subscript or fraction.
_W = (
    r"(?:[^\W_\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u215f]"
    r"|[\u0300-\u036f\u0900-\u0903\u093a-\u094f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e])"
)
_J = r"[-_/\u2010\u2011\u058a]"  # joins the parts of one word: "horse-drawn", "and/or"
_END = rf"(?!{_L})"  # a clitic is one only where the word ends
_URL = r"[^\s\"<>()]*[^\s\"<>().,!?;:']"  # the rest of an address, without closing punctuation


def _any(words: list[str]) -> str:
    return "|".join(words)


# Each rule has the token as group 1. The rule with the longest match wins, what it matches after
# the token included; of equals the first. Case is ignored except within (?-i:...).
_RULES = [
    # Words that split without an apostrophe: "can not", "gon na".
    rf"(can(?=not)|gon(?=na)|wan(?=na)|got(?=ta)|gim(?=me)|lem(?=me)){_L}{{2,3}}(?!'?{_L})",
    # Clitics: "do n't", "it 's", "more 'n", "'t is", "y' all", "ol'", "'em", "the '90s".
    rf"({_W}+?)n['`]t{_END}",
    rf"(n['`]t){_END}",
    rf"('(?:s|m|d|ll|re|ve|n|cause)){_END}",
    r"('n')",
    r"('t)(?:is|was)",
    rf"([yj]'|ol')(?![dmrsv]){_L}{{2,}}",
    rf"(ol'){_END}",
    rf"('(?:em|til){_L}*)",
    rf"('\d\d(?:s|(?![:%'])))(?!{_W})",
    # Apostrophes that stay inside a word: "o'clock", "d'arc", "ma'am".
    rf"((?:[dlno]'{_L}|{_W}*{_L}[aeiouy]'[aeiou]){_L}+(?:-{_W}+)*)",
    rf"((?:c'(?:mon|est)|[eo]'er|li'l|nat'l|s'mores)){_END}",
    # Words, with hyphens, slashes and decimals: "well-known", "km/h", "1.5-inch".
    rf"({_W}+(?:{_J}{_W}+)*)",
    rf"(\d+(?:[.,]\d+)+(?:-{_W}+)+)",
    r"(c\+\+|[cf]#)",
    rf"({_W}+(?:[!?]{_W}+)+)",
    r"(?-i:([A-Z]+&[A-Z]+))(?![a-zA-Z])",
    # Numbers, times, "1 1/2" (one token), "US$".
    r"([-+]?\d+)",
    r"([-+]?\d*(?:[.,:]\d+)+)",
    r"(\d{1,4}[ \u00a0]\d{1,4}/\d{1,4})",
    r"(\(\d{3}\) ?\d{3}-\d{4})",  # a telephone number, one token
    r"(?-i:((?:US|HK|NZ|[ACRS])\$))",
    # Full stops inside a token: acronyms, words run together ("dog.The"), abbreviations.
    r"([A-Za-z](?:\.[A-Za-z])*\.)",
    rf"([A-Za-z](?:\.[A-Za-z])+\.?(?:-{_W}+)+)",
    rf"([A-Za-z]{_W}*(?:-{_W}+)*(?:\.{_L}{_W}*(?:-{_W}+)*)+)",
    rf"((?:ph\.d|{_any(_ABBREVIATIONS)})\.)",
    rf"(?-i:((?:{_any(_CAPITAL_ABBREVIATIONS)})\.))",
    rf"((?:{_any(_NUMBER_ABBREVIATIONS)})\.)[ ]+\d",
    rf"({_W}+(?:{_J}{_W}+)*\.)[,;:]",
    # Addresses, user names, markup, entities.
    rf"((?:https?://|www\.){_URL})",
    rf"({_W}[\w.-]*\.(?:com|net|org|edu)/{_URL})",
    r"(\w[\w.+-]*@\w[\w-]*(?:\.\w[\w-]*)*)",
    r"([@#][A-Za-z]\w*)",
    r"(</?[A-Za-z!][^<>]*>)",
    r"(&(?:amp|lt|gt|#\d+);)",
    # Emoticons, runs of punctuation, any other character.
    rf"([<>]?[:;=][-o*']?(?-i:[()\[\]dDpPO@|\\{{])){_END}(?!\d)",
    r"(\^_\^|-_-)",
    r"([!?]+|\.\.\.|-+|\*{1,3}|_+|<<|>>|''|``)",
    r"(.)",
]
_PATTERNS = [re.compile(rule, re.IGNORECASE) for rule in _RULES]
_PLAIN_WORD = re.compile(r"[A-Za-z]+(?=\s|$)")
_SPLITTING_WORDS = {"cannot", "gonna", "wanna", "gotta", "gimme", "lemme"}

_SAME_AS = str.maketrans({"\u2019": "'", "\u00ad": None})
# Dashes, ellipses and quotation marks would only become dropped tokens; what CoreNLP cannot read
# (above U+FFFF, variation selectors, joiners, private use) separates tokens like a space.
_SEPARATORS = re.compile(
    r'["\u2026\u2012-\u2015\u2018\u201a\u201b\u201c\u201d\u00ab\u00bb\u2039\u203a\u300c-\u300f'
    r"\u0080-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2064\u20d0-\u20f0\ue000-\uf8ff"
    r"\ufe00-\ufe0f\ufeff\U00010000-\U0010ffff]|&(?:quot|nbsp|apos);"
)


def ptb_tokenize(text: str) -> str:
    """One caption -> its tokens, lower case, with single spaces; "" if it is all punctuation."""
    text = _SEPARATORS.sub(" ", text.translate(_SAME_AS))
    tokens = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        token = _next_token(text, position)
        position += len(token)
        if token not in _DROPPED:
            tokens.append(_output_form(token))
    return " ".join(tokens)


def _next_token(text: str, position: int) -> str:
    """The token that starts at `position` of `text`, as it is written there."""
    word = _PLAIN_WORD.match(text, position)
    if word and word[0].lower() not in _SPLITTING_WORDS:  # most of a caption: skip the rules
        return word[0]
    matches = [match for rule in _PATTERNS if (match := rule.match(text, position))]
    return max(matches, key=lambda match: match.end())[1]


def _output_form(token: str) -> str:
    """The token as the scores see it: lower case, renamed, no space inside."""
    if token in _RENAMED:
        return _RENAMED[token]
    # The brackets of an emoticon or a telephone number are named too.
    if token[0] in "(:;=<>" and not token.endswith(">"):
        token = token.replace("(", "-lrb-").replace(")", "-rrb-")
    return token.lower().replace(" ", "\u00a0")
