"""Answers come back from either vocabulary as they were written, and score as themselves.

BERT's own vocabulary is that of the package.
"""

import itertools
import random
import unicodedata

import pytest

from mplug2_jax.metrics.accuracy import exact_match
from mplug2_jax.metrics.ptb import ptb_tokenize
from mplug2_jax.metrics.vqa import normalize_vqa_answer, vqa_accuracy
from mplug2_jax.preprocess.tokenizer import BERT_UNCASED, load_tokenizer, train_sentencepiece

NOUNS = "dog cat cup mile year people pizza bus sign way story hour".split()
NAMES = "smith louis tolkien johnson washington miller".split()
INITIALS = "j.k. r.l. u.s. u.k. d.c. l.a. t.v. p.m. a.m. e.g. i.e. n.y.c. u.s.a. ph.d.".split()
# What has a rule of its own, each as it is written.
SPECIAL = """
    o'clock|3 o'clock|don't|can't|it's|they're|couldn't've|y'all|y'all'd've|ma'am|o'neill|i'm 5'10"
    dogs' toys|the boys' and girls' rooms|james' house|chris's dog|mcdonald's|rock 'n' roll|'til 5
    toys 'r' us|fish 'n chips|cap'n crunch|guns n' roses|dunkin' donuts|'90s|the '90s|90's|get 'em
    'tis the season|5'10"|6'|6' tall|4'x4'|8.5"x11"|12" pizza|32" tv|sign says 'stop'|'stop' sign
    a "stop" sign|"stop"|says "5"|"hi" and "bye"|he said "hi"|hawai'i|xi'an|jeanne d'arc|ol' man
    gov't|l'oréal|t-shirt|x-ray|mother-in-law|10-year-old|covid-19|from -5 to -1|9-to-5|-5|-3.5|-$5
    555-1234|1-800-555-1234|(555) 555-1234|c++|c++ code|c#|a+|b-|10+|10+ people|+1|2+2=4|y=2x+1|x^2
    5*5|m*a*s*h|<5|>5|i <3 you|~5|5~10|#1|#1 dad|#hashtag|route #5|r&b|at&t|h&m|m&m's|pb&j|a&w|q&a
    salt & pepper|barnes & noble|you & i|texas a&m|1/2|1 1/2|24/7|and/or|km/h|n/a|w/o|w/ cheese
    $3.99/lb|50/50|50%|50% off|5%-10%|99.9%|$5|$.50|$1,000.50|$5-$10|us$5|5$|$$$|ke$ha
    10:30 am|10:30am|9:00 a.m.-5:00 p.m.|9am-5pm|3:1|john 3:16|note: yes|10:30:45|mr. smith|no. 5
    st. patrick's day|u.s. army|washington, d.c.|approx. 10|about .5|.38 caliber|v2.0|192.168.1.1
    google.com|www.bbc.co.uk|a@b.com|john.smith@my-site.co.uk|https://www.google.com/a|file.jpg|@nba
    yes!|what?|what?!|yes, sir|yes; no|um, no|wait... what|...and then|...|it is a dog. it runs.
    he said: "it's 10:30."|dog(s)|(left)|left (side)|[1]|{a}|a_b|a|1. dog 2. cat|red, white & blue
    don’t|o’clock|dogs’ toys|l’oréal|“stop”|‘stop’|it’s 5 o’clock|8–9|2010–2012|yes—no|€5–€10|5′10″
    ¿que?|¡hola!|«oui»|„ja“|café|crème brûlée|jalapeño|naïve|zürich|são paulo|piñata|el niño|łódź
    jack-o'-lantern|€1.000,50|¼ lb.|2½-inch|f***|5* hotel|'12|class of '85|703.555.1212|c:\\windows
    cost $5, not $6|25°c|70°f|45° angle|-40°f|€5|5€|5,50 €|0,5|£5.50|¥100|₹500|10¢|½|1½|3½ cups
    ¾ mile|2×4|±5|−5|x²|日本|日本、東京|привет, мир|как дела?|ελλάδα|한국|مرحبا، عالم|שלום
"""


