"""Vectors that are kept: the same numbers again without encoding, whole parts only, and one encoder in all processes."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragkit import BM25Retriever
from ragkit.documents.tokens import RegexTokenizer
from ragkit.encoders import kept
from ragkit.encoders.kept import KeptEncoder, write_whole
from ragkit.errors import InputError, RagkitError
from ragkit.store.indexer import index_paths
from ragkit.store.store import Store, bm25_and_dense

TEXTS = [f"text {n}" for n in range(7)]


class Killed(BaseException):
    pass


class Counting:
    """Vectors made of a text's characters; dies at a given call."""

    dimension = 3
    tokenizer = RegexTokenizer()

    def __init__(self, model: str = "a", dies_at: int = -1) -> None:
        self.model, self.calls, self.dies_at = model, 0, dies_at

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"model": self.model}

    def encode_queries(self, texts: Sequence[str]) -> Any:
        return np.array([[len(t), sum(map(ord, t)), ord(t[-1])] for t in texts], np.float32).reshape(-1, 3)

    async def aencode_queries(self, texts: Sequence[str]) -> Any:
        return self.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str], progress: Any = None) -> Any:
        self.calls += 1
        if self.calls == self.dies_at:
            raise Killed
        if progress:
            progress(len(texts))
        return self.encode_queries(texts)


def test_the_same_call_is_not_made_twice(tmp_path: Path) -> None:
    inner, told = Counting(), list[int]()
    first = KeptEncoder(lambda: inner, tmp_path / "parts").encode_documents(TEXTS, told.append)
    again = KeptEncoder(lambda: inner, tmp_path / "parts").encode_documents(TEXTS, told.append)
    np.testing.assert_array_equal(first, inner.encode_queries(TEXTS))
    assert first.tobytes() == again.tobytes()
    assert again.dtype == np.float32
    assert (inner.calls, told) == (1, [7, 7])


@pytest.mark.parametrize(
    ("model", "texts"), [("b", TEXTS), ("a", TEXTS[:-1]), ("a", TEXTS[::-1]), ("a", ["text 0text 1", *TEXTS[2:]])]
)
def test_another_call_is_another_part(tmp_path: Path, model: str, texts: list[str]) -> None:
    KeptEncoder(Counting, tmp_path).encode_documents(TEXTS)
    other = Counting(model)
    np.testing.assert_array_equal(KeptEncoder(lambda: other, tmp_path).encode_documents(texts), other.encode_queries(texts))
    assert other.calls == 1


def test_texts_that_no_encoding_has(tmp_path: Path) -> None:
    texts = ["a \ud800 lone surrogate", "nul \0"]
    encoder = KeptEncoder(Counting, tmp_path)
    np.testing.assert_array_equal(encoder.encode_documents(texts), encoder.encode_documents(texts))


def test_no_texts(tmp_path: Path) -> None:
    encoder = KeptEncoder(Counting, tmp_path)
    assert [encoder.encode_documents([]).shape for _ in range(2)] == [(0, 3), (0, 3)]


def test_a_pickled_one_makes_its_own_and_checks_it(tmp_path: Path) -> None:
    there = pickle.loads(pickle.dumps(KeptEncoder(partial(Counting, "a"), tmp_path)))
    np.testing.assert_array_equal(there.encode_documents(TEXTS), Counting().encode_queries(TEXTS))
    state = KeptEncoder(partial(Counting, "a"), tmp_path).__getstate__()
    strange = KeptEncoder(Counting, tmp_path)
    strange.__dict__.update(state | {"_make": partial(Counting, "b")})
    with pytest.raises(InputError, match=r"^encoder: a worker has another one \('b'\)"):
        strange.encode_documents(TEXTS)


@pytest.mark.parametrize("bad", [np.ones((1, 3)), np.full((7, 3), np.nan), np.ones((7, 2))])
def test_bad_vectors_are_not_kept(tmp_path: Path, bad: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Counting()
    monkeypatch.setattr(inner, "encode_documents", lambda texts, progress=None: bad)
    with pytest.raises(InputError, match="encoder: gave vectors of shape"):
        KeptEncoder(lambda: inner, tmp_path).encode_documents(TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    encoder = KeptEncoder(Counting, tmp_path)
    encoder.encode_documents(TEXTS)
    encoder.part(TEXTS).write_bytes(b"\x93NUMPY")
    with pytest.raises(RagkitError, match=r"\.npy cannot be read"):
        encoder.encode_documents(TEXTS)
    np.save(encoder.part(TEXTS), np.ones((2, 3), np.float32))
    with pytest.raises(RagkitError, match="delete it"):
        encoder.encode_documents(TEXTS)


@pytest.mark.parametrize("point", ["write", "fsync", "replace"])
def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*args: Any) -> None:
        raise Killed

    if point != "write":
        monkeypatch.setattr(kept.os, point, die)
    with pytest.raises(Killed):
        write_whole(tmp_path / "new" / "a", die if point == "write" else lambda file: file.write(b"whole"))
    assert list((tmp_path / "new").iterdir()) == []


def test_indexing_that_was_killed_encodes_only_the_rest(tmp_path: Path) -> None:
    """One process, without workers: `index_paths` itself goes on where it was."""
    (tmp_path / "docs").mkdir()
    for n in range(6):
        (tmp_path / "docs" / f"{n}.jsonl").write_text("\n".join(f'{{"text": "record {n} {i}"}}' for i in range(300)))
    mortal, second = Counting(dies_at=3), Counting()
    with Store.create(tmp_path / "index", bm25_and_dense(KeptEncoder(lambda: mortal, tmp_path / "parts"))) as store:
        with pytest.raises(Killed):
            index_paths(store, [tmp_path / "docs"])
        assert len(store) == 0
    with Store.open(tmp_path / "index", encoder=KeptEncoder(lambda: second, tmp_path / "parts")) as store:
        assert index_paths(store, [tmp_path / "docs"]).passages == 1800
        assert BM25Retriever(store=store, k=1).invoke("record 5 299")[0].page_content == "record 5 299"
    with Store.create(tmp_path / "plain", bm25_and_dense(Counting())) as store:
        index_paths(store, [tmp_path / "docs"])
        calls = store.encoder.calls  # type: ignore[union-attr]
    assert second.calls == calls - 2
