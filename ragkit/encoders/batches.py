"""Rows of tokens to batches of equal cost, and batches to the cores of a CPU."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from itertools import islice
from threading import Barrier, Lock
from typing import TypeVar

R = TypeVar("R")
Batch = list[int]

_CACHED = 2048  # tokens that a core takes at once: what becomes of more of them does not stay in its cache
_LEAST = 256  # tokens that are worth a batch of their own
_PER_CORE = 4  # batches that a core gets at least, so that all are done at about the same time

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = Lock()


def _forget() -> None:
    """A child process has none of its parent's threads, and nobody in it would open a lock that another thread held."""
    global _lock
    _lock = Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def equal_batches(lengths: Sequence[int], budget: int) -> Iterator[Batch]:
    """Indices of rows, longest first, in batches whose padded size is at most `budget` (a longer row goes alone)."""
    batch: Batch = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def run_batches(read: Callable[[Batch], R], lengths: Sequence[int], budget: int, device: str) -> Iterator[tuple[Batch, R]]:
    """Batches of at most `budget` tokens, padding included, and what `read` made of each; in the order of `equal_batches`.

    On a CPU as many of them are read at once as torch has threads, each on one thread: small matrices, which texts are, gain
    less from being shared out. Where there are fewer batches, one after the other has all threads. What `read` raises is raised
    here.
    """
    cores = _cores() if device.startswith("cpu") else 1
    if device.startswith("cpu"):
        share = sum(lengths) // (_PER_CORE * cores)
        budget = min(budget, _CACHED if cores == 1 else max(min(share, _CACHED), _LEAST))
    batches = list(equal_batches(lengths, budget))
    if cores == 1 or len(batches) < cores:
        yield from ((batch, read(batch)) for batch in batches)
    else:
        yield from _at_once(read, batches, cores)


def _cores() -> int:
    import torch

    with _lock:  # a thread whose first question this is would keep what `_pool` sets for a moment
        return torch.get_num_threads()


def _at_once(read: Callable[[Batch], R], batches: Sequence[Batch], cores: int) -> Iterator[tuple[Batch, R]]:
    pool, waiting = _pool(cores), iter(batches)
    running: deque[tuple[Batch, Future[R]]] = deque((batch, pool.submit(read, batch)) for batch in islice(waiting, 2 * cores))
    try:
        while running:
            batch, future = running.popleft()
            result = future.result()
            running.extend((batch, pool.submit(read, batch)) for batch in islice(waiting, 1))
            yield batch, result
    finally:
        for _, future in running:
            future.cancel()


def _pool(cores: int) -> ThreadPoolExecutor:
    """Threads in which torch has one thread each."""
    import torch

    with _lock:
        if cores not in _pools:
            pool, met = ThreadPoolExecutor(cores, "ragkit-batches", initializer=_alone), Barrier(cores)
            try:
                # all are there once they have met
                done, _ = wait([pool.submit(met.wait) for _ in range(cores)], return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            finally:
                met.abort()
                # the number for threads to come, which they have changed
                torch.set_num_threads(cores)
            _pools[cores] = pool
        return _pools[cores]


def _alone() -> None:
    import torch

    torch.set_num_threads(1)
    torch.get_num_threads()  # only now is it this thread's, whatever others set
