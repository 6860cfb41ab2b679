"""Shared fixtures: a fast stand-in for a dense encoder, and the real data where it is there."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from ragkit.documents.tokens import RegexTokenizer
from ragkit.encoders.folder import locate
from ragkit.encoders.pairs import PairTokenizer
from ragkit.provence.family import Family
from ragkit.provence.model import ProvenceModel
from ragkit.provence.pair import PASSAGE, Logits, Pair, Window

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# no test depends on how fast the machine is; the first call of a compiled function takes seconds
hypothesis.settings.register_profile("ragkit", deadline=None)
hypothesis.settings.load_profile("ragkit")

_LONGEST = {"test_readme.py", "test_examples.py", "test_cluster.py", "test_kill.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest first: with one of them left at the end, all processes but one would have nothing to do."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


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


class FakeNetwork:
    """A Provence network that looks at nothing but a token's characters; a window ranks as high as its best token.

    Which window a token stands in makes no difference, so windows and batches must not either. Remembers what it was given.
    """

    def __init__(self, keep: Callable[[str], float] | None = None) -> None:
        self.keep = keep or (lambda text: zlib.crc32(text.lower().encode("utf-8", "replace")) % 101 / 100)
        self.batches: list[Sequence[Window]] = []

    @property
    def pairs(self) -> list[Pair]:
        """The pair of each window that was read, in the order of reading."""
        return [window.pair for batch in self.batches for window in batch]

    def accompany(self, pairs: Sequence[Pair]) -> list[Pair]:
        return list(pairs)

    def __call__(self, windows: Sequence[Window]) -> Logits:
        self.batches.append(windows)
        keep = [self.of_window(window) for window in windows]
        inside = [its_keep[window.segments == PASSAGE] for its_keep, window in zip(keep, windows, strict=True)]
        return Logits(np.array([np.max(values, initial=0.0) * 8 - 4 for values in inside]), keep)

    def of_window(self, window: Window) -> Any:
        text, places = window.pair.passage, zip(window.starts, window.ends, window.segments, strict=True)
        return np.array([self.keep(text[start:end]) if kind == PASSAGE else 0.5 for start, end, kind in places], np.float32)


@cache
def minilm(length: int) -> PairTokenizer:
    return PairTokenizer(locate(None), length)


@pytest.fixture(scope="session")
def make_network() -> type[FakeNetwork]:
    return FakeNetwork


@pytest.fixture(scope="session")
def make_provence() -> Callable[..., ProvenceModel]:
    """A Provence model over a fake network and the tokenizer of MiniLM; keyword arguments change its family."""
    plain = Family("fake", "raw", "mean", 0.5, False, False, 512, None)

    def make(network: Any = None, *, tokenizer: PairTokenizer | None = None, batch_tokens: int = 8192, **changes: Any) -> Any:
        family = replace(plain, **changes)
        network = FakeNetwork() if network is None else network
        return ProvenceModel(network, family, tokenizer or minilm(family.max_length), batch_tokens=batch_tokens)

    return make


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """More threads only slow small models and short passages down."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def without_float64() -> Callable[[Any], Any]:
    """Makes a tensor like one on a device that has no float64 (MPS): it must be on the CPU before it is converted."""
    import torch

    class Tensor(torch.Tensor):
        def double(self) -> Any:  # type: ignore[override]
            raise TypeError("this device has no float64")

        def cpu(self) -> Any:  # type: ignore[override]
            return self.as_subclass(torch.Tensor)

    return lambda tensor: tensor.as_subclass(Tensor)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("RAGKIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; set RAGKIT_DATA to run this test")
    return folder
