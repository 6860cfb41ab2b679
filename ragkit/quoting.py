"""Text of others in prompts, and what a model says: nothing that is quoted may read as an identifier, a fence or a thought."""

from __future__ import annotations

import re
import unicodedata

_CIRCLED = {
    code: int(unicodedata.numeric(chr(code)))
    for first, last in ((0x2460, 0x24FF), (0x2776, 0x2793), (0x3251, 0x325F), (0x32B1, 0x32BF))
    for code in range(first, last + 1)
    if "CIRCLED" in unicodedata.name(chr(code)) and unicodedata.category(chr(code)) == "No"
}
_OPENING, _CLOSING = "[［﹇【〔", "]］﹈】〕"
_READ = {code: f"[{number}]" for code, number in _CIRCLED.items()}
_READ |= dict.fromkeys(map(ord, _OPENING), "[") | dict.fromkeys(map(ord, _CLOSING), "]")
_SHOW = {code: f"({number})" for code, number in _CIRCLED.items()}
_SHOW |= dict.fromkeys(map(ord, _OPENING), "(") | dict.fromkeys(map(ord, _CLOSING), ")")

_THOUGHT = re.compile(r"< ?(/?) ?think(?:ing)? ?>", re.IGNORECASE)
# thoughts, the fences of prompts, and what tokenizers of local models take for the start of a turn: <|im_start|>, <s>
_TAG = re.compile(r"[<＜](?=\s?/?\s?(?:think|passages?\b|s>)|[|｜])", re.IGNORECASE)


def plain(text: str) -> str:
    """The text on one line, without anything that reads as an identifier, as a fence, or as the end of a model's thoughts.

    A model may quote it or follow it, and `[3]` in a passage would then name passage 3; so square brackets become round ones.
    """
    return _TAG.sub("(", " ".join(text.translate(_SHOW).split()))


def readable(answer: str) -> str:
    """What a model says after its thoughts, in NFKC; circled numbers and brackets of any kind become [n]."""
    return unicodedata.normalize("NFKC", spoken(answer).translate(_READ))


def spoken(answer: str) -> str:
    """The answer without its thoughts, also where they were begun in the prompt or never end."""
    said: list[str] = []
    at, thinking = 0, False
    for tag in _THOUGHT.finditer(answer):
        if tag[1]:
            if not thinking:
                said.clear()
            at, thinking = tag.end(), False
        elif not thinking:
            said.append(answer[at : tag.start()])
            thinking = True
    return "".join(said if thinking else [*said, answer[at:]])
