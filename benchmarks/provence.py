"""What reading many passages at once saves over a plain loop, and what pruning adds to reranking, with one set of weights.

    python benchmarks/provence.py         # prints, and writes benchmarks/results/provence.md

The passages are those that BM25 finds for questions of the datasets below $RAGKIT_DATA (default: ../shared/data). The plain
loop tokenizes question and passage, sends them through the network in float32, window by window, maps tokens to sentences, and
goes on to the next passage; it remembers nothing. All systems run in one process with torch's own number of threads. They
take turns, the first round does not count, and medians of the others are reported. What pruning adds to reranking is the time
of the second stage relative to that of the first one in the same run: two runs differ by more than that.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from langchain_core.documents import Document
from retrieval import DATA, ROOT

from ragkit import BM25Retriever, InputError, ProvenceModel, ProvencePruner, ProvenceReranker
from ragkit.documents import sentences
from ragkit.documents.provenance import SCORE_KEY, provenance
from ragkit.evaluation.datasets import Dataset, load_dataset
from ragkit.evaluation.metrics import evaluate
from ragkit.evaluation.tables import Table
from ragkit.provence.rounding import above, unit_scores
from ragkit.provence.stage import pair_of
from ragkit.provence.windows import cut, merge

SETS = ("squad:test", "hotpotqa:dev", "qed:dev", "scifact:test")
LOOP = "plain loop, float32"
MEASURE = "nDCG@10"
Key = tuple[str, str]


class Asked(NamedTuple):
    """Questions with the passages found for them, and the dataset that says which are relevant."""

    dataset: Dataset
    ids: list[str]
    found: list[list[Document]]

    @property
    def texts(self) -> list[str]:
        """The questions in words."""
        return [self.dataset.queries[id_] for id_ in self.ids]


class Said(NamedTuple):
    """By question and passage: the passage's score, and those of its sentences, from systems that give them."""

    passages: dict[Key, float]
    sentences: dict[Key, Sequence[float]]
    seconds: list[float]
    """What each stage took."""


