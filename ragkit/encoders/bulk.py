"""Vectors of many texts to a file, in a run that may be killed and started again."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ragkit.encoders.base import Encoder, Progress, Vectors
from ragkit.errors import InputError


def encode_to_file(
    encoder: Encoder, texts: Sequence[str], path: str | Path, *, chunk: int = 8192, progress: Progress | None = None
) -> Vectors:
    """Write the vectors of passages to the .npy file `path`, [n, dimension] float32, and give them back memory-mapped.

    Until all is done they are in `path` + ".partial", and `path` + ".journal" says how many are safe on the disk: after each
    `chunk` texts. The same call goes on from there after a kill, and the result is that of a run without one. `progress` is told
    of texts that an earlier run has done, too. One process at a time may write a file.

    Raises `InputError` if `path` exists already, or was begun with other texts, another encoder or another `chunk`, and for
    vectors of another shape, NaN or infinity.
    """
    path = Path(path)
    partial, journal = (path.with_name(path.name + ending) for ending in (".partial", ".journal"))
    if chunk < 1:
        raise InputError(f"chunk: must be at least 1, not {chunk}")
    if path.exists():
        raise InputError(f"path: {path} exists already; delete it or choose another")
    job = _job(encoder, texts, chunk)
    done = _done(journal, job) if partial.is_file() else 0
    if done:
        vectors = np.lib.format.open_memmap(partial, "r+")
        if progress:
            progress(done)
    else:
        journal.unlink(missing_ok=True)  # one that a kill or a person has left behind would vouch for the new file
        vectors = np.lib.format.open_memmap(partial, "w+", np.dtype(np.float32), (len(texts), encoder.dimension))
    for start in range(done, len(texts), chunk):
        end = min(start + chunk, len(texts))
        encoded = np.asarray(encoder.encode_documents(texts[start:end], progress))
        if encoded.shape != vectors[start:end].shape or not np.isfinite(encoded).all():
            raise InputError(
                f"encoder: gave vectors of shape {encoded.shape}, or not finite; needed are finite ones of shape "
                f"{vectors[start:end].shape}"
            )
        vectors[start:end] = encoded
        vectors.flush()
        _note(journal, job, end)
    del vectors  # some systems do not rename what is mapped
    partial.replace(path)
    journal.unlink(missing_ok=True)
    finished: Vectors = np.load(path, mmap_mode="r")
    return finished


def _job(encoder: Encoder, texts: Sequence[str], chunk: int) -> str:
    """A hash of all that the vectors depend on."""
    hasher = blake2b(json.dumps([encoder.fingerprint, chunk], sort_keys=True).encode(), digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.hexdigest()


def _done(journal: Path, job: str) -> int:
    """How many texts of the job are done. Raises `InputError` if the journal is that of another."""
    if not journal.is_file():
        return 0
    noted = json.loads(journal.read_text(encoding="utf-8"))
    if noted["job"] != job:
        raise InputError(f"path: {journal} is of other texts, another encoder or another chunk; delete it to start anew")
    return int(noted["done"])


def _note(journal: Path, job: str, done: int) -> None:
    """Replace the journal in one step, so that a kill leaves a whole one."""
    new = journal.with_name(journal.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        json.dump({"job": job, "done": done}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(journal)
