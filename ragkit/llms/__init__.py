"""What a reranker asks of a language model: to generate text, and to score labels. Loaded when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragkit.llms.budget import Budget as Budget
    from ragkit.llms.cached import Cached as Cached
    from ragkit.llms.chat import ChatLLM as ChatLLM
    from ragkit.llms.local import LocalLLM as LocalLLM
    from ragkit.llms.metered import Metered as Metered

_HOMES = {"Budget": "budget", "Cached": "cached", "ChatLLM": "chat", "LocalLLM": "local", "Metered": "metered"}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ragkit.llms' has no attribute {name!r}")
    return getattr(import_module(f"ragkit.llms.{_HOMES[name]}"), name)
