"""What is lost when the passages of lowest quality are dropped from a corpus, beside as many at random?

    python benchmarks/static_pruning.py scifact squad

Writes benchmarks/results/static-pruning.md. Questions are at most 200 of the training split, drawn with a fixed seed. Nothing
is indexed anew: a dropped passage is taken out of each ranking, and still counts as relevant where it was judged so. Indexes are
those of benchmarks/retrieval.py.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from retrieval import DATA, ROOT

from ragkit import HybridRetriever, Store
from ragkit.care.inspection import describe
from ragkit.care.quality import quality
from ragkit.evaluation.datasets import load_dataset
from ragkit.retrievers.weights import ndcg
from ragkit.store.passages import passages

QUESTIONS, DEPTH, SHARE, SEEDS = 200, 100, 0.1, 20
RESULTS = ROOT / "benchmarks" / "results" / "static-pruning.md"

_WHOLE = 0.999
NOTE = (
    "Change of nDCG@10 of hybrid retrieval. These corpora were made by hand and have neither menus nor copies, so the features "
    "find nothing against most passages; those of equal quality are dropped in random order."
)


def mean_ndcg(
    found: Mapping[str, Sequence[str]], qrels: Mapping[str, Mapping[str, int]], dropped: Collection[str] = frozenset()
) -> float:
    """Mean nDCG@10 without the dropped passages."""
    values = []
    for id_, ids in found.items():
        left = [one for one in ids if one not in dropped]
        numbers = {one: n for n, one in enumerate(dict.fromkeys([*left, *qrels[id_]]))}
        gains = {numbers[one]: float(gain) for one, gain in qrels[id_].items()}
        values.append(ndcg(np.array([numbers[one] for one in left], np.int64), gains))
    return float(np.mean(values))


def measure(name: str) -> list[str]:
    """The table of one dataset."""
    dataset = load_dataset(DATA / name, "train")
    chosen = random.Random(0).sample(sorted(dataset.queries), min(QUESTIONS, len(dataset.queries)))
    with Store.open(ROOT / ".cache" / "benchmarks" / name) as store:
        known = passages(store)
        results = HybridRetriever(store=store).batch([dataset.queries[id_] for id_ in chosen], k=DEPTH)
    found = {id_: [str(d.id) for d in documents] for id_, documents in zip(chosen, results, strict=True)}
    values = [quality(one) for one in describe(known)]
    shuffled = random.Random(0).sample(range(len(known)), len(known))  # passages of equal quality go in random order
    worst = sorted(shuffled, key=lambda at: values[at])
    wanted = {id_ for question in dataset.qrels.values() for id_, gain in question.items() if gain > 0}
    whole = mean_ndcg(found, dataset.qrels)
    below = [float(np.mean(np.array(values) < bound)) for bound in (_WHOLE, 0.3)]
    lines = [
        f"{name} train: {len(known)} passages, {len(chosen)} questions, nDCG@10 {whole:.3f}; {below[0]:.1%} of the passages have "
        f"a quality below 1, {below[1]:.1%} one below 0.3; some training question wants "
        f"{np.mean([passage.id in wanted for passage in known]):.1%} of all.",
        "",
        "| dropped | of the lowest quality | at random | standard deviation | wanted among the lowest |",
        "|---|---:|---:|---:|---:|",
    ]
    counts = {"all below 1": sum(value < _WHOLE for value in values), f"{SHARE:.0%} of all": round(SHARE * len(known))}
    for label, count in counts.items():
        gone = {known[at].id for at in worst[:count]}
        chance = [
            mean_ndcg(found, dataset.qrels, {known[at].id for at in random.Random(seed).sample(range(len(known)), count)})
            for seed in range(1, SEEDS + 1)
        ]
        lines.append(
            f"| {label} ({count}) | {mean_ndcg(found, dataset.qrels, gone) - whole:+.3f} | {np.mean(chance) - whole:+.3f} | "
            f"{np.std(chance):.3f} | {len(gone & wanted) / count:.1%} |"
        )
    return [*lines, ""]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    names = parser.parse_args().datasets
    lines = ["# Dropping passages of low quality", "", NOTE, ""]
    for name in names:
        lines += measure(name)
    text = "\n".join([*lines, f"`python benchmarks/static_pruning.py {' '.join(names)}`", ""])
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
