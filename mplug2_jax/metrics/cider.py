"""CIDEr-D, the consensus of a caption with its references, as a score and as a reward.

n-grams of one to four words are weighed by how few items' references hold them; a caption's score
is ten times the mean cosine with its references, clipped so that repeating a word gains nothing,
and lowered for a wrong length. This is what `pycocoevalcap` calls CIDEr, to rounding; unlike there,
the weights can come from another corpus than the captions scored, which a reward in training needs:
a batch is no corpus.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

_ORDER = 4  # longest n-gram
_SIGMA = 6.0  # of the penalty for a difference in length
_END = "\n"  # no token of a caption: those hold no white space


class CiderD:
    """CIDEr-D with the n-gram weights of a corpus.

    All captions here are tokens with single spaces between them, such as `ptb_tokenize` gives.

    Args:
      corpus: the references of every item.
      end: counts the end of a caption as a word. As a reward this keeps a model from stopping
        after "a man in a", which has the right n-grams so far; reported scores go without.
    """

    def __init__(self, corpus: Iterable[Sequence[str]], end: bool = False):
        self.end = end
        frequency: Counter[tuple[str, ...]] = Counter()  # in how many items' references
        items = 0
        for references in corpus:
            items += 1
            seen: set[tuple[str, ...]] = set()
            for text in references:
                seen.update(_ngrams(self._words(text)))
            frequency.update(seen)
        if not items:
            raise ValueError("CIDEr-D needs a corpus of at least one item's references")
        self._unseen = math.log(items)
        self._rarity = {ngram: self._unseen - math.log(count)
                        for ngram, count in frequency.items()}

    def score(
        self, predictions: Sequence[str], references: Sequence[Sequence[str]],
        finished: Sequence[bool] | None = None,
    ) -> np.ndarray:
        """Each prediction's score against its own references, float64 [N], about 0..10.

        Args:
          predictions: N captions.
          references: those of each; samples of one item are quicker side by side, with one list.
          finished: with `end`, which predictions have an end; all if None.

        Raises:
          ValueError: different lengths, or a prediction without references.
        """
        finished = [True] * len(predictions) if finished is None else finished
        if not len(predictions) == len(references) == len(finished):
            raise ValueError(f"{len(predictions)} predictions, references for {len(references)}, "
                             f"{len(finished)} ends: expected equal numbers")
        last, vectors = None, []  # samples of one item, side by side, share their references
        result = np.zeros(len(predictions))
        for i, (text, own) in enumerate(zip(predictions, references, strict=True)):
            if isinstance(own, str) or not len(own):
                raise ValueError(f"prediction {i}: expected a list of references, got {own!r}")
            if own is not last:
                last, vectors = own, [self._vector(self._words(reference)) for reference in own]
            said = self._vector(self._words(text, finished[i]))
            total = sum(_similarity(said, vector) for vector in vectors)
            result[i] = 10 * total / _ORDER / len(own)
        return result

    def _words(self, text: str, finished: bool = True) -> list[str]:
        return text.split() + [_END] * (self.end and finished)

    def _vector(self, words: list[str]) -> tuple[dict, list[float], int]:
        """Weights by n-gram, their norm for each n, and the length in bigrams."""
        weights, norms = {}, [0.0] * _ORDER
        for ngram, count in _ngrams(words).items():
            weights[ngram] = weight = count * self._rarity.get(ngram, self._unseen)
            norms[len(ngram) - 1] += weight * weight
        return weights, [math.sqrt(norm) for norm in norms], max(len(words) - 1, 0)


def _ngrams(words: list[str]) -> Counter[tuple[str, ...]]:
    shifted = [words[n:] for n in range(_ORDER)]
    return Counter(chain.from_iterable(zip(*shifted[:n], strict=False)
                                       for n in range(1, _ORDER + 1)))


def _similarity(said: tuple, reference: tuple) -> float:
    """The sum over n of the clipped cosines, times the penalty for the difference in length."""
    weights, norms, length = said
    other, other_norms, other_length = reference
    products = [0.0] * _ORDER
    for ngram, weight in weights.items():
        if ngram in other:
            products[len(ngram) - 1] += min(weight, other[ngram]) * other[ngram]
    cosines = sum(product / (a * b)
                  for product, a, b in zip(products, norms, other_norms, strict=True) if a and b)
    return cosines * math.exp(-((length - other_length) ** 2) / (2 * _SIGMA**2))
