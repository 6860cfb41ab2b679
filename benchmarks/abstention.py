"""When is the evidence too weak to answer? Calibrates the pipeline of `ragkit ask`, and measures what it is worth.

    python benchmarks/abstention.py

Half of the questions are SQuAD's, half those of SQuAD 2.0 that their article does not answer; all are searched for among all
passages. Calibrated is on articles that ragkit's model was neither trained on nor reported on, reported on the test articles.
Writes benchmarks/results/abstention.md and ragkit/chains/assets/confidence.json. A question takes a second or more, so what was
found is kept in .cache/benchmarks, and a run that was stopped goes on; the index is the one that benchmarks/retrieval.py makes.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from retrieval import DATA, ROOT
from scipy.stats import rankdata

from ragkit import HybridRetriever, Pipeline, ProvencePruner, ProvenceReranker, Store
from ragkit.chains.confidence import FEATURES, Calibration, calibrate_evidence, evidence
from ragkit.chains.context import GroundedContext
from ragkit.chains.logistic import probability, reliability
from ragkit.evaluation.datasets import load_dataset, read_jsonl
from ragkit.provence.model import ProvenceModel
from ragkit.training.assemble import is_held_out

RESULTS = ROOT / "benchmarks" / "results" / "abstention.md"
SHIPPED = ROOT / "ragkit" / "chains" / "assets" / "confidence.json"
_HELD_OUT = 0.16  # of the titles, as in ragkit/models/provence-minilm/training.yaml
_AT_ONCE = 4
_DRAWS = 500


class Question(NamedTuple):
    """A question, and the answers that are accepted; none for one that has none."""

    id: str
    text: str
    answers: tuple[str, ...]


def questions(split: str, count: int) -> list[Question]:
    """As many that have an answer as have none, in turn."""
    folder = DATA / "squad"
    titles = {record["_id"]: record["title"] for record in read_jsonl(folder / "corpus.jsonl")}
    answers = {record["_id"]: tuple(record["answers"]) for record in read_jsonl(folder / "queries.jsonl")}
    dataset = load_dataset(folder, split)
    chosen = {title for title in titles.values() if split == "test" or is_held_out(title, _HELD_OUT)}
    those = [
        Question(id_, text, answers[id_])
        for id_, text in dataset.queries.items()
        if titles[next(iter(dataset.qrels[id_]))] in chosen
    ]
    others = [
        Question(record["query_id"], record["text"], ())
        for record in read_jsonl(folder / "unanswerable.jsonl")
        if record["split"] == split and titles[record["corpus_id"]] in chosen
    ]
    draw = random.Random(0)
    halves = [draw.sample(sorted(half), count // 2) for half in (those, others)]
    return [question for pair in zip(*halves, strict=True) for question in pair]


def record_of(question: Question, context: GroundedContext) -> dict[str, Any]:
    """What is kept of a question that has been asked."""
    kept = " ".join(passage.text for passage in context.passages).lower()
    best = [max((r.score for r in stage.results if r.score is not None), default=0.0) for stage in context.trace]
    cosines = [r.score for c in context.candidates for r in c.stages if r.stage == "dense" and r.score is not None]
    return {
        "id": question.id,
        "answerable": bool(question.answers),
        "answered": any(answer.lower() in kept for answer in question.answers),
        "evidence": evidence(context),
        "retriever": best[0],
        "cosine": max(cosines, default=0.0),
        "reranker": best[1],
    }


def ask(split: str, count: int, dtype: str | None, *, cached: bool) -> list[dict[str, Any]]:
    """What the pipeline finds for each question, from the cache where it has been asked before; from there only, if `cached`."""
    path = ROOT / ".cache" / "benchmarks" / f"abstention-{split}.jsonl"
    known = {record["id"]: record for record in read_jsonl(path)} if path.exists() else {}
    wanted = questions(split, count)
    waiting = [] if cached else [question for question in wanted if question.id not in known]
    if waiting:
        with Store.open(ROOT / ".cache" / "benchmarks" / "squad") as store, path.open("a") as file:
            model = ProvenceModel.from_pretrained(dtype=dtype)
            stages = [ProvenceReranker(model=model), ProvencePruner(model=model, threshold=0.3)]
            pipeline = Pipeline(retriever=HybridRetriever(store=store, k=20), stages=stages)
            for start in range(0, len(waiting), _AT_ONCE):
                part = waiting[start : start + _AT_ONCE]
                for question, context in zip(part, pipeline.ground_batch([one.text for one in part]), strict=True):
                    known[question.id] = record_of(question, context)
                    file.write(json.dumps(known[question.id]) + "\n")
                file.flush()
                print(f"{split}: {start + len(part)} of {len(waiting)}", flush=True)
    return [known[question.id] for question in wanted if question.id in known]


def auroc(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """The area under the ROC curve: how often what is true has the higher score, of all pairs; a tie is half."""
    ranks = rankdata(scores)
    true = int(labels.sum())
    return float((ranks[labels].sum() - true * (true + 1) / 2) / (true * (len(labels) - true)))


def interval(labels: Sequence[bool], scores: Sequence[float]) -> str:
    """The area under the ROC curve, with its 95 % bootstrap interval."""
    y, x, draw = np.array(labels), np.array(scores), np.random.default_rng(0)
    rows = [draw.integers(0, len(y), len(y)) for _ in range(_DRAWS)]
    low, high = np.quantile([auroc(y[its], x[its]) for its in rows], [0.025, 0.975])
    return f"{auroc(y, x):.3f} | {low:.3f} to {high:.3f}"


def report(calibration: Calibration, train: list[dict[str, Any]], test: list[dict[str, Any]], command: str) -> str:
    """The page."""
    said = [probability(calibration.line, record["evidence"]) for record in test]
    answerable = [record["answerable"] for record in test]
    worth = reliability(said, [record["answered"] for record in test], bins=5)
    threshold = calibration.abstain_below
    below = np.array(said) < threshold
    has = np.array(answerable)
    signs = {
        "the calibrated probability": said,
        "the reranker's best score": [record["reranker"] for record in test],
        "the best cosine of dense retrieval": [record["cosine"] for record in test],
        "the retriever's best score (hybrid)": [record["retriever"] for record in test],
    }
    lines = [
        "# Abstention",
        "",
        f"`{command}`",
        "",
        f"The pipeline of `ragkit ask` over all passages of SQuAD, half of the questions without an answer: {len(train)} "
        f"questions to calibrate by, {len(test)} of other articles to report on. The unanswerable ones were written to look "
        "as if their article answered them.",
        "",
        "How well answerable and unanswerable questions are told apart (AUROC, 0.5 is chance):",
        "",
        "| sign | AUROC | 95 % interval |",
        "|---|---:|---:|",
        *[f"| {name} | {interval(answerable, scores)} |" for name, scores in signs.items()],
        "",
        f"At the default threshold, {threshold:.3f}, {below[has].mean():.1%} of the answerable questions are not answered, and "
        f"{below[~has].mean():.1%} of the unanswerable ones are caught. At other thresholds:",
        "",
        "| abstain below | answerable, not answered | unanswerable, caught |",
        "|---:|---:|---:|",
        *[
            f"| {at:.2f} | {(np.array(said)[has] < at).mean():.1%} | {(np.array(said)[~has] < at).mean():.1%} |"
            for at in (0.2, 0.3, 0.4, 0.5, 0.6)
        ],
        "",
        "Reliability on the same test questions, of the probability that an accepted answer stands in the kept sentences: "
        f"expected calibration error {worth.ece:.3f}, Brier score {worth.brier:.3f} (the share of such questions, "
        f"{np.mean([record['answered'] for record in test]):.3f}, said of all would have "
        f"{np.var([record['answered'] for record in test]):.3f}).",
        "",
        "| questions | probability, in the mean | true |",
        "|---:|---:|---:|",
        *[f"| {one.cases} | {one.said:.3f} | {one.true:.3f} |" for one in worth.bins],
        "",
        "Weights, of log odds: "
        + ", ".join(f"{name} {weight:+.3f}" for name, weight in zip(FEATURES, calibration.line.weights, strict=True))
        + f", bias {calibration.line.bias:+.3f}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=400, help="of each split, an even number")
    parser.add_argument("--dtype", help="int8 is faster on a CPU")
    parser.add_argument("--cached", action="store_true", help="ask nothing more: report on what a run that was stopped has found")
    parser.add_argument("--save", type=Path, default=SHIPPED, help="where the calibration goes")
    arguments = parser.parse_args()
    chosen = f" --questions {arguments.questions}" + (f" --dtype {arguments.dtype}" if arguments.dtype else "")
    chosen += " --cached" if arguments.cached else ""
    train, test = (ask(split, arguments.questions, arguments.dtype, cached=arguments.cached) for split in ("train", "test"))
    calibration = calibrate_evidence([record["evidence"] for record in train], [record["answered"] for record in train])
    calibration.save(arguments.save)
    RESULTS.write_text(report(calibration, train, test, f"python benchmarks/abstention.py{chosen}"))


if __name__ == "__main__":
    main()
