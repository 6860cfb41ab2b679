"""The question in what a language model answers."""

from __future__ import annotations

import re

from ragkit.retrievers.rewriting import questions_of

# Latin and most others, full width, Arabic, Greek (both code points), Armenian, Ethiopic
_MARKS = "?？؟;\u037e՞፧"
_NONE = re.compile(r"(?:none|no(?:thing| question)?|n/?a)\W*", re.IGNORECASE)


def question_of(answer: str) -> str | None:
    """The first line of an answer that ends with a question mark, else its only line; None if there is no such line.

    Thoughts, numbers, labels and quotes are taken off. Some languages have no question mark, but what a model says in several
    lines without one may be anything; neither is "None" a question.
    """
    lines = questions_of("", answer)
    marked = [line for line in lines if line.rstrip()[-1] in _MARKS]
    question = marked[0] if marked else lines[0] if len(lines) == 1 else None
    return None if question is None or _NONE.fullmatch(question) else question
