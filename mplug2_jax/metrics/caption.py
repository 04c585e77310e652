"""Caption scores: CIDEr, BLEU-1..4 and ROUGE-L, equal to `pycocoevalcap`'s, without Java.

METEOR and SPICE, whose only accepted implementations are Java programs, are in `java`. The package
is of 100 MB: it is imported where it scores, and what predicts alone goes without.
"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from mplug2_jax.metrics.cider import CiderD
from mplug2_jax.metrics.ptb import ptb_tokenize
from mplug2_jax.metrics.scores import Score, mean, within

_ORDER = 4  # BLEU's longest n-gram
_SMALL, _TINY = 1e-9, 1e-15  # as pycocoevalcap adds them, so that nothing divides by zero


def caption_scores(
    references: Mapping[Hashable, Sequence[str]], predictions: Mapping[Hashable, str]
) -> dict[str, float]:
    """Scores of one prediction per clip against that clip's references.

    Returns `cider` (0..10: 1.0 is what papers print as 100), `bleu1`..`bleu4` and `rouge_l` (0..1),
    all over the whole corpus. CIDEr weighs words by how few clips' references hold them, so it
    depends on which clips are scored together and is 0 for a single clip. An empty prediction is
    scored, as 0. ValueError, naming the ids, if the two mappings have different keys, are empty,
    or if a clip has no references or none holds a word.
    """
    gold, said = tokenize(references, predictions)
    # One order of clips whoever gathered them, so that float sums agree to the last bit.
    ids = sorted(gold, key=lambda clip: (str(type(clip)), str(clip)))
    scores = score_tokens([gold[clip] for clip in ids], [said[clip] for clip in ids])
    return {name: score.value for name, score in scores.items()}


def tokenize(
    references: Mapping[Hashable, Sequence[str]], predictions: Mapping[Hashable, str]
) -> tuple[dict[Hashable, list[str]], dict[Hashable, str]]:
    """The tokens of both, in the order of `references`; errors as those of `caption_scores`."""
    _check(references, predictions)
    gold = {clip: [ptb_tokenize(text) for text in texts] for clip, texts in references.items()}
    said = {clip: ptb_tokenize(predictions[clip]) for clip in references}
    if not any(any(texts) for texts in gold.values()):
        raise ValueError("references hold no words, only punctuation or nothing")
    return gold, said


def score_tokens(
    gold: Sequence[Sequence[str]], said: Sequence[str], groups: Sequence[str] | None = None
) -> dict[str, Score]:
    """`cider`, `bleu1`..`bleu4` and `rouge_l` over clips, of tokens as `tokenize` gives them.

    A clip's own BLEU is that of it alone. For intervals CIDEr keeps the word weights of all clips.

    Args:
      gold: the references of each clip.
      said: its prediction.
      groups: with it, `<group>/<name>` in addition for the clips of each group, such as NoCaps'
        domains. Each is a corpus of its own, with its own word weights, so that the mean over
        groups is not the figure of the whole.
    """
    from pycocoevalcap.rouge.rouge import Rouge

    scores = {"cider": mean(CiderD(gold).score(said, gold)), **_bleu(gold, said),
              "rouge_l": mean([Rouge().calc_score([text], texts)
                               for text, texts in zip(said, gold, strict=True)])}
    groups = groups or ()
    for group in sorted(set(groups)):
        rows = [i for i, name in enumerate(groups) if name == group]
        part = score_tokens([gold[i] for i in rows], [said[i] for i in rows])
        scores |= {f"{group}/{name}": within(score, rows, len(said))
                   for name, score in part.items()}
    return scores


def _bleu(gold: Sequence[Sequence[str]], said: Sequence[str]) -> dict[str, Score]:
    """BLEU with the closest reference length, from each clip's matches."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=_ORDER)
    for text, texts in zip(said, gold, strict=True):
        scorer += (text, texts)
    each = []
    for clip in scorer.ctest:
        length = clip["testlen"]
        closest = min((abs(other - length), other) for other in clip["reflen"])[1]
        each.append([length, closest, *clip["correct"], *clip["guess"]])
    terms = np.array(each, np.float64)  # [N, 2 + 2 * _ORDER]

    def score(n: int) -> Score:
        return Score(_combine(terms, n), lambda counts: _combine(counts @ terms, n))

    return {f"bleu{n}": score(n) for n in range(1, _ORDER + 1)}


def _combine(sums: np.ndarray, n: int) -> np.ndarray:
    """BLEU-n of sums [..., 2 + 2 * _ORDER]: lengths said and right, matches, n-grams said."""
    matches, ngrams = sums[..., 2:2 + n], sums[..., 2 + _ORDER:2 + _ORDER + n]
    precision = np.prod((matches + _TINY) / (ngrams + _SMALL), axis=-1) ** (1 / n)
    share = (sums[..., 0] + _TINY) / (sums[..., 1] + _SMALL)
    return precision * np.exp(np.minimum(0, 1 - 1 / share))


def _check(references: Mapping, predictions: Mapping) -> None:
    if not references:
        raise ValueError("caption scores need at least one clip with references")
    for problem, ids in (
        ("predictions without references", predictions.keys() - references.keys()),
        ("references without predictions", references.keys() - predictions.keys()),
        ("no references for", {clip for clip in references if not references[clip]}),
    ):
        if ids:
            first = ", ".join(sorted(map(str, ids))[:5])
            raise ValueError(f"{problem}: {first}" + (f" and {len(ids) - 5} more" * (len(ids) > 5)))
    for clip, texts in references.items():
        if isinstance(texts, str):
            raise ValueError(f"references of {clip} are one string; expected a list of strings")
