"""The store: generations, damage, locks, and encoders that do not fit."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from langchain_core.documents import Document

import ragkit.store.store as store_module
from ragkit import BM25Retriever, DenseRetriever, HybridRetriever, InputError, StoreError
from ragkit.errors import StaleSnapshotError
from ragkit.indexes.dense import FaissIndex
from ragkit.rerankers.base import Reranker
from ragkit.store.indexer import index_paths
from ragkit.store.manifest import FORMAT, read_manifest
from ragkit.store.store import Store, bm25_and_dense
from ragkit.store.text_index import DenseIndex, LexicalIndex
from ragkit.store.unit_index import UnitIndex

TEXTS = {"a": "red apple", "b": "green pear", "c": "yellow banana apple"}


@pytest.fixture
def index(tmp_path: Path, make_encoder: Any) -> Path:
    path = tmp_path / "index"
    with Store.create(path, bm25_and_dense(make_encoder())) as store:
        store.upsert([Document(id=id_, page_content=text, metadata={"n": 1}) for id_, text in TEXTS.items()])
    return path


def ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


def test_what_is_written_is_found_after_opening_again(index: Path, make_encoder: Any) -> None:
    with Store.open(index, encoder=make_encoder()) as store:
        store.verify()
        assert ids(BM25Retriever(store=store).invoke("apple")) == ["a", "c"]
        assert ids(DenseRetriever(store=store, k=1).invoke("green pear")) == ["b"]
        assert len(HybridRetriever(store=store).invoke("apple")) == 3


def test_retriever_loads_a_directory(index: Path, make_encoder: Any) -> None:
    retriever = HybridRetriever.load(index, encoder=make_encoder(), k=1)
    assert ids(retriever.invoke("banana")) == ["c"]
    retriever.upsert([Document(id="d", page_content="banana banana")])
    assert ids(HybridRetriever.load(index, encoder=make_encoder(), k=2).invoke("banana")) == ids(retriever.invoke("banana", k=2))


def test_from_documents_can_keep_its_index(tmp_path: Path, make_encoder: Any) -> None:
    HybridRetriever.from_texts(["x y"], path=tmp_path / "new", encoder=make_encoder())
    assert len(HybridRetriever.load(tmp_path / "new", encoder=make_encoder()).invoke("y")) == 1
    with pytest.raises(InputError, match="already an index"):
        HybridRetriever.from_texts(["x y"], path=tmp_path / "new", encoder=make_encoder())


def test_an_open_reader_keeps_its_generation(index: Path, make_encoder: Any) -> None:
    with Store.open(index, encoder=make_encoder()) as reader, Store.open(index, encoder=make_encoder()) as writer:
        writer.upsert([Document(id="a", page_content="blue plum")])
        assert ids(BM25Retriever(store=reader).invoke("apple")) == ["a", "c"]
        assert BM25Retriever(store=reader).invoke("apple")[0].page_content == "red apple"
        assert ids(BM25Retriever(store=writer).invoke("apple")) == ["c"]
        assert ids(DenseRetriever(store=reader, k=1).invoke("red apple")) == ["a"]


def test_two_writers_of_one_process_see_each_other(index: Path, make_encoder: Any) -> None:
    with Store.open(index, encoder=make_encoder()) as first, Store.open(index, encoder=make_encoder()) as second:
        first.upsert([Document(id="d", page_content="kiwi")])
        second.upsert([Document(id="e", page_content="kiwi")])
        assert set(ids(BM25Retriever(store=second).invoke("kiwi"))) == {"d", "e"}


def test_nothing_new_publishes_nothing(index: Path, make_encoder: Any) -> None:
    before = read_manifest(index)
    with Store.open(index, encoder=make_encoder()) as store:
        store.upsert([Document(id="a", page_content="red apple", metadata={"n": 1})])
        store.delete(["absent"])
    assert read_manifest(index) == before


def test_metadata_alone_can_change(index: Path, make_encoder: Any) -> None:
    encoder = make_encoder()
    with Store.open(index, encoder=encoder) as store:
        store.upsert([Document(id="a", page_content="red apple", metadata={"n": 2})])
        assert ids(BM25Retriever(store=store, filter={"n": 2}).invoke("apple")) == ["a"]
    assert encoder.encoded == 0


def test_a_failing_encoder_changes_nothing(index: Path, make_encoder: Any) -> None:
    class Broken(make_encoder):  # type: ignore[misc]
        def encode_documents(self, texts: Any, progress: Any = None) -> Any:
            raise RuntimeError("out of memory")

    before = read_manifest(index)
    with Store.open(index, encoder=Broken()) as store:
        with pytest.raises(RuntimeError, match="out of memory"):
            store.upsert([Document(id="z", page_content="new text")])
        assert BM25Retriever(store=store).invoke("new") == []
    assert read_manifest(index) == before
    memory = Store.memory(bm25_and_dense(Broken()))
    with pytest.raises(RuntimeError, match="out of memory"):
        memory.upsert([Document(id="z", page_content="new text")])
    assert len(memory) == 0


def test_old_generations_are_removed(index: Path, make_encoder: Any) -> None:
    with Store.open(index, encoder=make_encoder()) as store:
        for n in range(4):
            store.upsert([Document(id="a", page_content=f"red apple {n}")])
    generation = read_manifest(index).generation
    assert {path.name for path in (index / "generations").iterdir()} == {str(generation), str(generation - 1)}


def test_another_encoder_is_refused_and_bm25_still_works(index: Path, make_encoder: Any) -> None:
    with Store.open(index, encoder=make_encoder(name="other")) as store:
        with pytest.raises(StoreError, match="built with encoder 'hash', not 'other'"):
            DenseRetriever(store=store).invoke("apple")
        with pytest.raises(StoreError, match="built with encoder"):
            store.upsert([Document(page_content="x")])
        assert ids(BM25Retriever(store=store).invoke("pear")) == ["b"]


def test_a_second_writer_is_refused(index: Path, make_encoder: Any) -> None:
    with FileLock(index / "lock"), Store.open(index, encoder=make_encoder()) as store:
        with pytest.raises(StoreError, match="another process is writing"):
            store.upsert([Document(page_content="x")])
        assert ids(BM25Retriever(store=store).invoke("pear")) == ["b"]


def test_no_index(tmp_path: Path) -> None:
    for place in (tmp_path / "absent", tmp_path):
        with pytest.raises(StoreError, match=r"no index at .*ragkit index"):
            Store.open(place)


def test_what_cannot_be_read_is_not_to_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "folder" / "manifest.json").mkdir(parents=True)
    for name in ("notes.md", "folder"):
        with pytest.raises(StoreError, match="cannot read") as caught:
            Store.open(tmp_path / name)
        assert "delete" not in str(caught.value)


def test_interrupted_first_run_can_be_repeated(tmp_path: Path, make_encoder: Any) -> None:
    path = tmp_path / "index"
    Store.create(path, bm25_and_dense(make_encoder())).close()
    (path / "manifest.json").rename(path / "manifest.json.draft")
    with pytest.raises(StoreError, match="no index"):
        Store.open(path)
    Store.create(path, bm25_and_dense(make_encoder())).close()
    Store.open(path, encoder=make_encoder()).close()


def test_foreign_directory_is_left_alone(tmp_path: Path, make_encoder: Any) -> None:
    (tmp_path / "thesis.md").write_text("precious")
    with pytest.raises(InputError, match="not empty"):
        Store.create(tmp_path, bm25_and_dense(make_encoder()))
    with pytest.raises(InputError, match="is a file"):
        Store.create(tmp_path / "thesis.md", bm25_and_dense(make_encoder()))


def damage_version(index: Path) -> None:
    manifest = json.loads((index / "manifest.json").read_text())
    (index / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))


def damage_manifest(index: Path) -> None:
    (index / "manifest.json").write_text(f'{{"format": {FORMAT}, "gener')


def damage_fields(index: Path) -> None:
    (index / "manifest.json").write_text(f'{{"format": {FORMAT}, "generation": "seven"}}')


def remove_file(index: Path) -> None:
    next((index / "generations").rglob("vectors-*.npy")).unlink()


def cut_file(index: Path) -> None:
    path = next((index / "generations").rglob("vectors-*.npy"))
    path.write_bytes(path.read_bytes()[:-10])


def cut_database(index: Path) -> None:
    (index / "corpus.sqlite").write_bytes(b"")


def remove_database(index: Path) -> None:
    (index / "corpus.sqlite").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_version, f"index format 99, this ragkit reads format {FORMAT}"),
        (damage_manifest, "damaged"),
        (damage_fields, "damaged"),
        (remove_file, "missing"),
        (cut_file, "not what was written"),
        (cut_database, "index again"),
        (remove_database, "index again"),
    ],
)
def test_damage_is_one_clear_error(index: Path, make_encoder: Any, damage: Any, message: str) -> None:
    published = read_manifest(index).generation
    for generation in (index / "generations").iterdir():
        if generation.name != str(published):
            for path in generation.rglob("vectors-*.npy"):
                path.unlink()
    damage(index)
    with pytest.raises(StoreError, match=message) as caught:
        Store.open(index, encoder=make_encoder())
    assert "\n" not in str(caught.value)


def test_silent_corruption_is_found_by_verify(index: Path, make_encoder: Any) -> None:
    name = next(name for name in read_manifest(index).files if "/vectors-" in name)
    data = bytearray((index / name).read_bytes())
    data[-1] ^= 1
    (index / name).write_bytes(data)
    with Store.open(index, encoder=make_encoder()) as store, pytest.raises(StoreError, match="not what was written"):
        store.verify()


def test_searching_threads_are_safe_while_a_writer_publishes(index: Path, make_encoder: Any) -> None:
    errors: list[BaseException] = []
    with Store.open(index, encoder=make_encoder()) as store:
        done = threading.Event()

        def search() -> None:
            try:
                while not done.is_set():
                    hits = HybridRetriever(store=store).invoke("apple")
                    assert {hit.page_content.split()[-1] for hit in hits if hit.id == "a"} <= {"apple"} | {
                        str(n) for n in range(9)
                    }
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for n in range(8):
            store.upsert([Document(id="a", page_content=f"red apple {n}")])
        done.set()
        for thread in threads:
            thread.join()
    assert not errors


def test_a_reader_far_behind_moves_on(index: Path, make_encoder: Any) -> None:
    with Store.open(index, encoder=make_encoder()) as reader, Store.open(index, encoder=make_encoder()) as writer:
        retriever = HybridRetriever(store=reader, filter={"n": 1})
        assert len(retriever.invoke("apple")) == 3
        for n in range(3):
            writer.upsert([Document(id="a", page_content=f"apple {n}", metadata={"n": 1})])
        with pytest.raises(StaleSnapshotError):
            reader.snapshot.get(["a"])
        assert "apple 2" in {hit.page_content for hit in retriever.invoke("apple")}
        assert BM25Retriever(store=reader, filter={"n": 1}).invoke("2")[0].page_content == "apple 2"
        assert reader.refresh() is False


async def test_a_reader_far_behind_moves_on_async(index: Path, make_encoder: Any) -> None:
    with Store.open(index, encoder=make_encoder()) as reader, Store.open(index, encoder=make_encoder()) as writer:
        for n in range(3):
            writer.upsert([Document(id="a", page_content=f"apple {n}", metadata={"n": 1})])
        [first, *_] = await BM25Retriever(store=reader).ainvoke("2")
        assert first.page_content == "apple 2"


def test_write_inside_write_is_refused(index: Path, make_encoder: Any) -> None:
    for store in (Store.open(index, encoder=make_encoder()), Store.memory(bm25_and_dense(make_encoder()))):
        with store.write() as draft:
            with pytest.raises(StoreError, match="use its draft"):
                store.upsert([Document(page_content="x")])
            draft.upsert([Document(id="inside", page_content="inside")])
        assert [d.id for d in store.snapshot.get(["inside"])] == ["inside"]
        store.upsert([Document(id="after", page_content="after")])
        store.close()


def test_an_older_database_is_noticed(index: Path, make_encoder: Any) -> None:
    older = (index / "corpus.sqlite").read_bytes()
    with Store.open(index, encoder=make_encoder()) as store:
        store.upsert([Document(page_content="new")])
    (index / "corpus.sqlite").write_bytes(older)
    with pytest.raises(StoreError, match="older than the manifest"):
        Store.open(index, encoder=make_encoder())


def test_create_does_not_overwrite_what_another_process_has_made_meanwhile(
    tmp_path: Path, make_encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index"
    locked = store_module.locked

    def late(file: Path, store: str) -> Any:
        monkeypatch.setattr(store_module, "locked", locked)
        with Store.create(path, bm25_and_dense(make_encoder())) as other:
            other.upsert([Document(page_content="theirs")])
        return locked(file, store)

    monkeypatch.setattr(store_module, "locked", late)
    with pytest.raises(InputError, match="already an index"):
        Store.create(path, bm25_and_dense(make_encoder()))
    with Store.open(path, encoder=make_encoder()) as store:
        assert len(store) == 1


def test_unchanged_indexes_are_linked_not_written(index: Path, make_encoder: Any) -> None:
    def inodes() -> dict[str, int]:
        generation = read_manifest(index).generation
        home = index / "generations" / str(generation)
        return {str(path.relative_to(home)): path.stat().st_ino for path in home.rglob("*") if path.is_file()}

    before = inodes()
    with Store.open(index, encoder=make_encoder()) as store:
        store.upsert([Document(id="a", page_content="red apple", metadata={"n": 5})])
        store.verify()
    assert inodes() == before


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to see which file is synced")
def test_every_name_of_a_generation_is_synced(tmp_path: Path, make_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")) or real(handle))
    path = tmp_path / "index"
    with Store.create(path, bm25_and_dense(make_encoder())) as store:
        synced.clear()
        store.upsert([Document(page_content="x")])
    home = path / "generations"
    for needed in (home, home / "2", home / "2" / "dense", path / "manifest.json.draft", path):
        assert str(needed) in synced
    assert synced.index(str(home)) < synced.index(str(path / "manifest.json.draft"))


def test_encoder_and_weights_are_shared_by_all_generations(index: Path, make_encoder: Any) -> None:
    with Store.open(index, encoder=make_encoder()) as store:
        first = store.encoder
        store.upsert([Document(page_content="x")])
        assert store.encoder is first
        assert store.snapshot.index("dense").encoder is first  # type: ignore[attr-defined]


def test_several_dense_indexes_have_their_own_encoders(tmp_path: Path, make_encoder: Any) -> None:
    small, large = make_encoder(8, "small"), make_encoder(128, "large")
    indexes = {"small": DenseIndex(small), "large": DenseIndex(large)}
    with Store.create(tmp_path / "index", indexes) as store:
        store.upsert([Document(id="a", page_content="red apple"), Document(id="b", page_content="green pear")])
    encoders = {"small": make_encoder(8, "small"), "large": make_encoder(128, "large")}
    with Store.open(tmp_path / "index", encoder=encoders) as store:
        parts = [DenseRetriever(store=store, index_name=name) for name in ("small", "large")]
        assert HybridRetriever(retrievers=parts).invoke("green pear")[0].id == "b"


def test_threads_move_on_together(index: Path, make_encoder: Any) -> None:
    errors: list[BaseException] = []
    with Store.open(index, encoder=make_encoder()) as reader, Store.open(index, encoder=make_encoder()) as writer:
        done = threading.Event()

        def search(store: Store) -> None:
            try:
                while not done.is_set():
                    assert len(HybridRetriever(store=store, filter={"n": 1}).invoke("apple")) == 3
                    assert len((BM25Retriever(store=store) >> Nothing()).invoke("apple")) > 0
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=search, args=(store,)) for store in (reader, reader, reader, writer, writer)]
        for thread in threads:
            thread.start()
        for n in range(20):
            writer.upsert([Document(id="a", page_content=f"red apple {n}", metadata={"n": 1})])
        done.set()
        for thread in threads:
            thread.join()
    assert not errors


class Nothing(Reranker):
    def scores(self, tasks: Any) -> Any:
        return [np.zeros(len(task.documents)) for task in tasks]


def test_a_reader_far_behind_that_finds_nothing_moves_on(index: Path, make_encoder: Any) -> None:
    with Store.open(index, encoder=make_encoder()) as reader, Store.open(index, encoder=make_encoder()) as writer:
        retriever = BM25Retriever(store=reader)
        assert retriever.invoke("zebra") == []
        for n in range(3):
            writer.upsert([Document(id=f"z{n}", page_content="zebra")])
        assert len(retriever.invoke("zebra")) == 3
        for n in range(3):
            writer.delete([f"z{n}"])
        assert retriever.get(["z0"]) == []
        assert len(reader) == 3


def test_every_reader_two_generations_behind_is_served(index: Path, make_encoder: Any, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("apple pie")
    uses: list[Any] = [
        lambda store: (BM25Retriever(store=store) >> Nothing()).invoke("apple"),
        lambda store: (BM25Retriever(store=store) >> Nothing()).ground("apple").passages,
        lambda store: BM25Retriever(store=store).get(["a"]),
        lambda store: [len(store)],
        lambda store: [index_paths(store, [tmp_path / "new.txt"]).passages],
    ]
    for n, use in enumerate(uses):
        with Store.open(index, encoder=make_encoder()) as reader, Store.open(index, encoder=make_encoder()) as writer:
            for m in range(2):
                writer.upsert([Document(id="a", page_content=f"red apple {n} {m}")])
            assert use(reader)


def test_a_refresh_never_goes_back(index: Path, make_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(index, encoder=make_encoder()) as store, Store.open(index, encoder=make_encoder()) as other:
        other.upsert([Document(id="x", page_content="x")])
        read = store_module._read

        def slow(path: Path, loader: Any) -> Any:
            snapshot = read(path, loader)
            monkeypatch.setattr(store_module, "_read", read)
            store.upsert([Document(id="y", page_content="yak")])
            return snapshot

        monkeypatch.setattr(store_module, "_read", slow)
        store.refresh()
        assert ids(BM25Retriever(store=store).invoke("yak")) == ["y"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, "shape"])
def test_bad_vectors_lose_nothing(make_encoder: Any, bad: Any) -> None:
    encoder = make_encoder()
    good = encoder.encode_documents
    encoder.encode_documents = lambda texts, progress=None: np.ones((1, 3)) if bad == "shape" else good(texts) + bad
    store = Store.memory(bm25_and_dense(encoder))
    with pytest.raises(InputError, match="encoder 'hash'"):
        store.upsert([Document(id="a", page_content="one"), Document(id="b", page_content="two")])
    assert len(store) == 0
    encoder.encode_documents = good
    store.upsert([Document(id="a", page_content="one"), Document(id="b", page_content="two")])
    assert [len(store.snapshot.index(name)) for name in ("bm25", "dense")] == [2, 2]


@pytest.mark.parametrize("kind", [DenseIndex, UnitIndex])
def test_vectors_too_large_for_the_precision_lose_nothing(make_encoder: Any, kind: Any) -> None:
    encoder = make_encoder()
    good = encoder.encode_documents
    encoder.encode_documents = lambda texts, progress=None: good(texts) * 1e6
    store = Store.memory({"bm25": LexicalIndex(), "vectors": kind(encoder, FaissIndex(64, precision="float16"))})
    with pytest.raises(InputError, match="too large for precision='float16'"):
        store.upsert([Document(id="a", page_content="one")])
    assert len(store) == 0
    encoder.encode_documents = good
    store.upsert([Document(id="a", page_content="one")])
    assert [len(store.snapshot.index(name)) for name in ("bm25", "vectors")] == [1, 1]


def test_a_fingerprint_may_hold_tuples(tmp_path: Path, make_encoder: Any) -> None:
    class Layered(make_encoder):  # type: ignore[misc]
        layers = (1, 2)

        @property
        def fingerprint(self) -> dict[str, Any]:
            return {"model": "layered", "layers": self.layers}

    DenseRetriever.from_texts(["red apple"], path=tmp_path / "new", encoder=Layered())
    assert len(DenseRetriever.load(tmp_path / "new", encoder=Layered()).invoke("apple")) == 1
    other = Layered()
    other.layers = (1, 3)
    with pytest.raises(StoreError, match="different: layers"):
        DenseRetriever.load(tmp_path / "new", encoder=other).invoke("apple")


def test_a_failed_from_documents_can_be_repeated(tmp_path: Path, make_encoder: Any) -> None:
    for fault in ({"metadatas": [{"x": object()}]}, {"k": 0}):
        with pytest.raises(ValueError, match=r"x|k"):
            HybridRetriever.from_texts(["text"], path=tmp_path / "new", encoder=make_encoder(), **fault)  # type: ignore[arg-type]
    retriever = HybridRetriever.from_texts(["text"], path=tmp_path / "new", encoder=make_encoder())
    assert len(retriever.invoke("text")) == 1


def test_a_closed_store_says_so(index: Path, make_encoder: Any) -> None:
    store = Store.open(index, encoder=make_encoder())
    store.close()
    with pytest.raises(StoreError, match="closed"):
        BM25Retriever(store=store).invoke("apple")


def test_lost_manifest_can_be_made_anew(index: Path, make_encoder: Any) -> None:
    with Store.open(index, encoder=make_encoder()) as store:
        store.upsert([Document(page_content="one more")])
    (index / "manifest.json").unlink()
    with Store.create(index, bm25_and_dense(make_encoder())) as store:
        assert len(store) == 0
        store.upsert([Document(page_content="again")])
        assert len(store) == 1
