"""What a reranker's scores are worth alone, and together with those of the retriever before it.

    python benchmarks/blending.py scifact squad hotpotqa vaswani cacm --train 50 --test 100

nDCG@10 of hybrid retrieval's first 20 passages, in the order of `weight` times its scores plus the rest times those of ragkit's
own reranker (`BlendReranker`). Writes benchmarks/results/blending.md, where the sets of earlier runs stay. The default weight was
chosen on the training rows; sets without a training split are cut in two. Indexes and judgements are shared with
benchmarks/tuning.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np
from retrieval import ROOT
from tuning import CACHE, Remembered, bench, parts

from ragkit import Store
from ragkit.evaluation.tables import Table

DEPTH = 20
WEIGHTS = tuple(n / 10 for n in range(11))
RESULTS = ROOT / "benchmarks" / "results" / "blending.md"
FIGURES = CACHE / "blending.json"


def measure(name: str, train: int, test: int) -> dict[str, list[float]]:
    """nDCG@10 by weight, for the part that is chosen on and the part that is reported."""
    store, model = Store.open(CACHE / name), Remembered(CACHE / f"tuning-{name}.jsonl")
    found = {}
    for part, collection in zip(("chosen on", "reported"), parts(name, train, test), strict=True):
        work = bench(store, collection, model)
        rankings = work.rankings("hybrid", np.arange(0))
        values = [float(work.values(work.orders(rankings, "provence-reranker", DEPTH, weight)).mean()) for weight in WEIGHTS[:-1]]
        values.append(float(work.values([ranking.positions[:DEPTH] for ranking in rankings]).mean()))
        found[f"{name} {collection.split}, {len(work.ids)} questions, {part}"] = values
        print(found, flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--train", type=int, default=50)
    parser.add_argument("--test", type=int, default=100)
    given = parser.parse_args(arguments)
    for name in given.datasets:
        known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        FIGURES.write_text(json.dumps(known | {name: measure(name, given.train, given.test)}, indent=1))
    figures = json.loads(FIGURES.read_text())
    rows = [[what, *(f"{value:.4f}" for value in values)] for its in figures.values() for what, values in its.items()]
    header = ["questions", "reranker", *(f"{weight:g}" for weight in WEIGHTS[1:-1]), "hybrid"]
    table = Table("nDCG@10 by the weight of the retriever's scores.", header, rows)
    sets = " ".join(figures)
    RESULTS.write_text(
        f"# Blending a reranker with what it reranks\n\n{table.markdown()}\n\n`python benchmarks/blending.py {sets}`\n"
    )
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
