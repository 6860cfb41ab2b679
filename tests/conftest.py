"""Shared fixtures: a fast stand-in for a dense encoder, and the real data where it is there."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragkit.documents.tokens import RegexTokenizer

os.environ.setdefault("HF_HUB_OFFLINE", "1")


class HashEncoder:
    """Bags of hashed words: texts that share words are near each other. Counts what it encodes."""

    def __init__(self, dimension: int = 64, name: str = "hash") -> None:
        self.dimension = dimension
        self.name = name
        self.tokenizer = RegexTokenizer()
        self.encoded = 0

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"kind": "hash", "model": self.name, "dimension": self.dimension}

    def encode_queries(self, texts: Sequence[str]) -> Any:
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, zlib.crc32(word.encode("utf-8", "replace")) % self.dimension] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    async def aencode_queries(self, texts: Sequence[str]) -> Any:
        return self.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str], progress: Any = None) -> Any:
        self.encoded += len(texts)
        return self.encode_queries(texts)


@pytest.fixture
def encoder() -> HashEncoder:
    return HashEncoder()


@pytest.fixture(scope="session")
def make_encoder() -> type[HashEncoder]:
    return HashEncoder


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("RAGKIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; set RAGKIT_DATA to run this test")
    return folder
