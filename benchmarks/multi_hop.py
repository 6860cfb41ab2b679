"""Does following the passages found to those that they name find more of a question's evidence than one search?

    python benchmarks/multi_hop.py

Writes benchmarks/results/multi-hop.md: the share of questions all of whose gold passages are among the first k, and among those
that fit a budget of tokens. HotpotQA's dev questions and MuSiQue's are reported; the parameters were chosen on HotpotQA's train
and para questions, on 2WikiMultihopQA, and on SQuAD's train questions. SQuAD's test questions need one passage only: they show
what hops cost. Indexes are those that benchmarks/retrieval.py makes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
from langchain_core.documents import Document
from retrieval import DATA, ROOT

from ragkit import BM25Retriever, HybridRetriever
from ragkit.documents.tokens import count_tokens
from ragkit.evaluation.datasets import load_dataset
from ragkit.retrievers.base import StoreRetriever
from ragkit.retrievers.multi_hop import MultiHopRetriever
from ragkit.store.store import Store

REPORTED = ("hotpotqa:dev", "musique:train", "squad:test")
DEPTHS, BUDGETS = (2, 5, 10), (500, 1000)
DEPTH = 30
RESULTS = ROOT / "benchmarks" / "results" / "multi-hop.md"


def shares(found: Sequence[list[Document]], gold: Sequence[Mapping[str, int]], store: Store) -> list[float]:
    """The share of questions that have all their gold passages, for each depth and budget."""
    wanted = [{id_ for id_, gain in judged.items() if gain > 0} for judged in gold]
    ids = [[str(document.id) for document in documents] for documents in found]
    ends = []
    for documents in found:
        spent = np.cumsum(count_tokens(store.tokenizer, [document.page_content for document in documents]))
        ends.append([*DEPTHS, *(int(np.searchsorted(spent, budget, "right")) for budget in BUDGETS)])
    columns = range(len(DEPTHS) + len(BUDGETS))
    return [
        float(np.mean([its <= set(one[: end[at]]) for its, one, end in zip(wanted, ids, ends, strict=True)])) for at in columns
    ]


def measure(name: str, most: int) -> list[str]:
    """The table of one dataset."""
    folder, split = name.split(":")
    dataset = load_dataset(DATA / folder, split)
    questions = list(dataset.queries)
    if len(questions) > most:
        questions = [questions[at] for at in np.random.default_rng(0).permutation(len(questions))[:most]]
    texts, gold = [dataset.queries[id_] for id_ in questions], [dataset.qrels[id_] for id_ in questions]
    lines = [
        f"{folder} {split}: {len(questions)} questions, {len(dataset.documents)} passages",
        "",
        f"| | {' | '.join([f'first {k}' for k in DEPTHS] + [f'{budget} tokens' for budget in BUDGETS])} |",
        f"|---|{'---:|' * (len(DEPTHS) + len(BUDGETS))}",
    ]
    with Store.open(ROOT / ".cache" / "benchmarks" / folder) as store:
        firsts: dict[str, StoreRetriever] = {"BM25": BM25Retriever(store=store), "hybrid": HybridRetriever(store=store)}
        for label, first in firsts.items():
            values = {}
            for way, retriever in ((label, first), (f"{label}, two hops", MultiHopRetriever(retriever=first))):
                values[way] = shares(retriever.batch(texts, k=DEPTH), gold, store)
                lines.append(f"| {way} | {' | '.join(f'{value:.3f}' for value in values[way])} |")
            once, twice = values.values()
            lines.append(f"| difference | {' | '.join(f'{b - a:+.3f}' for a, b in zip(once, twice, strict=True))} |")
            print("\n".join(lines[-3:]), flush=True)
    return [*lines, ""]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", default=REPORTED, help="as in hotpotqa:dev")
    parser.add_argument("--questions", type=int, default=300, help="at most so many of each, drawn with a fixed seed")
    arguments = parser.parse_args()
    named = "" if tuple(arguments.datasets) == REPORTED else " " + " ".join(arguments.datasets)
    asked = "" if arguments.questions == parser.get_default("questions") else f" --questions {arguments.questions}"
    lines = [
        "# Two hops against one search",
        "",
        "The share of questions all of whose gold passages are found: among the first k, and among the first that fit a budget "
        "of tokens. Both ways give equally many passages or tokens. No language model is asked.",
        "",
        f"`python benchmarks/multi_hop.py{named}{asked}`",
        "",
    ]
    for name in arguments.datasets:
        lines += measure(name, arguments.questions)
        RESULTS.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
