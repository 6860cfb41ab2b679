"""Text to one vector with a transformer: windows over long texts, batches of equal cost, pooling."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ragkit.encoders.base import Progress, Vectors
from ragkit.encoders.batches import run_batches
from ragkit.encoders.dense_folder import Pooling, Tower, adjusted, as_poolings, read_towers
from ragkit.encoders.folder import locate, model_name
from ragkit.encoders.remade import Remade
from ragkit.encoders.wordpieces import WordPieces
from ragkit.errors import InputError

if TYPE_CHECKING:
    import torch

    from ragkit.encoders.dense_network import PooledNetwork, Row

Dtype = Literal["float32", "bfloat16", "float16", "int8"]

_CHUNK = 2048  # texts tokenized and sorted at a time: bounds memory, and still finds neighbours of equal length


class DenseEncoder(Remade):
    """A transformer encoder with pooling, from a local folder or the Hugging Face hub.

    `model` is a folder, a hub name, or None for all-MiniLM-L6-v2. Its parts are read from the folder's sentence-transformers
    files, without that library; a folder without such files pools the mean, or the last token of a causal language model, and
    normalises. See `read_towers` for the layouts that are known, among them T5 encoders, DPR, and models with an encoder for
    queries and another for documents. What is given overrides what the folder says, on both sides:

    - `query_model`: another model over the same space, whose query side encodes the questions.
    - `pooling`: one, or several to concatenate. `normalize`: whether vectors have length one.
    - `query_prompt`, `document_prompt`: put before the text, such as "query: " (E5), an instruction (LLM embedders), or an
      instruction with " [SEP] " behind it (TART).
    - `max_length`: tokens in a window, special ones included.
    - `dimension`: the first so many numbers of a vector, cut before it is normalised: for models that were trained for it
      (Matryoshka representation learning, Kusupati et al., 2022, arXiv:2205.13147).
    - `layers`: the first so many layers of the network: for models that were trained for it (2D Matryoshka, Li et al., 2024,
      arXiv:2402.14776).
    - `dtype`: "float32"; "bfloat16" or "float16", for GPUs; "int8" for linear layers in 8-bit integers on x86 processors.

    Nothing is truncated. A text that does not fit into `max_length` is cut into consecutive windows that do, each with
    the prompt and the special tokens around it; its vector is the mean of the windows' vectors, weighted by
    their number of tokens, and normalised at the end. For a text that fits this is plain encoding.

    Only weights in safetensors format are read. They are loaded at the first call of an encode method; the object may
    be used from several threads.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        query_model: str | Path | None = None,
        pooling: Pooling | Sequence[Pooling] | None = None,
        normalize: bool | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        max_length: int | None = None,
        dimension: int | None = None,
        layers: int | None = None,
        dtype: Dtype = "float32",
        batch_tokens: int = 8192,
        device: str | None = None,
    ) -> None:
        """`batch_tokens` is the most tokens, padding included, that go through the model at once."""
        sizes = {"max_length": max_length, "dimension": dimension, "layers": layers, "batch_tokens": batch_tokens}
        for field, value in sizes.items():
            if value is not None and value < 1:
                raise InputError(f"{field}: must be at least 1, not {value}")
        if dtype not in get_args(Dtype):
            raise InputError(f"dtype: {dtype!r} is not one of {', '.join(get_args(Dtype))}")
        self.name = model_name(model)
        if query_model is not None:
            model_name(query_model)
        self._source, self._query_source = model, query_model
        self._pooling = as_poolings(pooling)
        self._given = _present({"normalize": normalize, "max_length": max_length, "dimension": dimension, "layers": layers})
        self._prompts = _present({"prompt": document_prompt}), _present({"prompt": query_prompt})
        self._dtype: Dtype = dtype
        self._batch_tokens = batch_tokens
        self._device = device
        self._backbones: dict[Path, torch.nn.Module] = {}
        self._networks: dict[Tower, PooledNetwork] = {}
        self._tokenizers: dict[Path, WordPieces] = {}
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"DenseEncoder({self.name!r})"

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._towers[0].dimension

    @property
    def max_length(self) -> int:
        """Tokens in a window of a document, special tokens included."""
        return self._towers[0].max_length

    @property
    def tokenizer(self) -> WordPieces:
        """The model's own tokenizer, of documents if queries have another."""
        return self._pieces(self._towers[0])

    @cached_property
    def fingerprint(self) -> Mapping[str, Any]:
        """Name, a digest of configuration, tokenizer and weights, and every setting that changes a vector."""
        document, query = self._towers
        facts = {
            "kind": "dense",
            "model": self.name,
            **document.facts,
            "query_prompt": query.prompt,
            "document_prompt": document.prompt,
        }
        if replace(query, prompt=document.prompt) != document:
            facts["query"] = query.facts
        return facts if self._dtype == "float32" else facts | {"dtype": self._dtype}

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, [n, dimension] float32."""
        return self._encode(texts, self._towers[1], None)

    async def aencode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions, computed in a thread."""
        return await asyncio.to_thread(self.encode_queries, texts)

    def encode_documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Vectors of passages, [n, dimension] float32."""
        return self._encode(texts, self._towers[0], progress)

    @cached_property
    def _towers(self) -> tuple[Tower, Tower]:
        """The document side and the query side, with what was given."""
        document, query = read_towers(locate(self._source), self._pooling)
        if self._query_source is not None:
            query = read_towers(locate(self._query_source), self._pooling)[1]
        document, query = (
            adjusted(tower, self.name, self._given | prompt)
            for tower, prompt in zip((document, query), self._prompts, strict=True)
        )
        if document.dimension != query.dimension:
            raise InputError(
                f"query_model: vectors of queries have {query.dimension} numbers, those of documents {document.dimension}"
            )
        return document, query

    def _pieces(self, tower: Tower) -> WordPieces:
        with self._lock:
            if tower.path not in self._tokenizers:
                self._tokenizers[tower.path] = WordPieces(tower.path, lowercase=tower.lowercase, eos=tower.eos)
            return self._tokenizers[tower.path]

    def _network(self, tower: Tower) -> PooledNetwork:
        from ragkit.encoders.dense_network import load_backbone, pooled_network

        with self._lock:
            if tower not in self._networks:
                # two sides may differ in no more than a prompt or a module behind the same transformer
                if tower.path not in self._backbones:
                    self._backbones[tower.path] = load_backbone(tower, self._device, self._dtype)
                self._networks[tower] = pooled_network(tower, self._backbones[tower.path])
            return self._networks[tower]

    def _encode(self, texts: Sequence[str], tower: Tower, progress: Progress | None) -> Vectors:
        if isinstance(texts, str):
            raise InputError("texts: must be a list of texts, not one text")
        vectors = np.zeros((len(texts), tower.dimension), np.float32)
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            self._add(chunk, tower, vectors[start : start + len(chunk)], progress)
        if tower.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _rows(self, texts: Sequence[str], tower: Tower) -> tuple[list[Row], list[int], list[float]]:
        """What the model reads: rows of token ids, the text each row belongs to, and the row's share of that text."""
        from ragkit.encoders.dense_network import Row

        pieces = self._pieces(tower)
        rows, owners, weights = list[Row](), list[int](), list[float]()
        for owner, (prompt, body) in enumerate(pieces.split_prompt(texts, tower.prompt)):
            head = pieces.prefix + prompt
            for window in split_windows(body, tower.max_length - len(head) - len(pieces.suffix)):
                # a model without special tokens still has to read something for an empty text
                ids = head + window + pieces.suffix or [0]
                skipped = 0 if tower.pool_prompt or not prompt else len(head)
                rows.append(Row(ids, min(skipped, len(ids) - 1)))
                owners.append(owner)
                weights.append(len(window) / len(body) if body else 1.0)
        return rows, owners, weights

    def _add(self, texts: Sequence[str], tower: Tower, out: Vectors, progress: Progress | None) -> None:
        """Add to each text's row of `out` the vectors of its windows, times their weights."""
        rows, owners, weights = self._rows(texts, tower)
        unfinished = np.bincount(owners, minlength=len(out))
        from ragkit.encoders.network import device_type

        network = self._network(tower)

        def read(batch: list[int]) -> Vectors:
            return network.encode([rows[i] for i in batch])

        for batch, vectors in run_batches(read, [len(row.ids) for row in rows], self._batch_tokens, device_type(network)):
            batch_owners = [owners[i] for i in batch]
            shares = np.array([weights[i] for i in batch], np.float32)
            np.add.at(out, batch_owners, vectors[:, : tower.dimension] * shares[:, None])
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


def _present(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
