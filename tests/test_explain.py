"""What `ragkit explain` does with a pipeline: where it writes, and what it says."""

from pathlib import Path

import pytest

from ragkit import BM25Retriever, InputError, Pipeline
from ragkit.explain_command import check_page, write_page


def test_the_page_is_written_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    retriever = BM25Retriever.from_texts(["Otters swim — well. They dive.", "Seals swim.", "Boats float."], k=3)
    pipeline, path = Pipeline(retriever=retriever), tmp_path / "out.html"
    write_page(pipeline, "What swims?", path, k=1, max_tokens=200)
    assert "Otters swim — well." in path.read_text("utf-8") or "Seals swim." in path.read_text("utf-8")
    said = capsys.readouterr().out
    assert said.startswith(str(path))
    assert "1 passages" in said


def test_where_no_page_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--html: there is no folder"):
        check_page(tmp_path / "no" / "out.html")
    with pytest.raises(InputError, match=r"--html: .* is a folder"):
        check_page(tmp_path)
    assert check_page(tmp_path / "out.html") == tmp_path / "out.html"