def questions(count: int, passages: int, sets: Sequence[str]) -> list[Asked]:
    """An equal share of `count` questions from each set, spread over it, with `passages` passages each."""
    several = []
    for name in sets:
        folder, _, split = name.partition(":")
        dataset = load_dataset(DATA / folder, split)
        share = max(1, count // len(sets))
        ids = list(dataset.queries)[:: max(1, len(dataset.queries) // share)][:share]
        retriever = BM25Retriever.from_documents(dataset.documents)
        found = retriever.batch([dataset.queries[id_] for id_ in ids], k=passages)
        # for every second question the last passage is made of six, so that some are longer than the model reads at once
        several.append(Asked(dataset, ids, [[*its[:-1], _joined(its)] if at % 2 else its for at, its in enumerate(found)]))
    return several


def _joined(documents: Sequence[Document]) -> Document:
    return Document(" ".join(document.page_content for document in documents[-6:]), id=documents[-1].id)


def loop(model: ProvenceModel, several: Sequence[Asked]) -> Said:
    """One passage after the other, with the model's own tokenizer and network."""
    tokenizer, network, family = model._tokenizer, model._network, model.family
    said = Said({}, {}, [])
    started = time.perf_counter()
    for asked in several:
        for question, documents in zip(asked.texts, asked.found, strict=True):
            pairs = network.accompany([pair_of(question, document, "en") for document in documents])
            for pair, document in zip(pairs, documents, strict=True):
                [windows] = cut(tokenizer, [pair])
                logits = [network([window]) for window in windows]
                rank = np.concatenate([each.rank for each in logits])
                judged = merge(windows, rank, [each.keep[0] for each in logits], tokenizer.overlap)
                key = question, str(document.id)
                said.passages[key] = 1 / (1 + float(np.exp(-judged.score)))
                said.sentences[key] = unit_scores(judged, pair.units, family.rounding, family.threshold).tolist()
    said.seconds.append(time.perf_counter() - started)
    return said


def staged(several: Sequence[Asked], *stages: Any) -> Said:
    """All passages of all questions through ragkit's stages, one behind the other."""
    texts = [text for asked in several for text in asked.texts]
    documents = [found for asked in several for found in asked.found]
    said = Said({}, {}, [])
    for stage in stages:
        started = time.perf_counter()
        documents = stage.batch([{"query": text, "documents": its} for text, its in zip(texts, documents, strict=True)])
        said.seconds.append(time.perf_counter() - started)
    for text, its_documents in zip(texts, documents, strict=True):
        for document in its_documents:
            key = text, str(document.id)
            said.passages[key] = document.metadata[SCORE_KEY]
            scores = provenance(document).unit_scores
            if scores is not None:
                said.sentences[key] = scores
    return said


def rounds_of(systems: dict[str, Callable[[], Said]], rounds: int) -> dict[str, list[Said]]:
    """What each system said in each round. A round before the counted ones loads what is loaded at first use."""
    # the corpora: to walk through them is no part of any system
    gc.collect()
    gc.freeze()
    turns = [{name: system() for name, system in systems.items()} for _ in range(rounds + 1)]
    return {name: [turn[name] for turn in turns[1:]] for name in systems}


def agreement(said: Said, expected: Said, model: ProvenceModel) -> list[str]:
    """Cells: largest differences of scores, and the shares of equal decisions and of questions with an equal order."""
    passages = max(abs(said.passages[key] - score) for key, score in expected.passages.items())
    orders = [_orders(each.passages) for each in (said, expected)]
    order = f"{np.mean([orders[0][question] == ids for question, ids in orders[1].items()]):.1%}"
    if not said.sentences:
        return [f"{passages:.1g}", "-", "-", order]
    ours, theirs = (np.concatenate([each.sentences[key] for key in expected.sentences]) for each in (said, expected))
    equal = np.mean(
        above(ours, model.family.rounding, model.family.threshold) == above(theirs, model.family.rounding, model.family.threshold)
    )
    return [f"{passages:.1g}", f"{np.abs(ours - theirs).max():.1g}", f"{equal:.2%}", order]


def _orders(passages: dict[Key, float]) -> dict[str, list[str]]:
    by_question: dict[str, dict[str, float]] = {}
    for (question, id_), score in passages.items():
        by_question.setdefault(question, {})[id_] = score
    # rounded, so that passages that differ in the last bits only count as tied
    return {question: sorted(its, key=lambda id_: (-round(its[id_], 5), id_)) for question, its in by_question.items()}


def quality(said: Said, several: Sequence[Asked]) -> str:
    """Mean nDCG@10 over the sets."""
    values = []
    for asked in several:
        run = {
            id_: sorted(its, key=lambda document: -said.passages[text, str(document.id)])
            for id_, text, its in zip(asked.ids, asked.texts, asked.found, strict=True)
        }
        values.append(evaluate(run, {id_: asked.dataset.qrels[id_] for id_ in asked.ids}, [MEASURE])[MEASURE])
    return f"{np.mean(values):.4f}"


def systems_of(models: dict[str, ProvenceModel], several: Sequence[Asked]) -> dict[str, Callable[[], Said]]:
    """The loop, and for each precision reranking, reranking and pruning, pruning. Each run begins with nothing remembered."""

    def run(model: ProvenceModel, *stages: Any) -> Said:
        model.forget()
        sentences._found_lately.cache_clear()
        return staged(several, *(stage(model=model) for stage in stages))

    def pruner(model: ProvenceModel) -> ProvencePruner:
        return ProvencePruner(model=model, drop_empty=False)

    systems: dict[str, Callable[[], Said]] = {LOOP: lambda: loop(models["float32"], several)}
    for name, model in models.items():
        for label, stages in {
            "rerank": (ProvenceReranker,),
            "rerank, then prune": (ProvenceReranker, pruner),
            "prune": (pruner,),
        }.items():
            systems[f"{label}, {name}"] = lambda model=model, stages=stages: run(model, *stages)  # type: ignore[misc]
    return systems


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a Provence model; ragkit's own if not given")
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--passages", type=int, default=10, help="per question")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sets", nargs="+", default=SETS, metavar="SET:SPLIT")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "provence.md")
    arguments = parser.parse_args()
    several = questions(arguments.questions, arguments.passages, arguments.sets)
    models = {"float32": ProvenceModel.from_pretrained(arguments.model, device="cpu", dtype="float32")}
    try:
        models["int8"] = ProvenceModel.from_pretrained(arguments.model, device="cpu", dtype="int8")
    except InputError as error:
        print(f"without int8: {error}")
    pairs = [
        pair_of(text, document, "en")
        for asked in several
        for text, its in zip(asked.texts, asked.found, strict=True)
        for document in its
    ]
    sizes = [sum(len(window.ids) for window in windows) for windows in cut(models["float32"]._tokenizer, pairs)]
    runs = rounds_of(systems_of(models, several), arguments.rounds)
    said = {name: its_runs[-1] for name, its_runs in runs.items()}
    seconds = {name: median(sum(run.seconds) for run in its_runs) for name, its_runs in runs.items()}
    rows = []
    for name, its_runs in runs.items():
        shares = [run.seconds[1] / run.seconds[0] for run in its_runs if len(run.seconds) == 2]
        more = f"{median(shares):+.1%}" if shares else ""
        rows.append(
            (
                name,
                f"{seconds[name]:.2f}",
                f"{sum(sizes) / seconds[name]:.0f}",
                f"{seconds[LOOP] / seconds[name]:.2f}x",
                more,
                *agreement(said[name], said[LOOP], models["float32"]),
                quality(said[name], several),
            )
        )
    middle, long = int(np.median(sizes)), sum(size > models["float32"].family.max_length for size in sizes)
    caption = (
        f"{len(pairs)} pairs of question and passage from {', '.join(arguments.sets)}: {sum(sizes)} tokens, {min(sizes)} to "
        f"{max(sizes)} a pair, {middle} in the middle, {long} pairs longer than a window. {torch.get_num_threads()} threads, "
        f"medians of {arguments.rounds} rounds. Differences and shares are those to the plain loop."
    )
    header = (
        *("system", "seconds", "tokens/s", "speed of the loop", "more than reranking", "largest difference, passages"),
        *("largest difference, sentences", "equal decisions", "equal order", MEASURE),
    )
    options = "".join(
        f" --{option} {getattr(arguments, option)}"
        for option in ("model", "questions", "passages", "rounds")
        if getattr(arguments, option) != parser.get_default(option)
    )
    if tuple(arguments.sets) != SETS:
        options += f" --sets {' '.join(arguments.sets)}"
    text = f"{Table(caption, header, rows).markdown()}\n\n`python benchmarks/provence.py{options}`\n"
    print(text)
    arguments.output.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
