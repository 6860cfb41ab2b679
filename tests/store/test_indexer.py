"""Indexing folders: what is read again, what is counted, and what bad files do."""

import os
from pathlib import Path
from typing import Any

import pytest

from ragkit import BM25Retriever, InputError
from ragkit.store.indexer import IndexReport, index_paths
from ragkit.store.manifest import read_manifest
from ragkit.store.store import Store, bm25_and_dense


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text("# Apples\n\nApples are red.\n\n# Pears\n\nPears are green.\n")
    (folder / "b.txt").write_text("Bananas are yellow.")
    (folder / "sub" / "c.rst").write_text("Cherries\n========\n\nCherries are red.\n")
    return folder


@pytest.fixture
def store(tmp_path: Path, make_encoder: Any) -> Store:
    return Store.create(tmp_path / "index", bm25_and_dense(make_encoder()))


def counts(report: IndexReport) -> tuple[int, int, int, int]:
    return report.passages, report.added, report.updated, report.deleted


def encoded(store: Store) -> int:
    return int(store.encoder.encoded)  # type: ignore[attr-defined]


def test_only_what_changed_is_encoded(folder: Path, store: Store) -> None:
    assert counts(index_paths(store, [folder])) == (4, 4, 0, 0)
    first = encoded(store)
    generation = store.snapshot.corpus.generation
    assert counts(index_paths(store, [folder])) == (4, 0, 0, 0)
    assert store.snapshot.corpus.generation == generation

    (folder / "a.md").write_text("# Apples\n\nApples are red.\n\n# Pears\n\nPears are sweet.\n")
    assert counts(index_paths(store, [folder])) == (4, 0, 1, 0)
    assert encoded(store) == first + 1
    assert [d.page_content for d in BM25Retriever(store=store).invoke("pears")] == ["# Pears\n\nPears are sweet."]

    (folder / "b.txt").unlink()
    assert counts(index_paths(store, [folder])) == (3, 0, 0, 1)
    assert BM25Retriever(store=store).invoke("bananas") == []
    assert encoded(store) == first + 1


def test_text_that_moves_is_not_encoded_again(folder: Path, store: Store) -> None:
    index_paths(store, [folder])
    first = encoded(store)
    (folder / "b.txt").rename(folder / "renamed.txt")
    assert counts(index_paths(store, [folder])) == (4, 1, 0, 1)
    [hit] = BM25Retriever(store=store).invoke("bananas")
    assert hit.metadata["source"].endswith("renamed.txt")
    # a line above shifts every offset in the file but changes no text
    (folder / "a.md").write_text("# Preface\n\nWords.\n\n" + (folder / "a.md").read_text())
    assert counts(index_paths(store, [folder])) == (5, 1, 0, 0)
    assert encoded(store) == first + 1
    [hit] = BM25Retriever(store=store).invoke("apples")
    record = hit.metadata["ragkit"]
    source = (folder / "a.md").read_text()
    assert source[record["start"] : record["end"]] == hit.page_content


def test_other_folders_are_left_alone(folder: Path, store: Store, tmp_path: Path) -> None:
    index_paths(store, [folder])
    other = tmp_path / "docs-other"
    other.mkdir()
    (other / "d.md").write_text("Dates are brown.")
    assert counts(index_paths(store, [other])) == (5, 1, 0, 0)
    assert counts(index_paths(store, [folder / "sub"])) == (5, 0, 0, 0)


def test_settings_are_remembered(folder: Path, store: Store) -> None:
    (folder / "b.txt").write_text("Bananas are yellow. " * 40)
    many = index_paths(store, [folder], size=16).passages
    assert counts(index_paths(store, [folder])) == (many, 0, 0, 0)
    assert index_paths(store, [folder], size=200).passages < many


def test_bad_files_are_reported_and_never_fatal(folder: Path, store: Store) -> None:
    (folder / "empty.md").write_text("")
    (folder / "blank.md").write_text("  \n\n")
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 20)
    (folder / "broken.json").write_text('{"text": ')
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (folder / "nofield.jsonl").write_text('{"body": "x"}\n')
    report = index_paths(store, [folder])
    assert report.files == 3
    reasons = {Path(skipped.path.split("#")[0]).name: skipped.reason for skipped in report.skipped}
    assert set(reasons) == {"empty.md", "blank.md", "binary.txt", "broken.json", "broken.pdf", "nofield.jsonl"}
    assert all(reasons.values())
    assert report.passages == 4


def test_file_that_becomes_unreadable_keeps_its_passages(folder: Path, store: Store) -> None:
    index_paths(store, [folder])
    (folder / "b.txt").write_bytes(b"\x00\x01\x02" * 100)
    report = index_paths(store, [folder])
    assert counts(report) == (4, 0, 0, 0)
    assert "kept" in report.skipped[0].reason


