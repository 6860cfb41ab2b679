"""One self-contained HTML page: nothing is loaded, and no text that it shows can do anything.

All text goes through `text`, which makes control characters visible and escapes the rest. The page's policy allows its own style
and script, by their digests, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import os
import re
import unicodedata
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from urllib.parse import quote

_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_JOINERS = "\u00ad\u200b\u200c\u200d\u200e\u200f\u061c\u2060"
"""Format characters that writing systems and emoji need, and that cannot change the order of what follows them."""
_NEWLINE = re.compile(r"\r\n?")


def page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole document around `body`, which is HTML, with the shared style followed by `style`, both CSS.

    `script` is JavaScript, with no `</script` in it.
    """
    styles = asset("page.css") + style
    policy = {
        "default-src": "'none'",
        "style-src": _digest(styles),
        "script-src": _digest(script),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return Template(asset("page.html")).substitute(
        policy="; ".join(f"{name} {value}" for name, value in policy.items()),
        title=text(title),
        style=styles,
        body=body,
        script=script,
    )


@cache
def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return (files("ragkit.chains") / "assets" / name).read_text("utf-8")


def text(value: str) -> str:
    """Text of others as HTML, for content and for quoted attributes: escaped, with control characters as visible signs.

    These are C0 and C1 controls, overrides and isolates of the writing direction, tag characters and all else that is unseen;
    lone surrogates become U+FFFD. Every line break becomes a newline.
    """
    return html.escape("".join(map(_sign, _NEWLINE.sub("\n", value))))


def position(line: int | None, page: int | None) -> str:
    """What follows the name of a source: its page or line, nothing where it has neither."""
    if page is not None:
        return f", page {page}"
    return "" if line is None else f":{line}"


def score(value: float) -> str:
    """A score with three decimals, or four digits where it is large."""
    return f"{value:.3f}" if math.isfinite(value) and abs(value) < 1000 else f"{value:.4g}"


def source_link(source: str, page: int | None = None, *, label: str) -> str:
    """The label as a link to the file that a citation's source names, at a page if there is one; plain if no such file exists."""
    path = _file(source)
    if path is None:
        return text(label)
    # not as_uri: it fails on names that are not UTF-8
    address = "file://" + ("" if os.sep == "/" else "/") + quote(os.fsencode(path.as_posix()), safe="/:")
    anchor = "" if page is None else f"#page={page}"
    return f'<a href="{html.escape(address + anchor)}" rel="noreferrer">{text(label)}</a>'


def _file(source: str) -> Path | None:
    """The file itself, or that of a JSON record, `file#record`."""
    for name in (source, source.rpartition("#")[0]):
        if os.path.isabs(name) and "\0" not in name and os.path.isfile(name):
            return Path(name)
    return None


def _sign(char: str) -> str:
    code = ord(char)
    if code in _PICTURES:
        return chr(_PICTURES[code])
    category = unicodedata.category(char)
    if category == "Cs":
        return "\ufffd"
    if (category in ("Cc", "Cf") and char not in "\t\n" and char not in _JOINERS) or (code & 0xFFFE) == 0xFFFE:
        return f"[U+{code:04X}]"
    return char


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
