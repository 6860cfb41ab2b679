"""Text to one vector per token with a transformer: late interaction."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from ragkit.documents.spans import Span
from ragkit.encoders.base import Progress, Vectors
from ragkit.encoders.batches import run_batches
from ragkit.encoders.dense import split_windows
from ragkit.encoders.folder import digest, locate, model_name
from ragkit.encoders.model_files import read_json
from ragkit.encoders.multi_vector_folder import TokenModel, read_token_model
from ragkit.encoders.remade import Remade
from ragkit.encoders.token_pooling import pool_tokens
from ragkit.encoders.wordpieces import WordPieces, encodable, read_tokenizer
from ragkit.errors import InputError

if TYPE_CHECKING:
    import tokenizers

    from ragkit.encoders.multi_vector_network import Row, TokenNetwork

_CHUNK = 512  # texts tokenized and sorted at a time: bounds memory, and still finds neighbours of equal length
_OUTSIDE = -1


class ColBERTEncoder(Remade):
    """A late-interaction model from a local folder or the Hugging Face hub: a vector of length 1 for each token.

    ColBERT (Khattab and Zaharia 2020, arXiv:2004.12832) and its kin; `multi_vector_folder.read_token_model` says which layouts
    are known. `model` is a folder, a hub name, or None for the token vectors of all-MiniLM-L6-v2, which no one trained for this.

    What is given overrides what the folder says:

    - `query_length`: shorter queries are filled up with [MASK] tokens to so many tokens, if `expand`; their vectors count like
      the others. The other tokens of the query see them only if `attend`.
    - `document_length`: tokens in a window of a document, special ones included.
    - `skip_words`: tokens that get no vector in documents, punctuation by default. Stop words here are the simplest form of token
      pruning. A document of nothing else keeps all its vectors.
    - `pool_factor`: each document keeps one vector for so many of its tokens, see `token_pooling.pool_tokens`; 1 keeps all.
    - `query_prompt`, `document_prompt`: put before the text. Their tokens have vectors, too.

    Nothing is truncated, unlike in the models' own code: a longer document is read in consecutive windows, each with marker,
    prompt and special tokens, and has the vectors of all of them; a query longer than `query_length` has no mask tokens, and is
    read in windows if it is also longer than `document_length`.

    Only weights in safetensors format are read. They are loaded at the first call of an encode method; the object may be used
    from several threads.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        query_length: int | None = None,
        document_length: int | None = None,
        expand: bool | None = None,
        attend: bool | None = None,
        skip_words: Sequence[str] | None = None,
        pool_factor: int = 1,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        batch_tokens: int = 8192,
        device: str | None = None,
    ) -> None:
        """`batch_tokens` is the most tokens, padding included, that go through the network at once."""
        sizes = {"query_length": query_length, "document_length": document_length, "pool_factor": pool_factor}
        for field, size in (sizes | {"batch_tokens": batch_tokens}).items():
            if size is not None and size < 1:
                raise InputError(f"{field}: must be at least 1, not {size}")
        if isinstance(skip_words, str):
            raise InputError("skip_words: must be a list of words, not one text")
        self.name = model_name(model)
        self._source = model
        given = {
            "query_length": query_length,
            "document_length": document_length,
            "expand": expand,
            "attend": attend,
            "skip_words": None if skip_words is None else tuple(skip_words),
            "query_prompt": query_prompt,
            "document_prompt": document_prompt,
        }
        self._given: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
        self.pool_factor = pool_factor
        self._batch_tokens = batch_tokens
        self._device = device
        self._loaded: TokenNetwork | None = None
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"ColBERTEncoder({self.name!r})"

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._model.dimension

    @cached_property
    def tokenizer(self) -> WordPieces:
        """The model's own tokenizer."""
        return WordPieces(self._model.path)

    @cached_property
    def fingerprint(self) -> Mapping[str, Any]:
        """Name, a digest of configuration, tokenizer and weights, and every setting that changes a vector."""
        model = self._model
        fields = ("dimension", "query_length", "document_length", "query_marker", "document_marker", "expand", "attend")
        folders = dict.fromkeys([model.path, *(projection.file.parent for projection in model.projections)])
        return {
            "kind": "multi-vector",
            "model": self.name,
            "digest": "-".join(digest(folder) for folder in folders),
            **{field: getattr(model, field) for field in (*fields, "query_prompt", "document_prompt")},
            "projections": [[projection.activation, projection.residual] for projection in model.projections],
            "skip_words": list(model.skip_words),
            "pool_factor": self.pool_factor,
        }

    def encode_queries(self, texts: Sequence[str]) -> list[Vectors]:
        """A matrix [tokens, dimension] float32 for each question."""
        self._require_list(texts)
        vectors: list[Vectors] = []
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            rows, owners, _ = self._rows(chunk, self._model.query_prompt, self._model.query_marker, self._query_window)
            if self._model.expand:
                windows = np.bincount(owners)
                rows = [self._expanded(row) if windows[owner] == 1 else row for row, owner in zip(rows, owners, strict=True)]
            vectors += self._read(rows, owners, len(chunk), None)
        return vectors

    async def aencode_queries(self, texts: Sequence[str]) -> list[Vectors]:
        """Like `encode_queries`, computed in a thread."""
        return await asyncio.to_thread(self.encode_queries, texts)

    def encode_documents(self, texts: Sequence[str], progress: Progress | None = None) -> list[Vectors]:
        """A matrix [vectors, dimension] float32 for each passage."""
        self._require_list(texts)
        vectors: list[Vectors] = []
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            rows, owners, _ = self._document_rows(chunk)
            vectors += self._read(self._without_skipped(rows, owners), owners, len(chunk), progress)
        return vectors if self.pool_factor == 1 else [pool_tokens(each, self.pool_factor) for each in vectors]

    def encode_spans(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[list[Vectors]]:
        """For each passage a matrix for each of its spans: the vectors of the tokens that end there, read in the passage.

        So one reading scores a passage and its sentences alike (AGRaME: Reddy et al. 2024, arXiv:2405.15028). Not pooled. A span
        of skipped tokens alone has a matrix without rows.
        """
        self._require_list(texts)
        found: list[list[Vectors]] = []
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            rows, owners, places = self._document_rows(chunk)
            rows = self._without_skipped(rows, owners)
            kept = [[its_places[place] for place in row.kept] for row, its_places in zip(rows, places, strict=True)]
            tokens = _grouped(kept, owners, len(chunk))
            vectors = self._read(rows, owners, len(chunk), None)
            parts = zip(vectors, tokens, self._places(chunk), spans[start : start + len(chunk)], strict=True)
            for its_vectors, its_tokens, its_places, its_spans in parts:
                at = np.array([its_places[token] if token != _OUTSIDE else _OUTSIDE for token in its_tokens], np.int64)
                found.append([its_vectors[(at >= first) & (at < stop)] for first, stop in its_spans])
        return found

    @cached_property
    def _model(self) -> TokenModel:
        model = replace(read_token_model(locate(self._source)), **self._given)
        if model.longest:
            for field in ("query_length", "document_length"):
                if getattr(model, field) > model.longest:
                    raise InputError(f"{field}: {self.name} takes at most {model.longest} tokens, not {getattr(model, field)}")
        return model

    @property
    def _query_window(self) -> int:
        return max(self._model.document_length, self._model.query_length)

    @cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        """With offsets and ids by name, which `WordPieces` has not."""
        tokenizer = read_tokenizer(self._model.path)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _skipped(self) -> frozenset[int]:
        alone = [ids[0] for ids in self.tokenizer.ids(self._model.skip_words) if len(ids) == 1]
        named = [id_ for word in self._model.skip_words if (id_ := self._tokenizer.token_to_id(word)) is not None]
        # a word that the vocabulary lacks must not stand for all that it lacks
        return frozenset({*alone, *named} - set(self._ids("unk_token", "[UNK]", "<unk>")))

    @cached_property
    def _mask(self) -> int:
        """What queries are filled up with: the mask token, or the end token of models without one."""
        found = [*self._ids("mask_token", "[MASK]", "<mask>"), *self._ids("eos_token")]
        if not found:
            raise InputError(f"expand: {self.name} has no mask token to fill queries up with; set expand=False")
        return found[0]

    def _ids(self, setting: str, *names: str) -> list[int]:
        """The ids of the special token that tokenizer_config.json names, and of others by their usual names."""
        said = (read_json(self._model.path / "tokenizer_config.json") or {}).get(setting)
        tokens = [said.get("content") if isinstance(said, dict) else said, *names]
        return [id_ for token in tokens if token and (id_ := self._tokenizer.token_to_id(token)) is not None]

    def _marker(self, name: str) -> list[int]:
        if not name:
            return []
        id_ = self._tokenizer.token_to_id(name)
        if id_ is None:
            raise InputError(f"model: the vocabulary of {self.name} lacks the marker {name!r}, which its settings name")
        return [id_]

    def _network(self) -> TokenNetwork:
        from ragkit.encoders.multi_vector_network import load_token_network

        with self._lock:
            if self._loaded is None:
                self._loaded = load_token_network(self._model, self._device)
            return self._loaded

    def _document_rows(self, texts: Sequence[str]) -> tuple[list[Row], list[int], list[list[int]]]:
        model = self._model
        return self._rows(texts, model.document_prompt, model.document_marker, model.document_length)

    def _rows(self, texts: Sequence[str], prompt: str, marker: str, length: int) -> tuple[list[Row], list[int], list[list[int]]]:
        """What the network reads: rows, the text that each belongs to, and for each id which token of its text it is."""
        from ragkit.encoders.multi_vector_network import Row

        pieces, mark = self.tokenizer, self._marker(marker)
        rows, owners, places = [], [], []
        for owner, (head, body) in enumerate(pieces.split_prompt(texts, prompt)):
            before = pieces.prefix + head
            done = 0
            for window in split_windows(body, length - len(before) - len(mark) - len(pieces.suffix)):
                first = len(head) + done
                ids = before + window + pieces.suffix
                its_places = [*_none(before), *range(first, first + len(window)), *_none(pieces.suffix)]
                # a model without special tokens has its marker behind the first token of the text
                ids[1:1], its_places[1:1] = mark, _none(mark)
                # a model without special tokens still has to read something for an empty text
                ids, its_places = ids or [0], its_places or [_OUTSIDE]
                rows.append(Row(ids, len(ids), list(range(len(ids)))))
                owners.append(owner)
                places.append(its_places)
                done += len(window)
        return rows, owners, places

    def _expanded(self, row: Row) -> Row:
        missing = max(self._model.query_length - len(row.ids), 0)
        ids = row.ids + [self._mask] * missing
        return row._replace(ids=ids, seen=len(ids) if self._model.attend else row.seen, kept=list(range(len(ids))))

    def _without_skipped(self, rows: Sequence[Row], owners: Sequence[int]) -> list[Row]:
        """Rows that keep no token of the skip list, unless their text has no others."""
        skipped = self._skipped
        thinned = [row._replace(kept=[place for place in row.kept if row.ids[place] not in skipped]) for row in rows]
        alive = {owner for owner, row in zip(owners, thinned, strict=True) if row.kept}
        return [thin if owner in alive else row for row, thin, owner in zip(rows, thinned, owners, strict=True)]

    def _places(self, texts: Sequence[str]) -> list[list[int]]:
        """Where each token of each text has its last character, below 0 for those of the prompt.

        Not the first: some tokenizers begin a token with the space before it.
        """
        prompt = self._model.document_prompt
        encodings = self._tokenizer.encode_batch([encodable(prompt + text) for text in texts], add_special_tokens=False)
        return [[max(start, end - 1) - len(prompt) for start, end in encoding.offsets] for encoding in encodings]

    def _read(self, rows: Sequence[Row], owners: Sequence[int], count: int, progress: Progress | None) -> list[Vectors]:
        """The matrices of `count` texts from their rows."""
        from ragkit.encoders.multi_vector_network import token_vectors
        from ragkit.encoders.network import device_type

        of_rows: list[Vectors] = [np.empty((0, self.dimension), np.float32)] * len(rows)
        unfinished = np.bincount(owners, minlength=count)
        network = self._network()

        def read(batch: list[int]) -> list[Vectors]:
            return token_vectors(network, [rows[at] for at in batch])

        for batch, matrices in run_batches(read, [len(row.ids) for row in rows], self._batch_tokens, device_type(network)):
            for at, vectors in zip(batch, matrices, strict=True):
                of_rows[at] = vectors
            batch_owners = [owners[at] for at in batch]
            np.subtract.at(unfinished, batch_owners, 1)
            if progress:
                progress(int((unfinished[np.unique(batch_owners)] == 0).sum()))
        grouped: list[list[Vectors]] = [[] for _ in range(count)]
        for owner, vectors in zip(owners, of_rows, strict=True):
            grouped[owner].append(vectors)
        return [np.concatenate(each) for each in grouped]

    @staticmethod
    def _require_list(texts: Sequence[str]) -> None:
        if isinstance(texts, str):
            raise InputError("texts: must be a list of texts, not one text")


def _none(ids: Sequence[int]) -> list[int]:
    return [_OUTSIDE] * len(ids)


def _grouped(rows: Sequence[list[int]], owners: Sequence[int], count: int) -> list[list[int]]:
    grouped: list[list[int]] = [[] for _ in range(count)]
    for owner, row in zip(owners, rows, strict=True):
        grouped[owner] += row
    return grouped
