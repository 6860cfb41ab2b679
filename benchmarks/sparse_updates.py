"""What changes of a large BM25 index cost: adding 1,000 passages and deleting 1,000, each saved as a generation of files.

python benchmarks/sparse_updates.py                # 1M passages; prints, and writes benchmarks/results/sparse-updates.md
python benchmarks/sparse_updates.py --passages 50000
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from retrieval import ROOT
from synthetic import texts

from ragkit.corpus.rows import IndexedText
from ragkit.evaluation.tables import Table
from ragkit.indexes.warmup import warm_up
from ragkit.store.text_index import LexicalIndex

CHANGE = 1_000
AT_ONCE = 50_000


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=1_000_000)
    passages = parser.parse_args().passages
    home = Path(tempfile.mkdtemp())
    try:
        text = measure(passages, home)
    finally:
        shutil.rmtree(home)
    print(text)
    if passages == 1_000_000:
        (ROOT / "benchmarks" / "results" / "sparse-updates.md").write_text(text)


def measure(passages: int, home: Path) -> str:
    """A table of the steps."""
    warm_up()
    corpus = texts(passages + CHANGE)
    words = [f"w{i}" for i in range(corpus.tokens.max() + 1)]

    def written(first: int, last: int) -> list[IndexedText]:
        return [
            IndexedText(" ".join([words[t] for t in corpus.tokens[corpus.starts[i] : corpus.starts[i + 1]]]))
            for i in range(first, last)
        ]

    rows: list[list[str]] = []
    known: set[int] = set()

    def step(name: str, act: Callable[[], LexicalIndex], folder: str) -> None:
        started = time.perf_counter()
        index = act()
        (home / folder).mkdir()
        index.save(home / folder)
        seconds = time.perf_counter() - started
        files = [file.stat() for file in (home / folder).rglob("*") if file.is_file()]
        size = sum(file.st_size for file in files if file.st_ino not in known)
        known.update(file.st_ino for file in files)
        rows.append([name, f"{seconds:.2f}", f"{size / 1e6:.1f}"])

    def build() -> LexicalIndex:
        index = LexicalIndex()
        for first in range(0, passages, AT_ONCE):
            last = min(first + AT_ONCE, passages)
            index.add(np.arange(first, last), index.prepare(written(first, last), []))
        return index

    more = written(passages, passages + CHANGE)

    def opened(folder: str) -> LexicalIndex:
        started = time.perf_counter()
        index = LexicalIndex.load(home / folder, LexicalIndex().settings, lambda: None)  # type: ignore[arg-type, return-value]
        index.search(["w100 w2000"], 10)
        rows.append([f"open generation {folder} and answer a question", f"{time.perf_counter() - started:.3f}", ""])
        return index

    def add() -> LexicalIndex:
        index.add(np.arange(passages, passages + CHANGE), index.prepare(more, []))
        return index

    def remove() -> LexicalIndex:
        index.remove(np.random.default_rng(0).choice(passages, CHANGE, replace=False))
        return index

    step(f"analyse, index and save {passages:,} passages", build, "1")
    index = opened("1")
    step(f"add {CHANGE:,} passages and save", add, "2")
    index = opened("2")
    step(f"delete {CHANGE:,} passages and save", remove, "3")
    opened("3")
    table = Table(
        f"An index of {passages:,} passages of {len(corpus.tokens) / len(corpus):.0f} words.",
        ("step", "seconds", "MB written"),
        rows,
    )
    return f"{table.markdown()}\n\n`python benchmarks/sparse_updates.py`\n"


if __name__ == "__main__":
    main()
