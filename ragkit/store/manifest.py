"""The manifest of an index directory: which generation is published, and which files it consists of.

Replacing `manifest.json` is the commit. Everything it names is immutable, except the SQLite database, whose rows carry their own
generations; so a process that is killed at any moment leaves the previous manifest and all it names untouched.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ragkit.errors import StoreError

FORMAT = 2
NAME = "manifest.json"


class FileRecord(BaseModel):
    """Size in bytes and BLAKE2b digest of an immutable file."""

    model_config = ConfigDict(extra="forbid")

    bytes: int
    blake2b: str


class Manifest(BaseModel):
    """What `manifest.json` holds.

    `indexes` maps an index's name to the settings it was built with; `split` says how files, if any, were made into passages.
    """

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    generation: int = 0
    indexes: dict[str, dict[str, Any]] = {}
    split: dict[str, Any] | None = None
    files: dict[str, FileRecord] = {}


def read_manifest(directory: Path) -> Manifest:
    """The published manifest. Raises `StoreError` if there is none, if it is damaged, or if it has another format version."""
    path = directory / NAME
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise StoreError(f"no index at {directory}; build one with: ragkit index PATH --out {directory}") from None
    except OSError as error:  # nothing is known to be wrong with what is there
        raise StoreError(f"cannot read {path}: {error.strerror}; name an index directory that may be read") from error
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error}); delete {directory} and index again") from error
    version = data.get("format") if isinstance(data, dict) else None
    if version != FORMAT:
        raise StoreError(f"{directory} has index format {version}, this ragkit reads format {FORMAT}; delete it and index again")
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        raise StoreError(f"{path} is damaged ({error.errors()[0]['msg']}); delete {directory} and index again") from error


def check_files(directory: Path, manifest: Manifest, *, contents: bool = False) -> None:
    """Raise `StoreError` if a file is missing or has another size or, with `contents`, another digest than recorded."""
    for name, record in manifest.files.items():
        path = directory / name
        if not path.is_file():
            raise StoreError(f"{directory} is damaged: {name} is missing; delete it and index again")
        if path.stat().st_size != record.bytes or (contents and _digest(path) != record.blake2b):
            raise StoreError(f"{directory} is damaged: {name} is not what was written; delete it and index again")


def publish(directory: Path, manifest: Manifest) -> None:
    """Make `manifest` the published one, atomically and durably. The files it names must already be synced."""
    draft = directory / f"{NAME}.draft"
    with draft.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, directory / NAME)
    sync_directory(directory)


def seal(directory: Path, root: Path, previous: Manifest) -> dict[str, FileRecord]:
    """Sync every file below `directory` to disk and return their records, by path relative to `root`.

    A file that is a hard link to one that `previous` names is known already and not read again.
    """
    known = {}
    for name, record in previous.files.items():
        try:
            known[(root / name).stat().st_ino] = record
        except OSError:
            continue
    records = {}
    for path in sorted(directory.rglob("*")):
        if path.is_dir():
            sync_directory(path)
            continue
        status = path.stat()
        name = path.relative_to(root).as_posix()
        if status.st_nlink > 1 and status.st_ino in known:
            records[name] = known[status.st_ino]
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
        records[name] = FileRecord(bytes=status.st_size, blake2b=_digest(path))
    sync_directory(directory)
    sync_directory(directory.parent)
    return records


def link_files(old: Path, new: Path) -> bool:
    """Give `new` hard links to all files of the folder `old`; returns whether the file system lets us."""
    try:
        shutil.copytree(old, new, copy_function=os.link)
    except OSError:
        return False
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    if os.name == "nt":  # Windows cannot open a directory, and needs no sync for a rename
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
