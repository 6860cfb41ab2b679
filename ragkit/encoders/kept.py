"""An encoder that keeps the vectors of passages in a folder, where other processes and later runs find them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ragkit.documents.provenance import content_id
from ragkit.encoders.base import Encoder, Progress, Vectors
from ragkit.encoders.over import EncoderOver
from ragkit.errors import InputError, RagkitError


class KeptEncoder(EncoderOver):
    """An `Encoder` whose vectors of passages are written to a folder, one part for the texts of one call.

    A part is named by the texts and the encoder's fingerprint, and is there whole or not at all. So the same call gives the same
    numbers again without encoding: after a kill, and in every process that shares the folder. It can be pickled, and
    each process makes an encoder of its own, with `make`, when it first needs one.

    Raises `InputError` if an encoder made elsewhere has another fingerprint, and for vectors of a wrong shape or not finite.
    """

    def __init__(self, make: Callable[[], Encoder], folder: str | Path) -> None:
        """`make` must be picklable, such as `functools.partial(DenseEncoder, "model")`; the folder is made when it is needed."""
        self.folder = Path(folder).absolute()
        self._make = make
        self._expected: Mapping[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_make": self._make, "_expected": dict(self.fingerprint)}

    @cached_property
    def encoder(self) -> Encoder:
        """The one that this process has made."""
        encoder = self._make()
        if self._expected is not None and dict(encoder.fingerprint) != self._expected:
            raise InputError(
                f"encoder: a worker has another one ({encoder.fingerprint.get('model')!r}) than the process that started it "
                f"({self._expected.get('model')!r}); install the same model on every machine"
            )
        return encoder

    def encode_documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Vectors of passages, from their part if there is one. `progress` is told of texts from a part, too."""
        part = self.part(texts)
        if part.is_file():
            vectors = self._read(part, len(texts))
            if progress:
                progress(len(texts))
            return vectors
        vectors = np.asarray(self.encoder.encode_documents(texts, progress), np.float32)
        if vectors.shape != (len(texts), self.dimension) or not np.isfinite(vectors).all():
            raise InputError(
                f"encoder: gave vectors of shape {vectors.shape}, or not finite; needed are finite ones of shape "
                f"{(len(texts), self.dimension)}"
            )
        write_whole(part, lambda file: np.save(file, vectors, allow_pickle=False))
        return vectors

    def part(self, texts: Sequence[str]) -> Path:
        """Where the vectors of a call with these texts are, or will be."""
        return self.folder / f"{content_id(dict(self.fingerprint), list(texts))}.npy"

    def _read(self, part: Path, count: int) -> Vectors:
        try:
            vectors: Vectors = np.load(part, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RagkitError(f"{part} cannot be read ({error}); delete it and run again") from None
        if vectors.shape != (count, self.dimension):
            raise RagkitError(f"{part} has vectors of shape {vectors.shape}, not {(count, self.dimension)}; delete it")
        return vectors


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Make a file that is there whole, and safe on the disk, or not there at all; its folder is made if need be.

    Several processes may write the same file at once, if they write the same.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".draft")
    try:
        with open(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
