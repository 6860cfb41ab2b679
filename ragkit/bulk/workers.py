"""Work on many items by several processes: what all kinds of workers promise, and processes of this machine."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, NamedTuple, Protocol, TypeVar

from ragkit.errors import InputError, RagkitError

T = TypeVar("T")
R = TypeVar("R")

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
_work: Callable[[Any], Any] | None = None  # of a process that was started by `Processes`


class Workers(Protocol):
    """Processes, here or elsewhere, that do the same work for many items."""

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """The place of each item and what `work` made of it, each once, as they are done and so in any order.

        `work`, items and results are pickled. A worker gets `work` once, so what that loads is loaded once. An item may be worked
        on again after a worker was lost. An error of `work` ends all, as an `InputError` if it was one, else as a `RagkitError`.
        """
        ...


@dataclass(frozen=True)
class Processes:
    """So many processes of this machine, which share its cores; or one for each GPU named in `gpus`, as CUDA numbers them.

    A script that uses them must be importable: keep its start under `if __name__ == "__main__"`.
    """

    count: int = 2
    gpus: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"count: must be at least 1, not {self.count}")

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """See `Workers.map`. Raises `InputError` for what cannot be pickled, and `RagkitError` if a process dies."""
        if not items:
            return
        _check_picklable((work, items))
        # never more than there are items: each costs the loading of a model
        places: list[str | None] = [*(self.gpus or [None] * self.count)][: len(items)]
        context = get_context("spawn")  # a fork would share the locks and threads of torch and faiss
        free = context.SimpleQueue()
        for place in places:
            free.put(place)
        threads = max(1, (os.cpu_count() or 1) // len(places))
        pool = ProcessPoolExecutor(len(places), context, _start, (work, free, threads))
        try:
            waiting = {pool.submit(_do, item): number for number, item in enumerate(items)}
            for done in as_completed(waiting):
                yield waiting[done], settled(done.result())
        except BrokenProcessPool:
            raise RagkitError(
                "a worker process died, perhaps for want of memory; run the same again, with fewer processes: it goes on"
            ) from None
        finally:
            # once: another call, such as that of the pool's own context manager, would take back that the rest is cancelled
            pool.shutdown(cancel_futures=True)


def _check_picklable(given: Any) -> None:
    try:
        pickle.dumps(given)
    except Exception as error:
        raise InputError(
            f"workers: what processes are given cannot be pickled ({error}); give functions of a module, bound to arguments by "
            "functools.partial, not lambdas"
        ) from None


class Failure(NamedTuple):
    """An error on its way from a worker: not every exception survives pickling."""

    message: str
    of_input: bool
    trace: str = ""
    """Of an error that nobody raised on purpose."""


def guarded(work: Callable[[T], R], item: T) -> R | Failure:
    """What `work` makes of the item, or why it could not."""
    try:
        return work(item)
    except RagkitError as error:
        return Failure(str(error), isinstance(error, InputError))
    except Exception as error:
        return Failure(f"a worker failed: {type(error).__name__}: {error}", False, traceback.format_exc())


def settled(result: R | Failure) -> R:
    """The result. Raises the error that it is instead."""
    if isinstance(result, Failure):
        cause = RuntimeError(f"in a worker\n{result.trace}") if result.trace else None
        raise (InputError if result.of_input else RagkitError)(result.message) from cause
    return result


def _start(work: Callable[[Any], Any], free: Any, threads: int) -> None:
    global _work
    _work = work
    Thread(target=_end_with_parent, daemon=True).start()
    gpu = free.get()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    # libraries read these when they are loaded; what a user has said stays
    for name in _THREADS:
        os.environ.setdefault(name, str(threads))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def _end_with_parent() -> None:
    """A pool whose process was killed ends nobody: its workers would wait for more to do, each with its model."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(item: Any) -> Any:
    assert _work is not None
    return guarded(_work, item)
