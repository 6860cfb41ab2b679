"""Decoders: batches of prompts through one network, their common beginning read once. Needs torch."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from ragkit.errors import InputError
from ragkit.llms.reading import State

_WORTH = 16  # a shorter beginning is not worth a pass of its own


class CausalReader:
    """A causal language model. See `Reader`."""

    counts_answer = True

    def __init__(self, network: Any, name: str) -> None:
        """Raises `InputError` if the network keeps anything but keys and values of what it has read."""
        self.network = network
        text = network.config.get_text_config(decoder=True)
        self._accepts = inspect.signature(network.forward).parameters.keys()
        layers = set(getattr(text, "layer_types", None) or ())
        if "past_key_values" not in self._accepts or layers - {"full_attention", "sliding_attention", "chunked_attention"}:
            raise InputError(f"model: {name} is not a pure attention model, which is what a local model has to be")
        limit = getattr(text, "max_position_embeddings", None)
        self.longest: int | None = limit if isinstance(limit, int) and limit > 0 else None
        # such windows count padding, which would lie between the common beginning and the rest
        self._shares = not (getattr(text, "sliding_window", None) or getattr(text, "attention_chunk_size", None))

    def start(self, prompts: Sequence[Sequence[int]]) -> State:
        """See `Reader`. Padding goes between the common beginning and the rest, so that all prompts end in the last column."""
        device = next(self.network.parameters()).device
        shared = self._shared(prompts)
        cache = _empty()
        if shared:
            beginning = torch.tensor([prompts[0][:shared]], device=device)
            self.forward(beginning, torch.ones_like(beginning), torch.arange(shared, device=device)[None], cache)
            cache = _select(cache, torch.zeros(len(prompts), dtype=torch.long, device=device))
        longest = max(map(len, prompts)) - shared
        gaps = [longest - (len(prompt) - shared) for prompt in prompts]
        ids = torch.tensor([[0] * gap + list(prompt[shared:]) for gap, prompt in zip(gaps, prompts, strict=True)], device=device)
        columns, gap = torch.arange(longest, device=device)[None], torch.tensor(gaps, device=device)[:, None]
        mask = torch.cat([torch.ones(len(prompts), shared, dtype=torch.long, device=device), (columns >= gap).long()], 1)
        positions = shared + (columns - gap).clamp(min=0)
        logits = self.forward(ids, mask, positions, cache, last=True)
        return _CausalState(self, cache, mask, logits[:, -1])

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any, *, last: bool = False
    ) -> torch.Tensor:
        """Logits [rows, n, vocabulary] of tokens [rows, n] behind those of `cache`; `mask` covers both. `last`: n = 1 will do."""
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
        if "position_ids" in self._accepts:
            inputs["position_ids"] = positions
        if last and "logits_to_keep" in self._accepts:
            inputs["logits_to_keep"] = 1
        with torch.inference_mode():
            logits: torch.Tensor = self.network(**inputs).logits
        return logits

    def _shared(self, prompts: Sequence[Sequence[int]]) -> int:
        """How many tokens all prompts begin with, if it is worth it; each keeps one of its own, for its logits."""
        if not self._shares or len(prompts) < 2:
            return 0
        # what the first and the last in order share is shared by all between them
        low, high = min(map(list, prompts)), max(map(list, prompts))
        same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
        shared = min(same, min(map(len, prompts)) - 1)
        return shared if shared >= _WORTH else 0


class _CausalState:
    def __init__(self, reader: CausalReader, cache: Any, mask: torch.Tensor, logits: torch.Tensor) -> None:
        self.logits = logits
        self._reader, self._cache, self._mask = reader, cache, mask

    def select(self, rows: torch.Tensor) -> _CausalState:
        return _CausalState(self._reader, _select(self._cache, rows), self._mask[rows], self.logits[rows])

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        positions = self._mask.sum(1, keepdim=True) + torch.arange(tokens.shape[1], device=tokens.device)
        self._mask = torch.cat([self._mask, torch.ones_like(tokens)], 1)
        logits = self._reader.forward(tokens, self._mask, positions, self._cache)
        self.logits = logits[:, -1]
        return logits


def _empty() -> Any:
    from transformers import DynamicCache

    return DynamicCache()


def _select(cache: Any, rows: torch.Tensor) -> Any:
    from transformers import DynamicCache

    return DynamicCache([(keys[rows], values[rows]) for keys, values, *_ in cache])
