"""METEOR and SPICE, by the Java programs of `pycocoevalcap`, where they can run.

Both are absent rather than 0 where Java or their data is missing: METEOR's jar and paraphrase table
come with the package; SPICE needs Stanford CoreNLP 3.6.0 and its models beside it, a large download
that `python -m pycocoevalcap.spice.get_stanford_models` makes and nothing here does.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mplug2_jax.metrics.scores import Score, divide, mean

# METEOR 1.5's published parameters for English: of the harmonic mean, of the penalty for fragments
# (its exponent, its weight), of content words against function words; and the weights of matches
# by word, stem, synonym, paraphrase.
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.20, 0.60, 0.75
_MODULES = np.array([1.0, 0.6, 0.8, 0.6])


def java_scores(
    gold: Sequence[Sequence[str]], said: Sequence[str]
) -> tuple[dict[str, Score], dict[str, str]]:
    """`meteor` and `spice` over clips, and why which of them is absent.

    Args:
      gold: the references of each clip, as PTB tokens.
      said: its prediction, as PTB tokens.

    Returns:
      Scores by name, and for every name without one the reason, such as "no Java found".
    """
    scores, absent = {}, {}
    for name, compute in (("meteor", _meteor), ("spice", _spice)):
        try:
            scores[name] = compute(gold, said)
        except _Absent as reason:
            absent[name] = str(reason)
    return scores, absent


class _Absent(Exception):
    pass


def _folder(name: str) -> Path:
    import pycocoevalcap  # not by what predicts alone

    return Path(next(iter(pycocoevalcap.__path__))) / name


def _require(*files: Path) -> str:
    java = shutil.which("java")
    if java is None:
        raise _Absent("no Java found")
    for file in files:
        if not file.is_file():
            raise _Absent(f"pycocoevalcap has no {'/'.join(file.parts[-2:])}")
    return java


def _meteor(gold: Sequence[Sequence[str]], said: Sequence[str]) -> Score:
    """METEOR from each clip's matches, as the program counts them against the best reference."""
    jar = _folder("meteor") / "meteor-1.5.jar"
    java = _require(jar, _folder("meteor") / "data" / "paraphrase-en.gz")
    lines = [" ||| ".join(["SCORE", *texts, text.replace("|||", "")])
             for text, texts in zip(said, gold, strict=True)]
    command = [java, "-jar", "-Xmx2G", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True,
                          encoding="utf-8", cwd=jar.parent, check=False)
    rows = done.stdout.splitlines()
    if done.returncode or len(rows) != len(lines):
        raise _Absent(f"METEOR ended with {done.returncode} after {len(rows)} of {len(lines)} "
                      f"clips: {done.stderr.strip()[-200:]}")
    terms = np.array([row.split() for row in rows], np.float64)  # [N, 23]
    # A clip that matches from end to end has no fragments, in the sums over clips either.
    words, matched = terms[:, :2], terms[:, 4:20].reshape(-1, 8, 2).sum(axis=1)
    terms[(matched == words).all(axis=1) & (terms[:, 20] == 1), 20] = 0
    return Score(_meteor_of(terms), lambda counts: _meteor_of(counts @ terms))


def _meteor_of(sums: np.ndarray) -> np.ndarray:
    """METEOR of sums [S, 23]: lengths and function words of both sides, matches, chunks."""
    length, other, function, other_function = sums[:, :4].T
    matches = sums[:, 4:20].reshape(-1, 4, 2, 2)  # module, content or function word, which side
    chunks, words, other_words = sums[:, 20:].T
    share = np.array([_DELTA, 1 - _DELTA])
    weighted = np.einsum("smcp,m,c->sp", matches, _MODULES, share)
    precision = divide(weighted[:, 0], _weigh(length, function))
    recall = divide(weighted[:, 1], _weigh(other, other_function))
    harmonic = divide(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall)
    fragments = divide(chunks, (words + other_words) / 2)
    score = harmonic * (1 - _GAMMA * fragments**_BETA)
    return np.where(np.isnan(score), 0, score)


def _weigh(length: np.ndarray, function: np.ndarray) -> np.ndarray:
    return _DELTA * (length - function) + (1 - _DELTA) * function


def _spice(gold: Sequence[Sequence[str]], said: Sequence[str]) -> Score:
    library = _folder("spice") / "lib"
    # Checked first: without them pycocoevalcap would fetch them from the network.
    _require(library / "stanford-corenlp-3.6.0.jar", library / "stanford-corenlp-3.6.0-models.jar")
    from pycocoevalcap.spice.spice import Spice

    try:
        _, clips = Spice().compute_score({i: list(texts) for i, texts in enumerate(gold)},
                                         {i: [text] for i, text in enumerate(said)})
    except subprocess.CalledProcessError as error:
        raise _Absent(f"SPICE ended with {error.returncode}; it needs Java 8 to 11") from error
    return mean([clip["All"]["f"] for clip in clips])
