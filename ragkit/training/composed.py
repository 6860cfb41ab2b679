"""Questions in two steps, made of two questions one of which asks for what the other names (MuSiQue, Trivedi et al. 2022).

"When did Peyton Manning retire?" and "Who was the Most Valuable Player of Super Bowl XLI?", which Peyton Manning answers, become
"When did the one who was the Most Valuable Player of Super Bowl XLI retire?". Both passages are needed, and the second one shares
with the question neither its subject nor its name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ragkit.training.examples import Example, same_text

_NAME = re.compile(r"[A-Z0-9]\w*(?:[ '’.-]+\w+){0,5}")
_WORD = re.compile(r"[A-Z0-9]\w*")
_LEAST = 4  # characters: shorter names are often parts of words or numbers
# questions about a subject, which need no other word order to become a description of it
_OTHER = "is|was|are|were|did|does|do|has|had|can|could|will|would|to|about|year|percentage|nationality"
_SUBJECT = re.compile(
    rf"(?:(who)|what|which)((?: (?!(?:{_OTHER})\b)[\w'-]+){{0,3}}?)"
    r" ((?:is|was|are|were|has|had|[a-z]+ed|won|led|wrote|became|made|built|sang|held|took|gave|began|ran|beat) .+?)[?. ]*",
    re.IGNORECASE,
)


class Answered(NamedTuple):
    """A question whose answer is known."""

    example: Example
    """Its passage and gold."""
    answer: str


def composed(questions: Sequence[Answered], *, per_name: int = 12) -> list[Example]:
    """Two examples, in one group, for each pair of questions that can be joined.

    Each question is joined with one that asks for a name in it, of another passage that does not hold the first one's answer;
    of those, they take turns. `per_name`: how many questions are made with one name at most. The same for the same questions.
    """
    askers: dict[str, list[tuple[Answered, str]]] = defaultdict(list)
    for question in questions:
        described = _described(question.example.question)
        if described and len(question.answer) >= _LEAST and _NAME.fullmatch(question.answer):
            askers[question.answer].append((question, described))
    by_word: dict[str, list[str]] = defaultdict(list)
    for name in askers:
        by_word[name.split()[0]].append(name)
    made: dict[str, int] = defaultdict(int)
    return [example for question in questions for example in _joined(question, askers, by_word, made, per_name)]


def _joined(
    second: Answered,
    askers: dict[str, list[tuple[Answered, str]]],
    by_word: dict[str, list[str]],
    made: dict[str, int],
    per_name: int,
) -> Iterator[Example]:
    asked = second.example.question
    for name in sorted(_named(asked, by_word), key=len, reverse=True):
        if made[name] >= per_name:
            continue
        for turn in range(len(askers[name])):
            first, described = askers[name][(made[name] + turn) % len(askers[name])]
            if _fit(first, second):
                made[name] += 1
                question = _replaced(asked, name, described)
                group = f"{first.example.id}+{second.example.id}"
                yield _example(first.example, group, question)
                yield _example(second.example, group, question)
                return


def _described(question: str) -> str:
    """What a question asks for, as a phrase; "" if that would take another word order."""
    found = _SUBJECT.fullmatch(question.strip())
    if not found:
        return ""
    who, kind, rest = found.groups()
    return f"the one who {rest}" if who and not kind else "" if who else f"the{kind or ' thing'} that {rest}"


def _named(question: str, by_word: dict[str, list[str]]) -> set[str]:
    candidates = {name for word in set(_WORD.findall(question)) for name in by_word.get(word, ())}
    return {name for name in candidates if _stands_alone(name, question)}


def _stands_alone(name: str, question: str) -> bool:
    """Whether the name is in the question, and not as a part of a longer one."""
    found = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", question)
    if not found:
        return False
    before, after = question[: found.start()].split(), question[found.end() :]
    return not (len(before) > 1 and before[-1][0].isupper()) and not re.match(r" (?:[A-Z0-9]|of\b)", after)


def _replaced(question: str, name: str, described: str) -> str:
    return re.sub(rf"(?:\b[Tt]he )?(?<![\w-]){re.escape(name)}(?![\w-])", lambda _: described, question, count=1)


def _fit(first: Answered, second: Answered) -> bool:
    one, two = same_text(first.example.passage), same_text(second.example.passage)
    return (
        one != two and same_text(second.answer) not in one and same_text(second.answer) not in first.example.question.casefold()
    )


def _example(example: Example, group: str, question: str) -> Example:
    return Example(
        id=f"{group}/{example.id}",
        group=group,
        question=question,
        title=example.title,
        sentences=example.sentences,
        gold=example.gold,
        relevant=example.relevant,
        source="composed",
    )
