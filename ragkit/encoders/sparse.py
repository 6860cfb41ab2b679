"""Text to weighted terms with a transformer: learned sparse retrieval."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ragkit.encoders.base import Progress
from ragkit.encoders.batches import run_batches
from ragkit.encoders.dense import split_windows
from ragkit.encoders.folder import digest, locate, model_name
from ragkit.encoders.model_files import read_json
from ragkit.encoders.remade import Remade
from ragkit.encoders.sparse_folder import Activation, Side, TermPooling, idf_side, read_sides
from ragkit.encoders.sparse_terms import Row, TermVocabulary, heaviest, merge, read_table
from ragkit.encoders.wordpieces import WordPieces
from ragkit.errors import InputError
from ragkit.sparse_vectors import SparseVectors

if TYPE_CHECKING:
    import torch

    from ragkit.encoders.sparse_heads import Span

QuerySide = Literal["document", "binary", "idf"]

_CHUNK = 2048  # texts tokenized and sorted at a time: bounds memory, and still finds neighbours of equal length


class SparseEncoder(Remade):
    """A learned sparse model from a local folder or the Hugging Face hub, without remote code.

    Its parts are those of "A Unified Framework for Learned Sparse Retrieval" (Nguyen et al., 2023, arXiv:2303.13416). Documents
    are weighed by a language model's head over the whole vocabulary (SPLADE; Mistral-SPLADE, which reads the text twice) or by an
    impact per token (uniCOIL, DeepImpact); queries likewise, by a table of weights without a network, or all terms alike. Which
    of them is read from the folder; see docs/learned-sparse.md for the layouts that are known.

    What is given overrides what the folder says, on both sides where the name has no side in it:

    - `query`: "document" treats queries like documents, "idf" takes a token's weight from the folder's idf.json or
      query_token_weights.txt, "binary" gives each token the weight 1. Or `query_model`, another model over the same vocabulary,
      whose query side is taken.
    - `pooling`: "max" or "sum" over a text's tokens. `activation`: "relu" for log(1 + relu(x)), "log1p_relu" for that in a
      second logarithm.
    - `echo`: the text is repeated, and only the repetition pooled, so that a causal model has seen all of it. The default for
      causal checkpoints without sentence-transformers files.
    - `literal`: added to the weight of each term that occurs in the text: a fixed form of PROSPER's literal residual
      (arXiv:2510.18527), against models that forget names and numbers. Weights that come from a table stay as they are.
    - `document_terms`, `query_terms`: the most terms that a document or a query keeps, the heaviest.
    - `document_prompt`, `query_prompt`: put before the text where a network reads it.
    - `max_length`: tokens a network reads at once, special ones included.

    Nothing is truncated: a longer text is cut into windows, and a term has the largest of the windows' weights (their sum where
    the pooling is a sum). Special tokens never get a weight; neither does the prompt's text from an impact per token. All
    weights are positive. A query may have no terms at all, and then finds nothing.

    Only weights in safetensors format are read. They are loaded at the first call that needs them; the object may be used from
    several threads.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        query: QuerySide | None = None,
        query_model: str | Path | None = None,
        pooling: TermPooling | None = None,
        activation: Activation | None = None,
        echo: bool | None = None,
        literal: float | None = None,
        document_terms: int | None = None,
        query_terms: int | None = None,
        document_prompt: str | None = None,
        query_prompt: str | None = None,
        max_length: int | None = None,
        batch_tokens: int = 2048,
        device: str | None = None,
    ) -> None:
        """`batch_tokens` is the most tokens, padding included, that go through a network at once.

        A language model's head needs memory for a logit per token and term of the vocabulary.
        """
        for field, given, known in (
            ("query", query, QuerySide),
            ("pooling", pooling, TermPooling),
            ("activation", activation, Activation),
        ):
            if given is not None and given not in get_args(known):
                raise InputError(f"{field}: {given!r} is not one of {', '.join(get_args(known))}")
        sizes = {
            "document_terms": document_terms,
            "query_terms": query_terms,
            "max_length": max_length,
            "batch_tokens": batch_tokens,
        }
        for field, size in sizes.items():
            if size is not None and size < 1:
                raise InputError(f"{field}: must be at least 1, not {size}")
        if literal is not None and not 0 <= literal < float("inf"):
            raise InputError(f"literal: must be a number from 0 on, not {literal}")
        if query is not None and query_model is not None:
            raise InputError("query: give either query or query_model, not both")
        self.name = model_name(model)
        if query_model is not None:
            model_name(query_model)
        self._source, self._query, self._query_source = model, query, query_model
        both = {"pooling": pooling, "activation": activation, "echo": echo, "literal": literal, "max_length": max_length}
        self._given = {
            "document": _present(both | {"terms": document_terms, "prompt": document_prompt}),
            "query": _present(both | {"terms": query_terms, "prompt": query_prompt}),
        }
        self._batch_tokens = batch_tokens
        self._device = device
        self._networks: dict[Path, torch.nn.Module] = {}
        self._tables: dict[Side, NDArray[np.float32]] = {}
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"SparseEncoder({self.name!r})"

    @cached_property
    def vocabulary(self) -> int:
        """Number of terms; term ids are below it."""
        named = max(self._terms.ids.values()) + 1
        # language models often have more outputs than their tokenizer has tokens
        outputs: int = (read_json(self._sides[0].path / "config.json") or {}).get("vocab_size", 0)
        return max(named, outputs)

    @property
    def tokenizer(self) -> WordPieces:
        """The model's own tokenizer."""
        return self._terms.pieces

    @cached_property
    def fingerprint(self) -> Mapping[str, Any]:
        """Name, a digest of configuration, tokenizer and weights, and every setting that changes a vector, for both sides."""
        document, query = self._sides
        return {
            "kind": "sparse",
            "model": self.name,
            "digest": digest(document.path),
            "document": _facts(document),
            "query": _facts(query) | ({} if query.path == document.path else {"digest": digest(query.path)}),
        }

    def terms(self, ids: Sequence[int]) -> list[str]:
        """The tokens that these terms are; "" for a place of the network that no token has."""
        return [self._terms.token(int(id_)) for id_ in ids]

    def encode_documents(self, texts: Sequence[str], progress: Progress | None = None) -> SparseVectors:
        """Weighted terms of passages."""
        return self._encode(texts, self._sides[0], self._terms, progress)

    def encode_queries(self, texts: Sequence[str]) -> SparseVectors:
        """Weighted terms of questions."""
        return self._encode(texts, self._sides[1], self._query_terms, None)

    async def aencode_queries(self, texts: Sequence[str]) -> SparseVectors:
        """Weighted terms of questions, computed in a thread."""
        return await asyncio.to_thread(self.encode_queries, texts)

    @cached_property
    def _sides(self) -> tuple[Side, Side]:
        """The document side and the query side, with what was given."""
        document, query = read_sides(locate(self._source))
        if self._query_source is not None:
            query = read_sides(locate(self._query_source))[1]
        elif self._query == "document":
            query = replace(document, terms=query.terms, prompt=query.prompt)
        elif self._query == "binary":
            query = Side(document.path, "binary", terms=query.terms)
        elif self._query == "idf" and query.head != "idf":
            query = replace(idf_side(document, self.name), terms=query.terms)
        sides = replace(document, **self._given["document"]), replace(query, **self._given["query"])
        for side in sides:
            if side.has_network and side.longest and side.max_length > side.longest:
                raise InputError(f"max_length: {self.name} takes at most {side.longest} tokens, not {side.max_length}")
        return sides

    @cached_property
    def _terms(self) -> TermVocabulary:
        return TermVocabulary(self._sides[0].path)

    @cached_property
    def _query_terms(self) -> TermVocabulary:
        path = self._sides[1].path
        if path == self._sides[0].path:
            return self._terms
        terms = TermVocabulary(path)
        if terms.ids != self._terms.ids:
            raise InputError(f"query_model: queries of {self.name} have another vocabulary than its documents")
        return terms

    def _table(self, side: Side, terms: TermVocabulary) -> NDArray[np.float32]:
        """The weight of every term, for a side without a network."""
        with self._lock:
            if side not in self._tables:
                ones = np.ones(self.vocabulary, np.float32)
                self._tables[side] = ones if side.table is None else read_table(side.table, terms)
            return self._tables[side]

    def _network(self, side: Side) -> torch.nn.Module:
        from ragkit.encoders.sparse_heads import load_head

        with self._lock:
            if side.path not in self._networks:
                self._networks[side.path] = load_head(side, self._device)
            return self._networks[side.path]

    def _encode(self, texts: Sequence[str], side: Side, terms: TermVocabulary, progress: Progress | None) -> SparseVectors:
        if isinstance(texts, str):
            raise InputError("texts: must be a list of texts, not one text")
        rows: list[Row] = []
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            rows += (
                self._expand(chunk, side, terms, progress) if side.has_network else self._look_up(chunk, side, terms, progress)
            )
        kept = [terms.without_special((ids[weights > 0], weights[weights > 0])) for ids, weights in rows]
        return SparseVectors.of([heaviest(row, side.terms) for row in kept])

    def _look_up(self, texts: Sequence[str], side: Side, terms: TermVocabulary, progress: Progress | None) -> list[Row]:
        """The terms of texts with their weights from a table."""
        table = self._table(side, terms)
        if progress:
            progress(len(texts))
        return [(ids, table[ids]) for ids in map(_distinct, terms.pieces.ids(texts))]

    def _expand(self, texts: Sequence[str], side: Side, terms: TermVocabulary, progress: Progress | None) -> list[Row]:
        """The terms that a network gives to texts, and those that they consist of, special ones included."""
        from ragkit.encoders.network import device_type
        from ragkit.encoders.sparse_heads import weigh

        split = terms.pieces.split_prompt(texts, side.prompt)
        spans, owners = self._spans(split, side, terms.pieces)
        found: list[list[Row]] = [[] for _ in texts]
        unfinished = np.bincount(owners, minlength=len(texts))
        network = self._network(side)

        def read(batch: list[int]) -> list[Row]:
            return weigh(network, [spans[i] for i in batch], side, terms.continuations)

        for batch, weighed in run_batches(read, [len(span.ids) for span in spans], self._batch_tokens, device_type(network)):
            for i, row in zip(batch, weighed, strict=True):
                found[owners[i]].append(row)
                unfinished[owners[i]] -= 1
            if progress:
                progress(sum(1 for owner in {owners[i] for i in batch} if not unfinished[owner]))
        merged = [merge(rows, side.pooling) for rows in found]
        if not side.literal:
            return merged
        literal = [_distinct(body) for _, body in split]
        bonuses = [(ids, np.full(len(ids), side.literal, np.float32)) for ids in literal]
        return [merge([row, bonus], "sum") for row, bonus in zip(merged, bonuses, strict=True)]

    def _spans(
        self, split: Sequence[tuple[list[int], list[int]]], side: Side, pieces: WordPieces
    ) -> tuple[list[Span], list[int]]:
        """What the network reads of texts, each split into prompt and rest, and the text that each of it belongs to."""
        from ragkit.encoders.sparse_heads import Span

        spans, owners = [], []
        for owner, (prompt, body) in enumerate(split):
            head = pieces.prefix + prompt
            room = side.max_length - len(head) - len(pieces.suffix)
            for window in split_windows(body, room // 2 if side.echo else room):
                ids = head + window * (1 + side.echo) + pieces.suffix
                # SPLADE pools all that it reads; an impact belongs to a token of the text, an echo to its repetition
                start, stop = 0, len(ids)
                if side.echo or side.head == "mlp":
                    start, stop = len(head) + len(window) * side.echo, len(ids) - len(pieces.suffix)
                # a model without special tokens still has to read something for an empty text
                spans.append(Span(ids, start, stop) if ids else Span([0], 0, 0))
                owners.append(owner)
        return spans, owners


def _distinct(ids: Sequence[int]) -> NDArray[np.int32]:
    return np.unique(np.asarray(ids, np.int32))


def _present(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _facts(side: Side) -> dict[str, Any]:
    """What of a side changes its vectors, files by their contents."""
    facts = {field.name: getattr(side, field.name) for field in fields(side) if field.name not in ("path", "longest", "table")}
    table = None if side.table is None else blake2b(side.table.read_bytes(), digest_size=16).hexdigest()
    return facts | {"table": table}
