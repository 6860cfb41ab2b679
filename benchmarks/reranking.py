"""nDCG@10 of ragkit's own reranker over the hybrid retriever's first candidates, beside the retrievers themselves.

    python benchmarks/reranking.py scifact:test hotpotqa:dev     # prints, and writes benchmarks/results/reranking.md

Datasets are folders below $RAGKIT_DATA (default: ../shared/data). Indexes are kept in .cache/benchmarks.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from retrieval import DATA, ROOT, open_store

from ragkit import BM25Retriever, DenseRetriever, HybridRetriever, ProvenceReranker
from ragkit.evaluation.datasets import Dataset, load_dataset, read_jsonl
from ragkit.evaluation.metrics import evaluate

MEASURES = ("nDCG@10", "RR@10", "R@10")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=["scifact:test", "hotpotqa:dev"], metavar="SET:SPLIT")
    parser.add_argument("--depth", type=int, default=50, help="candidates per question")
    parser.add_argument("--model", type=Path, help="folder of a Provence model; ragkit's own if not given")
    parser.add_argument("--questions", type=int, help="only so many questions, from the start")
    arguments = parser.parse_args()
    lines = [f"First {arguments.depth} of the hybrid retriever, reranked.", ""]
    for name in arguments.sets:
        folder, _, split = name.partition(":")
        dataset = load_dataset(DATA / folder, split or "test")
        lines += table(dataset, arguments.depth, arguments.model, arguments.questions)
    command = f"python benchmarks/reranking.py {' '.join(arguments.sets)} --depth {arguments.depth}"
    text = "\n".join([*lines, f"`{command}`", ""])
    print(text)
    if arguments.model is None and arguments.questions is None:
        (ROOT / "benchmarks" / "results" / "reranking.md").write_text(text)


def table(dataset: Dataset, depth: int, model: Path | None, questions: int | None) -> list[str]:
    """Markdown lines for one dataset, and for each of its settings if its questions have any."""
    ids = list(dataset.queries)[:questions]
    texts = [dataset.queries[id_] for id_ in ids]
    store = open_store(dataset)
    candidates = HybridRetriever(store=store).batch(texts, k=depth)
    started = time.perf_counter()
    inputs: list[Any] = [{"query": text, "documents": found} for text, found in zip(texts, candidates, strict=True)]
    reranked = ProvenceReranker(model=model).batch(inputs)
    each = (time.perf_counter() - started) / len(texts) * 1000
    systems = {
        "BM25": BM25Retriever(store=store).batch(texts, k=depth),
        "dense (all-MiniLM-L6-v2)": DenseRetriever(store=store).batch(texts, k=depth),
        "hybrid": candidates,
        "hybrid >> ProvenceReranker": reranked,
    }
    parts = {"all": ids}
    for record in read_jsonl(DATA / dataset.name / "queries.jsonl"):
        if record.get("setting") and str(record["_id"]) in dataset.queries:
            parts.setdefault(record["setting"], []).append(str(record["_id"]))
    lines = []
    for part, its_ids in parts.items():
        chosen = set(its_ids) & set(ids)
        lines += [f"{dataset.name} {dataset.split}, {part}: {len(chosen)} questions", ""]
        lines += [f"| system | {' | '.join(MEASURES)} |", f"|---|{'---:|' * len(MEASURES)}"]
        for name, results in systems.items():
            run = {id_: found for id_, found in zip(ids, results, strict=True) if id_ in chosen}
            values = evaluate(run, {id_: dataset.qrels[id_] for id_ in chosen}, MEASURES)
            lines.append(f"| {name} | {' | '.join(f'{values[measure]:.4f}' for measure in MEASURES)} |")
        lines.append("")
    return [*lines, f"Reranking took {each:.0f} ms per question.", ""]


if __name__ == "__main__":
    main()
