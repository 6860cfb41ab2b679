"""Feedback in SQLite: what is written, who may write at once, what a kill leaves, and that `ragkit tidy` reads it."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from langchain_core.documents import Document

from ragkit import BM25Retriever, InputError, Pipeline, RagkitError
from ragkit.care.importance import Vote
from ragkit.care.votes import read_votes
from ragkit.chains.conversation import Conversation, Turn
from ragkit.chains.feedback import FeedbackLog

MAKE_TURN = """
from ragkit.chains.answer import Answer
from ragkit.chains.context import Citation, GroundedContext, GroundedPassage
from ragkit.chains.conversation import Turn

def turn(name):
    citation = Citation(1, name, "a.txt", 0, 2, "Hm")
    passage = GroundedPassage(1, name, "a.txt", (), None, "a.txt", "Hm", ((0, 2),), ())
    return Turn(name, name, Answer("Hm [1]", (citation,), False, GroundedContext(name, (passage,), 1, 1)), name)
"""


@pytest.fixture(scope="module")
def turns() -> list[Turn]:
    documents = [
        Document(id="a", page_content="The bridge was built in 1932."),
        Document(id="b", page_content="The bridge is red. Boats pass below."),
    ]
    conversation = Conversation(Pipeline(retriever=BM25Retriever.from_documents(documents), k=2))
    return [conversation.ask("When was the bridge built?"), conversation.ask("Is it red \ud800?"), conversation.ask("zzz")]


def test_what_is_logged(turns: list[Turn], tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path / "new" / "log.sqlite")
    log.rate(turns[0], 1)
    log.rate(turns[1], -1, [2])
    log.rate(turns[2], -1)
    first, second, third = log.rows()
    assert (first["question"], first["rating"], first["answer"]) == (turns[0].question, 1, turns[0].answer.text)
    assert first["shown"] == [passage.id for passage in turns[0].answer.context.passages]
    assert set(first["cited"]) == set(first["judged"]) == {citation.id for citation in turns[0].answer.citations}
    assert second["judged"] == [turns[1].answer.context.passages[1].id]
    assert second["standalone"].startswith("Is it red ?? ")
    assert second["question"] != second["standalone"]
    assert third["judged"] == third["shown"] == []
    assert first["time"] <= second["time"] <= third["time"]
    assert first["time"].endswith("+00:00")


def test_votes_are_what_ragkit_tidy_reads(turns: list[Turn], tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path / "log.sqlite")
    log.rate(turns[0], 1)
    log.rate(turns[1], -1, [1])
    log.rate(turns[1], -1, [1, 2, 1])  # said again, in other words
    question = log.rows()[1]["standalone"]
    expected = [Vote(turns[0].standalone, id_, 1) for id_ in log.rows()[0]["cited"]]
    expected += [Vote(question, passage.id, -1) for passage in turns[1].answer.context.passages]
    assert sorted(read_votes(log.path)) == sorted(expected)


@pytest.mark.parametrize(("rating", "numbers", "said"), [(0, None, "rating"), (True, None, "rating"), (1, [3], "no passage 3")])
def test_what_is_refused(turns: list[Turn], tmp_path: Path, rating: int, numbers: list[int] | None, said: str) -> None:
    log = FeedbackLog(tmp_path / "log.sqlite")
    with pytest.raises(InputError, match=said):
        log.rate(turns[0], rating, numbers)  # type: ignore[arg-type]
    assert log.rows() == []


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    other, broken = tmp_path / "other.sqlite", tmp_path / "broken.sqlite"
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE people (name TEXT)")
    broken.write_bytes(b"no database, but long enough to be looked at " * 50)
    for path in (other, broken):
        before = path.read_bytes()
        with pytest.raises(RagkitError, match=str(path)):
            FeedbackLog(path)
        assert path.read_bytes() == before


def test_several_processes_and_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    write = MAKE_TURN + (
        "import sys\nfrom ragkit.chains.feedback import FeedbackLog\n"
        "log = FeedbackLog(sys.argv[1])\nprint('ready', flush=True)\n"
        "for n in range(int(sys.argv[3])):\n    log.rate(turn(f'{sys.argv[2]}-{n}'), 1)\n"
        "    if n == 5: print('some', flush=True)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", write, str(path), name, count], stdout=subprocess.PIPE)
        for name, count in (("a", "20"), ("b", "20"), ("killed", "1000000"))
    ]
    killed = writers[2]
    assert killed.stdout is not None
    assert [killed.stdout.readline(), killed.stdout.readline()] == [b"ready\n", b"some\n"]
    os.kill(killed.pid, signal.SIGKILL)
    assert [writer.communicate() and writer.returncode for writer in writers] == [0, 0, -signal.SIGKILL]
    log = FeedbackLog(path)
    names = [row["turn"] for row in log.rows()]
    assert {f"{name}-{n}" for name in "ab" for n in range(20)} < set(names)
    survived = [name for name in names if name.startswith("killed")]
    assert survived == [f"killed-{n}" for n in range(len(survived))]
    assert len(survived) >= 6
    assert len(read_votes(path)) == len(names)
