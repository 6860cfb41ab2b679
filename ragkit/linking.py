"""Files that never change, in a second directory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def link(old: Path, new: Path) -> bool:
    """Make `new` the same file as `old`, or a copy where the file system has no links; False if `old` is gone."""
    try:
        os.link(old, new)
    except OSError:
        try:
            shutil.copyfile(old, new)
        except FileNotFoundError:
            return False
    return True
