"""One file to sources: decoding, and what each format adds to plain text."""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path

from ragkit.documents.blocks import markdown_blocks, rst_blocks, text_blocks
from ragkit.documents.files import find_files
from ragkit.documents.html import read_html
from ragkit.documents.lines import is_white
from ragkit.documents.markdown import front_matter_title
from ragkit.documents.model import Block, Skipped, Source
from ragkit.documents.pdf import read_pdf
from ragkit.documents.records import read_records
from ragkit.documents.unreadable import EmptyFile, UnreadableFile

__all__ = ["EmptyFile", "UnreadableFile", "find_files", "load", "load_bytes", "read_file"]

_log = logging.getLogger(__name__)
# what the Encoding Standard (WHATWG) has browsers read
_ENCODINGS = [
    *("ascii", "utf_8", "utf_16", "utf_16_le", "utf_16_be"),
    *("shift_jis", "euc_jp", "iso2022_jp", "euc_kr", "gbk", "gb18030", "big5"),
    *("cp866", "cp874", *(f"cp{page}" for page in range(1250, 1259)), "koi8_r", "koi8_u", "mac_roman", "mac_cyrillic"),
    *(f"iso8859_{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
]
_USUAL = "cp1252"
_WIDE_MARKS = ((b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def load(path: Path, *, text_field: str = "text") -> tuple[list[Source], list[Skipped]]:
    """The sources in one file, and the records of it that could not be used.

    `text_field` names the field of a JSON record that holds its text. Raises `UnreadableFile` if there is nothing to read.
    """
    return load_bytes(read_file(path), path, text_field=text_field)


def load_bytes(data: bytes, path: Path, *, text_field: str = "text") -> tuple[list[Source], list[Skipped]]:
    """As `load`, for the content of a file that has been read already; `path` gives name and format."""
    name = os.path.abspath(path)
    if not data or data.isspace():
        raise EmptyFile(name, "only white space" if data else "empty")
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        text, pages = read_pdf(data, name)
        return [Source(name, name, text, text_blocks(text), title=path.stem, lines=(), pages=pages)], []
    if path.name.lower().endswith((".json", ".jsonl", ".ndjson", ".jsonl.gz")):
        return read_records(data, name, text_field, _decode)
    text = _decode(data, name)
    return [_html(text, path, name) if suffix in (".html", ".htm") else _plain(text, path, name)], []


def read_file(path: Path) -> bytes:
    """The content of a regular file. Raises `UnreadableFile` with the reason if it cannot be had."""
    name = os.path.abspath(path)
    if any("\ud800" <= char <= "\udfff" for char in name):
        raise UnreadableFile(name, "its name is not UTF-8, so nothing could refer to it; rename it")
    try:
        mode = os.stat(path).st_mode
        # opening a pipe would wait for a writer
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UnreadableFile(name, "not a regular file")
        return path.read_bytes()
    except FileNotFoundError:
        raise UnreadableFile(name, "no such file") from None
    except PermissionError:
        raise UnreadableFile(name, "permission denied") from None
    except OSError as error:
        raise UnreadableFile(name, (error.strerror or type(error).__name__).lower()) from None


def _decode(data: bytes, name: str) -> str:
    text = _decoded(data, name)
    if text is None:
        raise UnreadableFile(name, "binary, not text")
    if all(map(is_white, text)):
        raise EmptyFile(name, "only white space")
    return text


def _decoded(data: bytes, name: str) -> str | None:
    encoding = next((encoding for mark, encoding in _WIDE_MARKS if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data:
        return None
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return _guess(data, name) if encoding == "utf-8" else None


def _guess(data: bytes, name: str) -> str | None:
    from charset_normalizer import from_bytes

    matches = from_bytes(data, cp_isolation=_ENCODINGS)
    best = matches.best()
    if best is None:
        return None
    # encodings with one byte for a letter differ in a few letters, and often nothing but custom tells them apart
    equal = [match for match in matches if (match.chaos, match.coherence) == (best.chaos, best.coherence)]
    usual = next((match for match in equal if _USUAL in match.could_be_from_charset), None)
    text = str(usual or best)
    if _CONTROLS.search(text):
        return None
    _log.warning(
        "%s: is no UTF-8, and was read as %s, which is a guess; save it as UTF-8 to be sure",
        name,
        _USUAL if usual else best.encoding,
    )
    return text


def _html(markup: str, path: Path, name: str) -> Source:
    page = read_html(markup)
    if not page.text:
        raise EmptyFile(name, "no text in the page")
    title = page.title or _first_heading(page.blocks) or path.stem
    return Source(name, name, page.text, page.blocks, title=title, lines=page.lines)


def _plain(text: str, path: Path, name: str) -> Source:
    suffix = path.suffix.lower()
    if suffix in (".md", ".markdown"):
        blocks = markdown_blocks(text)
        title = _first_heading(blocks) or front_matter_title(text)
    elif suffix == ".rst":
        blocks = rst_blocks(text)
        title = _first_heading(blocks)
    else:
        blocks, title = text_blocks(text), ""
    return Source(name, name, text, blocks, title=title or path.stem)


def _first_heading(blocks: tuple[Block, ...]) -> str:
    return next((block.title for block in blocks if block.level == 1), "")
