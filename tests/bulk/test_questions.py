"""Many questions: the answers of the pipeline itself, in order, each failure with its question."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bulk_encoders import SlowEncoder
from bulk_pipelines import failing_pipeline

from ragkit import InputError, Pipeline, RagkitError
from ragkit.bulk.questions import ground_many, retrieve_many
from ragkit.bulk.workers import guarded, settled
from ragkit.store.indexer import index_paths
from ragkit.store.store import Store, bm25_and_dense

QUESTIONS = ["red fox", "FAIL here", *[f"moss file {n}" for n in range(9)], "", "red fox"]


class Backwards:
    """Workers that answer the last item first; everything is pickled on its way."""

    def map(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        own = pickle.loads(pickle.dumps(work))
        for number in reversed(range(len(items))):
            yield number, settled(pickle.loads(pickle.dumps(guarded(own, items[number]))))


class Losing(Backwards):
    def map(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        return (pair for pair in super().map(work, items) if pair[0])


@pytest.fixture
def index(tmp_path: Path, make_folder: Callable[..., Path]) -> str:
    with Store.create(tmp_path / "index", bm25_and_dense(SlowEncoder())) as store:
        index_paths(store, [make_folder(tmp_path / "docs", 4)], size=32)
    return str(tmp_path / "index")


def comparable(answers: list[Any]) -> list[Any]:
    return [("failed", str(answer)) if isinstance(answer, Exception) else answer for answer in answers]


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_the_answers_are_those_of_the_pipeline(index: str, at_once: int) -> None:
    make = partial(failing_pipeline, index)
    expected = make().batch(QUESTIONS, return_exceptions=True, k=2)
    told: list[Any] = []
    found = retrieve_many(
        make, QUESTIONS, Backwards(), k=2, at_once=at_once, progress=lambda done, total: told.append((done, total))
    )
    # the exception could not have been pickled; another one says the same
    assert str(found[1]) == f"MissingExtraError: {expected[1]}"
    assert isinstance(found[1], RagkitError)
    del found[1], expected[1]
    assert comparable(found) == comparable(expected)
    assert told[-1] == (len(QUESTIONS), len(QUESTIONS))


def test_grounded(index: str) -> None:
    make = partial(failing_pipeline, index)
    [*expected] = make().ground_batch(QUESTIONS, return_exceptions=True, max_tokens=40)
    found = ground_many(make, QUESTIONS, Backwards(), max_tokens=40, at_once=4)
    assert isinstance(found[1], RagkitError)
    shown = [[(c.question, c.passages, c.tokens_kept) for c in its if not isinstance(c, Exception)] for its in (found, expected)]
    assert shown[0] == shown[1]
    assert len(shown[0]) == len(QUESTIONS) - 1


def test_a_pipeline_from_a_file(index: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("retriever: {type: bm25, k: 4}\nk: 2\n")
    make = partial(Pipeline.from_config, tmp_path / "mine.yaml", store=index)
    assert retrieve_many(make, QUESTIONS, Backwards()) == make().batch(QUESTIONS)


def test_wrong_input(index: str, tmp_path: Path) -> None:
    make = partial(failing_pipeline, index)
    with pytest.raises(InputError, match=r"^questions: must be strings, not int"):
        retrieve_many(make, ["a", 1], Backwards())  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"^questions: must be a list, not one str; give \['red fox'\]"):
        retrieve_many(make, "red fox", Backwards())
    with pytest.raises(InputError, match=r"^at_once: "):
        retrieve_many(make, ["a"], Backwards(), at_once=0)
    with pytest.raises(InputError, match="cannot read config"):
        retrieve_many(partial(Pipeline.from_config, tmp_path / "absent.yaml"), ["a"], Backwards())
    assert retrieve_many(make, [], Backwards()) == []


def test_answers_that_workers_lose_are_missed(index: str) -> None:
    with pytest.raises(RagkitError, match="lost"):
        retrieve_many(partial(failing_pipeline, index), QUESTIONS, Losing(), at_once=2)
