"""kill -9 at random moments of indexing: the index always opens, complete, at the old or at the new generation."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ragkit import StoreError
from ragkit.store.indexer import index_paths
from ragkit.store.manifest import read_manifest
from ragkit.store.store import Store, bm25_and_dense

KILLS = 50


class State(NamedTuple):
    """A folder, its texts, what the index must hold of it, and the seconds that indexing takes."""

    folder: Path
    texts: dict[str, str]
    expected: dict[str, tuple[str, str]]
    seconds: float


def write_state(folder: Path, seed: int) -> dict[str, str]:
    """A folder of 16 files, of which the two states share some unchanged, some changed, and have some alone."""
    common, own = random.Random(0), random.Random(seed)
    folder.mkdir()
    texts = {}
    for n in range(16):
        chance = common if n % 3 == 0 else own
        if n % 3 == 2 and own.random() < 0.5:
            continue
        paragraphs = [" ".join(chance.choices(["fox", "owl", "elk", "ant", "bee", "cod"], k=25)) for _ in range(8)]
        texts[f"{n}.md"] = f"# File {n}\n\n" + "\n\n".join(paragraphs) + "\n"
        (folder / f"{n}.md").write_text(texts[f"{n}.md"])
    return texts


def contents(store: Store) -> dict[str, tuple[str, str]]:
    corpus = store.snapshot.corpus
    documents = corpus.documents(corpus.all_positions())
    return {str(d.id): (d.metadata["source"], d.page_content) for d in documents}


class Worker:
    """The process that forks, indexes and kills."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("kill_worker.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def index(self, out: Path, folder: Path, delay: float) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{out} {folder} {delay}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "dead\n"

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture
def states(tmp_path: Path, make_encoder: Any) -> list[State]:
    """Two states of one folder, with what an undisturbed run makes of each and how long it takes."""
    states, live = [], tmp_path / "live"
    for seed in (1, 2):
        folder = tmp_path / f"state{seed}"
        texts = write_state(folder, seed)
        live.unlink(missing_ok=True)
        live.symlink_to(folder)
        with Store.create(tmp_path / f"reference{seed}", bm25_and_dense(make_encoder())) as reference:
            started = time.monotonic()
            index_paths(reference, [live], size=32)
            states.append(State(folder, texts, contents(reference), time.monotonic() - started))
    assert states[0].expected != states[1].expected
    return states


def test_kill_at_any_moment_leaves_a_complete_generation(
    tmp_path: Path, make_encoder: Any, worker: Worker, states: list[State]
) -> None:
    out = tmp_path / "index"
    with Store.create(out, bm25_and_dense(make_encoder())) as store:
        (tmp_path / "live").unlink()
        (tmp_path / "live").symlink_to(states[1].folder)
        index_paths(store, [tmp_path / "live"], size=32)
    current, chance, steps = 1, random.Random(7), []
    for kill in range(KILLS):
        target, before = 1 - current, read_manifest(out).generation
        # every other kill comes late, so that about half of them find the new generation published
        worker.index(out, states[target].folder, chance.uniform(0, (1, 4)[kill % 2] * states[target].seconds))
        with Store.open(out, encoder=make_encoder()) as store:
            store.verify()
            step = store.snapshot.corpus.generation - before
            current = target if step else current
            assert step in (0, 1)
            check_complete(store, states[current])
        steps.append(step)
    assert set(steps) == {0, 1}


def test_kill_of_a_first_run_can_be_repeated(tmp_path: Path, make_encoder: Any, worker: Worker, states: list[State]) -> None:
    chance, found = random.Random(8), set()
    for kill in range(12):
        out = tmp_path / f"index{kill}"
        worker.index(out, states[0].folder, chance.uniform(0, (0.3, 1.5, 4)[kill % 3] * states[0].seconds))
        if not (out / "manifest.json").exists():
            with pytest.raises(StoreError, match="no index at"):
                Store.open(out)
            Store.create(out, bm25_and_dense(make_encoder())).close()
        with Store.open(out, encoder=make_encoder()) as store:
            found.add(len(store) > 0)
            assert contents(store) in ({}, states[0].expected)
        (tmp_path / "live").unlink(missing_ok=True)
        (tmp_path / "live").symlink_to(states[0].folder)
        with Store.open(out, encoder=make_encoder()) as store:
            index_paths(store, [tmp_path / "live"], size=32)
            check_complete(store, states[0])
    assert True in found


def check_complete(store: Store, state: State) -> None:
    """Corpus, indexes and sources agree with each other and with an undisturbed run."""
    assert contents(store) == state.expected
    for name in ("bm25", "dense"):
        [hits] = store.snapshot.index(name).search(["fox owl elk ant bee cod"], 10_000)
        assert hits.positions.size == len(store) == len(state.expected)
    corpus = store.snapshot.corpus
    for document in corpus.documents(corpus.all_positions()):
        record = document.metadata["ragkit"]
        source = corpus.source_text(record["source"])
        assert source == state.texts[Path(record["source"]).name]
        assert source[record["start"] : record["end"]] == document.page_content
