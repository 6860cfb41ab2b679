"""BM25 on questions with one random typo each, with and without typo tolerance.

    python benchmarks/typos.py scifact --split train --questions 300
    python benchmarks/typos.py squad

A typo is a letter that is left out, doubled, replaced by another or swapped with its neighbour, in a random word of at least four
letters that is no stop word. Datasets are folders below $RAGKIT_DATA (default: ../shared/data).
"""

from __future__ import annotations

import argparse
import os
import random
import string
import time
from pathlib import Path

from ragkit import BM25Retriever
from ragkit.encoders.lexical import Analyzer
from ragkit.evaluation.datasets import load_dataset
from ragkit.evaluation.metrics import evaluate
from ragkit.retrievers.typos import TypoTolerantRetriever

DATA = Path(os.environ.get("RAGKIT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
MEASURES = ("nDCG@10", "R@100")


def misspelt(question: str, chance: random.Random) -> str:
    """The question with one typo; as it is if no word can have one."""
    words, known = question.split(), Analyzer(stemming=False)
    places = [at for at, word in enumerate(words) if len(word) > 3 and word.isalpha() and known(word)]
    if not places:
        return question
    place = chance.choice(places)
    word = words[place]
    at = chance.randrange(len(word) - 1)
    words[place] = chance.choice(
        [
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + chance.choice(string.ascii_lowercase) + word[at + 1 :],
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        ]
    )
    return " ".join(words)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--split", default="train")
    parser.add_argument("--questions", type=int, default=300)
    arguments = parser.parse_args()
    dataset = load_dataset(DATA / arguments.dataset, arguments.split)
    chance = random.Random(0)
    plain = dict(sorted(dataset.queries.items())[: arguments.questions])
    typed = {id_: misspelt(question, chance) for id_, question in plain.items()}
    bm25 = BM25Retriever.from_documents(dataset.documents, k=100)
    systems = {"BM25": bm25, "BM25, typo-tolerant": TypoTolerantRetriever(store=bm25.store, k=100)}
    print(f"{dataset.name} {dataset.split}: {len(dataset.documents)} documents, {len(plain)} questions\n")
    print(f"| questions | system | {' | '.join(MEASURES)} | ms/question |\n|---|---|{'---:|' * (len(MEASURES) + 1)}")
    for name, questions in (("as they are", plain), ("one typo each", typed)):
        for system, retriever in systems.items():
            retriever.invoke("warmup misspeling")
            started = time.perf_counter()
            found = retriever.batch(list(questions.values()))
            took = (time.perf_counter() - started) / len(questions) * 1000
            run = dict(zip(questions, found, strict=True))
            scores = evaluate(run, {id_: dataset.qrels[id_] for id_ in questions}, MEASURES)
            print(f"| {name} | {system} | {' | '.join(f'{scores[m]:.4f}' for m in MEASURES)} | {took:.1f} |", flush=True)


if __name__ == "__main__":
    main()
