"""A follow-up question made to stand alone without a language model: it takes over words of the questions before it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ragkit.encoders.lexical import Analyzer

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_REFERS = re.compile(
    r"\b(?:it|its|they|them|their|theirs|he|him|his|she|her|hers|this|that|these|those|there|one|ones|such|same|former|latter)\b",
    re.IGNORECASE,
)
_ASKS = re.compile(
    "what|when|where|who|whom|whose|which|why|how|do|does|did|done|can|could|will|would|shall|should|may|might|must|has|have|had|am"
    "|was|were|been|i|me|my|mine|we|us|our|you|your|tell|explain|describe|know|mean|meant|please|thanks|thank|about|yes|ok",
    re.IGNORECASE,
)
"""English words that ask, and name nothing."""
_SHORT = 2
"""Content terms up to which a question in another language is taken to leave something out."""


def leans_on_history(question: str, analyzer: Analyzer) -> bool:
    """Whether an English question refers back ("its price"), or one in another language says too little to stand alone."""
    if analyzer.language == "english":
        return bool(_REFERS.search(question))
    return len(set(analyzer(question))) <= _SHORT


def carry_terms(questions: Sequence[str], analyzer: Analyzer, *, depth: int = 2, most: int = 12) -> str:
    """The last of the questions, and behind it the words it lacks of the `depth` before it, at most `most` of them.

    Words are taken from the latest question first, in their order, none twice by its stem, and without stop words and words that
    only ask. A question that does not lean on what was said before comes back as it is. For search, not for reading.
    """
    *earlier, question = questions
    seen = set(analyzer(question))
    english = analyzer.language == "english"
    carried: list[str] = []
    if earlier and leans_on_history(question, analyzer):
        for before in reversed(earlier[-depth:]):
            for word in _WORD.findall(before):
                terms = set() if english and _ASKS.fullmatch(word) else set(analyzer(word))
                if not terms <= seen:
                    carried.append(word)
                    seen |= terms
    return " ".join([question, *carried[:most]])
