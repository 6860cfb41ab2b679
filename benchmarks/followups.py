"""What are follow-up questions worth that take over words of earlier ones?

    python benchmarks/followups.py

Writes benchmarks/results/followups.md, from MT-RAG's conversations. Retrieval: BM25 over the passages of all its tasks, for the
follow-ups among them that can be answered; a task's own passages are relevant. Rewrites: content terms shared with the question
as a person rewrote it. The rule was chosen on the half of the conversations that is called dev here.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from retrieval import DATA, ROOT

from ragkit import BM25Retriever
from ragkit.chains.followups import carry_terms
from ragkit.encoders.lexical import Analyzer
from ragkit.retrievers.weights import ndcg

RESULTS = ROOT / "benchmarks" / "results" / "followups.md"
FIELDS = ("user_turns", "rewrite")
ANALYZER = Analyzer()
Ask = Callable[[Sequence[str]], str]
WAYS: dict[str, Ask] = {
    "the question alone": lambda asked: asked[-1],
    "words carried over (ragkit)": lambda asked: carry_terms(asked, ANALYZER),
    "all questions so far": " ".join,
}


def rows(name: str) -> list[dict[str, Any]]:
    """The lines of one of MT-RAG's files."""
    with gzip.open(DATA / "mtrag" / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def half(id_: str) -> str:
    """All turns of a conversation are in the same half."""
    return ("dev", "test")[int(hashlib.md5(id_.split("<::>")[0].encode()).hexdigest(), 16) % 2]


def retrieval(retriever: BM25Retriever, tasks: Sequence[tuple[list[str], set[str]]], ask: Ask) -> str:
    """Recall of the own passages among the first five, and nDCG@10."""
    recall, gain = [], []
    for (_, own), found in zip(tasks, retriever.batch([ask(asked) for asked, _ in tasks]), strict=True):
        ids = [document.id for document in found]
        numbers = {id_: n for n, id_ in enumerate(dict.fromkeys([*ids, *own]))}
        recall.append(len(own & set(ids[:5])) / min(5, len(own)))
        gain.append(ndcg(np.array([numbers[id_] for id_ in ids], np.int64), {numbers[id_]: 1.0 for id_ in own}))
    return f"{np.mean(recall):.3f} | {np.mean(gain):.3f}"


def overlap(pairs: Sequence[tuple[list[str], str]], ask: Ask) -> str:
    """Precision, recall and F1 of content terms, means over the questions."""
    figures = []
    for asked, rewrite in pairs:
        ours, theirs = set(ANALYZER(ask(asked))), set(ANALYZER(rewrite))
        if theirs:
            shared = len(ours & theirs)
            figures.append((shared / max(len(ours), 1), shared / len(theirs), 2 * shared / (len(ours) + len(theirs))))
    return " | ".join(f"{mean:.3f}" for mean in np.mean(figures, axis=0))


def main() -> None:
    """Both tables."""
    tasks = rows("tasks.jsonl.gz")
    passages = {passage["id"]: passage["text"] for task in tasks for passage in task["contexts"]}
    retriever = BM25Retriever.from_documents([Document(id=id_, page_content=text) for id_, text in passages.items()], k=10)
    answerable = [
        (half(task["_id"]), [turn["text"] for turn in task["turns"] if turn["speaker"] == "user"], task["contexts"])
        for task in tasks
        if task["answerability"][0] in ("ANSWERABLE", "PARTIAL") and task["contexts"] and len(task["turns"]) > 1
    ]
    lines = [f"MT-RAG, {len(passages)} passages", "", "| conversations | what is searched for | recall@5 | nDCG@10 |"]
    lines += ["| --- | --- | ---: | ---: |"]
    for part in ("dev", "test"):
        its = [(asked, {passage["id"] for passage in own}) for where, asked, own in answerable if where == part]
        # a new subject is not announced: the same questions after the conversations of others
        strangers = random.Random(0).sample(its, len(its))
        moved = [([*other, asked[-1]], own) for (asked, own), (other, _) in zip(its, strangers, strict=True)]
        for name, ask in WAYS.items():
            lines.append(f"| {part}, {len(its)} follow-ups | {name} | {retrieval(retriever, its, ask)} |")
        for name, ask in WAYS.items():
            lines.append(f"| {part}, after another conversation | {name} | {retrieval(retriever, moved, ask)} |")
    turns = [
        (half(row["_id"]), *([text.strip() for text in row[name].split("|user|:") if text.strip()] for name in FIELDS))
        for row in rows("query_rewrites.jsonl.gz")
    ]
    lines += ["", "| rewrites | question | precision | recall | F1 |", "| --- | --- | ---: | ---: | ---: |"]
    for part in ("dev", "test"):
        pairs = [(asked, rewrite[0]) for where, asked, rewrite in turns if where == part and len(asked) > 1]
        for name, ask in WAYS.items():
            lines.append(f"| {part}, {len(pairs)} follow-ups | {name} | {overlap(pairs, ask)} |")
    RESULTS.write_text("\n".join([*lines, "", "`python benchmarks/followups.py`", ""]), encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
