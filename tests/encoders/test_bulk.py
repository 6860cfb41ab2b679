"""Bulk encoding to a file: kills at every point lead to the result of a run without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragkit.encoders.base import Progress, Vectors
from ragkit.encoders.bulk import encode_to_file
from ragkit.errors import InputError

TEXTS = [f"text {n}" for n in range(23)]


class Killed(BaseException):
    pass


class Counting:
    """Vectors made of a text's characters; dies at a given call."""

    def __init__(self, dies_at: int = -1, model: str = "a") -> None:
        self.calls, self.dies_at, self.model = 0, dies_at, model

    @property
    def dimension(self) -> int:
        return 3

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"model": self.model}

    def encode_documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        self.calls += 1
        if self.calls == self.dies_at:
            raise Killed
        if progress:
            progress(len(texts))
        return np.array([[len(t), sum(map(ord, t)), ord(t[-1])] for t in texts], np.float32)


def encode(encoder: Counting, path: Path, texts: Sequence[str] = TEXTS, **options: Any) -> Vectors:
    return encode_to_file(encoder, texts, path, **{"chunk": 5, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("dies_at", range(1, 6))
def test_goes_on_where_it_was_killed(tmp_path: Path, dies_at: int) -> None:
    whole = encode(Counting(), tmp_path / "whole.npy")
    path, told = tmp_path / "killed.npy", list[int]()
    with pytest.raises(Killed):
        encode(Counting(dies_at), path)
    assert not path.exists()
    second = Counting()
    np.testing.assert_array_equal(encode(second, path, progress=told.append), whole)
    assert second.calls == 5 - (dies_at - 1)
    assert sum(told) == len(TEXTS)
    assert path.read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["killed.npy", "whole.npy"]


def test_a_kill_during_the_first_write_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "v.npy.partial").write_bytes(b"half a hea")
    np.testing.assert_array_equal(encode(Counting(), tmp_path / "v.npy"), Counting().encode_documents(TEXTS))


@pytest.mark.parametrize(
    "other", [{"encoder": Counting(model="b")}, {"texts": TEXTS[:-1]}, {"texts": ["x", *TEXTS[1:]]}, {"chunk": 6}]
)
def test_another_job_is_not_continued(tmp_path: Path, other: dict[str, Any]) -> None:
    with pytest.raises(Killed):
        encode(Counting(3), tmp_path / "v.npy")
    with pytest.raises(InputError, match=r"^path: .*v\.npy\.journal"):
        encode(**{"encoder": Counting(), "path": tmp_path / "v.npy", **other})


@pytest.mark.parametrize("noted", [10, len(TEXTS)])
def test_a_journal_without_its_file_vouches_for_nothing(tmp_path: Path, noted: int) -> None:
    path, journal = tmp_path / "v.npy", tmp_path / "v.npy.journal"
    with pytest.raises(Killed):
        encode(Counting(3), path)
    journal.write_text(journal.read_text().replace('"done": 10', f'"done": {noted}'))  # as a kill after the last chunk leaves it
    (tmp_path / "v.npy.partial").unlink()
    with pytest.raises(Killed):
        encode(Counting(1), path)
    np.testing.assert_array_equal(encode(Counting(), path), Counting().encode_documents(TEXTS))


@pytest.mark.parametrize("bad", [np.ones((1, 3), np.float32), np.full((5, 3), np.nan, np.float32)])
def test_bad_vectors_are_not_written(tmp_path: Path, bad: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Counting()
    monkeypatch.setattr(encoder, "encode_documents", lambda texts, progress=None: bad)
    with pytest.raises(InputError, match="encoder: gave vectors of shape"):
        encode(encoder, tmp_path / "v.npy")


def test_what_is_there_stays(tmp_path: Path) -> None:
    encode(Counting(), tmp_path / "v.npy")
    with pytest.raises(InputError, match=r"^path: .*exists"):
        encode(Counting(), tmp_path / "v.npy")
    with pytest.raises(InputError, match=r"^chunk: "):
        encode(Counting(), tmp_path / "w.npy", chunk=0)


def test_no_texts(tmp_path: Path) -> None:
    assert encode(Counting(), tmp_path / "v.npy", []).shape == (0, 3)
    assert np.load(tmp_path / "v.npy").shape == (0, 3)
