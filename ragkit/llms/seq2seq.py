"""Encoder-decoders: each prompt is encoded once, whatever is scored or written after it. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ragkit.encoders.network import padded
from ragkit.llms.reading import State


class Seq2SeqReader:
    """An encoder-decoder such as T5. See `Reader`."""

    counts_answer = False

    def __init__(self, network: Any) -> None:
        self.network = network
        limit = getattr(network.config, "max_position_embeddings", None)
        self.longest: int | None = limit if isinstance(limit, int) and limit > 0 else None

    def start(self, prompts: Sequence[Sequence[int]]) -> State:
        """See `Reader`."""
        from transformers import DynamicCache, EncoderDecoderCache

        device = next(self.network.parameters()).device
        ids, mask = padded(prompts, device), padded([[1] * len(prompt) for prompt in prompts], device)
        with torch.inference_mode():
            encoded = self.network.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        config = self.network.config
        start = config.decoder_start_token_id if config.decoder_start_token_id is not None else config.pad_token_id
        state = _Seq2SeqState(self.network, encoded, mask, EncoderDecoderCache(DynamicCache(), DynamicCache()), None)
        state.read(torch.full((len(prompts), 1), start, device=device))
        return state


class _Seq2SeqState:
    def __init__(self, network: Any, encoded: torch.Tensor, mask: torch.Tensor, cache: Any, logits: Any) -> None:
        self.logits: torch.Tensor = logits
        self._network, self._encoded, self._mask, self._cache = network, encoded, mask, cache

    def select(self, rows: torch.Tensor) -> _Seq2SeqState:
        from transformers import DynamicCache, EncoderDecoderCache

        halves = (self._cache.self_attention_cache, self._cache.cross_attention_cache)
        parts = [DynamicCache([(keys[rows], values[rows]) for keys, values, *_ in half]) for half in halves]
        cache = EncoderDecoderCache(*parts)
        return _Seq2SeqState(self._network, self._encoded[rows], self._mask[rows], cache, self.logits[rows])

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        from transformers.modeling_outputs import BaseModelOutput

        with torch.inference_mode():
            outputs = self._network(
                encoder_outputs=BaseModelOutput(last_hidden_state=self._encoded),
                attention_mask=self._mask,
                decoder_input_ids=tokens,
                past_key_values=self._cache,
                use_cache=True,
            )
        logits: torch.Tensor = outputs.logits
        self.logits = logits[:, -1]
        return logits
