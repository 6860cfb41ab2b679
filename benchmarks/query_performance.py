"""Which signs of a question's difficulty go with how well it was really answered?

    python benchmarks/query_performance.py scifact squad

Writes benchmarks/results/query-performance.md. Questions are at most 200 of the test split, drawn with a fixed seed. Pipelines
are hybrid retrieval of 20, and the one of `ragkit ask`, with ragkit's Provence model behind it. Indexes are those of
benchmarks/retrieval.py.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence

import numpy as np
from retrieval import DATA, ROOT

from ragkit import HybridRetriever, Pipeline, ProvencePruner, ProvenceReranker, Store
from ragkit.chains.signals import Signals, signals
from ragkit.evaluation.correlation import kendall, pearson
from ragkit.evaluation.datasets import load_dataset
from ragkit.retrievers.weights import ndcg
from ragkit.store.rarity import Rarity

QUESTIONS = 200
_AT_ONCE = 20
RESULTS = ROOT / "benchmarks" / "results" / "query-performance.md"


def of_ids(ids: Sequence[str], judged: Mapping[str, int]) -> float:
    """nDCG@10 of ids, best first."""
    numbers = {id_: n for n, id_ in enumerate(dict.fromkeys([*ids, *judged]))}
    gains = {numbers[id_]: float(gain) for id_, gain in judged.items()}
    return ndcg(np.array([numbers[id_] for id_ in ids], np.int64), gains)


def flat(one: Signals) -> dict[str, float | None]:
    """One figure for each name."""
    figures = one.to_json()
    several = {f"{field}, {name}": value for field in ("tops", "spreads") for name, value in figures.pop(field).items()}
    return figures | several


def measure(name: str, most: int, rerank: bool) -> list[str]:
    """The table of one dataset and pipeline."""
    dataset = load_dataset(DATA / name, "test")
    ids = random.Random(0).sample(sorted(dataset.queries), min(most, QUESTIONS, len(dataset.queries)))
    found: list[Signals] = []
    success = []
    with Store.open(ROOT / ".cache" / "benchmarks" / name) as store:
        stages = [ProvenceReranker(), ProvencePruner(threshold=0.3)] if rerank else []
        pipeline = Pipeline(retriever=HybridRetriever(store=store, k=20), stages=stages)
        rarity = Rarity(store.snapshot)
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            for id_, context in zip(part, pipeline.ground_batch([dataset.queries[id_] for id_ in part]), strict=True):
                found.append(signals(context, weigh=rarity.of_text))
                ranked = context.trace[1 if rerank else 0].results
                success.append(of_ids([result.id for result in ranked], dataset.qrels[id_]))
            print(f"{name}: {len(found)}", flush=True)
    how = "hybrid retrieval, ProvenceReranker, ProvencePruner" if rerank else "hybrid retrieval"
    lines = [
        f"{name} test, {how}: {len(ids)} questions, nDCG@10 {np.mean(success):.3f}",
        "",
        "| signal | known for | tau | r |",
        "|---|---:|---:|---:|",
    ]
    columns = [flat(one) for one in found]
    for column in dict.fromkeys(name for its_columns in columns for name in its_columns):
        known = [n for n, its_columns in enumerate(columns) if its_columns.get(column) is not None]
        x, y = [columns[n][column] for n in known], [success[n] for n in known]
        if len(set(x)) > 1:  # what is the same for all questions tells none from another
            lines.append(f"| {column} | {len(known)} | {kendall(x, y):+.3f} | {pearson(x, y):+.3f} |")
    return [*lines, ""]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--reranked", type=int, default=QUESTIONS, help="questions for the pipeline with a reranker, 0 for none")
    arguments = parser.parse_args()
    chosen = "" if arguments.reranked == QUESTIONS else f" --reranked {arguments.reranked}"
    lines = [
        "# Signs of a hard question, and how it was answered",
        "",
        "Correlation over questions, as Kendall's tau-b and Pearson's r, of each signal with nDCG@10 of the pipeline's ranking. "
        "Of n questions, a coefficient within 2 / sqrt(n) of 0 (r; two thirds of that for tau) may well be chance.",
        "",
        f"`python benchmarks/query_performance.py {' '.join(arguments.datasets)}{chosen}`",
        "",
    ]
    for name in arguments.datasets:
        lines += measure(name, QUESTIONS, rerank=False)
        if arguments.reranked:
            lines += measure(name, arguments.reranked, rerank=True)
        RESULTS.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
