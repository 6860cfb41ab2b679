"""What workers of the tests encode with: importable by name in every process."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragkit.documents.tokens import RegexTokenizer
from ragkit.errors import InputError


class SlowEncoder:
    """Vectors that depend on a text and on its place in the call, so that only equal calls give equal vectors.

    Notes each call in a file of the folder `log`, once it is done, and takes `seconds` for it. Dies at a text with "poison".
    """

    def __init__(self, log: Path | None = None, seconds: float = 0.0, name: str = "slow") -> None:
        self.log, self.seconds, self.name = log, seconds, name
        self.dimension, self.tokenizer, self.encoded = 32, RegexTokenizer(), 0

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"kind": "slow", "model": self.name}

    def encode_queries(self, texts: Sequence[str]) -> Any:
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, int(hashlib.md5(word.encode("utf-8", "replace")).hexdigest(), 16) % self.dimension] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    async def aencode_queries(self, texts: Sequence[str]) -> Any:
        return self.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str], progress: Any = None) -> Any:
        if any("poison" in text for text in texts):
            os._exit(1)
        time.sleep(self.seconds)
        self.encoded += len(texts)
        vectors = self.encode_queries(texts)
        vectors[:, 0] += np.arange(len(texts)) * np.float32(1e-4)
        if self.log is not None:
            with (self.log / f"{os.getpid()}").open("a") as file:
                file.write(hashlib.md5("\0".join(texts).encode("utf-8", "replace")).hexdigest() + "\n")
        return vectors


def calls(log: Path) -> list[str]:
    """A hash of the texts of every call that was finished, in any process."""
    return sorted(line for file in log.iterdir() for line in file.read_text().split())


def refuse(item: str) -> None:
    raise InputError("texts: refused")


class Odd(Exception):
    """Does not survive pickling."""

    def __init__(self, what: str, *, item: str) -> None:
        super().__init__(f"{what} at {item}")


def break_down(item: str) -> None:
    raise Odd("broke down", item=item)


def note(log: Path, item: int) -> None:
    time.sleep(0.05)
    (log / str(item)).touch()


def place(item: int) -> tuple[int, str | None, str | None]:
    """The process, the GPU that it sees, and its number of threads."""
    time.sleep(0.1)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_NUM_THREADS")
