"""The pipeline that is used where nobody has configured one."""

from __future__ import annotations

from typing import Any

from ragkit.chains.config import PipelineConfig


def default_config(language: str | None) -> PipelineConfig:
    """Hybrid retrieval, then what ragkit knows best for text in `language`: an ISO 639-1 code, as `Store.language` has it."""
    # the model that comes with ragkit has learnt from English text
    # the same text again would only take the place of another: see docs/poisoning.md
    duplicates = {"type": "duplicates"}
    extractive = {"type": "extractive", **({} if language is None else {"language": language})}
    stages: list[dict[str, Any]] = [duplicates, extractive]
    if language == "en":
        # an answer is made of the best sentences only: higher than the model's own threshold, which is meant to lose nothing
        blend = {"type": "blend", "weight": 0.5}
        stages = [{"type": "provence-reranker"}, blend, duplicates, {"type": "provence", "threshold": 0.3}]
    return PipelineConfig(retriever={"type": "hybrid", "k": 20}, stages=stages)
