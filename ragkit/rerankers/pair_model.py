"""A sequence-classification transformer over pairs of texts: windows of token ids in, logits out. Needs torch."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ragkit.encoders.batches import run_batches
from ragkit.encoders.folder import longest_input
from ragkit.encoders.network import device_type, load_network, padded
from ragkit.encoders.pairs import PairTokenizer
from ragkit.errors import InputError
from ragkit.indexes.base import Scores

_DEFAULT_LENGTH = 512


class PairModel:
    """Loaded weights and tokenizer of one cross-encoder. Nothing changes after loading, so threads may share it."""

    def __init__(self, folder: Path, max_length: int | None = None, device: str | None = None) -> None:
        """Raises `InputError` if the checkpoint is no cross-encoder or takes fewer than `max_length` tokens."""
        self._network: Any = load_network(folder, device, head="AutoModelForSequenceClassification")
        config: Any = self._network.config
        if config.num_labels > 2:
            raise InputError(f"model: {folder.name} has {config.num_labels} outputs; a cross-encoder has one or two")
        longest = longest_input(config.to_dict())
        if max_length and longest and max_length > longest:
            raise InputError(f"max_length: {folder.name} takes at most {longest} tokens, not {max_length}")
        length = max_length or min(longest or _DEFAULT_LENGTH, _DEFAULT_LENGTH)
        self._tokenizer = PairTokenizer(folder, length)
        # decoders read the score at the last token that is not this one
        self._padding = getattr(config, "pad_token_id", None) or 0
        self._typed = (
            "token_type_ids" in inspect.signature(self._network.forward).parameters
            and getattr(config, "type_vocab_size", 0) > 1
            and self._tokenizer.typed
        )

    def windows(self, pairs: Sequence[tuple[str, str]]) -> tuple[list[Any], list[int]]:
        """Encodings of question and passage that fit into the model, and the index of the pair each belongs to."""
        questions = self._tokenizer.cut([question for question, _ in pairs])
        runs = self._tokenizer.encode([(question, passage) for question, (_, passage) in zip(questions, pairs, strict=True)])
        owners = [owner for owner, its_runs in enumerate(runs) for _ in its_runs]
        return [run for its_runs in runs for run in its_runs], owners

    def batches(self, windows: Sequence[Any], batch_tokens: int) -> Iterator[tuple[list[int], Scores]]:
        """Indices of windows, and their logits, by batches of at most so many tokens; see `run_batches`."""

        def read(batch: list[int]) -> Scores:
            return self.logits([windows[i] for i in batch])

        return run_batches(read, [len(window.ids) for window in windows], batch_tokens, device_type(self._network))

    def logits(self, windows: Sequence[Any]) -> Scores:
        """One logit per window, float64 [n]; for two outputs the difference of the second and the first."""
        device = next(self._network.parameters()).device
        longest = max(len(window.ids) for window in windows)
        ids = [window.ids + [self._padding] * (longest - len(window.ids)) for window in windows]
        inputs = {
            "input_ids": padded(ids, device),
            "attention_mask": padded([window.attention_mask for window in windows], device),
        }
        if self._typed:
            inputs["token_type_ids"] = padded([window.type_ids for window in windows], device)
        with torch.inference_mode():
            outputs = self._network(**inputs).logits.cpu().double().numpy()
        scores: Scores = outputs[:, 0] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0]
        return scores