def answers():
    """2,000 different ones, the same each time."""
    rng = random.Random(4)
    n = rng.randint
    noun, letter = lambda: rng.choice(NOUNS), lambda: rng.choice("bcdefghjklmnopqrtuvwxyz")
    forms = [
        lambda: f"{n(1, 999)},{n(0, 999):03}", lambda: f"{n(1, 99)},{n(0, 999):03},{n(0, 999):03}",
        lambda: f"{n(0, 99)}.{n(0, 999)}", lambda: f".{n(1, 99)}", lambda: f"-{n(1, 50)}",
        lambda: f"{n(1, 12)}:{n(0, 59):02}", lambda: f"{n(1, 12)}:{n(0, 59):02} {noun()}",
        lambda: f"{n(1, 12)}:{n(0, 59):02} {rng.choice(['am', 'pm', 'a.m.', 'p.m.'])}",
        lambda: f"{n(0, 23)}:{n(0, 59):02}-{n(0, 23)}:{n(0, 59):02}",
        lambda: f"${n(1, 999)}", lambda: f"${n(1, 99)}.{n(0, 99):02}", lambda: f"£{n(1, 99)}",
        lambda: f"${n(1, 9)},{n(0, 999):03}.{n(0, 99):02}", lambda: f"€{n(1, 99)}.{n(10, 99)}",
        lambda: f"{n(1, 99)}%", lambda: f"{n(1, 99)}.{n(0, 9)}% {noun()}",
        lambda: f"{n(1, 99)} {rng.choice(['km/h', 'm/s', 'mph', 'ft.', 'lbs.', 'oz.', 'kg'])}",
        lambda: f"{n(1, 99)}{rng.choice(['km', 'kg', 'mm', 'ft', 'lb', 'st', 'th', 'px'])}",
        lambda: f"{n(1, 99)}-{n(1, 99)}", lambda: f"{n(1, 99)}–{n(1, 99)} {noun()}s",
        lambda: f"{n(2, 20)}-{noun()}", lambda: f"{noun()}-{noun()}",
        lambda: f"{letter()}-{noun()}",
        lambda: f"{noun()}-{letter()}-{noun()}", lambda: f"{letter()}-{n(1, 99)}",
        lambda: f"{letter()}.{letter()}.", lambda: f"{letter()}.{letter()}. {rng.choice(NAMES)}",
        lambda: f"{letter()}.{letter()}.{letter()}.", lambda: f"{rng.choice(INITIALS)} {noun()}",
        lambda: f"{rng.choice(['mr', 'dr', 'st', 'mt'])}. {rng.choice(NAMES)}",
        lambda: f"{letter()}&{letter()}", lambda: f"{noun()} & {noun()}",
        lambda: f"{n(1, 9)}/{n(2, 9)}", lambda: f"{n(1, 9)} {n(1, 9)}/{n(2, 9)}",
        lambda: f"{n(1, 12)}/{n(1, 28)}/{n(1990, 2030)}", lambda: f"{noun()}/{noun()}",
        lambda: f"{n(1, 9)}{rng.choice('½¼¾')} {noun()}s", lambda: f"{n(1, 99)}°{rng.choice('cf')}",
        lambda: f"{rng.choice(NAMES)}'s {noun()}", lambda: f"{noun()}s' {noun()}",
        lambda: f"the {noun()}'s", lambda: f"{n(4, 6)}'{n(0, 11)}\"", lambda: f"'{n(10, 99)}s",
        lambda: f"{rng.choice(['is', 'do', 'did', 'was', 'could'])}n't {noun()}",
        lambda: f"#{n(1, 99)}", lambda: f"{noun()} #{n(1, 99)}", lambda: f"no. {n(1, 99)}",
        lambda: f"{n(1, 99)}+ {noun()}s", lambda: f"{n(1, 99)}+{n(1, 99)}={n(1, 99)}",
        lambda: f"{noun()}, {noun()} and {noun()}", lambda: f"{noun()}!", lambda: f"{noun()}?",
        lambda: f"it is a {noun()}. there are {n(2, 99)}.", lambda: f'"{noun()}"',
        lambda: f'a "{noun()} {noun()}" sign', lambda: f"{noun()} ({noun()})",
        lambda: f"{noun()}.com", lambda: f"www.{noun()}.org",
        lambda: f"{letter()}.{noun()}@{noun()}.net", lambda: f"v{n(1, 9)}.{n(0, 9)}",
        lambda: f"{n(1, 9)}.{n(0, 9)} x {n(1, 9)}.{n(0, 9)} {noun()}",
        lambda: f"{noun()} {noun()}", lambda: f"{n(1, 3000)}", lambda: f"café {noun()}",
        lambda: f"{rng.choice(['résumé', 'über', 'piñata', 'naïve'])} {n(1, 99)}",
    ]
    found = dict.fromkeys(answer.strip() for line in SPECIAL.strip().split("\n")
                          for answer in line.strip().split("|"))
    for form in itertools.cycle(forms):
        if len(found) == 2000:
            return list(found)
        found[form()] = None


ANSWERS = answers()


def folded(text):
    """Lower-cased and without accents, as BERT's uncased vocabulary reads."""
    letters = unicodedata.normalize("NFD", text.lower())
    return unicodedata.normalize(
        "NFC", "".join(char for char in letters if unicodedata.category(char) != "Mn"))


@pytest.fixture(scope="module")
def bert():
    return load_tokenizer(BERT_UNCASED)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    path = tmp_path_factory.mktemp("pieces") / "answers.model"
    train_sentencepiece(ANSWERS, path, 1200)
    return load_tokenizer(path)


def test_there_are_2000_answers_of_every_form(bert):
    assert len(set(ANSWERS)) == 2000
    assert not [answer for answer in ANSWERS if bert.unk_id in bert.encode(answer)]
    for mark in ".,:;!?'\"-–—/%$#&()[]{}@_+*=<>~^°€£½’“”":
        assert any(mark in answer for answer in ANSWERS), mark


