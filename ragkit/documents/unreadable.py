"""The error for a file that gives no text."""

from __future__ import annotations

from ragkit.errors import RagkitError


class UnreadableFile(RagkitError):
    """A file that could not be read; `path` and the short `reason` make up its text."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class EmptyFile(UnreadableFile):
    """A file that holds no text: nothing at all, only white space, a page without words, JSON without records."""
