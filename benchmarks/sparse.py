"""BM25 and learned sparse retrieval: ragkit's inverted index beside other libraries, with one thread each.

    python benchmarks/sparse.py                                   # all sets; writes benchmarks/results/sparse/SET.md
    python benchmarks/sparse.py --sets zipf-20k --systems ragkit bm25s --dry    # prints only

Sets are datasets below $RAGKIT_DATA (default: ../shared/data), as NAME:SPLIT, and synthetic ones (`synthetic.py`): zipf-SIZE
for BM25 and splade-SIZE for learned sparse vectors, where SIZE is 20k, 100k, 1m or 4m; "-shuffled" behind it takes the
documents in random order. Each system indexes in one fresh process and searches in another; what fails gives its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from math import isfinite
from pathlib import Path
from typing import Any

import sparse_bm25
import sparse_learned
from retrieval import ROOT
from sparse_problem import DEPTH

from ragkit.evaluation.tables import Table

SETS = (
    "scifact:test",
    "squad:test",
    "hotpotqa:dev",
    "zipf-20k",
    "zipf-100k",
    "zipf-1m",
    "splade-20k",
    "splade-100k",
    "splade-1m",
)
THREADS = ("OMP", "OPENBLAS", "MKL", "NUMBA", "RAYON")
RESULTS = ROOT / "benchmarks" / "results" / "sparse"
COLUMNS = {
    "index s": "{:.2f}",
    "index MB": "{:.1f}",
    "indexing MB": "{:.0f}",
    "open s": "{:.3f}",
    "first s": "{:.3f}",
    "searching MB": "{:.0f}",
    "QPS, k=10": "{:.0f}",
    f"QPS, k={DEPTH}": "{:.0f}",
    "p50 ms": "{:.3f}",
    "p99 ms": "{:.3f}",
    "of exact top 10": "{:.2%}",
    "difference": "{:.1g}",
}
LEGEND = f"""One thread for each system. "index s" is the time from term ids or vectors to an index on disk ("index MB"),
"open s" that to open it in a fresh process, with a warm page cache, and "first s" that to open it and to answer one question,
compiling included where a library compiles. "indexing MB" and "searching MB" are the most memory that the two processes held,
libraries and documents included. QPS is that of one call with all questions (one call each where a library knows only that),
the median of five rounds after a warm-up, for the best 10 and {DEPTH}; p50 and p99 are the latencies of calls with one question,
for the best 10. Questions are ready in each system's own form before the clock starts. "of exact top 10" is the share of the
exact best 10 that a system finds, where any of several tied documents will do; "difference" is the largest error of a score,
relative to the best of its question."""


class Failed(Exception):
    """A process did not give an answer; the text says why."""


def ask(work: Path, limit: float, **task: Any) -> Any:
    """What `sparse_worker.py` answers to a task. Raises `Failed` if it fails or takes more than `limit` seconds."""
    environment = os.environ | {f"{name}_NUM_THREADS": "1" for name in THREADS}
    answer = work / "answer.json"
    answer.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).with_name("sparse_worker.py")), json.dumps(task | {"answer": str(answer)})]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"not done after {limit:.0f} s") from None
    if done.returncode or not answer.exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise Failed(lines[-1][:200] if lines else f"ended with code {done.returncode}")
    return json.loads(answer.read_text("utf-8"))


def measure(name: str, systems: list[str] | None, questions: int, limit: float) -> str:
    """One set's table."""
    learned = name.startswith("splade")
    offered = (sparse_learned if learned else sparse_bm25).SYSTEMS
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        problem = work / "problem"
        problem.mkdir()
        common = {"problem": str(problem), "learned": learned}
        facts = ask(work, limit, phase="make", set=name, questions=questions, **common)
        for system in offered:
            if systems and system not in systems:
                continue
            print(f"{name}: {system}", file=sys.stderr)
            index = work / "index"
            index.mkdir()
            try:
                built = ask(work, limit, phase="index", system=system, folder=str(index), **common)
                for found in ask(work, limit, phase="search", system=system, folder=str(index), **common):
                    rows.append(_row(system, facts, built | found))
            except Failed as failure:
                notes.append(f"{system}: {failure}")
            shutil.rmtree(index)
    caption = (
        f"{facts['documents']:,} documents of {facts['entries'] / facts['documents']:.0f} terms, "
        f"{facts['questions']:,} questions of {facts['terms']:.1f} terms."
    )
    text = f"## {name}\n\n{Table(caption, ('system', *COLUMNS), rows).markdown()}\n"
    return text + "".join(f"\nNot measured: {note}\n" for note in notes)


def _row(system: str, facts: dict[str, Any], found: dict[str, Any]) -> list[str]:
    options = ", ".join(f"{key} {value}" for key, value in found["variant"].items())
    label = f"{system}, {options}" if options else system
    if found["questions"] < facts["questions"]:
        label += f" ({found['questions']} questions)"
    cells = [form.format(found[column]) if isfinite(found[column]) else "-" for column, form in COLUMNS.items()]
    return [
        label,
        *("-" if column == "index MB" and not found[column] else cell for column, cell in zip(COLUMNS, cells, strict=True)),
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS, metavar="SET")
    parser.add_argument("--systems", nargs="+", choices=sorted({*sparse_bm25.SYSTEMS, *sparse_learned.SYSTEMS}), metavar="SYSTEM")
    parser.add_argument("--questions", type=int, default=1_000, help="of each set, at most")
    parser.add_argument("--dry", action="store_true", help="print only")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a system is given up")
    arguments = parser.parse_args()
    for name in arguments.sets:
        try:
            text = measure(name, arguments.systems, arguments.questions, arguments.limit)
        except Failed as failure:
            text = f"## {name}\n\nNot measured: {failure}\n"
        print(text)
        if not arguments.dry:
            options = "".join(
                f" --{option} {getattr(arguments, option):g}"
                for option in ("questions", "limit")
                if getattr(arguments, option) != parser.get_default(option)
            )
            if arguments.systems:
                options += f" --systems {shlex.join(arguments.systems)}"
            RESULTS.mkdir(exist_ok=True)
            command = f"`python benchmarks/sparse.py --sets {name}{options}`"
            (RESULTS / f"{name.replace(':', '-')}.md").write_text(f"{text}\n{LEGEND}\n\n{command}\n", "utf-8")


if __name__ == "__main__":
    main()
