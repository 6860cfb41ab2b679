"""What requests will take, as far as that can be told before they are sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ragkit.documents.tokens import RegexTokenizer
from ragkit.documents.tokens import count_tokens as _count
from ragkit.llms.base import Prompt


def probes(llm: Any) -> int:
    """How many requests more than prompts the next scoring of labels may take, by the model's own `probes`; else none."""
    return int(getattr(llm, "probes", 0))


def count_tokens(llm: Any, prompts: Sequence[Prompt]) -> list[int]:
    """Tokens of each prompt, by the model's own `count_tokens` if it has one; else an estimate, that of `RegexTokenizer`."""
    own = getattr(llm, "count_tokens", None)
    if own is not None:
        return list(own(prompts))
    return _count(RegexTokenizer(), ["\n".join(str(message.text) for message in prompt) for prompt in prompts])
