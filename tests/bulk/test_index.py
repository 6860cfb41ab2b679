"""Bulk indexing: whatever workers do, and however often it is killed, the store is that of `index_paths`."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bulk_encoders import SlowEncoder, calls, refuse

from ragkit import BM25Retriever, DenseEncoder, InputError, RagkitError
from ragkit.bulk.command import chosen_workers, kept_beside
from ragkit.bulk.index import bulk_index
from ragkit.bulk.reading import groups
from ragkit.bulk.workers import Processes, guarded, settled
from ragkit.encoders.folder import locate
from ragkit.encoders.kept import KeptEncoder
from ragkit.store.indexer import IndexReport, index_paths
from ragkit.store.manifest import read_manifest
from ragkit.store.reading import Known
from ragkit.store.store import Store, bm25_and_dense


class Killed(BaseException):
    pass


class Inline:
    """Workers in this process that answer in another order than they were asked; killed after so many items in all."""

    def __init__(self, dies_after: int = 10**9) -> None:
        self.left, self.done = dies_after, 0

    def map(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        own = pickle.loads(pickle.dumps(work))
        for number in sorted(range(len(items)), key=lambda n: (n % 3, -n)):
            if self.left == 0:
                raise Killed
            self.left -= 1
            self.done += 1
            yield number, settled(pickle.loads(pickle.dumps(guarded(own, pickle.loads(pickle.dumps(items[number]))))))


class Forgetful(Inline):
    def map(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        return (pair for pair in super().map(work, items) if pair[0])


def plain(out: Path, paths: list[Path], log: Path | None = None, **options: Any) -> tuple[Store, IndexReport]:
    encoder = SlowEncoder(log)
    store = Store.open(out, encoder=encoder) if out.exists() else Store.create(out, bm25_and_dense(encoder))
    return store, index_paths(store, paths, **{"size": 32, **options})


def bulk(out: Path, paths: list[Path], workers: Any, log: Path | None = None, **options: Any) -> tuple[Store, IndexReport]:
    encoder = KeptEncoder(partial(SlowEncoder, log), out.with_name(out.name + ".parts"))
    known = (out / "manifest.json").exists()
    store = Store.open(out, encoder=encoder) if known else Store.create(out, bm25_and_dense(encoder))
    try:
        return store, bulk_index(store, paths, workers, **{"size": 32, **options})
    except BaseException:
        store.close()
        raise


def told(report: IndexReport) -> dict[str, Any]:
    return {**asdict(report), "seconds": 0}


@pytest.fixture
def folder(tmp_path: Path, make_folder: Callable[..., Path]) -> Path:
    """Some 120 passages, and so eight calls of the encoder, with twins within and across them."""
    return make_folder(tmp_path / "docs", 8)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the encoder of a bulk run notes its calls."""
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@pytest.fixture
def plain_log(tmp_path: Path) -> Path:
    """The same for `index_paths`."""
    (tmp_path / "plain-log").mkdir()
    return tmp_path / "plain-log"


def test_the_store_is_that_of_index_paths(folder: Path, tmp_path: Path, log: Path, plain_log: Path, all_of: Any) -> None:
    expected, expected_report = plain(tmp_path / "plain", [folder], plain_log)
    store, report = bulk(tmp_path / "bulk", [folder], Inline(), log)
    with expected, store:
        assert told(report) == told(expected_report)
        assert {Path(s.path.split("#")[0]).name for s in report.skipped} == {
            "empty.md", "binary.txt", "broken.json", "gone.md", "records.jsonl",
        }  # fmt: skip
        assert all_of(store) == all_of(expected)
        assert calls(log) == calls(plain_log)
        assert len(set(calls(log))) == len(calls(log)) > 5
        # what has become of the files is remembered alike: nothing is read again, by the one or the other
        assert index_paths(store, [folder]).added == 0
        assert read_manifest(tmp_path / "bulk").generation == 2
    assert not (tmp_path / "bulk.parts").exists()


def test_only_workers_encode(folder: Path, tmp_path: Path) -> None:
    store, _ = bulk(tmp_path / "bulk", [folder], Inline())
    with store:
        assert isinstance(store.encoder, KeptEncoder)
        assert store.encoder.encoder.encoded == 0  # type: ignore[attr-defined]


def test_an_update_is_that_of_index_paths(folder: Path, tmp_path: Path, log: Path, plain_log: Path, all_of: Any) -> None:
    for run in (plain, partial(bulk, workers=Inline())):
        run(tmp_path / ("plain" if run is plain else "bulk"), [folder])[0].close()
    (folder / "0.md").write_text((folder / "0.md").read_text().replace("Part 1", "Part one"))
    (folder / "3.md").rename(folder / "renamed.md")
    (folder / "6.md").unlink()
    (folder / "sub" / "1.md").write_bytes(b"\0\1\2")
    (folder / "sub" / "2.md").write_text("")
    (folder / "new.md").write_text("# New\n\n" + "\n\n".join(f"something new {n}" for n in range(40)))
    expected, expected_report = plain(tmp_path / "plain", [folder], plain_log)
    store, report = bulk(tmp_path / "bulk", [folder], Inline(), log)
    with expected, store:
        assert told(report) == told(expected_report)
        assert report.updated
        assert report.deleted
        assert all_of(store) == all_of(expected)
        assert store.encoder.encoder.encoded == 0  # type: ignore[union-attr]
    # only what is new: the passages of the renamed file have their vectors already
    assert 0 < len(calls(log)) < 5
    assert calls(log) == calls(plain_log)


