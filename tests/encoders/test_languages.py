"""Which language a text is in: real text in many languages, whose packs say which it is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ragkit.encoders.languages import LANGUAGES, other_language


def text_of(pack: Path, documents: int = 40) -> str:
    with gzip.open(pack / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        return "\n".join(json.loads(line)["text"] for line, _ in zip(file, range(documents), strict=False))


@pytest.mark.parametrize("code", ["ar", "de", "es", "hi", "ro", "ru", "tr", "vi"])
def test_text_in_another_language_is_noticed(data: Path, code: str) -> None:
    text = text_of(data / "xquad" / code)
    assert other_language(text, "english") == LANGUAGES[code]
    assert other_language(text, LANGUAGES[code]) is None


@pytest.mark.parametrize("pack", ["xquad/en", "xquad/zh", "xquad/th", "jaquad", "cacm", "scifact"])
def test_nothing_is_said_where_nothing_stands_out(data: Path, pack: str) -> None:
    assert other_language(text_of(data / pack), "english") is None


def test_english_in_an_index_for_german(data: Path) -> None:
    assert other_language(text_of(data / "xquad" / "en"), "german") == "english"


def test_japanese_pages_with_english_code_are_japanese(data: Path) -> None:
    pages = "\n".join(path.read_text("utf-8") for path in sorted((data / "docs_fastapi_ja").rglob("*.md"))[:20])
    assert other_language(pages, "japanese") is None


def test_a_few_words_say_nothing() -> None:
    assert other_language("Das ist nicht von der Hand zu weisen. " * 10, "english") is None
    assert other_language("", "english") is None
