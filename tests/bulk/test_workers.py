"""Processes of this machine: who gets which part of it."""

from __future__ import annotations

import os

import pytest
from bulk_encoders import place

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
