"""Memory that was freed goes back: to the operating system, not to a heap that keeps it."""

from __future__ import annotations

import asyncio
import ctypes
from pathlib import Path

import pytest

from ragkit.serving import memory

glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@glibc
def test_pieces_between_pieces_go_back() -> None:
    """Blocks of a page or more, too small to be mapped by themselves; every other one is freed, and none lies at an end."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    size, count = 64 << 10, 2048
    blocks = [libc.malloc(size) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[1:-1:2]:
        libc.free(block)
    kept = resident()
    assert memory.give_back()
    assert resident() < kept - size * count // 4
    for block in [blocks[0], *blocks[2::2], blocks[-1]]:
        libc.free(block)


def test_elsewhere_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not memory.give_back()


async def test_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    twice = asyncio.Event()
    loop = asyncio.get_running_loop()

    def give_back() -> None:
        calls.append(None)
        if len(calls) == 2:
            loop.call_soon_threadsafe(twice.set)

    monkeypatch.setattr(memory, "_EVERY_S", 0.001)
    monkeypatch.setattr(memory, "give_back", give_back)
    task = asyncio.create_task(memory.give_back_now_and_then())
    await asyncio.wait_for(twice.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
