"""Memory that nothing uses goes back to the operating system."""

from __future__ import annotations

import asyncio
import ctypes
import os
from typing import Any

_EVERY_S = 1.0


async def give_back_now_and_then() -> None:
    """Until it is cancelled."""
    while True:
        await asyncio.sleep(_EVERY_S)
        await asyncio.to_thread(give_back)


def give_back() -> bool:
    """Whether there was something; False also where the C library is not glibc.

    Batches of many lengths allocate and free tensors of many sizes. What glibc keeps of them falls to pieces that the next
    batch cannot use, and so grows: to twice what was in use, where this was measured.
    """
    # elsewhere a process cannot be looked through for a function
    trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    return trim is not None and bool(trim(0))
