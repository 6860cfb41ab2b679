"""One system on one set, in a process of its own, so that memory, caches and threads are its own: what `sparse.py` starts.

python benchmarks/sparse_worker.py '{"phase": "search", ...}'     # writes a JSON object to the file named in it
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import sparse_bm25
import sparse_learned
from sparse_problem import DEPTH, Problem, agreement

SECONDS = 15.0  # for one figure; slow systems get fewer questions
ROUNDS = 5


def index(problem: Problem, system: Any, folder: Path) -> dict[str, Any]:
    """Build, and write to disk. Something tiny is built first, which compiles and imports what there is to."""
    few = np.arange(min(64, len(problem.documents)))
    tiny = Problem(problem.folder, problem.learned)
    vars(tiny)["documents"] = problem.documents.take(few)
    with tempfile.TemporaryDirectory() as nowhere:
        type(system)().build(tiny, Path(nowhere))
    started = perf_counter()
    system.build(problem, folder)
    seconds = perf_counter() - started
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {"index s": seconds, "index MB": size / 1e6, "indexing MB": peak()}


def search(problem: Problem, system: Any, folder: Path) -> list[dict[str, Any]]:
    """Open, and ask. One row for each variant of the search."""
    started = perf_counter()
    system.load(problem, folder)
    opened = perf_counter() - started
    first = system.prepare(problem.questions, np.arange(1))
    started = perf_counter()
    system.search(first, 10)
    first_answer = opened + perf_counter() - started
    rows = []
    for variant in getattr(system, "variants", [{}]):
        if variant:
            system.choose(**variant)
        rows.append({"open s": opened, "first s": first_answer, "variant": variant, **_asked(problem, system)})
    return [row | {"searching MB": rows[0]["searching MB"]} for row in rows]


def _asked(problem: Problem, system: Any) -> dict[str, Any]:
    every = np.arange(len(problem.questions))
    warm = system.prepare(problem.questions, every[:20])
    system.search(warm, 10)
    started = perf_counter()
    system.search(warm, DEPTH)
    each = (perf_counter() - started) / len(every[:20])
    rows = every[: max(20, int(SECONDS / ROUNDS / each))]
    prepared = system.prepare(problem.questions, rows)
    seconds = {k: repeated(lambda k=k: system.search(prepared, k)) for k in (10, DEPTH)}  # type: ignore[misc]
    latencies = []
    for row in rows:
        one = system.prepare(problem.questions, np.array([row]))
        started = perf_counter()
        system.search(one, 10)
        latencies.append((perf_counter() - started) * 1000)
    memory = peak()
    answers = []
    for positions, scores in system.search(prepared, 10):
        real = ~(scores <= 0)  # some systems fill up with documents that do not match
        answers.append((np.asarray(positions)[real].astype(np.int64), np.asarray(scores)[real]))
    share, difference = agreement(problem, answers, 10)
    return {
        "questions": len(rows),
        "QPS, k=10": len(rows) / seconds[10],
        f"QPS, k={DEPTH}": len(rows) / seconds[DEPTH],
        "searching MB": memory,
        "p50 ms": float(np.percentile(latencies, 50)),
        "p99 ms": float(np.percentile(latencies, 99)),
        "of exact top 10": share,
        "difference": difference,
    }


def repeated(run: Callable[[], Any]) -> float:
    """The median of the seconds of a few rounds."""
    seconds = []
    for _ in range(ROUNDS):
        started = perf_counter()
        run()
        seconds.append(perf_counter() - started)
    return median(seconds)


def peak() -> float:
    """The most memory that this process has held, in MB of 1e6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    """Do what the only argument asks for."""
    task = json.loads(sys.argv[1])
    problem = Problem(Path(task["problem"]), task["learned"])
    if task["phase"] == "make":
        Problem.make(task["set"], problem.folder, task["questions"]).solve()
        said: Any = {"documents": len(problem.documents), "entries": int(problem.documents.starts[-1])}
        said |= {"questions": len(problem.questions), "terms": float(np.diff(problem.questions.starts).mean())}
    else:
        systems = sparse_learned.SYSTEMS if problem.learned else sparse_bm25.SYSTEMS
        said = {"index": index, "search": search}[task["phase"]](problem, systems[task["system"]](), Path(task["folder"]))
    Path(task["answer"]).write_text(json.dumps(said), "utf-8")


if __name__ == "__main__":
    main()
