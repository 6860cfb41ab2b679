"""Dense vector indexes: each kind over synthetic clustered vectors of 384 dimensions, one thread, beside a flat faiss index.

    python benchmarks/dense.py                             # 100k and 1M vectors; writes benchmarks/results/dense.md as it goes
    python benchmarks/dense.py --sizes 20000               # prints only
    python benchmarks/dense.py --sizes 100000 --kinds binary ivf

Each kind is built in one fresh process and searched in another. Vectors are unit vectors around centres whose number grows with
the root of the collection's size, in a space of 96 directions with noise in all 384; questions are drawn like them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from retrieval import ROOT

from ragkit.evaluation.tables import Table
from ragkit.indexes.dense import FaissIndex

DIMENSION, RANK = 384, 96
QUESTIONS, AT_ONCE, ROUNDS = 1000, 50_000, 3
SIZES = (100_000, 1_000_000)
FAISS = "faiss flat"
KINDS: dict[str, dict[str, Any]] = {
    "flat": {},
    "hnsw": {},
    "ivf": {},
    "sq8": {},
    "ivfpq": {},
    "binary": {},
    "binary float16": {"kind": "binary", "precision": "float16"},
}
RESULTS = ROOT / "benchmarks" / "results" / "dense.md"
COLUMNS = {
    "build s": "{:.1f}",
    "disk MB": "{:.0f}",
    "memory MB": "{:.1f}",
    "times less": "{:.1f}",
    "looked up MB": "{:.1f}",
    "QPS": "{:.0f}",
    "p50 ms": "{:.2f}",
    "recall@10": "{:.3f}",
}
LEGEND = """One thread. "build s" is the time from vectors to files, learning included; "disk MB" the size of the files.
"memory MB" is what the process holds more after its searches than before it opened the index, files mapped into it included,
except for the vectors that candidates are looked up in: these may leave memory at any time and are listed as "looked up MB".
For kind "flat", whose searches read all of its vectors, they count as memory. "times less" compares with the float32 vectors
alone. QPS is that of calls with 100 questions, the median of three rounds, p50 that of calls with one, both warm and for the
best 10. "recall@10" is the share of the exact best 10 that is found."""
Floats = NDArray[np.float32]


def vectors(count: int, size: int, seed: int) -> Floats:
    """`count` vectors like those of a collection of `size`."""
    fixed = np.random.default_rng(0)
    basis = fixed.normal(size=(RANK, DIMENSION)).astype(np.float32) / np.float32(RANK**0.5)
    centres = fixed.normal(size=(int(4 * size**0.5), RANK)).astype(np.float32)
    rng = np.random.default_rng(seed)
    inner = centres[rng.integers(len(centres), size=count)] + 0.7 * rng.normal(size=(count, RANK)).astype(np.float32)
    made = inner @ basis + 0.2 * rng.normal(size=(count, DIMENSION)).astype(np.float32)
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def parts(size: int) -> list[Floats]:
    """The collection, some thousands at a time."""
    return [vectors(min(AT_ONCE, size - first), size, 1 + first) for first in range(0, size, AT_ONCE)]


def solve(size: int, file: Path) -> None:
    """The exact best 10 of each question, by plain matrix products."""
    questions = vectors(QUESTIONS, size, -1 % 2**32)
    scores, rows = np.empty((QUESTIONS, 0), np.float32), np.empty((QUESTIONS, 0), np.int64)
    for number, part in enumerate(parts(size)):
        scores = np.concatenate([scores, questions @ part.T], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(len(part)) + number * AT_ONCE, (QUESTIONS, len(part)))], axis=1)
        best = np.argpartition(-scores, 9, axis=1)[:, :10]
        scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
    np.save(file, rows)


def build(name: str, size: int, folder: Path) -> dict[str, float]:
    """Make the files."""
    made = parts(size)
    started = perf_counter()
    if name == FAISS:
        import faiss

        flat = faiss.IndexFlatIP(DIMENSION)
        for part in made:
            flat.add(part)
        faiss.write_index(flat, str(folder / "flat.faiss"))
    else:
        index = FaissIndex(DIMENSION, **{"kind": name, **KINDS[name]})
        for number, part in enumerate(made):
            index.add(np.arange(len(part)) + number * AT_ONCE, part)
        index.save(folder)
    seconds = perf_counter() - started
    return {"build s": seconds, "disk MB": sum(file.stat().st_size for file in folder.iterdir()) / 1e6}


def search(name: str, size: int, folder: Path, truth: NDArray[np.int64]) -> dict[str, float]:
    """Open, and ask."""
    import faiss

    questions = vectors(QUESTIONS, size, -1 % 2**32)
    few = FaissIndex(DIMENSION)
    few.add(np.arange(100), questions[:100])
    few.search(questions[:100], 10)  # so that what libraries hold is there before
    before = held(folder)[0]
    if name == FAISS:
        flat = faiss.read_index(str(folder / "flat.faiss"))

        def ask(some: Floats) -> list[NDArray[np.int64]]:
            return list(flat.search(some, 10)[1])

    else:
        index = FaissIndex.load(folder)

        def ask(some: Floats) -> list[NDArray[np.int64]]:
            return [ranking.positions for ranking in index.search(some, 10)]

    started = perf_counter()
    ask(questions[:100])
    count = int(np.clip(10 / (perf_counter() - started), 1, 10)) * 100  # slow kinds get fewer questions
    batches = []
    for _ in range(ROUNDS):
        started = perf_counter()
        found = [row for first in range(0, count, 100) for row in ask(questions[first : first + 100])]
        batches.append(perf_counter() - started)
    singles = []
    for question in questions[: count // 2]:
        started = perf_counter()
        ask(question[None])
        singles.append(perf_counter() - started)
    memory, looked_up = held(folder)
    if name == "flat":
        memory, looked_up = memory + looked_up, 0.0
    shared = [len(np.intersect1d(row, best)) for row, best in zip(found, truth, strict=False)]
    return {
        "QPS": count / float(np.median(batches)),
        "p50 ms": float(np.median(singles)) * 1000,
        "recall@10": float(np.mean(shared)) / 10,
        "memory MB": memory - before,
        "looked up MB": looked_up,
    }


def held(folder: Path) -> tuple[float, float]:
    """MB that are in this process's memory: without the files of vectors in `folder`, and these."""
    others = mapped = 0
    ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = str(folder / "vectors-") in line
        elif line.startswith("Rss:"):
            kilobytes = int(line.split()[1])
            others, mapped = (others, mapped + kilobytes) if ours else (others + kilobytes, mapped)
    return others * 1024 / 1e6, mapped * 1024 / 1e6


