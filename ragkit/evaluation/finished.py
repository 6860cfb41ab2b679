"""Results that are kept from one evaluation to the next, and over an interruption."""

from __future__ import annotations

import json
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from ragkit.documents.provenance import content_id
from ragkit.errors import RagkitError
from ragkit.prompting import shipped_prompts


class Finished:
    """JSON values in a directory, each found by all that it depends on, ragkit's own code and models included.

    A value is written beside its place and then moved there, so that what was killed while it wrote leaves nothing half done.
    Threads and processes may share a directory.
    """

    def __init__(self, directory: str | Path) -> None:
        """The directory is made when the first value is put there."""
        self.directory = Path(directory)

    def get(self, *key: Any) -> Any:
        """The value that was put there under an equal key (of JSON-serialisable parts), or None.

        Raises `RagkitError`, naming the file, if it cannot be read.
        """
        path = self._path(key)
        try:
            return json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RagkitError(f"cache: {path} cannot be read ({error}); delete it") from None

    def put(self, value: Any, *key: Any) -> None:
        """Keep a JSON-serialisable value."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".draft")
        try:
            with open(handle, "w", encoding="utf-8") as file:
                json.dump(value, file, ensure_ascii=False)
            os.replace(draft, path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    def _path(self, key: tuple[Any, ...]) -> Path:
        name = content_id(_code(), *key)
        return self.directory / name[:2] / f"{name}.json"


def file_marks(path: Path) -> list[tuple[str, int, int]]:
    """What changes when a file, or any file below a folder, does: relative path, bytes, and time of change in nanoseconds."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return [(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]


@cache
def _code() -> str:
    """Changes with any file of ragkit's, prompts included, so that no figure outlives the code it came from."""
    return content_id(file_marks(Path(__file__).parents[1]), file_marks(shipped_prompts()))
