"""What ragkit tells its user when something is wrong: one sentence that names the thing and the fix."""

from __future__ import annotations


class RagkitError(Exception):
    """Base of every error that ragkit raises on purpose; its text fits on one line."""


class InputError(RagkitError, ValueError):
    """An argument, a field or a filter is wrong. The command line answers it with exit code 2."""


class StoreError(RagkitError):
    """An index directory is missing, damaged, of another format version, or in use by another writer."""


class StaleSnapshotError(StoreError):
    """Writers have replaced the generation that a reader still holds, and it can no longer be read whole."""


class MissingExtraError(RagkitError, ImportError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency; install it with: pip install 'ragkit[{extra}]'")
