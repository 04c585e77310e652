"""Caption scores (CIDEr, BLEU-1..4, ROUGE-L) by `pycocoevalcap`, on PTB tokens, without Java.

METEOR and SPICE are left out: their only accepted implementations are Java programs.
"""

from collections.abc import Hashable, Mapping, Sequence

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from mplug2_jax.metrics.ptb import ptb_tokenize


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
    _check(references, predictions)
    # One order of clips whoever gathered them, so that float sums agree to the last bit.
    ids = sorted(references, key=lambda clip: (str(type(clip)), str(clip)))
    gold = {clip: [ptb_tokenize(text) for text in references[clip]] for clip in ids}
    said = {clip: [ptb_tokenize(predictions[clip])] for clip in ids}
    if not any(any(texts) for texts in gold.values()):
        raise ValueError("references hold no words, only punctuation or nothing")
    bleu, _ = Bleu(4).compute_score(gold, said, verbose=0)
    rouge, _ = Rouge().compute_score(gold, said)
    cider, _ = Cider().compute_score(gold, said)
    scores = {"cider": cider, **{f"bleu{n}": bleu[n - 1] for n in (1, 2, 3, 4)}, "rouge_l": rouge}
    return {name: float(score) for name, score in scores.items()}


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
