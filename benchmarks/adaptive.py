"""Is it worth it to search wider for the questions whose first search looks weak, and to take questions apart?

    python benchmarks/adaptive.py

Writes benchmarks/results/adaptive.md. The threshold of `WideningPipeline` is chosen on train questions of HotpotQA, which need
two passages, and of SQuAD, which need one; reported are HotpotQA's dev questions, MuSiQue's and SQuAD's test questions.
Decomposition is measured with MuSiQue's own decompositions in the place of a model's, on the half of the questions on which
nothing was chosen. Indexes are those that benchmarks/retrieval.py makes.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from abstention import auroc
from langchain_core.documents import Document
from multi_hop import shares
from retrieval import DATA, ROOT

from ragkit import BlendReranker, HybridRetriever, Pipeline, ProvencePruner, ProvenceReranker, Store
from ragkit.chains.adaptive import WideningPipeline, agreement
from ragkit.chains.confidence import shipped
from ragkit.chains.context import GroundedContext
from ragkit.evaluation.datasets import load_dataset, read_jsonl
from ragkit.llms.base import Completion
from ragkit.provence.model import ProvenceModel
from ragkit.retrievers.decomposition import DecompositionRetriever
from ragkit.retrievers.multi_hop import MultiHopRetriever

CHOSEN_ON, REPORTED = ("hotpotqa:train", "squad:train"), ("hotpotqa:dev", "musique:train", "squad:test")
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.01)
BUDGET, K = 500, 20
RESULTS = ROOT / "benchmarks" / "results" / "adaptive.md"
_FIRST_FIVE, _IN_BUDGET = 1, 3
"""Columns of `shares`."""


class Questions:
    """At most `most` questions of a split, drawn with a fixed seed, and what they need."""

    def __init__(self, name: str, most: int) -> None:
        self.folder, split = name.split(":")
        dataset = load_dataset(DATA / self.folder, split)
        self.ids = random.Random(0).sample(sorted(dataset.queries), min(most, len(dataset.queries)))
        self.texts = [dataset.queries[id_] for id_ in self.ids]
        self.gold = [dataset.qrels[id_] for id_ in self.ids]
        self.label = f"{self.folder} {split}"

    def store(self) -> Store:
        """The index of the dataset."""
        return Store.open(ROOT / ".cache" / "benchmarks" / self.folder)


def ways(store: Store) -> tuple[HybridRetriever, MultiHopRetriever]:
    """The first search, and the wider one."""
    first = HybridRetriever(store=store, k=K)
    return first, MultiHopRetriever(retriever=first, k=K)


def choose(most: int) -> tuple[float, list[str]]:
    """The threshold with the best recall on average, the lowest of several, and the table it was chosen by."""
    rows = {at: list[tuple[float, float]]() for at in THRESHOLDS}
    labels = []
    for name in CHOSEN_ON:
        questions = Questions(name, most)
        labels.append(questions.label)
        with questions.store() as store:
            once, twice = (retriever.batch(questions.texts) for retriever in ways(store))
            sure = [agreement(*pair) for pair in zip(questions.texts, once, strict=True)]
            for at in THRESHOLDS:
                found = [b if value < at else a for a, b, value in zip(once, twice, sure, strict=True)]
                rows[at].append((float(np.mean(np.array(sure) < at)), shares(found, questions.gold, store)[_FIRST_FIVE]))
    best = max(THRESHOLDS, key=lambda at: (round(float(np.mean([recall for _, recall in rows[at]])), 6), -at))
    columns = "".join(f" {label}: widened | first 5 |" for label in labels)
    lines = [f"| below |{columns}", f"|---:|{'---:|---:|' * len(labels)}"]
    for at, values in rows.items():
        cells = "".join(f" {widened:.0%} | {recall:.3f} |" for widened, recall in values)
        lines.append(f"| {'always' if at > 1 else f'{at:.1f}'} |{cells}")
    return best, lines


def timed(retrievers: Sequence[Any], texts: Sequence[str]) -> tuple[list[list[list[Document]]], list[float]]:
    """What each retriever finds for each question, asked alone, and its milliseconds of processor time on average."""
    found: list[list[list[Document]]] = [[] for _ in retrievers]
    seconds: list[list[float]] = [[] for _ in retrievers]
    for text in texts:
        for its_found, its_seconds, retriever in zip(found, seconds, retrievers, strict=True):
            started = time.process_time()
            its_found.append(retriever.invoke(text))
            its_seconds.append(time.process_time() - started)
    return found, [1000 * float(np.mean(its)) for its in seconds]


def report(questions: Questions, below: float) -> list[str]:
    """Rows of one dataset."""
    with questions.store() as store:
        first, wider = ways(store)
        widening = WideningPipeline(retriever=first, wider=wider, k=K, below=below)
        contexts = widening.ground_batch(questions.texts)
        widened = {
            "one search": 0.0,
            "widening": float(np.mean([context.trace[0].usage["widened"] for context in contexts])),
            "always wider": 1.0,
        }
        found, milliseconds = timed((Pipeline(retriever=first, k=K), widening, wider), questions.texts)
        rows = []
        for (label, share), its_found, its_milliseconds in zip(widened.items(), found, milliseconds, strict=True):
            values = shares(its_found, questions.gold, store)
            rows.append(
                f"| {questions.label} | {label} | {share:.0%} | {values[_FIRST_FIVE]:.3f} | {values[_IN_BUDGET]:.3f} "
                f"| {its_milliseconds:.0f} |"
            )
            print(rows[-1], flush=True)
    return rows


def reranked(questions: Questions, below: float, dtype: str | None) -> list[str]:
    """The pipeline of `ragkit ask` at a budget of tokens, with and without widening."""
    wanted = [{id_ for id_, gain in judged.items() if gain > 0} for judged in questions.gold]
    shown: dict[str, list[bool]] = {}
    rows, firsts = [], list[GroundedContext]()
    with questions.store() as store:
        first, wider = ways(store)
        model = ProvenceModel.from_pretrained(dtype=dtype)
        for label in ("one search", "widening"):
            stages = [ProvenceReranker(model=model), BlendReranker(weight=0.5), ProvencePruner(model=model, threshold=0.3)]
            pipeline = Pipeline(retriever=first, stages=stages, max_tokens=BUDGET)
            if label == "widening":
                pipeline = WideningPipeline.of(pipeline, wider, below=below)
            contexts = [pipeline.ground(text) for text in questions.texts]
            firsts = firsts or contexts
            shown[label] = [its <= {p.id for p in one.passages} for its, one in zip(wanted, contexts, strict=True)]
            share = np.mean([context.trace[0].usage.get("widened", False) for context in contexts])
            tokens = np.mean([context.tokens_kept for context in contexts])
            rows.append(f"| {label} | {share:.0%} | {np.mean(shown[label]):.3f} | {tokens:.0f} |")
            print(rows[-1], flush=True)
        found = first.batch(questions.texts)
    enough = np.array(shown["one search"])
    signs = {
        "the agreement of the searches": [agreement(*pair) for pair in zip(questions.texts, found, strict=True)],
        "the calibrated confidence": [shipped()(context) for context in firsts],
    }
    told = " and ".join(f"{auroc(enough, np.array(values)):.3f} for {name}" for name, values in signs.items())
    return [
        f"{questions.label}, {len(wanted)} questions: the pipeline of `ragkit ask`, at most {BUDGET} tokens of kept sentences",
        "",
        "| | widened | all gold passages shown | tokens |",
        "|---|---:|---:|---:|",
        *rows,
        "",
        f"How well the first pass tells whether it has all it needs (AUROC): {told}.",
        "",
    ]


class Annotated:
    """Answers with the decompositions of MuSiQue in the place of a model."""

    def __init__(self, steps: Mapping[str, Sequence[str]]) -> None:
        self._steps = steps

    def generate(self, prompts: Sequence[Any], configs: Any = None, until: float | None = None) -> list[Completion]:
        """See `Generates`."""
        return [self._answer(str(prompt[-1].content)) for prompt in prompts]

    async def agenerate(self, prompts: Sequence[Any], configs: Any = None, until: float | None = None) -> list[Completion]:
        """See `Generates`."""
        return self.generate(prompts, configs, until)

    def _answer(self, prompt: str) -> Completion:
        steps = next(steps for question, steps in self._steps.items() if question in prompt)
        return Completion("\n".join(f"{n}. {step}" for n, step in enumerate(steps, 1)))


def decomposed() -> list[str]:
    """MuSiQue with its own decompositions."""
    questions = Questions("musique:train", 100)
    order = sorted(questions.ids)
    random.Random(1).shuffle(order)
    held_out = set(order[50:])
    records = {record["_id"]: record for record in read_jsonl(DATA / "musique" / "queries.jsonl")}
    chosen = [at for at, id_ in enumerate(questions.ids) if id_ in held_out]
    texts, gold = [questions.texts[at] for at in chosen], [questions.gold[at] for at in chosen]
    model = Annotated({records[id_]["text"]: records[id_]["decomposition"] for id_ in held_out})
    rows = []
    with questions.store() as store:
        first, wider = ways(store)
        apart = DecompositionRetriever(retriever=first, llm=model, k=K)
        for label, way in {"one search": first, "following what passages name": wider, "taken apart": apart}.items():
            values = shares(way.batch(texts), gold, store)
            rows.append(f"| {label} | {values[_FIRST_FIVE]:.3f} | {values[2]:.3f} | {values[_IN_BUDGET]:.3f} |")
            print(rows[-1], flush=True)
    return [
        f"musique train, the {len(texts)} questions on which nothing was chosen:",
        "",
        f"| | first 5 | first 10 | {BUDGET} tokens |",
        "|---|---:|---:|---:|",
        *rows,
        "",
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=100, help="at most so many of each split")
    parser.add_argument("--reranked", type=int, default=40, help="questions for the pipeline with a reranker, 0 for none")
    parser.add_argument("--dtype", default="int8", help="of the reranker; int8 is fastest on a CPU")
    arguments = parser.parse_args()
    changed = arguments.reranked != parser.get_default("reranked")
    options = f" --reranked {arguments.reranked}" if changed else ""
    below, chosen = choose(arguments.questions)
    print(*chosen, f"chosen: {below}", sep="\n", flush=True)
    lines = [
        "# Searching wider where the first search is weak",
        "",
        f"`python benchmarks/adaptive.py{options}`",
        "",
        "The share of questions all of whose gold passages are found: among the first 5, and among the first that fit a budget "
        f"of {BUDGET} tokens, so that every way gives equally many. The first search is hybrid retrieval, the wider one follows "
        "what its passages name (`MultiHopRetriever`). No language model is asked. A question is searched for again if BM25 and "
        "vectors agree on less than `below` of their first ten.",
        "",
        f"Chosen on {' and '.join(CHOSEN_ON)}, {arguments.questions} questions each: **{below}**",
        "",
        *chosen,
        "",
        "Reported on others; milliseconds of processor time, of a question asked alone:",
        "",
        f"| | | widened | first 5 | {BUDGET} tokens | ms |",
        "|---|---|---:|---:|---:|---:|",
        *[row for name in REPORTED for row in report(Questions(name, arguments.questions), below)],
        "",
    ]
    lines += [
        "## Taking questions apart",
        "",
        "`DecompositionRetriever` with the decompositions that MuSiQue's annotators wrote in the place of a model's answer: what "
        "is measured is the search, not a model. How steps are filled in and merged was chosen on the other half of them.",
        "",
        *decomposed(),
    ]
    RESULTS.write_text("\n".join(lines))
    if arguments.reranked:
        lines += ["## Before a reranker", ""]
        lines += reranked(Questions(REPORTED[0], arguments.reranked), below, arguments.dtype)
        RESULTS.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
