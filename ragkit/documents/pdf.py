"""The text of PDF files, page by page."""

from __future__ import annotations

import io

from ragkit.documents.lines import is_white
from ragkit.documents.model import Mark
from ragkit.documents.unreadable import UnreadableFile

_BETWEEN_PAGES = "\n\n"


def read_pdf(data: bytes, name: str) -> tuple[str, tuple[Mark, ...]]:
    """Text of all pages, and where each page begins in it. Raises `UnreadableFile` for `name` if there is none."""
    pages = [well_formed(page) for page in _pages(data, name)]
    text = _BETWEEN_PAGES.join(pages)
    if all(map(is_white, text)):
        raise UnreadableFile(name, "no text in the PDF (it may be scanned)")
    marks, at = [], 0
    for number, page in enumerate(pages, 1):
        marks.append(Mark(at, number))
        at += len(page) + len(_BETWEEN_PAGES)
    return text, tuple(marks)


def well_formed(text: str) -> str:
    """The text with every lone surrogate replaced, so that it can be encoded."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _pages(data: bytes, name: str) -> list[str]:
    try:
        import pypdf
    except ImportError:
        raise UnreadableFile(name, "reading PDF needs: pip install 'ragkit[pdf]'") from None
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableFile(name, "encrypted PDF")
        return [page.extract_text() for page in reader.pages]
    except UnreadableFile:
        raise
    except Exception as error:
        # a damaged file can fail anywhere inside the parser
        raise UnreadableFile(name, f"broken PDF ({' '.join(str(error).split())[:100]})") from None
