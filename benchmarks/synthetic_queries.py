"""Do questions made from a corpus order retrievers as real questions do?

    python benchmarks/synthetic_queries.py scifact squad

Writes benchmarks/results/synthetic-queries.md. Real questions are at most 200 of the training split, drawn with a fixed seed.
Synthetic ones are made of the passages' own words, without a language model: all that are written, and those that are left after
round-trip filtering. Indexes are those of benchmarks/retrieval.py.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence

from retrieval import DATA, ROOT

from ragkit import BM25Retriever, DenseRetriever, HybridRetriever, Store
from ragkit.evaluation.datasets import load_dataset
from ragkit.evaluation.metrics import evaluate
from ragkit.evaluation.synthetic.asking import Keywords
from ragkit.evaluation.synthetic.make import Question, make_questions
from ragkit.evaluation.synthetic.pieces import Splitter
from ragkit.retrievers.base import StoreRetriever
from ragkit.store.passages import passages
from ragkit.store.rarity import Rarity

QUESTIONS = 200
MEASURES = ("nDCG@10", "RR@10", "R@100")
RESULTS = ROOT / "benchmarks" / "results" / "synthetic-queries.md"

NOTE = (
    "Every word of such a question stands in its passage, and a few words are enough to tell a passage from all others: BM25 "
    "finds nearly all, and the round trip removes nothing. So these questions cannot tell whether BM25, dense or hybrid "
    "retrieval is better on a corpus. They may order what shares this advantage: encoders, rerankers, pruners. Questions written "
    "by a language model were not measured here."
)


def retrievers(store: Store) -> dict[str, StoreRetriever]:
    """What is compared."""
    return {"BM25": BM25Retriever(store=store), "dense": DenseRetriever(store=store), "hybrid": HybridRetriever(store=store)}


def rows(store: Store, kind: str, queries: Mapping[str, str], qrels: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A line of the table for each retriever."""
    lines = []
    for name, retriever in retrievers(store).items():
        found = dict(zip(queries, retriever.batch(list(queries.values()), k=100), strict=True))
        values = evaluate(found, {id_: qrels[id_] for id_ in queries}, MEASURES)
        lines.append(f"| {kind} ({len(queries)}) | {name} | {' | '.join(f'{values[measure]:.3f}' for measure in MEASURES)} |")
    return lines


def synthetic(questions: Sequence[Question]) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Questions and judgements, as `rows` takes them."""
    numbered = {f"q{n}": question for n, question in enumerate(questions)}
    return {id_: q.text for id_, q in numbered.items()}, {id_: dict.fromkeys(q.relevant, 1) for id_, q in numbered.items()}


def measure(name: str) -> list[str]:
    """The table of one dataset."""
    dataset = load_dataset(DATA / name, "train")
    with Store.open(ROOT / ".cache" / "benchmarks" / name) as store:
        ids = random.Random(0).sample(sorted(dataset.queries), min(QUESTIONS, len(dataset.queries)))
        lines = rows(store, "real, train", {id_: dataset.queries[id_] for id_ in ids}, dataset.qrels)
        rarity, known, hybrid = Rarity(store.snapshot), passages(store), HybridRetriever(store=store)
        everything = [passage.id for passage in known]
        ask = Keywords(Splitter(rarity.analyzer, rarity.of_terms))
        written, _ = make_questions(known, rarity, ask, lambda texts: [everything] * len(texts), QUESTIONS)
        kept, report = make_questions(
            known, rarity, ask, lambda texts: [[str(d.id) for d in found] for found in hybrid.batch(list(texts), k=10)], QUESTIONS
        )
        lines += rows(store, "synthetic, unfiltered", *synthetic(written))
        lines += rows(store, "synthetic, round trip", *synthetic(kept))
    print(report)
    return [
        f"{name}: {len(known)} passages; {report.tried} tried for {report.kept} questions, {report.not_found} of which did not "
        "find their passage.",
        "",
        f"| questions | retriever | {' | '.join(MEASURES)} |",
        f"|---|---|{'---:|' * len(MEASURES)}",
        *lines,
        "",
        f"For example: {'; '.join(question.text for question in kept[:3])}.",
        "",
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    names = parser.parse_args().datasets
    lines = ["# Questions made from a corpus, beside real ones", "", NOTE, ""]
    for name in names:
        lines += measure(name)
    text = "\n".join([*lines, f"`python benchmarks/synthetic_queries.py {' '.join(names)}`", ""])
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
