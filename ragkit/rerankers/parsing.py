"""The order that a language model's answer states. Nothing that it may write is an error; at worst it states nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any, NamedTuple

from ragkit.quoting import readable

_WORD = r"(?:[^\W\d_]+\.?\s*)?[#№]?\s*"
"""What may stand before an id: Passage, doc., №."""
_ID = r"(?:\d{1,6}|[A-Z])"
_SOFT = r"[\s>,;|/=≻→⇒、・•*_\"'`()]|-+>|\b(?:and|then)\b|(?<=\n)-\s"
_HARD = r"[>,;|≻→⇒、\n]"

_GROUP = re.compile(rf"\[\s*{_WORD}{_ID}(?:[\s,;>|、\"']+{_WORD}{_ID})*\s*[\"']?\s*\\?\]")
_IN_GROUP = re.compile(rf"(?<![\w.]){_ID}(?![\w.])")
_OPENED = re.compile(rf"^\s*({_ID})\s*(?:\]|(?=>\s*\\?\[))")
# a word of a script without spaces may touch a number: 段落2
_NUMBER = re.compile(r"(?<![A-Za-z\d_.-])\d{1,6}(?![A-Za-z\d_%-]|\.\d)")
_LETTER = re.compile(r"(?<![\w'’])[A-Z](?![\w'’])")
_GAP = re.compile(rf"(?:{_SOFT})+|(?=[^\w]*{_HARD})(?:{_SOFT})+[^\W\d_]+\.?\s*[#№]?[\s\"'`(]*")
_ALONE = re.compile(rf"[\W_]*{_WORD}[\W_]*({_ID})[\W_]*")
_LINE = re.compile(r"^[\s*_#>-]*(\d{1,4})\s?[.):]\s+(.*)$", re.MULTILINE)
_LEADING = re.compile(rf"^[\s*_#>\"'`(-]*{_WORD}({_ID})(?![\w%-]|\.\d)", re.MULTILINE)
_JSON = re.compile(r"\{|\[\s*(?=[{\"])")
_FIELDS = ("id", "identifier", "passage_id", "document_id", "doc_id", "passage", "document", "doc", "index", "number", "label")

_LAST = (
    r"(?:(?<!at )\b(?:least|worst|lowest|less relevant|ascending|increasing|revers\w*|irrelevant|unrelated|off-topic"
    r"|not (?:\w+ )?(?:relevant|related|helpful|useful)|wenigsten|schlechte\w*|moins|pires?|peor(?:es)?|menos|meno|peggior\w*"
    r"|piores?|minst|slechtst\w*|наименее|худш\w*)\b|最不|最差|最低|不相关|無関係|関連性の低い)"
)
_WORST = re.compile(_LAST, re.IGNORECASE)
"""What introduces the passages that should come last, or an order that begins with them."""
_CALLED_WORST = re.compile(
    rf"[\s*_\])]*(?:(?:is|are|seems?|comes?|ranks?|being|as)\b|[(:–—-])\s*(?:\w+ ){{0,3}}?{_LAST}", re.IGNORECASE
)
_BEST_FIRST = re.compile(
    r"\b(?:most|best|highest|more)\b[^\[\]\d\n]{0,60}?(?:\b(?:to|bis|au|a|al)\b|[->→])"
    r" *(?:the )?(?:least|worst|lowest|less)(?: relevant)?\b"
    r"|\b(?:least|worst|lowest)\b[^\[\]\d\n]{0,30}?\blast\b",
    re.IGNORECASE,
)
"""What names the worst to say that they come last."""

# what would take quadratic time in an answer that is nothing but brackets
_SHORT, _TRIES = 200, 50


class ParsedOrder(NamedTuple):
    """A permutation of 0 to n - 1, whatever the answer was."""

    order: tuple[int, ...]
    """What the answer states, best first, then the rest as it was."""
    stated: int
    """How many the answer itself put in order."""
    problem: str | None = None
    """Why nothing of the order comes from the answer; None if something does."""


class _Mention(NamedTuple):
    """One id in a text, counted from 1, and where it stands."""

    start: int
    end: int
    id: int


def parse_order(text: str, n: int) -> ParsedOrder:
    """The order of n passages, shown as [1] to [n] or as [A] to [Z], that an answer states.

    Understood are chains (`[2] > [1]`, also without the first bracket, which may be the prompt's), JSON (lists of numbers, of
    strings or of objects, or an object that holds one), plain numbers (`2, 1, 3`, `Passage 2 > Passage 1`), letters, circled
    numbers, the digits of any script, and lines (`1. [2]`). Thoughts do not count. Of repeats the first one counts; but where
    a chain repeats what prose has mentioned, the chain counts. Numbers that no passage has are left out, and so is what is said
    to be the least relevant ("Least relevant: [2]"); an answer that goes on from there without a chain states nothing.
    """
    # a model that has lost its way may write thousands of blank lines, which the patterns would try in all ways
    said = re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", readable(text))).strip()
    if not said:
        return _nothing(n, "the answer stops within its thoughts" if text.strip() else "the answer is empty")
    finders: tuple[Callable[[str, int], list[int]], ...] = (_json, _bracketed, _numbers, _letters, _lines, _alone)
    found = next((ids for find in finders if (ids := find(said, n))), [])
    if not found:
        named = "no passage but the worst" if _begins_with_worst(said) else "no passage"
        return _nothing(n, f"the answer names {named}: {_shown(said)}")
    if 0 in found and set(found) == set(range(n)):  # a model that counts from 0
        found = [at + 1 for at in found]
    inside = _inside(found, n)
    if not inside:
        return _nothing(n, f"the answer names none of the {n} passages: {_shown(said)}")
    rest = (at for at in range(1, n + 1) if at not in inside)
    return ParsedOrder(tuple(at - 1 for at in (*inside, *rest)), len(inside))


def _nothing(n: int, problem: str) -> ParsedOrder:
    return ParsedOrder(tuple(range(n)), 0, problem)


def _shown(said: str) -> str:
    text = " ".join(said.split())
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def _number(id: str) -> int:
    return int(id) if id.isdigit() else ord(id) - ord("A") + 1


def _inside(ids: Sequence[int], n: int) -> dict[int, None]:
    """The ids that passages have, each once, in order."""
    return {at: None for at in ids if 1 <= at <= n}


def _bracketed(said: str, n: int) -> list[int]:
    said = _OPENED.sub(r"[\1]", said)
    mentions = [
        _Mention(group.start() if first else at.start(), group.end(), _number(at[0]))
        for group in _GROUP.finditer(said)
        for first, at in _firsts(_IN_GROUP.finditer(said, *group.span()))
    ]
    runs = _praised(said, _runs(said, mentions))
    ids = [mention.id for run in runs for mention in run]
    inside = [at for at in ids if 1 <= at <= n]
    if len(set(inside)) == len(inside):
        return ids
    # what prose mentions before or after the ranking does not count against it
    return [*_best_run(runs, n), *ids]


def _firsts(found: Iterator[re.Match[str]]) -> Iterator[tuple[bool, re.Match[str]]]:
    for count, match in enumerate(found):
        yield count == 0, match


def _numbers(said: str, n: int) -> list[int]:
    said = _without_line_numbers(said)
    run = _best_run(_praised(said, _runs(said, [_Mention(*at.span(), int(at[0])) for at in _NUMBER.finditer(said)])), n)
    return run if len(set(run)) > 1 else []


def _letters(said: str, n: int) -> list[int]:
    said = _without_line_numbers(said)
    run = _best_run(_praised(said, _runs(said, [_Mention(*at.span(), _number(at[0])) for at in _LETTER.finditer(said)])), n)
    return run if len(set(run)) > 1 else []


def _lines(said: str, n: int) -> list[int]:
    """The ids that lines begin with, if these are no plain count of the lines."""
    if _begins_with_worst(said):
        return []
    ids = [_number(at[1]) for at in _LEADING.finditer(_without_line_numbers(said))]
    return ids if len(set(ids)) > 1 and ids != list(range(1, len(ids) + 1)) else []


def _alone(said: str, n: int) -> list[int]:
    found = _ALONE.fullmatch(said) if len(said) <= _SHORT and not _begins_with_worst(said) else None
    return [_number(found[1])] if found else []


def _runs(said: str, mentions: Sequence[_Mention]) -> list[list[_Mention]]:
    """Mentions with nothing but signs between them."""
    runs: list[list[_Mention]] = [[mention] for mention in mentions[:1]]
    for before, after in pairwise(mentions):
        between = said[before.end : after.start]
        if not between or _GAP.fullmatch(between):
            runs[-1].append(after)
        else:
            runs.append([after])
    return runs


def _praised(said: str, runs: list[list[_Mention]]) -> list[list[_Mention]]:
    """The runs that are not said to be the worst. Of what comes behind such a one only a chain can be told to be best first."""
    worst = [False] * len(runs)
    for at, (start, end) in enumerate(_around(said, runs)):
        called = _CALLED_WORST.match(said[start:end]) if at else None
        if called and len(runs[at - 1]) == 1:
            worst[at - 1] = True
        if at < len(runs):
            worst[at] = _begins_with_worst(said[start + (called.end() if called else 0) : end])
    kept = [run for run, is_worst in zip(runs, worst, strict=True) if not is_worst]
    if not kept or not any(worst) or runs.index(kept[-1]) < worst.index(True):
        return kept
    chains = [run for run in kept if len(run) > 1]
    return chains[-1:] if chains or len(kept) > 1 else kept


def _around(said: str, runs: list[list[_Mention]]) -> Iterator[tuple[int, int]]:
    """Where the text stands that is before, between, and behind runs."""
    ends = [0, *(run[-1].end for run in runs)]
    starts = [*(run[0].start for run in runs), len(said)]
    return zip(ends, starts, strict=True)


def _begins_with_worst(said: str) -> bool:
    return _WORST.search(_BEST_FIRST.sub(" ", said)) is not None


def _best_run(runs: Sequence[Sequence[_Mention]], n: int) -> list[int]:
    """The ids of the run that names most passages; of equal ones the last."""
    ids = [[mention.id for mention in run] for run in runs]
    return max(reversed(ids), key=lambda its_ids: len(_inside(its_ids, n)), default=[])


def _without_line_numbers(said: str) -> str:
    """The text without the 1. 2. 3. that its lines begin with, if an id follows each of them."""
    lines = list(_LINE.finditer(said))
    counted = [int(line[1]) for line in lines] == list(range(1, len(lines) + 1))
    if not counted or not all(_LEADING.match(line[2]) for line in lines):
        return said
    return _LINE.sub(r"\2", said)


def _json(said: str, n: int) -> list[int]:
    decoder = json.JSONDecoder()
    for opening in islice(_JSON.finditer(said), _TRIES):
        try:
            ids = _ids(decoder.raw_decode(said, opening.start())[0], n)
        except (ValueError, RecursionError):  # no JSON, numbers of thousands of digits, or nested too deep
            continue
        if ids:
            return ids
    return []


def _ids(value: Any, n: int) -> list[int]:
    """The ids that a JSON value names, in the order that it gives them."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    if isinstance(value, str):
        return next((ids for find in (_alone, _bracketed, _numbers, _letters) if (ids := find(value, n))), [])
    if isinstance(value, list):
        if value and all(isinstance(item, dict) and isinstance(item.get("rank"), int) for item in value):
            value = sorted(value, key=lambda item: item["rank"])
        return [at for item in value for at in (_own_id(item, n) if isinstance(item, dict) else _ids(item, n))]
    if isinstance(value, dict):
        held = [_ids(item, n) for key, item in value.items() if isinstance(item, list | dict | str) and not _is_worst(key)]
        return max(held, key=len, default=[])
    return []


def _is_worst(key: str) -> bool:
    return _begins_with_worst(key.replace("_", " "))


def _own_id(item: dict[str, Any], n: int) -> list[int]:
    """The one id by which an object in a list names its passage."""
    fields = {str(key).casefold(): value for key, value in item.items()}
    return next((ids for field in _FIELDS if len(ids := _ids(fields.get(field), n)) == 1), [])
