"""A sequence-classification transformer over pairs of texts: windows of token ids in, logits out. Needs torch."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ragkit.encoders.network import load_network, padded
from ragkit.encoders.wordpieces import read_tokenizer
from ragkit.errors import InputError
from ragkit.indexes.base import Scores

_log = logging.getLogger(__name__)
_DEFAULT_LENGTH = 512


class PairModel:
    """Loaded weights and tokenizer of one cross-encoder."""

    def __init__(self, folder: Path, max_length: int | None = None, device: str | None = None) -> None:
        """Raises `InputError` if the checkpoint has more than two outputs or takes fewer than `max_length` tokens."""
        self._network: Any = load_network(folder, device, head="AutoModelForSequenceClassification")
        config: Any = self._network.config
        if config.num_labels > 2:
            raise InputError(f"model: {folder.name} has {config.num_labels} outputs; a cross-encoder has one or two")
        positions = getattr(config, "max_position_embeddings", None)
        # RoBERTa's position embeddings start behind the padding index
        offset = (config.pad_token_id or 0) + 1 if "roberta" in config.model_type else 0
        limit = positions - offset if positions else _DEFAULT_LENGTH
        if max_length is not None and max_length > limit:
            raise InputError(f"max_length: {folder.name} takes at most {limit} tokens, not {max_length}")
        self._length = max_length or min(limit, _DEFAULT_LENGTH)
        self._tokenizer = read_tokenizer(folder)
        self._tokenizer.no_padding()
        special = self._tokenizer.num_special_tokens_to_add(is_pair=True)
        self._question_length = (self._length - special) // 2
        self._stride = (self._length - special) // 8
        self._typed = "token_type_ids" in inspect.signature(self._network.forward).parameters and (
            getattr(config, "type_vocab_size", 0) > 1
        )

    def windows(self, pairs: Sequence[tuple[str, str]]) -> tuple[list[Any], list[int]]:
        """Encodings of question and passage that fit into the model, and the index of the pair each belongs to."""
        cut = dict(zip({q for q, _ in pairs}, self._cut([*{q for q, _ in pairs}]), strict=True))
        self._tokenizer.enable_truncation(self._length, stride=self._stride, strategy="only_second")
        encodings = self._tokenizer.encode_batch([(cut[question], passage) for question, passage in pairs])
        windows, owners = [], []
        for owner, encoding in enumerate(encodings):
            for window in (encoding, *encoding.overflowing):
                windows.append(window)
                owners.append(owner)
        return windows, owners

    def logits(self, windows: Sequence[Any]) -> Scores:
        """One logit per window, float64 [n]; for two outputs the difference of the second and the first."""
        device = next(self._network.parameters()).device
        inputs = {
            "input_ids": padded([window.ids for window in windows], device),
            "attention_mask": padded([window.attention_mask for window in windows], device),
        }
        if self._typed:
            inputs["token_type_ids"] = padded([window.type_ids for window in windows], device)
        with torch.inference_mode():
            outputs = self._network(**inputs).logits.double().cpu().numpy()
        scores: Scores = outputs[:, 0] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0]
        return scores

    def _cut(self, questions: Sequence[str]) -> list[str]:
        self._tokenizer.no_truncation()
        shortened = []
        for question, encoding in zip(
            questions, self._tokenizer.encode_batch(list(questions), add_special_tokens=False), strict=True
        ):
            if len(encoding.ids) > self._question_length:
                _log.warning("question of %d tokens cut to %d for reranking", len(encoding.ids), self._question_length)
                question = question[: encoding.offsets[self._question_length][0]]
            shortened.append(question)
        return shortened
