"""kill -9 at random moments of indexing: the index always opens, complete, at the old or at the new generation."""

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ragkit.store.indexer import index_paths
from ragkit.store.manifest import read_manifest
from ragkit.store.store import Store, bm25_and_dense

KILLS = 50
WORKER = Path(__file__).with_name("kill_worker.py")


def write_state(folder: Path, seed: int) -> dict[str, str]:
    """A folder of 40 files, of which the two states share some unchanged, some changed, and have some alone."""
    common, own = random.Random(0), random.Random(seed)
    folder.mkdir()
    texts = {}
    for n in range(40):
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


def test_kill_at_any_moment_leaves_a_complete_generation(tmp_path: Path, make_encoder: Any) -> None:
    folders = [tmp_path / "even", tmp_path / "odd"]
    texts = [write_state(folder, seed) for seed, folder in enumerate(folders, 1)]
    live = tmp_path / "live"
    expected = []
    for folder in folders:
        live.unlink(missing_ok=True)
        live.symlink_to(folder)
        with Store.create(tmp_path / f"reference-{folder.name}", bm25_and_dense(make_encoder())) as reference:
            index_paths(reference, [live], size=32)
            expected.append(contents(reference))
    assert expected[0] != expected[1]

    out = tmp_path / "index"
    Store.create(out, bm25_and_dense(make_encoder())).close()
    worker = subprocess.Popen([sys.executable, str(WORKER), str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdin is not None
    assert worker.stdout is not None

    def index(state: int, delay: float) -> str:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(f"{folders[state]} {delay}\n")
        worker.stdin.flush()
        return worker.stdout.readline().strip()

    assert index(0, 60) == "finished"
    started = time.monotonic()
    assert index(1, 60) == "finished"
    whole = time.monotonic() - started

    current, chance, outcomes = 1, random.Random(7), []
    for _ in range(KILLS):
        target = 1 - current
        before = read_manifest(out).generation
        outcome = index(target, chance.uniform(0, 1.1 * whole))
        with Store.open(out, encoder=make_encoder()) as store:
            store.verify()
            after = store.snapshot.corpus.generation
            current = current if after == before else target
            assert after in (before, before + 1)
            assert contents(store) == expected[current]
            for name in ("bm25", "dense"):
                hits = store.snapshot.index(name).search(["fox owl elk ant bee cod"], 10_000)[0]
                assert hits.positions.size == len(store) == len(expected[current])
            for document in store.snapshot.corpus.documents(store.snapshot.corpus.all_positions()):
                record = document.metadata["ragkit"]
                source = store.snapshot.corpus.source_text(record["source"])
                assert source == texts[current][Path(record["source"]).name]
                start = record.get("start", 0)
                assert source[start : start + len(document.page_content)] == document.page_content
        if outcome == "finished":
            assert after == before + 1
        outcomes.append((outcome, after - before))
    worker.stdin.close()
    worker.wait(timeout=30)
    worker.stdout.close()
    # the kills must have hit both before and after the commit, or the test proves little
    assert sum(outcome == "killed" for outcome, _ in outcomes) > KILLS // 2
    assert ("killed", 0) in outcomes
    assert {step for _, step in outcomes} == {0, 1}
