"""What docs/stores.md says of any folder: its first Python block runs on one, and fields come from where it says."""

import re
from pathlib import Path
from typing import Any

import pytest

from ragkit import BM25Retriever, InputError, index_paths
from ragkit.store.store import Store, bm25_and_dense

PAGE = (Path(__file__).parents[2] / "docs" / "stores.md").read_text("utf-8")
FILES = {
    "handbook.md": "# Handbook\n\n## Warranty\n\nThe warranty lasts two years.\n",
    "CHANGELOG.md": "# Changelog\n\nThe warranty was one year.\n",
    "front.md": "---\ntitle: Front\nlang: en\n---\nNo warranty at all.\n",
    "plain.txt": "A plain warranty.\n",
    "records.jsonl": '{"id": "r1", "text": "A warranty in a record.", "topic": "law", "tags": ["a"], "title": "Own"}\n',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    for name, text in FILES.items():
        (tmp_path / "docs" / name).write_text(text)
    return tmp_path / "docs"


def test_the_first_block_runs_on_a_folder(
    folder: Path, make_encoder: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ragkit.encoders.factory._default", make_encoder)
    monkeypatch.chdir(folder.parent)
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    exec(compile(code, "stores.md", "exec"), {"url": "index"})
    said = capsys.readouterr().out
    assert "two years" in said
    assert "one year" not in said


def test_where_fields_come_from(folder: Path, make_encoder: Any) -> None:
    with Store.create(folder.parent / "index", bm25_and_dense(make_encoder())) as store:
        index_paths(store, [folder])
        retriever = BM25Retriever(store=store, k=10)

        def passing(filter: dict[str, Any]) -> set[str]:
            return {Path(hit.metadata["source"]).name for hit in retriever.invoke("warranty", filter=filter)}

        assert passing({"source": str(folder / "plain.txt")}) == {"plain.txt"}
        for title, file in (
            ("Handbook", "handbook.md"),
            ("Front", "front.md"),
            ("plain", "plain.txt"),
            ("Own", "records.jsonl#r1"),
        ):
            assert passing({"title": title}) == {file}
        assert passing({"topic": "law"}) == {"records.jsonl#r1"}
        with pytest.raises(InputError, match="'lang'"):
            passing({"lang": "en"})
        # lists are there, and equal nothing
        assert passing({"headings": {"$in": ["Warranty"]}}) == passing({"tags": "a"}) == set()
        everything = {"handbook.md", "CHANGELOG.md", "front.md", "plain.txt", "records.jsonl#r1"}
        assert passing({"headings": {"$ne": "Warranty"}}) == passing({"tags": {"$nin": ["a"]}}) == everything