def test_wordpiece_gives_every_answer_back(bert):
    said = [bert.decode(bert.encode(answer)) for answer in ANSWERS]
    assert said == [folded(answer) for answer in ANSWERS]
    for answer, text in zip(ANSWERS, said, strict=True):
        assert bert.encode(text) == bert.encode(answer), answer
    assert exact_match(said, [folded(answer) for answer in ANSWERS]).mean() == 1


def test_sentencepiece_gives_every_answer_back(pieces):
    said = [pieces.decode(pieces.encode(answer)) for answer in ANSWERS]
    lower = [unicodedata.normalize("NFC", answer.lower()) for answer in ANSWERS]
    # Its normalisation is NFKC: what that changes is the same to exact matching, not to a server.
    changed = {want for got, want in zip(said, lower, strict=True) if got != want}
    assert changed <= {"x²", "5′10″", "...", "wait... what", "...and then"}, changed
    assert exact_match(said, ANSWERS).mean() == 1


def test_vqav2_s_own_rule_gives_every_answer_its_point(bert, pieces):
    """Also where all ten agree, so that nothing is normalised."""
    for tokenizer in (bert, pieces):
        wanted = [folded(a) if tokenizer is bert else a.lower() for a in ANSWERS if a not in (
            "x²", "5′10″") or tokenizer is bert]
        said = [tokenizer.decode(tokenizer.encode(answer)) for answer in wanted]
        assert vqa_accuracy(said, [[a] * 10 for a in wanted]).mean() == 1
        assert vqa_accuracy(said, [[a] * 9 + ["other"] for a in wanted]).mean() == 1
        assert [*map(normalize_vqa_answer, said)] == [*map(normalize_vqa_answer, wanted)]


@pytest.mark.parametrize("text", [
    "10 : 30", "3. 5", "$ 5", "50 %", "u. s.", "1, 000", "8 - 9", "yes , sir", "t - shirt", "b & w",
    "b&w", "rock'n'roll", "2 + 2", "3 , 5", "10 a.m. - 5 p.m.", "6' 2\"", "j. k. rowling", "a / b",
    "what ?", "( left )", "stop'n'go", "1 , 2 , 3", "p!nk", "日 本", "' 90s", "x = 5", "10 – 20",
    "Red", "U.S.", "Straße", "１０", "ﬁsh", "²", "№ 5",
])
def test_exact_matching_counts_no_space_beside_a_mark(bert, pieces, text):
    able = [one for one in (bert, pieces) if one.unk_id not in one.encode(text)]
    assert able
    for tokenizer in able:
        assert exact_match([tokenizer.decode(tokenizer.encode(text))], [text]) == 1


@pytest.mark.parametrize("said, answer", [
    ("a b", "ab"), ("t shirt", "t-shirt"), ("10", "1.0"), ("10.30", "10:30"), ("dogs", "dog's"),
    ("1 000", "1,000"), ("cafe", "café"), ("5", "-5"), ("us", "u.s."), ("1 1/2", "11/2"),
    ("", "'"),
])
def test_exact_matching_is_exact(said, answer):
    assert exact_match([said], [answer]) == 0


def test_spaces_between_words_stay(bert):
    """Text changes beside marks and nowhere else; encoded again it has the same ids."""
    rng = random.Random(0)
    parts = ["dog", "5", "10", "000", "s", "t", "n", "o", "a", *".,:;!?'\"-/%$#&()[]@_+*=<>~^|",
             "u", "’", "“", "”", "–", "…", "日", "本", "°", "½", "ring", "www", "com", "w"]
    for _ in range(5000):
        text = "".join(rng.choice(parts) + rng.choice(["", " "]) for _ in range(rng.randint(1, 12)))
        ids = bert.encode(text)
        if bert.unk_id in ids:
            continue
        said = bert.decode(ids)
        assert bert.encode(said) == ids, text
        assert bert.decode(bert.encode(said)) == said
        assert said.replace(" ", "") == folded(text).replace(" ", "")


def test_captions_have_the_tokens_that_they_are_scored_by(bert):
    """Those of the references, which have been written by people: Penn-Treebank's."""
    for text in ("a man's dog plays with a t-shirt-clad boy, isn't it?",
                 "it is 10:30 on the u.s. clock", "a sign that says \"stop\" and costs $5.50",
                 "two 10-year-old girls' bikes (red)", "the o'clock news at 50% off",
                 "1,000 people at a rock 'n' roll show."):
        assert ptb_tokenize(bert.decode(bert.encode(text))) == ptb_tokenize(text)


def test_said_is_what_comes_back_of_a_text(bert):
    assert all(bert.said(answer) == bert.decode(bert.encode(answer)) for answer in ANSWERS)
    assert bert.said("Café, 10 : 30") == "cafe, 10:30"
    assert bert.said("\U0001f44d Yes") == "\U0001f44d yes" and bert.said("\u200b") == "\u200b"
    assert bert.decode([]) == "" and bert.decode(bert.encode("'")) == "'"
