"""How often 95 % intervals hold the truth: by examples, as they once were, and by media.

    python -m benchmarks.coverage

Test sets are drawn over and over from a population; the truth is the mean figure of all of them, of
ranks in the middle the median. Media have unequal numbers of examples, 1 to 15, which agree more
within a medium than between. Writes `benchmarks/coverage.json`: by figure and number of media the
share of intervals that hold the truth (`covered`), their mean width, and the width that is right,
that of 95 % of the figures themselves. "examples" is the percentile bootstrap of single examples in
a fixed gallery, as intervals once were; "media" is `metrics.scores.intervals`.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mplug2_jax.metrics.cider import CiderD
from mplug2_jax.metrics.classification import f1, pearson
from mplug2_jax.metrics.ranking import ahead, search
from mplug2_jax.metrics.retrieval import rank_scores, search_scores
from mplug2_jax.metrics.scores import Score, intervals, mean, within

OUT = Path("benchmarks/coverage.json")
RUNS = {10: 400, 20: 400, 50: 1000}  # test sets by their number of media
DRAWS = 1000
WORDS = 60  # of the vocabulary of captions
# By figure its score as it was, its score now, and the medium of each example.
Sample = dict[str, tuple[Score, Score, np.ndarray]]
Ends = tuple[float, float]


def sizes(rng: np.random.Generator, media: int, most: int = 15) -> np.ndarray:
    """Examples of each medium, int [U]: 1 to `most`, 4 on average and often 1."""
    return np.minimum(1 + rng.negative_binomial(1, 0.25, media), most)


def answers(rng: np.random.Generator, media: int) -> Sample:
    """Accuracies of 0.7 and 0.95, F1, a mean, a median and a correlation, of questions of clips."""
    count = sizes(rng, media)
    unit = np.repeat(np.arange(media), count)
    found: dict[str, Score] = {}
    for share in (0.7, 0.95):
        # Correlation of two questions of a clip: 1 / 3.
        found[f"accuracy_{share}"] = mean(
            (rng.random(len(unit)) < rng.beta(2 * share, 2 - 2 * share, media)[unit]).astype(float))
    true = rng.random(len(unit)) < 0.4
    right = rng.random(len(unit)) < rng.beta(1.6, 0.4, media)[unit]
    found["f1"] = f1(np.where(right, true, ~true), true, True)
    own, noise = rng.normal(size=media)[unit], rng.normal(size=len(unit))
    found["mean_iou"] = mean(1 / (1 + np.exp(-1 - own - 0.7 * noise)))
    rank = np.ceil(20 * np.exp(0.8 * own + 0.6 * noise))
    found["median_rank_fixed_gallery"] = rank_scores(rank)["median_rank"]
    found["pearson"] = pearson(own + noise, own + 0.6 * rng.normal(size=len(unit)))
    return {name: (score, score, unit) for name, score in found.items()}


def searches(rng: np.random.Generator, media: int) -> Sample:
    """Retrieval both ways: some clips are like every text, some are hard, some have 15 captions."""
    owner = np.repeat(np.arange(media), sizes(rng, media))
    similarity = rng.normal(size=(len(owner), media)) + rng.normal(size=media)
    similarity[np.arange(len(owner)), owner] += (
        1 + 0.8 * rng.normal(size=media)[owner] + 0.5 * rng.normal(size=len(owner)))
    clips, first = np.arange(media), np.unique(owner, return_index=True)[1].tolist()
    found: Sample = {}
    for way, matrix, asked, shown, rows in (
            ("text_to_video", similarity, owner, clips, range(len(owner))),
            ("video_to_text", similarity.T, clips, owner, first)):
        blocks = [(slice(0, len(matrix)), matrix)]
        rank = search(blocks, asked, shown, 1).rank
        new = search_scores(rank, ahead(blocks, asked, shown), asked, shown)
        found |= {f"{way}_{name}": (within(old, rows, len(owner)),
                                    within(new[name], rows, len(owner)), owner)
                  for name, old in rank_scores(rank).items()
                  if name in ("r1", "r5", "median_rank", "mean_rank")}
    return found


def captioned(rng: np.random.Generator, media: int) -> Sample:
    """CIDEr of segments of films: one film's share words, and are said well or badly together."""
    unit = np.repeat(np.arange(media), sizes(rng, media))
    common = 1 / np.arange(1, WORDS + 1)
    common /= common.sum()
    own = np.stack([rng.choice(WORDS, 8, replace=False, p=common) for _ in range(media)])
    skill = rng.beta(2, 1.5, media)
    gold, said = [], []
    for film in unit:
        scene = rng.choice(own[film], 6)
        texts = [np.where(rng.random(6) < keep, scene, rng.choice(WORDS, 6, p=common))
                 for keep in (0.7, 0.7, 0.7, skill[film])]
        *references, caption = (" ".join(f"w{word}" for word in text) for text in texts)
        gold.append(references)
        said.append(caption)
    score = mean(CiderD(gold).score(said, gold))
    return {"cider": (score, score, unit)}


