"""A folder to index, what an undisturbed single process makes of it, and how two stores are compared."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragkit.bulk import reading
from ragkit.store import indexer
from ragkit.store.store import Store

HERE = Path(__file__).parent
# so that the tests, and the processes they start, find bulk_encoders
sys.path.insert(0, str(HERE))
WORDS = ["fox", "owl", "elk", "ant", "bee", "cod", "red", "green", "blue", "river", "stone", "moss"]


@pytest.fixture(scope="session", autouse=True)
def importable() -> Iterator[None]:
    """The nodes of a cluster find them, too."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), before] if before else [str(HERE)])
    yield
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few passages for many calls of the encoder, and many parts."""
    monkeypatch.setattr(indexer, "_BATCH", 16)
    monkeypatch.setattr(reading, "_FILES", 4)


def write_folder(folder: Path, files: int, seed: int = 0) -> Path:
    """Markdown of random words, in which texts recur within and across files, and files that cannot be read."""
    chance = random.Random(seed)
    common = [" ".join(chance.choices(WORDS, k=20)) for _ in range(5)]
    (folder / "sub").mkdir(parents=True)
    for n in range(files):
        paragraphs = [" ".join(chance.choices(WORDS, k=20)) for _ in range(12)] + chance.sample(common, 2) + [common[0]]
        text = f"# File {n}\n\n" + "\n\n".join(f"## Part {i}\n\n{text}." for i, text in enumerate(paragraphs))
        (folder / ("sub" if n % 3 else ".") / f"{n}.md").write_text(text)
    (folder / "records.jsonl").write_text(
        '{"text": "one record", "year": 1999}\n{"body": "no text"}\n{"text": "two \\ud83d\\ude00"}\n'
    )
    (folder / "empty.md").write_text("")
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 20)
    (folder / "broken.json").write_text('{"text": ')
    (folder / "gone.md").symlink_to(folder / "nowhere.md")
    return folder


@pytest.fixture
def make_folder() -> Callable[..., Path]:
    return write_folder


def contents(store: Store) -> dict[str, Any]:
    """All that can be told of a store, its vectors included, by the order of positions."""
    snapshot = store.snapshot
    positions = snapshot.positions()
    sources = snapshot.sources()
    found = {name: snapshot.search(name, ["red fox", "moss stone file 3"], 50) for name in ("bm25", "dense")}
    order = {int(position): n for n, position in enumerate(positions)}
    return {
        "documents": [(d.id, d.page_content, d.metadata) for d in snapshot.documents(positions)],
        "sources": {name: snapshot.source_text(name) for name in sources},
        "vectors": np.asarray(snapshot.vectors("dense", positions)).tobytes(),
        "found": {
            name: [[(order[int(p)], float(s)) for p, s in zip(*ranking, strict=True)] for ranking in rankings]
            for name, rankings in found.items()
        },
        "split": dict(store.snapshot.settings),
    }


@pytest.fixture
def all_of() -> Callable[[Store], dict[str, Any]]:
    return contents
