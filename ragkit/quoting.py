"""Text of others in prompts, and what a model says: nothing that is quoted may read as an identifier, a fence or a thought."""

from __future__ import annotations

import re
import unicodedata

_CIRCLED = {
    code: unicodedata.normalize("NFKC", chr(code))
    for first, last in ((0x2460, 0x2473), (0x24B6, 0x24EA), (0x3251, 0x325F), (0x32B1, 0x32BF))
    for code in range(first, last + 1)
}
_CIRCLED |= {
    code: str(int(unicodedata.numeric(chr(code))))
    for first, last in ((0x24EB, 0x24FF), (0x2776, 0x2793))
    for code in range(first, last + 1)
}
# square, lenticular and tortoise shell brackets
_OPENING, _CLOSING = "[［⁅❲⟦⟬⦋⦍⦏⦗⹕⹗【〔〖〘〚︗︹︻﹇﹝", "]］⁆❳⟧⟭⦌⦎⦐⦘⹖⹘】〕〗〙〛︘︺︼﹈﹞"
_READ = {code: f"[{name}]" for code, name in _CIRCLED.items()}
_READ |= dict.fromkeys(map(ord, _OPENING), "[") | dict.fromkeys(map(ord, _CLOSING), "]")
_SHOW = {code: f"({name})" for code, name in _CIRCLED.items()}
_SHOW |= dict.fromkeys(map(ord, _OPENING), "(") | dict.fromkeys(map(ord, _CLOSING), ")")

_THOUGHT = re.compile(r"< ?(/?) ?think(?:ing)? ?>", re.IGNORECASE)
_SPACE = r"[\s\u200b-\u200f\u2060\ufeff]*"
# what prompts use as fences, and chat templates and tokenizers as tokens; names with _ are tokens of some model: <start_of_turn>
_NAMES = (
    r"think(?:ing)?|thoughts?|reasoning|passages?|documents?|docs?|questions?|query|queries|context|answers?|sentences?|instructions?"
    r"|sys|system|inst|user|assistant|human|model|bot|tools?|function|developer|observation|turn|prompt"
    r"|s|bos|eos|pad|unk|mask|sep|cls|eo[tmdp]|so[pd]|g?mask|unused\d+|0x[0-9a-f]{2}|[a-z0-9]+(?:[_▁][a-z0-9]+)+"
)
_TAG = re.compile(rf"[<＜﹤]+(?={_SPACE}[/／]?{_SPACE}(?:(?:{_NAMES})(?![^\W_])|[|｜]))", re.IGNORECASE)
# other brackets are left alone, but for those around an identifier and nothing else: <2>, {A}, 「3」
_AROUND = re.compile(
    r"([<＜﹤{｛﹛«‹⟨⟪〈〈《「｢『❬❮❰❴⦃⦑⦓⌈⌊⁽₍❨❪⟮⸨｟⦅])"
    rf"({_SPACE}(?:(?i:passage|document|doc|sentence|no|number)\b\.?{_SPACE})?[#№]?{_SPACE}(?:\d{{1,6}}|[A-ZＡ-Ｚ]){_SPACE})"
    r"[>＞﹥}｝﹜»›⟩⟫〉〉》」｣』❭❯❱❵⦄⦒⦔⌉⌋⁾₎❩❫⟯⸩｠⦆]"
)
_SHOWN_CIRCLED = {code: f"({name})" for code, name in _CIRCLED.items()}
_CITATION = re.compile(
    rf"(?<![\w\])}}])[{re.escape(_OPENING)}]({_SPACE}[#^]?{_SPACE}\d{{1,6}}(?:{_SPACE}[,;–-]{_SPACE}\d{{1,6}})*{_SPACE})[{re.escape(_CLOSING)}]"
)


def plain(text: str) -> str:
    """The text on one line, without anything that reads as an identifier, a fence, a chat template's token or a model's thoughts.

    A model may quote it or follow it, and `[3]` in a passage would then name passage 3; so square brackets become round ones, and
    so do brackets of any kind around nothing but a number or a letter. Of a tag only the `<` changes, to a round bracket: the
    words stay, and so do tags that mean nothing to models.
    """
    return _AROUND.sub(r"(\2)", _TAG.sub(lambda tag: "(" * len(tag[0]), " ".join(text.translate(_SHOW).split())))


def quoted(text: str) -> str:
    """The text line by line as it is, but for what reads as a citation, a circled number, or a token of a chat template.

    `[3]` becomes (3) where it does not follow a word, so that the subscripts of code stay: unlike `plain`, this is for passages
    that a model is to quote. Of a tag only the `<` changes, to a round bracket.
    """
    bare = text.translate(_SHOWN_CIRCLED)
    return _CITATION.sub(r"(\1)", _TAG.sub(lambda tag: "(" * len(tag[0]), bare))


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