POPULATIONS: dict[str, Callable[[np.random.Generator, int], Sample]] = {
    "answers": answers, "searches": searches, "captioned": captioned}


def by_examples(scores: dict[str, Score], seed: int) -> dict[str, Ends]:
    """Percentiles of figures over examples drawn one by one, as intervals were."""
    count = len(next(iter(scores.values())).each)
    counts = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), DRAWS)
    return {name: tuple(np.nanpercentile(score.over(counts.astype(float)), [2.5, 97.5]))
            for name, score in scores.items()}


def covered(population: str, media: int, runs: int, seed: int) -> dict[str, dict]:
    """By figure: the truth; of either kind of interval how often it holds it, and its width.

    Args:
      population: of `POPULATIONS`.
      media: of each test set.
      runs: test sets.
      seed: of all that is drawn.
    """
    values: dict[str, list[float]] = {}
    ends: dict[str, dict[str, list[Ends]]] = {}
    steps = set()
    for run in range(runs):
        sample = POPULATIONS[population](np.random.default_rng([seed, media, run]), media)
        unit = next(iter(sample.values()))[2]
        kinds = {"examples": by_examples({name: old for name, (old, _, _) in sample.items()}, run),
                 "media": intervals({name: new for name, (_, new, _) in sample.items()}, unit,
                                    seed=run, draws=DRAWS)}
        for name, (_, score, _) in sample.items():
            values.setdefault(name, []).append(score.value)
            steps |= {name} if score.form == "steps" else set()
            for kind, found in kinds.items():
                ends.setdefault(name, {}).setdefault(kind, []).append(found[name])
    return {name: summed(np.array(values[name]), name in steps, {
        kind: np.array(some) for kind, some in ends[name].items()}) for name in values}


def summed(values: np.ndarray, steps: bool, ends: dict[str, np.ndarray]) -> dict:
    """Of figures `[R]` and their intervals `[R, 2]` by kind: truth, right width, coverage."""
    truth = float(np.median(values) if steps else values.mean())
    low, high = np.quantile(values, [0.025, 0.975])
    rows = {}
    for kind, (lows, highs) in ((kind, some.T) for kind, some in ends.items()):
        holds = (lows <= truth + 1e-9) & (truth - 1e-9 <= highs)
        rows[kind] = {"covered": round(float(holds.mean()), 3),
                      "width": round(float(np.mean(highs - lows)), 3)}
    return {"runs": len(values), "truth": round(truth, 3),
            "right_width": round(float(high - low), 3), **rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, help=f"test sets, if not {RUNS} by their media")
    parser.add_argument("--media", type=int, nargs="*", default=list(RUNS))
    parser.add_argument("--only", nargs="*", choices=POPULATIONS, default=list(POPULATIONS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    table: dict[str, dict] = {}
    for media in options.media:
        for population in options.only:
            runs = options.runs or RUNS.get(media, 400)
            for name, row in covered(population, media, runs, options.seed).items():
                table.setdefault(name, {})[str(media)] = row
                print(f"{media:4} media  {name:26} truth {row['truth']:8.3f}  " + "  ".join(
                    f"{kind} {row[kind]['covered']:.3f} ({row[kind]['width']:.3f})"
                    for kind in ("examples", "media")) + f"  right {row['right_width']:.3f}",
                      flush=True)
    options.out.write_text(json.dumps({
        "command": "python -m benchmarks.coverage", "draws": DRAWS, "figures": table},
        indent=1) + "\n")


if __name__ == "__main__":
    main()
