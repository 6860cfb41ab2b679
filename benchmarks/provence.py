"""What reading many passages at once saves over a plain loop, and what pruning adds to reranking, with one set of weights.

    python benchmarks/provence.py         # prints, and writes benchmarks/results/provence.md

The passages are those that BM25 finds for questions of the datasets below $RAGKIT_DATA (default: ../shared/data). The loop
tokenizes a pair of question and passage, sends it through the network in float32, and goes on to the next one. Everything runs
in one process with torch's own number of threads; the systems take turns, and the medians of the rounds are reported.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from retrieval import DATA, ROOT

from ragkit import BM25Retriever, Pipeline, ProvenceModel, ProvencePruner, ProvenceReranker
from ragkit.documents.provenance import SCORE_KEY, provenance
from ragkit.evaluation.datasets import load_dataset
from ragkit.provence.memo import Memo
from ragkit.provence.rounding import above, unit_scores
from ragkit.provence.stage import pair_of

SETS = ("squad:test", "hotpotqa:dev", "scifact:test")
Questions = dict[str, list[Document]]


class Found(NamedTuple):
    """Scores by question and passage, and scores of sentences likewise, as far as a system gives them."""

    passages: dict[tuple[str, str], float]
    sentences: dict[tuple[str, str], Sequence[float]]


class Candidates(BaseRetriever):
    """Answers with what was found before, so that no retrieval is timed."""

    found: Questions

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return self.found[query]


def candidates(questions: int, passages: int) -> Questions:
    """Passages for questions of all datasets, an equal share of each."""
    found: Questions = {}
    for at, name in enumerate(SETS):
        folder, _, split = name.partition(":")
        dataset = load_dataset(DATA / folder, split)
        count = questions // len(SETS) + (at < questions % len(SETS))
        texts = [*dataset.queries.values()]
        asked = texts[:: len(texts) // count][:count]
        found |= zip(asked, BM25Retriever.from_documents(dataset.documents).batch(asked, k=passages), strict=True)
    return found


def loop(model: ProvenceModel, questions: Questions) -> Found:
    """One passage after the other."""
    found = Found({}, {})
    for question, documents in questions.items():
        for document in documents:
            pair = pair_of(question, document, "en")
            [judged] = model.judge([pair])
            found.passages[question, str(document.id)] = judged.score
            scores = unit_scores(judged, pair.units, model.family.rounding, model.family.threshold)
            found.sentences[question, str(document.id)] = scores.tolist()
    return found


def through(questions: Questions, *stages: Any) -> Found:
    """All passages of all questions through a pipeline."""
    pipeline = Pipeline(retriever=Candidates(found=questions), stages=list(stages), k=max(map(len, questions.values())))
    found = Found({}, {})
    for question, documents in zip(questions, pipeline.batch([*questions]), strict=True):
        for document in documents:
            found.passages[question, str(document.id)] = document.metadata[SCORE_KEY]
            scores = provenance(document).unit_scores
            if scores is not None:
                found.sentences[question, str(document.id)] = scores
    return found


def timed(systems: dict[str, Callable[[], Found]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Found]]:
    """Seconds of each system in each round, and what it found. A round before them warms caches."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    found = {}
    for number in range(rounds + 1):
        for name, system in systems.items():
            started = time.perf_counter()
            found[name] = system()
            if number:
                seconds[name].append(time.perf_counter() - started)
            print(f"round {number}: {name} {time.perf_counter() - started:.1f} s", flush=True)
    return seconds, found


def differences(found: Found, expected: Found, model: ProvenceModel) -> list[str]:
    """Cells: how far scores of passages and sentences are off at most, and what part of the sentences is decided otherwise."""
    passages = max(abs(found.passages[key] - score) for key, score in expected.passages.items())
    if not found.sentences:
        return [f"{passages:.1g}", "", ""]
    ours, theirs = (
        np.concatenate([scores[key] for key in expected.sentences]) for scores in (found.sentences, expected.sentences)
    )
    rounding, threshold = model.family.rounding, model.family.threshold
    flipped = np.mean(above(ours, rounding, threshold) != above(theirs, rounding, threshold))
    return [f"{passages:.1g}", f"{np.abs(ours - theirs).max():.1g}", f"{flipped:.2%}"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a Provence model; ragkit's own if not given")
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--passages", type=int, default=20, help="per question")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "provence.md")
    arguments = parser.parse_args()
    questions = candidates(arguments.questions, arguments.passages)
    models = {
        "float32": ProvenceModel.from_pretrained(arguments.model, device="cpu", dtype="float32"),
        "int8": ProvenceModel.from_pretrained(arguments.model, device="cpu"),
    }

    def fresh(dtype: str) -> ProvenceModel:
        # nothing may be remembered from the system or the round before
        models[dtype]._memo = Memo()
        return models[dtype]

    def reranked(dtype: str) -> Found:
        return through(questions, ProvenceReranker(model=fresh(dtype)))

    def pruned(dtype: str) -> Found:
        return through(questions, ProvencePruner(model=fresh(dtype), drop_empty=False))

    def both(dtype: str) -> Found:
        model = fresh(dtype)
        return through(questions, ProvenceReranker(model=model), ProvencePruner(model=model, drop_empty=False))

    systems: dict[str, Callable[[], Found]] = {"loop, float32": lambda: loop(fresh("float32"), questions)}
    for dtype in models:
        systems |= {
            f"rerank, {dtype}": lambda dtype=dtype: reranked(dtype),  # type: ignore[misc]
            f"rerank and prune, {dtype}": lambda dtype=dtype: both(dtype),  # type: ignore[misc]
            f"prune, {dtype}": lambda dtype=dtype: pruned(dtype),  # type: ignore[misc]
        }
    seconds, found = timed(systems, arguments.rounds)
    print(seconds)
