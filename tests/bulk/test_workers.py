"""Processes of this machine: who gets which part of it."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import pytest
from bulk_encoders import break_down, note, place

from ragkit import InputError, RagkitError
from ragkit.bulk.workers import Processes


def test_each_process_sees_a_gpu_of_its_own() -> None:
    found = dict(Processes(gpus=("4", "7")).map(place, range(8)))
    assert sorted(found) == list(range(8))
    seen = {(process, gpu) for process, gpu, _ in found.values()}
    assert {gpu for _, gpu in seen} <= {"4", "7"}
    assert len({process for process, _ in seen}) == len({gpu for _, gpu in seen}) == len(seen)


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert {threads for _, (_, _, threads) in Processes(3).map(place, range(3))} == {"2"}
    # there is nothing to share for one piece of work
    assert {threads for _, (_, _, threads) in Processes(3).map(place, range(1))} == {"7"}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert {threads for _, (_, _, threads) in Processes(3).map(place, range(3))} == {"1"}


def test_what_is_left_is_not_done_after_the_end(tmp_path: Path) -> None:
    """As after an error, or when the user interrupts."""
    done = Processes(2).map(partial(note, tmp_path), range(60))
    next(done)
    done.close()  # type: ignore[attr-defined]
    assert active_children() == []
    assert len(list(tmp_path.iterdir())) < 30


KILLED = """
import os, signal
from bulk_encoders import place
from ragkit.bulk.workers import Processes

if __name__ == "__main__":
    for _ in Processes(2).map(place, range(100)):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_worker_outlives_its_parent(tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    # its output ends when nobody can write to it any more
    ended = subprocess.run([sys.executable, str(tmp_path / "killed.py")], capture_output=True, timeout=60, check=False)
    assert ended.returncode < 0


def test_errors_that_nobody_foresaw_are_told_as_they_were() -> None:
    with pytest.raises(RagkitError, match=r"^a worker failed: Odd: broke down at x$") as raised:
        list(Processes(1).map(break_down, ["x"]))
    assert 'raise Odd("broke down", item=item)' in str(raised.value.__cause__)


def test_what_cannot_be_pickled_is_refused() -> None:
    for work, items in ((lambda item: item, [1]), (place, [lambda: 1])):
        with pytest.raises(InputError, match=r"^workers: .* cannot be pickled \(.*lambda.*\); give functions of a module"):
            list(Processes(1).map(work, items))  # type: ignore[arg-type]