def test_a_folder_that_is_gone_is_kept_until_told(folder: Path, tmp_path: Path) -> None:
    bulk(tmp_path / "bulk", [folder], Inline())[0].close()
    folder.rename(tmp_path / "moved")
    with pytest.raises(InputError, match="is gone, but"):
        bulk(tmp_path / "bulk", [folder], Inline())
    store, report = bulk(tmp_path / "bulk", [folder], Inline(), drop_missing=True)
    with store:
        assert report.passages == len(store) == 0
        assert report.deleted


def test_settings_and_options(folder: Path, tmp_path: Path, all_of: Any) -> None:
    options: dict[str, Any] = {"exclude": ["sub/", "*.json"], "size": 16, "overlap": 4, "text_field": "body"}
    expected, expected_report = plain(tmp_path / "plain", [folder], **options)
    store, report = bulk(tmp_path / "bulk", [folder], Inline(), **options)
    with expected, store:
        assert told(report) == told(expected_report)
        assert all_of(store) == all_of(expected)


def test_killed_at_every_point(folder: Path, tmp_path: Path, log: Path, all_of: Any) -> None:
    expected, _ = plain(tmp_path / "plain", [folder])
    dies_after = 0
    while True:
        try:
            store, _ = bulk(tmp_path / "bulk", [folder], Inline(dies_after), log)
            break
        except Killed:
            dies_after += 1
            with Store.open(tmp_path / "bulk", encoder=SlowEncoder()) as store:
                assert len(store) == 0
    with expected, store:
        assert all_of(store) == all_of(expected)
    # each call was made once, in whichever run
    assert len(calls(log)) == len(set(calls(log))) > 3
    assert dies_after > 6


def test_a_file_that_changes_between_two_runs(folder: Path, tmp_path: Path, all_of: Any) -> None:
    with pytest.raises(Killed):
        bulk(tmp_path / "bulk", [folder], Inline(3))
    (folder / "0.md").write_text("# Changed\n\nin between")
    expected, _ = plain(tmp_path / "plain", [folder])
    store, _ = bulk(tmp_path / "bulk", [folder], Inline())
    with expected, store:
        assert all_of(store) == all_of(expected)


def test_a_name_that_is_not_utf_8(folder: Path, tmp_path: Path, all_of: Any) -> None:
    try:
        (folder / os.fsdecode(b"caf\xe9.md")).write_text("coffee")
    except OSError as error:
        pytest.skip(f"the file system has no such names: {error}")
    expected, expected_report = plain(tmp_path / "plain", [folder])
    store, report = bulk(tmp_path / "bulk", [folder], Inline())
    with expected, store:
        assert told(report) == told(expected_report)
        assert all_of(store) == all_of(expected)


def test_results_that_workers_lose_are_missed(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RagkitError, match="were lost by the workers"):
        bulk(tmp_path / "bulk", [folder], Forgetful())