def measure(size: int, kinds: list[str]) -> str:
    """One collection's table."""
    flat = size * DIMENSION * 4 / 1e6
    rows = []
    work = Path(tempfile.mkdtemp()).resolve()
    try:
        run("solve", "", size, work)
        for kind in kinds:
            (work / "index").mkdir()
            try:
                row = run("build", kind, size, work) | run("search", kind, size, work)
            except subprocess.CalledProcessError as error:
                rows.append([kind, f"failed: {error.stderr.strip().splitlines()[-1][:100]}", *[""] * (len(COLUMNS) - 1)])
            else:
                row["times less"] = flat / row["memory MB"]
                rows.append([kind, *(form.format(row[column]) for column, form in COLUMNS.items())])
            print(rows[-1], file=sys.stderr, flush=True)
            shutil.rmtree(work / "index")
    finally:
        shutil.rmtree(work)
    return Table(f"{size:,} vectors", ["kind", *COLUMNS], rows).markdown() + "\n"


def run(phase: str, kind: str, size: int, work: Path) -> dict[str, float]:
    """One phase in a process of its own."""
    environment = os.environ | {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    command = [sys.executable, __file__, "--phase", phase, "--kinds", kind, "--sizes", str(size), "--work", str(work)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout or "{}")
    return answer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--kinds", nargs="+", default=[FAISS, *KINDS])
    parser.add_argument("--phase", choices=("solve", "build", "search"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    kind, size, work = arguments.kinds[0], arguments.sizes[0], arguments.work
    if arguments.phase == "solve":
        solve(size, work / "truth.npy")
    elif arguments.phase == "build":
        print(json.dumps(build(kind, size, work / "index")))
    elif arguments.phase == "search":
        print(json.dumps(search(kind, size, work / "index", np.load(work / "truth.npy"))))
    else:
        text = f"# Dense vector indexes\n\n{LEGEND}\n"
        for one in arguments.sizes:
            text += "\n" + measure(one, arguments.kinds)
            if tuple(arguments.sizes) == SIZES and len(arguments.kinds) > len(KINDS):
                RESULTS.write_text(text)
        print(text)


if __name__ == "__main__":
    main()
