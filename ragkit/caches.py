"""Where things lie that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """ragkit's folder in the user's cache (`XDG_CACHE_HOME`, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ragkit"