def test_what_else_is_in_the_folder_stays(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bulk.parts").mkdir()
    (tmp_path / "bulk.parts" / "mine.part").write_text("{}")
    bulk(tmp_path / "bulk", [folder], Inline())[0].close()
    assert [file.name for file in (tmp_path / "bulk.parts").iterdir()] == ["mine.part"]


def test_what_the_next_job_has_begun_stays(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the store is published another job may write to it, and to the folder."""
    texts = tmp_path / "bulk.parts" / f"{'0' * 32}.texts"

    def then_another_begins(*args: Any, **kwargs: Any) -> IndexReport:
        report = index_paths(*args, **kwargs)
        texts.write_text("[]")
        return report

    monkeypatch.setattr("ragkit.bulk.index.index_paths", then_another_begins)
    bulk(tmp_path / "bulk", [folder], Inline())[0].close()
    assert [file.name for file in (tmp_path / "bulk.parts").iterdir()] == [texts.name]


def test_parts_and_index_inside_the_folder_are_not_indexed(folder: Path, all_of: Any, tmp_path: Path) -> None:
    expected, _ = plain(tmp_path / "plain", [folder])
    with pytest.raises(Killed):
        bulk(folder / "index", [folder], Inline(5))
    store, _ = bulk(folder / "index", [folder], Inline())
    with expected, store:
        assert all_of(store) == all_of(expected)


def test_damaged_parts_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        bulk(tmp_path / "bulk", [folder], Inline(3))
    for part in (tmp_path / "bulk.parts").glob("*.part"):
        part.write_text("[")
    with pytest.raises(RagkitError, match=r"\.part cannot be read"):
        bulk(tmp_path / "bulk", [folder], Inline())


def test_a_store_without_kept_vectors_is_refused(folder: Path, tmp_path: Path) -> None:
    with Store.create(tmp_path / "index", bm25_and_dense(SlowEncoder())) as store:
        with pytest.raises(InputError, match="KeptEncoder"):
            bulk_index(store, [folder], Inline())
        with pytest.raises(InputError, match="absent"):
            bulk(tmp_path / "other", [tmp_path / "absent"], Inline())


def test_a_store_of_an_engine_is_refused(tmp_path: Path) -> None:
    strange: Any = type("Strange", (), {"name": "postgresql://host/db"})()
    with pytest.raises(InputError, match=r"^store: .*, not postgresql://host/db"):
        bulk_index(strange, [tmp_path], Inline())


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    store, report = bulk(tmp_path / "bulk", [tmp_path / "docs"], Inline())
    with store:
        assert (report.files, report.passages, len(store)) == (0, 0, 0)


def test_bars_are_told_of_everything(folder: Path, tmp_path: Path) -> None:
    seen: dict[str, list[Any]] = {}
    bulk(
        tmp_path / "bulk",
        [folder],
        Inline(),
        bars=lambda doing, what: lambda done, total: seen.setdefault(f"{doing} {what}", []).append((done, total)),
    )[0].close()
    assert list(seen) == ["reading files", "encoding passages", "indexing files"]
    for steps in seen.values():
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1] > 0


def test_groups_keep_the_order_and_are_not_too_large(tmp_path: Path) -> None:
    sizes = [10] * 100 + [3 * 2**20, 3 * 2**20, 9 * 2**20, 10]
    files = [Known(str(tmp_path / f"{n}"), None) for n in range(len(sizes))]
    for known, size in zip(files, sizes, strict=True):
        Path(known.file).write_bytes(b" " * size)
    missing = Known(str(tmp_path / "missing"), None)
    found = list(groups([*files, missing]))
    assert [known for group in found for known in group] == [*files, missing]
    assert [len(group) for group in found] == [*[4] * 25, 1, 1, 1, 2]


def test_processes(folder: Path, tmp_path: Path, log: Path, all_of: Any) -> None:
    expected, expected_report = plain(tmp_path / "plain", [folder])
    store, report = bulk(tmp_path / "bulk", [folder], Processes(2), log)
    with expected, store:
        assert told(report) == told(expected_report)
        assert all_of(store) == all_of(expected)
        assert store.encoder.encoder.encoded == 0  # type: ignore[union-attr]
    assert len(calls(log)) > 1


def test_a_process_that_dies_loses_nothing(folder: Path, tmp_path: Path, log: Path, all_of: Any) -> None:
    poisoned = folder / "zz.md"  # the last call has it
    poisoned.write_text("poison " * 400)
    with pytest.raises(RagkitError, match="a worker process died"):
        bulk(tmp_path / "bulk", [folder], Processes(1), log)
    before = calls(log)
    assert before
    poisoned.write_text("no longer " * 400)
    expected, _ = plain(tmp_path / "plain", [folder])
    store, _ = bulk(tmp_path / "bulk", [folder], Inline(), log)
    with expected, store:
        assert all_of(store) == all_of(expected)
    assert len(calls(log)) == len(set(calls(log))) > len(before)


def test_processes_say_what_is_wrong_with_the_input() -> None:
    with pytest.raises(InputError, match=r"^count: "):
        Processes(0)
    with pytest.raises(InputError, match=r"^texts: refused"):
        list(Processes(1).map(refuse, ["x"]))
    assert list(Processes(1).map(refuse, [])) == []


def test_what_the_command_line_chooses(tmp_path: Path) -> None:
    with chosen_workers(None, None) as workers:
        assert workers is None
    with chosen_workers(3, None) as workers:
        assert workers == Processes(3)
    with pytest.raises(InputError, match=r"^--ray: "), chosen_workers(3, "auto"):
        pass
    assert kept_beside(tmp_path / "index", "a-model").folder == tmp_path / "index.parts"


def test_a_transformer_gives_the_same_bits(tmp_path: Path, make_folder: Callable[..., Path], one_thread: None) -> None:
    try:
        locate(None)
    except RagkitError as error:
        pytest.skip(str(error))
    folder = make_folder(tmp_path / "docs", 3)
    encoder = KeptEncoder(DenseEncoder, tmp_path / "parts")
    with (
        Store.create(tmp_path / "plain", bm25_and_dense(DenseEncoder())) as expected,
        Store.create(tmp_path / "bulk", bm25_and_dense(encoder)) as store,
    ):
        index_paths(expected, [folder])
        bulk_index(store, [folder], Inline())
        one, other = (its.snapshot.vectors("dense", its.snapshot.positions()) for its in (expected, store))
        np.testing.assert_array_equal(one, other)
        assert len(one) > 30
        hits = [[d.id for d in BM25Retriever(store=its).invoke("red fox")] for its in (expected, store)]
        assert hits[0] == hits[1]