def test_file_that_becomes_empty_loses_its_passages(folder: Path, store: Store) -> None:
    index_paths(store, [folder])
    (folder / "b.txt").write_text("")
    report = index_paths(store, [folder])
    assert counts(report) == (3, 0, 0, 1)


def test_file_deleted_during_indexing(folder: Path, store: Store) -> None:
    index_paths(store, [folder])
    (folder / "b.txt").write_text("Bananas are curved.")

    def delete_late(done: int, total: int) -> None:
        (folder / "b.txt").unlink(missing_ok=True)

    report = index_paths(store, [folder], progress=delete_late)
    assert counts(report) == (3, 0, 0, 1)
    assert [(Path(s.path).name, s.reason) for s in report.skipped] == [("b.txt", "no such file")]


def test_empty_folder(tmp_path: Path, store: Store) -> None:
    (tmp_path / "nothing").mkdir()
    assert counts(index_paths(store, [tmp_path / "nothing"])) == (0, 0, 0, 0)
    assert BM25Retriever(store=store).invoke("anything") == []


def test_missing_path(tmp_path: Path, store: Store) -> None:
    with pytest.raises(InputError, match="absent"):
        index_paths(store, [tmp_path / "absent"])


def test_index_inside_the_folder_is_not_indexed(folder: Path, make_encoder: Any) -> None:
    with Store.create(folder / "index", bm25_and_dense(make_encoder())) as store:
        assert index_paths(store, [folder]).passages == 4
        assert index_paths(store, [folder]).passages == 4


def test_files_of_other_types_are_counted_unless_somebody_left_them_out(folder: Path, make_encoder: Any) -> None:
    for name in (
        *("one.csv", "sub/two.CSV", "sub/three.docx", "Makefile", "Mr. Smith, 3rd floor", "named.py", "x/archive.tar.gz"),
        *(".hidden.csv", ".git/x.csv", "ignored.csv", "build/x.csv", "excluded.csv"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    (folder / ".gitignore").write_text("ignored.*\nbuild/\n")
    (folder / "nowhere.csv").symlink_to(folder / "absent.csv")
    with Store.create(folder / "index", bm25_and_dense(make_encoder())) as store:
        for _ in range(2):
            report = index_paths(store, [folder, folder / "sub", folder / "named.py"], exclude=["excluded.*"])
            assert list(report.left_out.items()) == [("", 2), (".csv", 2), (".docx", 1), (".gz", 1)]
            assert report.files == 4


def test_exclude(folder: Path, store: Store) -> None:
    assert index_paths(store, [folder], exclude=["sub/", "*.txt"]).passages == 2
    assert counts(index_paths(store, [folder])) == (4, 2, 0, 0)


def test_bad_size_is_named_and_publishes_nothing(folder: Path, store: Store) -> None:
    before = read_manifest(store.path or Path())
    with pytest.raises(InputError, match="size"):
        index_paths(store, [folder], size=1)
    assert read_manifest(store.path or Path()) == before


def test_order_of_files_does_not_matter(folder: Path, tmp_path: Path, make_encoder: Any) -> None:
    def content(paths: list[Path]) -> set[tuple[str | None, str]]:
        store = Store.memory(bm25_and_dense(make_encoder()))
        index_paths(store, paths)
        corpus = store.snapshot.corpus
        return {(d.id, d.page_content) for d in corpus.documents(corpus.all_positions())}

    assert content([folder / "b.txt", folder]) == content([folder])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind root")
def test_permission_denied(folder: Path, store: Store) -> None:
    (folder / "b.txt").chmod(0)
    report = index_paths(store, [folder])
    assert [Path(s.path).name for s in report.skipped] == ["b.txt"]


@pytest.mark.parametrize(
    ("name", "words", "none"), [("p.html", "<p>Plums are blue.", "<p></p>"), ("p.json", '{"text": "x"}', "[]")]
)
def test_text_that_is_gone_is_not_kept(folder: Path, store: Store, name: str, words: str, none: str) -> None:
    (folder / name).write_text(words)
    assert index_paths(store, [folder]).passages == 5
    (folder / name).write_text(none)
    report = index_paths(store, [folder])
    assert (report.passages, report.deleted) == (4, 1)
    assert [Path(skipped.path).name for skipped in report.skipped] == [name]


def test_one_string_is_no_list(folder: Path, store: Store) -> None:
    index_paths(store, [folder])
    for one in (folder, str(folder)):
        with pytest.raises(InputError, match=r"paths: .* give \['"):
            index_paths(store, one)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"exclude: .* give \['\*\.tmp'\]"):
        index_paths(store, [folder], exclude="*.tmp")
    assert len(store) == 4


@pytest.mark.parametrize("wrong", [{"size": 20.5}, {"size": "200"}, {"overlap": 1.0}])
def test_sizes_are_whole_numbers(folder: Path, store: Store, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} must be a whole number"):
        index_paths(store, [folder], **wrong)


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "a link to nowhere", "other types", "hidden files"])
def test_folder_whose_files_are_all_gone_is_kept_until_told(folder: Path, store: Store, left: str) -> None:
    """It may have been moved, or lie on a drive that is not mounted."""
    index_paths(store, [folder])
    before = read_manifest(store.path or Path())
    sub = folder / "sub"
    sub.rename(folder.parent / "moved")
    if left == "a link to nowhere":
        sub.symlink_to(folder.parent / "absent")
    elif left != "nothing":
        sub.mkdir()
    if left == "other types":
        (sub / "a.csv").write_text("1,2")
    if left == "hidden files":
        (sub / ".a.md").write_text("hidden")
    for paths in ([sub], [folder / "b.txt", sub]):
        with pytest.raises(InputError, match=r"sub .* holds 1 file from there, which was kept.*drop_missing=True"):
            index_paths(store, paths)
    assert read_manifest(store.path or Path()) == before
    assert BM25Retriever(store=store).invoke("cherries")
    assert counts(index_paths(store, [sub], drop_missing=True)) == (3, 0, 0, 1)
    assert BM25Retriever(store=store).invoke("cherries") == []


