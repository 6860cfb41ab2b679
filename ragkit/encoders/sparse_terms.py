"""The vocabulary of a sparse model and tables of weights over it; rows of weighted terms, merged and pruned. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragkit.encoders.model_files import read_json
from ragkit.encoders.sparse_folder import TermPooling
from ragkit.encoders.wordpieces import WordPieces, read_tokenizer
from ragkit.errors import InputError, RagkitError

Row = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Terms, each once, and their weights."""


class TermVocabulary:
    """The tokens of a model folder's tokenizer as terms."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = read_tokenizer(folder)
        self.pieces = WordPieces(folder)
        self.ids: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        """Term ids by token."""
        added = self._tokenizer.get_added_tokens_decoder()
        named = {self.ids[token] for token in _special_tokens(folder) if token in self.ids}
        marked = {id_ for id_, token in added.items() if token.special}
        self.special = np.array(sorted(named | marked | {*self.pieces.prefix, *self.pieces.suffix}), np.int32)
        """Ids of tokens that stand for no text: [CLS], [PAD], [UNK] and the like."""
        self.continuations = frozenset(id_ for token, id_ in self.ids.items() if token.startswith("##"))
        """Ids of pieces that continue a word, in the notation of WordPiece."""

    def token(self, id_: int) -> str:
        """The token of that id; "" if the tokenizer has none, though the network may have a place for it."""
        return self._tokenizer.id_to_token(id_) or ""

    def without_special(self, row: Row) -> Row:
        """A row without the terms that stand for no text."""
        kept = ~np.isin(row[0], self.special)
        return row[0][kept], row[1][kept]


def read_table(file: Path, vocabulary: TermVocabulary) -> NDArray[np.float32]:
    """The weight of every term: from a JSON object, lines of token, tab and weight, or the tensor `weight` of a safetensors file.

    Tokens that the file does not name weigh nothing. Raises `InputError` if the table is of another vocabulary, or if a weight
    is negative or not finite, and `RagkitError` if the file cannot be read.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.numpy import load_file

            table = np.asarray(load_file(file)["weight"], np.float32)
            if table.ndim != 1 or len(table) <= max(vocabulary.ids.values()):
                raise InputError(f"model: the weights in {file} have the shape {table.shape}, not that of the vocabulary")
        else:
            table = _by_token(_entries(file), file, vocabulary)
    except InputError:
        raise
    except Exception as error:  # safetensors, JSON and number parsing each raise their own
        raise RagkitError(f"model: {file} cannot be read as a table of weights: {' '.join(str(error).split())[:200]}") from error
    if not np.isfinite(table).all() or (table < 0).any():
        raise InputError(f"model: {file} has weights that are negative or not finite")
    return table


def merge(rows: Sequence[Row], pooling: TermPooling) -> Row:
    """One row out of several; a term that is in more than one has the largest of its weights, or their sum."""
    if len(rows) == 1:
        return rows[0]
    terms, places = np.unique(np.concatenate([terms for terms, _ in rows]), return_inverse=True)
    weights = np.zeros(len(terms), np.float32)
    combine = np.maximum if pooling == "max" else np.add
    combine.at(weights, places, np.concatenate([weights for _, weights in rows]))
    return terms, weights


def heaviest(row: Row, n: int | None) -> Row:
    """The `n` heaviest terms of a row, all of them for None; of equal weights the lower term ids stay."""
    terms, weights = row
    if n is None or len(terms) <= n:
        return row
    kept = np.lexsort((terms, -weights))[:n]
    return terms[kept], weights[kept]


def _entries(file: Path) -> dict[str, float]:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        return {token: float(weight) for token, weight in json.loads(text).items()}
    pairs = (line.rpartition("\t") for line in text.split("\n") if line.strip())
    return {token: float(weight) for token, _, weight in pairs}


def _by_token(entries: dict[str, float], file: Path, vocabulary: TermVocabulary) -> NDArray[np.float32]:
    known = {token: weight for token, weight in entries.items() if token in vocabulary.ids}
    if 2 * len(known) < len(entries) or not known:
        raise InputError(f"model: {file} names {len(entries)} tokens, of which the tokenizer has only {len(known)}")
    table = np.zeros(max(vocabulary.ids.values()) + 1, np.float32)
    table[[vocabulary.ids[token] for token in known]] = list(known.values())
    return table


def _special_tokens(folder: Path) -> list[str]:
    """What the tokenizer's files call special, in the several ways in which they do."""
    found: list[Any] = []
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        for key, value in (read_json(folder / name) or {}).items():
            if key.endswith("_token"):
                found.append(value)
            elif key in ("additional_special_tokens", "extra_special_tokens"):
                found.extend(value.values() if isinstance(value, dict) else value or [])
    return [token["content"] if isinstance(token, dict) else token for token in found if token]
