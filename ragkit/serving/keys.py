"""API keys: a file of their digests, and what each of them may do."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ragkit.corpus.filters import compile_filter
from ragkit.errors import InputError

_PREFIX = "ragkit_"


class Key(BaseModel):
    """What the service knows of a key, which is not the key itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100)
    """Whose it is; unique in its file."""
    # keys are 256 random bits, made here: nobody can guess one from its digest, however fast the digest is. A slow one, which
    # passwords need because people choose them, would only let strangers keep the service busy
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Digest of the key, in hex."""
    filter: dict[str, Any] | None = None
    """The passages that it may see, as a metadata filter; None is all of them."""
    filter_fields: tuple[str, ...] = ()
    """The metadata fields by which a key with a `filter` may filter further."""
    requests_per_minute: int | None = Field(default=None, gt=0)
    concurrent: int | None = Field(default=None, gt=0)
    """Requests at once."""
    metrics: bool = False
    """Whether it is for /metrics, and for nothing else."""

    @field_validator("filter")
    @classmethod
    def _compiles(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            if _has_gap(value):
                raise ValueError(
                    "is empty, or a part of it is, which would let everything through; leave it out if that is meant"
                )
            compile_filter(value)
        return value


def _has_gap(value: Any) -> bool:
    """Whether a filter, or a part of one, names nothing that a passage must have or must not have."""
    if not isinstance(value, dict | list):
        return False
    return not value or any(map(_has_gap, value.values() if isinstance(value, dict) else value))


EVERYBODY = Key(name="everybody", sha256="0" * 64, metrics=True)
"""Who calls a service without keys."""


def digest(key: bytes) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key).hexdigest()


def holder(keys: Sequence[Key], presented: bytes) -> Key | None:
    """The key that was presented, if it is one of these. Takes as long for a wrong one as for a right one."""
    known, found = digest(presented), None
    for key in keys:
        if hmac.compare_digest(key.sha256, known):
            found = key
    return found


def read_keys(path: str | Path) -> tuple[Key, ...]:
    """The keys of a file that `add_key` writes: JSON, `{"keys": [...]}`. Raises `InputError` naming the file and the key."""
    try:
        data = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"keys: cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InputError(f"keys: {path} is not valid JSON: {error}") from None
    if not isinstance(data, dict) or data.keys() != {"keys"} or not isinstance(data["keys"], list):
        raise InputError(f'keys: {path} must hold {{"keys": [...]}}; make it with `ragkit serve-key`')
    keys = tuple(_key(path, n, entry) for n, entry in enumerate(data["keys"]))
    for what in ("name", "sha256"):
        if len({getattr(key, what) for key in keys}) < len(keys):
            raise InputError(f"keys: two keys of {path} have the same {what}; give each its own")
    return keys


def add_key(path: str | Path, name: str, **settings: Any) -> str:
    """Make a key, add its digest to the file (made if it is not there), and return the key, which is kept nowhere.

    `settings` are fields of `Key`. Raises `InputError` for a name that the file has already, or settings that are wrong.
    """
    path = Path(path)
    secret = _PREFIX + secrets.token_urlsafe(32)
    with FileLock(f"{path}.lock"):
        keys = read_keys(path) if path.exists() else ()
        if any(key.name == name for key in keys):
            raise InputError(f"name: {path} has a key {name!r} already; choose another name, or delete that entry")
        key = _key(path, len(keys), {"name": name, "sha256": digest(secret.encode()), **settings})
        entries = [one.model_dump(mode="json", exclude_defaults=True) for one in (*keys, key)]
        draft = path.with_name(f"{path.name}.draft")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(json.dumps({"keys": entries}, indent=1, ensure_ascii=False) + "\n")
        draft.replace(path)
    return secret


def _key(path: str | Path, n: int, entry: Any) -> Key:
    try:
        return Key.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("keys", n, *first["loc"])))
        raise InputError(f"keys: {path}: {place}: {first['msg'].removeprefix('Value error, ')}") from None
