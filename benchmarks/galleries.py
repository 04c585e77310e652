"""Retrieval and k-NN over large galleries: seconds and memory, besides what is mapped.

    python -m benchmarks.galleries [--share=0.05]

Features are drawn; those of the k-NN's bank lie in a file. Retrieval ranks 25,000 texts over 5,000
visuals both ways, with dual softmax; k-NN finds the 20 nearest of 1.28 million of `--share` of
50,000 queries, of which the whole takes as many times as long. Both are compared with a plain sort
of some rows. Memory is the peak of this process's own pages (`RssAnon`) above what it had before.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mplug2_jax.metrics.ranking import Similarities, dual_softmax, search
from mplug2_jax.tasks import knn

TEXTS, VISUALS, WIDTH = 25_000, 5_000, 256
QUERIES, BANK, FEATURES = 50_000, 1_280_000, 1_024
CHECKED = 20  # rows that are sorted


def own_pages() -> int:
    """Bytes of this process that no file has."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("no RssAnon in /proc/self/status: Linux alone says it")


def measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, its seconds, and the GiB that it took at most."""
    before, most, done = own_pages(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            most[0] = max(most[0], own_pages())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return found, seconds, (max(most[0], before) - before) / 2**30


def unit(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    """Float32 `[rows, width]` of unit length."""
    drawn = rng.standard_normal((rows, width), np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def retrieval(rng: np.random.Generator) -> dict[str, float]:
    """Both ways, with dual softmax."""
    texts, visuals = unit(rng, TEXTS, WIDTH), unit(rng, VISUALS, WIDTH)
    owner, numbers = np.arange(TEXTS) % VISUALS, np.arange(VISUALS)

    def work():
        return [search(Similarities(asked, items, dual_softmax(asked, items, 0.07)), *owners, 16)
                for asked, items, *owners in ((texts, visuals, owner, numbers),
                                              (visuals, texts, numbers, owner))]

    (there, _), seconds, gib = measured(work)
    similarity = (texts @ visuals.T).astype(np.float64)
    powers = np.exp((similarity - similarity.max(axis=0)) / 0.07)
    weighed = similarity * powers / powers.sum(axis=0)
    for row in range(CHECKED):
        assert there.rank[row] == 1 + (weighed[row] > weighed[row, owner[row]]).sum()
    return {"texts": TEXTS, "visuals": VISUALS, "seconds": round(seconds, 2), "gib": round(gib, 2)}


def neighbours(rng: np.random.Generator, share: float, folder: str) -> dict[str, float]:
    """The nearest of a bank in a file."""
    bank = np.memmap(f"{folder}/bank", np.float32, "w+", shape=(BANK, FEATURES))
    for start in range(0, BANK, 10_000):
        bank[start:start + 10_000] = unit(rng, 10_000, FEATURES)
    queries = unit(rng, int(QUERIES * share), FEATURES)
    (values, numbers), seconds, gib = measured(lambda: knn.nearest(queries, bank, 20))
    for row in range(3):
        similarity = np.concatenate([bank[start:start + 10_000] @ queries[row]
                                     for start in range(0, BANK, 10_000)])
        expected = np.argsort(-similarity, kind="stable")[:20]
        np.testing.assert_allclose(values[row], similarity[expected], rtol=1e-5)
        assert set(numbers[row][:15]) <= set(expected)
    return {"bank": BANK, "queries": len(queries), "seconds": round(seconds, 1),
            "seconds_of_all": round(seconds / share), "gib": round(gib, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.05, help="of the k-NN's queries")
    share, rng = parser.parse_args().share, np.random.default_rng(0)
    print(json.dumps({"retrieval": retrieval(rng)}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({"neighbours": neighbours(rng, share, folder)}))


if __name__ == "__main__":
    main()
