"""Text to one vector with a transformer: windows over long texts, batches of equal cost, pooling."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from ragkit.encoders.base import Progress, Vectors
from ragkit.encoders.folder import ModelFolder, Pooling, digest, locate, model_name, read_folder
from ragkit.encoders.wordpieces import WordPieces
from ragkit.errors import InputError

if TYPE_CHECKING:
    import torch

_CHUNK = 2048  # texts tokenized and sorted at a time: bounds memory, and still finds neighbours of equal length


class DenseEncoder:
    """A transformer encoder with pooling, from a local folder or the Hugging Face hub.

    `model` is a folder, a hub name, or None for all-MiniLM-L6-v2. `pooling`, `normalize`, the prompts and `max_length`
    (tokens, special ones included) are read from the folder's sentence-transformers files where they are not given;
    without such files they are mean, True, "" and what the tokenizer or the position embeddings allow.

    Nothing is truncated. A text that does not fit into `max_length` is cut into consecutive windows that do, each with
    the prompt and the special tokens around it; its vector is the mean of the windows' pooled vectors, weighted by
    their number of tokens, and normalised at the end. For a text that fits this is plain encoding.

    Only weights in safetensors format are read. They are loaded at the first call of an encode method; the object may
    be used from several threads.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        max_length: int | None = None,
        batch_tokens: int = 8192,
        device: str | None = None,
    ) -> None:
        """`batch_tokens` is the most tokens, padding included, that go through the model at once."""
        if pooling is not None and pooling not in get_args(Pooling):
            raise InputError(f"pooling: {pooling!r} is not one of {', '.join(get_args(Pooling))}")
        for field, value in (("max_length", max_length), ("batch_tokens", batch_tokens)):
            if value is not None and value < 1:
                raise InputError(f"{field}: must be at least 1, not {value}")
        self.name = model_name(model)
        self._source = model
        self._given: dict[str, Any] = {
            "pooling": pooling,
            "normalize": normalize,
            "query_prompt": query_prompt,
            "document_prompt": document_prompt,
            "max_length": max_length,
        }
        self._batch_tokens = batch_tokens
        self._device = device
        self._loaded: torch.nn.Module | None = None
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"DenseEncoder({self.name!r})"

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._settings.dimension

    @property
    def max_length(self) -> int:
        """Tokens in a window, special tokens included."""
        return self._settings.max_length

    @property
    def tokenizer(self) -> WordPieces:
        """The model's own tokenizer."""
        return self._wordpieces

    @cached_property
    def fingerprint(self) -> Mapping[str, Any]:
        """Name, a digest of configuration, tokenizer and weights, and every setting that changes a vector."""
        settings = self._settings
        return {
            "kind": "dense",
            "model": self.name,
            "digest": digest(settings.path),
            **{field: getattr(settings, field) for field in self._given},
        }

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, [n, dimension] float32."""
        return self._encode(texts, self._settings.query_prompt, None)

    async def aencode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, computed in a thread."""
        return await asyncio.to_thread(self.encode_queries, texts)

    def encode_documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Vectors of passages, [n, dimension] float32."""
        return self._encode(texts, self._settings.document_prompt, progress)

    @cached_property
    def _settings(self) -> ModelFolder:
        folder = read_folder(locate(self._source), self._given["pooling"])
        settings = replace(folder, **{field: value for field, value in self._given.items() if value is not None})
        if settings.longest and settings.max_length > settings.longest:
            raise InputError(f"max_length: {self.name} takes at most {settings.longest} tokens, not {settings.max_length}")
        return settings

    @cached_property
    def _wordpieces(self) -> WordPieces:
        return WordPieces(self._settings.path)

    def _network(self) -> torch.nn.Module:
        from ragkit.encoders.network import load_network

        with self._lock:
            if self._loaded is None:
                self._loaded = load_network(self._settings.path, self._device)
            return self._loaded

    def _encode(self, texts: Sequence[str], prompt: str, progress: Progress | None) -> Vectors:
        if isinstance(texts, str):
            raise InputError("texts: must be a list of texts, not one text")
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            rows, owners, weights = self._rows(chunk, prompt)
            self._pool(rows, owners, weights, vectors[start : start + len(chunk)], progress)
        if self._settings.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _rows(self, texts: Sequence[str], prompt: str) -> tuple[list[list[int]], list[int], list[float]]:
        """What the model reads: rows of token ids, the text each row belongs to, and the row's share of that text."""
        pieces = self._wordpieces
        prompt_ids = pieces.ids([prompt])[0] if prompt else []
        rows, owners, weights = [], [], []
        for owner, ids in enumerate(pieces.ids([prompt + text for text in texts])):
            # the prompt's last token may have merged with the text's first, so only what agrees is the prompt
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt_ids, ids, strict=False)))
            head, body = pieces.prefix + ids[:shared], ids[shared:]
            for window in split_windows(body, self.max_length - len(head) - len(pieces.suffix)):
                # a model without special tokens still has to read something for an empty text
                rows.append(head + window + pieces.suffix or [0])
                owners.append(owner)
                weights.append(len(window) / len(body) if body else 1.0)
        return rows, owners, weights

    def _pool(
        self, rows: list[list[int]], owners: list[int], weights: list[float], out: Vectors, progress: Progress | None
    ) -> None:
        """Add every row's vector, times its weight, to its text's row of `out`."""
        from ragkit.encoders.network import forward

        unfinished = np.bincount(owners, minlength=len(out))
        for batch in equal_batches([len(row) for row in rows], self._batch_tokens):
            pooled = forward(self._network(), [rows[i] for i in batch], self._settings.pooling)
            batch_owners = [owners[i] for i in batch]
            np.add.at(out, batch_owners, pooled * np.array([weights[i] for i in batch], np.float32)[:, None])
            np.subtract.at(unfinished, batch_owners, 1)
            if progress:
                progress(int((unfinished[np.unique(batch_owners)] == 0).sum()))


def split_windows(ids: list[int], size: int) -> list[list[int]]:
    """Consecutive windows of at most `size` ids; one empty window if there are no ids."""
    if len(ids) <= size:
        return [ids]
    if size < 1:
        raise InputError("max_length: leaves no room for text beside the prompt and the special tokens")
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def equal_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of rows, longest first, in batches whose padded size is at most `budget` (a longer row goes alone)."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