def test_folder_that_lost_some_of_its_files_needs_no_word(folder: Path, store: Store) -> None:
    index_paths(store, [folder])
    (folder / "sub").rename(folder.parent / "moved")
    assert counts(index_paths(store, [folder])) == (3, 0, 0, 1)


def test_folder_whose_files_were_all_replaced_or_left_out_needs_no_word(folder: Path, store: Store) -> None:
    index_paths(store, [folder])
    (folder / "sub" / "c.rst").rename(folder / "sub" / "d.rst")
    assert counts(index_paths(store, [folder / "sub"])) == (4, 1, 0, 1)
    assert counts(index_paths(store, [folder / "sub"], exclude=["*.rst"])) == (3, 0, 0, 1)


def test_path_that_is_gone_and_was_never_indexed_is_a_mistake(folder: Path, store: Store) -> None:
    index_paths(store, [folder])
    with pytest.raises(InputError, match="absent"):
        index_paths(store, [folder / "absent"], drop_missing=True)


@pytest.mark.parametrize("drop_missing", [False, True])
def test_link_whose_file_is_away_keeps_its_passages(folder: Path, store: Store, drop_missing: bool) -> None:
    (folder / "link.txt").symlink_to(folder.parent / "away.txt")
    (folder.parent / "away.txt").write_text("Dates are brown.")
    index_paths(store, [folder / "link.txt"])
    (folder.parent / "away.txt").unlink()
    assert counts(index_paths(store, [folder / "link.txt"], drop_missing=drop_missing)) == (1, 0, 0, 0)


def test_folder_that_cannot_be_opened_keeps_its_passages(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    index_paths(store, [folder])
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = index_paths(store, [folder])
    assert counts(report) == (4, 0, 0, 0)
    assert [Path(skipped.path).name for skipped in report.skipped] == ["sub"]


def test_odd_numbers_in_json_lose_only_their_record(folder: Path, store: Store) -> None:
    lines = ['{"text": "good", "n": 1}', '{"text": "x", "n": NaN}', '{"text": "y", "n": 1e999}', '{"text": "z", "ragkit": 1}']
    (folder / "r.jsonl").write_text("\n".join(lines))
    report = index_paths(store, [folder])
    assert report.passages == 5
    assert [skipped.path.rpartition("#")[2] for skipped in report.skipped] == ["2", "3", "4"]


def test_fields_of_a_record_come_back_as_they_were(folder: Path, store: Store) -> None:
    (folder / "r.jsonl").write_text('{"text": "zebra", "source": "wikipedia", "title": "T", "tags": ["a"]}')
    index_paths(store, [folder])
    [hit] = BM25Retriever(store=store).invoke("zebra")
    assert {key: hit.metadata[key] for key in ("source", "title", "tags")} == {
        "source": "wikipedia",
        "title": "T",
        "tags": ["a"],
    }
    assert hit.metadata["ragkit"]["source"].endswith("r.jsonl#1")


def test_many_changed_files_are_one_batch(folder: Path, store: Store) -> None:
    for n in range(50):
        (folder / f"many{n}.txt").write_text(f"text number {n}")
    index_paths(store, [folder])
    encoder: Any = store.encoder
    calls = []
    whole = encoder.encode_documents
    encoder.encode_documents = lambda texts, progress=None: calls.append(len(texts)) or whole(texts, progress)
    for n in range(50):
        (folder / f"many{n}.txt").write_text(f"other text number {n}")
    assert counts(index_paths(store, [folder])) == (54, 0, 50, 0)
    assert calls == [50]
