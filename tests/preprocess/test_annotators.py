"""A model that generates exactly what annotators said has all of its points (VQAv2's own rule)."""


import pytest

from mplug2_jax.metrics.ptb import ptb_tokenize
from mplug2_jax.metrics.vqa import vqa_accuracy
from mplug2_jax.preprocess.tokenizer import BERT_UNCASED, load_tokenizer, train_sentencepiece
from mplug2_jax.tasks.qa import as_people_say

# As annotators write: of field reports, and neighbours of each.
ANSWERS = """
10:30|3.5|$5|50%|u.s.|1,000|don't|t-shirt|7 up|a.m.|yes/no|:)|#1|&|rock 'n' roll|café|naïve|señor
7-up|7-eleven
:(|;)|:-)|;-(|nice :)|:d|:-p|(note:)|a: (b)|<3|^_^|u.s.a.|p.m.|u.s. army|10:30 a.m.
10:30am|1,000,000|$1,000|$1.50|$.99
5'10"|dr. pepper|mt. dew|mr. t|st. louis|e.t.|ph.d.|b&w|m&m's|a&w|at&t|barnes & noble|9/11|1/2|24/7
n/a|w/o|and/or|100%|50% off|0.5|.5|#|%|$|'|"|@|+|-|=|/|?|!|*|~|c++|a+|b-|size 10.5|no. 5|#23|can't
it's|o'clock|10 o'clock|dogs'|'n'|'til|y'all|couldn't've|mother-in-law|x-box|ps3|wii u|2-3|2 or 3
"stop"|'stop'|stop!|stop.|yes, sir|red, white, blue|(left)|left (side)|google.com|www.nba.com
-5|from -5 to 5|70°|70°f|5¢|€5|£5|¥100|½|1½|2×4|crème brûlée|jalapeño|piñata|zürich|são paulo|tōkyō
a@b.com|日本|東京駅
한국|привет|ελλάδα|שלום|İstanbul|smørrebrød|straße|x²|№ 5|…|５|ﬁsh|“stop”|it’s|8–9|yes—no
Yes|U.S.|T-Shirt|NO|Café|1 of 2|2 x 4|1:1|12:00-1:00|100,000|1, 2, 3|10.000|3 1/2|50/50|3d|4x4
""".strip().replace("\n", "|").split("|")


@pytest.fixture(scope="module", params=["WordPiece", "SentencePiece"])
def tokenizer(request, tmp_path_factory):
    if request.param == "WordPiece":
        return load_tokenizer(BERT_UNCASED)
    path = tmp_path_factory.mktemp("pieces") / "answers.model"
    train_sentencepiece(ANSWERS, path, 500)
    return load_tokenizer(path)


def generated(tokenizer, answer):
    ids = tokenizer.encode(answer)
    return None if tokenizer.unk_id in ids else tokenizer.decode(ids)


def test_whoever_says_what_people_said_is_right(tokenizer):
    """Where all ten agree, so that nothing is normalised; where one does not; and three of ten."""
    said = {answer: text for answer in ANSWERS
            if (text := generated(tokenizer, answer)) is not None}
    assert len(said) > 0.9 * len(ANSWERS)
    wrong = []
    for answer, text in said.items():
        for given in ([answer] * 10, [answer] * 9 + ["other thing"],
                      [answer] * 4 + ["other thing"] * 6):
            found = vqa_accuracy(*([one] for one in as_people_say(tokenizer.said, text, given)))
            wrong += [(answer, text, len(set(given)))] * int(found[0] != 1)
    assert not wrong


def test_what_a_server_would_compare_is_left_as_it_is(tokenizer):
    """Of answers that a model can say, also where spaces are written otherwise than it does."""
    for answer in ("10 : 30", "3. 5", "yes , no", "t - shirt", "5 %", "two dogs", "don't"):
        given = [answer] * 9 + ["other"]
        assert as_people_say(tokenizer.said, "x y", given) == ("x y", given)
    assert as_people_say(tokenizer.said, "Yes", ["Yes"] * 3) == ("yes", ["yes"] * 3)


def test_another_answer_is_still_wrong(tokenizer):
    for said, answer in (("10:31", "10:30"), ("cafes", "café"), ("35", "3.5"), ("us", "yes"),
                         ("1.000", "1,000"), ("", ":)"), ("$50", "$5")):
        for given in ([answer] * 10, [answer] * 9 + ["other thing"]):
            assert vqa_accuracy(*([one] for one in as_people_say(
                tokenizer.said, said, given)))[0] == 0


def test_what_is_said_is_said_again(tokenizer):
    """`said` is what comes back, and nothing more happens to it."""
    known = [answer for answer in ANSWERS if generated(tokenizer, answer) is not None]
    assert [tokenizer.said(one) for one in known] == [generated(tokenizer, one) for one in known]
    assert [tokenizer.said(tokenizer.said(one)) for one in known] == [
        tokenizer.said(one) for one in known]


def test_captions_are_scored_by_the_same_tokens(tokenizer):
    """CIDEr's tokenizer drops marks, and finds the same words whether they are close or not."""
    texts = [f"a sign with {answer} on it ." for answer in ANSWERS]
    texts = [text for text in texts if tokenizer.unk_id not in tokenizer.encode(text)]
    # A mark alone before a word, or a sign before a number, may be close to either.
    other = [text for text in texts if ptb_tokenize(tokenizer.said(text)) != ptb_tokenize(
        tokenizer.decode(tokenizer.encode(text)))]
    differ = [text for text in texts if text.isascii() and ptb_tokenize(text.lower()) != (
        ptb_tokenize(tokenizer.decode(tokenizer.encode(text))))]
    assert len(texts) > 150 and not other
    assert {text[12:-8] for text in differ} <= {".5", "#", "@", "-", "/", "b-", "-5",
                                                  ":d", ":-p"}
