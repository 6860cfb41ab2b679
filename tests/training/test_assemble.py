"""What a run learns from: nothing that is held out, the share that was asked for, and the same on every run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ragkit import InputError
from ragkit.training.assemble import Assembled, assemble
from ragkit.training.config import Dev, Negatives, Source
from ragkit.training.examples import Example, write_examples


def example(name: str, group: str, passage: str, *, gold: bool = True, title: str = "", question: str = "") -> Example:
    return Example(
        id=name,
        group=group,
        question=question or f"What about {group}?",
        title=title,
        sentences=(passage,),
        gold=(0,) if gold else (),
        relevant=gold,
        source="made up",
    )


def many(questions: int, passages: int = 2, titles: int = 10) -> list[Example]:
    """Questions with passages of their own; a passage comes under one title."""
    return [
        example(
            f"e{q}-{p}",
            f"q{q}",
            f"Passage {p} of question {q}. ",
            gold=not p,
            title=f"title {(q * 7 + p) % titles}",
            question=f"Which passage does question {q} have?",
        )
        for q in range(questions)
        for p in range(passages)
    ]


def source(folder: Path, examples: Sequence[Example], name: str = "data.jsonl", **settings: Any) -> Source:
    write_examples(folder / name, examples)
    return Source(kind="examples", path=Path(name), **settings)


def run(folder: Path, *sources: Source, seed: int = 0) -> Assembled:
    return assemble(sources, folder, seed, lambda line: None)


def base(group: str) -> str:
    return group.split("#")[0]


def test_everything_is_taken_in_its_order(tmp_path: Path) -> None:
    first, second = many(3), [example("z", "other", "Something else.")]
    sources = [source(tmp_path, first), source(tmp_path, second, "more.jsonl.gz")]
    lines: list[str] = []
    found = assemble(sources, tmp_path, 0, lines.append)
    assert found == Assembled([*first, *second], [])
    assert lines == [
        "examples data.jsonl: 6 to train on, 0 mined, 0 held out",
        "examples more.jsonl.gz: 1 to train on, 0 mined, 0 held out",
        "7 to train on, 0 left out as their passage is held out, 0 held out",
    ]


@pytest.mark.parametrize("by", ["question", "title"])
def test_what_is_held_out_is_whole_and_never_trained_on(tmp_path: Path, by: Any) -> None:
    examples = many(300, titles=40)
    found = run(tmp_path, source(tmp_path, examples, dev=Dev(share=0.25, by=by)))
    assert sorted(one.id for part in found for one in part) == sorted(one.id for one in examples)
    units = [{one.group if by == "question" else one.title for one in part} for part in found]
    assert not units[0] & units[1]
    assert len(units[1]) == pytest.approx(0.25 * (300 if by == "question" else 40), rel=0.4)
    assert run(tmp_path, source(tmp_path, examples, dev=Dev(share=0.25, by=by)), seed=7).dev == found.dev


def test_by_title_a_passage_without_one_stands_for_itself(tmp_path: Path) -> None:
    examples = [example(f"e{at}", f"q{at}", f"Text {at % 50}.") for at in range(200)]
    found = run(tmp_path, source(tmp_path, examples, dev=Dev(share=0.4, by="title")))
    assert 10 < len({one.passage for one in found.dev}) < 30
    assert not {one.passage for one in found.dev} & {one.passage for one in found.train}
    assert len(found.train) + len(found.dev) == 200


def test_a_held_out_passage_is_left_out_of_all_sources_and_of_what_is_mined(tmp_path: Path) -> None:
    examples = many(60)
    again = [example(f"again {one.id}", f"again {one.group}", one.passage, question=one.question) for one in examples]
    sources = [
        source(tmp_path, again, "before.jsonl", negatives=[Negatives(n=3)]),
        source(tmp_path, examples, dev=Dev(share=0.3), negatives=[Negatives(n=5)]),
        source(tmp_path, again, "after.jsonl", share=2),
    ]
    lines: list[str] = []
    found = assemble(sources, tmp_path, 0, lines.append)
    held_out = {one.passage for one in found.dev}
    assert 10 < len(found.dev) < 70
    assert not held_out & {one.passage for one in found.train}
    assert {one.passage for one in found.train} | held_out == {one.passage for one in examples}
    assert any(one.source == "mined" for one in found.train)
    counts = [int(word) for word in lines[-1].split() if word.isdigit()]
    assert counts == [len(found.train), counts[1], len(found.dev)]
    assert counts[1] > 0


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0, 2.0, 2.3])
def test_a_share_of_the_questions_is_taken_whole_and_the_same_ones_each_time(tmp_path: Path, share: float) -> None:
    examples = many(1000)
    found = run(tmp_path, source(tmp_path, examples, share=share)).train
    taken = Counter(base(one.group) for one in found)
    assert sum(taken.values()) / 2000 == pytest.approx(share, abs=0.05)
    # each question with both of its passages, as often as another one or once more
    assert {count % 2 for count in taken.values()} == {0}
    assert {count // 2 for count in taken.values()} <= {int(share), int(share) + (share % 1 > 0)}
    assert run(tmp_path, source(tmp_path, examples, share=share)).train == found
    assert run(tmp_path, source(tmp_path, examples[::-1], share=share)).train[0].group.startswith("q")
    others = {base(one.group) for one in run(tmp_path, source(tmp_path, examples, share=share), seed=1).train}
    assert (others == set(taken)) == (share >= 1)


def test_what_is_taken_does_not_depend_on_what_else_there_is(tmp_path: Path) -> None:
    examples = many(200)
    taken = {one.group for one in run(tmp_path, source(tmp_path, examples, share=0.5)).train}
    of_half = {one.group for one in run(tmp_path, source(tmp_path, examples[:200], share=0.5)).train}
    assert of_half == {group for group in taken if int(group[1:]) < 100}
    more = {one.group for one in run(tmp_path, source(tmp_path, examples, share=0.7)).train}
    assert taken < more


def test_copies_are_questions_of_their_own(tmp_path: Path) -> None:
    found = run(tmp_path, source(tmp_path, many(5), share=3)).train
    assert len({one.group for one in found}) == 15
    by_group = Counter(one.group for one in found)
    assert set(by_group.values()) == {2}
    assert {(one.question, one.passage) for one in found} == {(one.question, one.passage) for one in many(5)}


def test_a_share_is_of_what_is_not_held_out(tmp_path: Path) -> None:
    examples = many(1000, titles=100)
    found = run(tmp_path, source(tmp_path, examples, share=0.5, dev=Dev(share=0.3, by="title")))
    assert len(found.train) / (2000 - len(found.dev)) == pytest.approx(0.5, abs=0.06)


def test_a_share_is_of_the_questions_that_are_not_held_out(tmp_path: Path) -> None:
    found = run(tmp_path, source(tmp_path, many(1000), share=0.5, dev=Dev(share=0.3)))
    assert len(found.train) / (2000 - len(found.dev)) == pytest.approx(0.5, abs=0.06)


def test_a_share_to_mine_for_is_of_the_questions_taken(tmp_path: Path) -> None:
    found = run(tmp_path, source(tmp_path, topical(400), share=0.5, negatives=[Negatives(n=1, share=0.25)])).train
    groups = [{one.group for one in found if (one.source == "mined") == mined} for mined in (True, False)]
    assert len(groups[0]) / len(groups[1]) == pytest.approx(0.25, abs=0.07)


def topical(questions: int) -> list[Example]:
    """Questions each of which shares two words with the passages of its neighbours, and one with all."""
    return [
        example(
            f"e{at}",
            f"q{at}",
            f"The word{at} and the word{at + 1} of the river.",
            question=f"Which river has word{at} or word{at + 1}?",
        )
        for at in range(questions)
    ]


def test_negatives_are_mined_from_the_source_itself(tmp_path: Path) -> None:
    examples = topical(40)
    mined = [one for one in run(tmp_path, source(tmp_path, examples, negatives=[Negatives(n=1)])).train if one.source == "mined"]
    assert len(mined) == 40
    for one in mined:
        at = int(one.group[1:])
        assert one.passage in {examples[other].passage for other in (at - 1, at + 1) if 0 <= other < 40}
        assert (one.gold, one.relevant, one.question) == ((), False, examples[at].question)


def test_two_ways_of_mining_give_each_passage_once(tmp_path: Path) -> None:
    both = [Negatives(n=2), Negatives(n=2, skip=1)]
    mined = [one for one in run(tmp_path, source(tmp_path, topical(30), negatives=both)).train if one.source == "mined"]
    assert len({one.id for one in mined}) == len(mined)
    # ranks 1 and 2, and 2 and 3
    assert set(Counter(one.group for one in mined).values()) == {3}


def test_negatives_may_be_mined_for_a_share_of_the_questions(tmp_path: Path) -> None:
    examples = topical(400)
    settings = [Negatives(n=1, share=0.25)]
    mined = [one for one in run(tmp_path, source(tmp_path, examples, negatives=settings)).train if one.source == "mined"]
    assert len({one.group for one in mined}) / 400 == pytest.approx(0.25, abs=0.07)


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset with a corpus, two of whose passages hold the answer to the first question."""
    corpus = {"a": "Cats sleep on mats.", "b": "The cats sleep on the mats all day.", "c": "Where dogs sleep is a basket."}
    lines(tmp_path / "set/corpus.jsonl", [{"_id": key, "title": "", "text": text} for key, text in corpus.items()])
    lines(tmp_path / "set/queries.jsonl", [{"_id": "q1", "text": "Where do cats sleep?", "answers": ["mats"]}])
    lines(
        tmp_path / "set/sentences.train.jsonl",
        [{"query_id": "q1", "corpus_id": "a", "sentences": ["Cats sleep on mats."], "gold": [0]}],
    )
    (tmp_path / "set/qrels").mkdir()
    (tmp_path / "set/qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ta\t1\n")
    return tmp_path


def test_negatives_of_a_dataset_come_from_its_corpus_and_hold_no_answer(folder: Path) -> None:
    settings = Source(kind="sentences", path=Path("set"), negatives=[Negatives(n=2)])
    found = run(folder, settings).train
    assert [(one.group, one.passage) for one in found] == [
        ("q1", "Cats sleep on mats."),
        ("q1", "Where dogs sleep is a basket."),
    ]


def test_negatives_of_a_copy_hold_no_answer(folder: Path) -> None:
    found = run(folder, Source(kind="sentences", path=Path("set"), share=2, negatives=[Negatives(n=2)])).train
    assert {one.passage for one in found if one.source == "mined"} == {"Where dogs sleep is a basket."}


def test_every_kind_of_source_is_read(tmp_path: Path) -> None:
    lines(tmp_path / "rows.jsonl", [{"id": "r", "question": "Why?", "sentences": ["So. ", "Not so."], "gold": [0]}])
    lines(
        tmp_path / "answers.jsonl", [{"id": "a", "question": "Who?", "context": "Ann did.", "answer": "Ann", "answer_start": 0}]
    )
    (tmp_path / "hotpot.json").write_text(
        json.dumps([{"_id": "h", "question": "What?", "context": [["T", ["This."]]], "supporting_facts": [["T", 0]]}])
    )
    lines(tmp_path / "set/corpus.jsonl", [{"_id": "1", "title": "", "text": "No answer here."}])
    row = {"query_id": "u", "corpus_id": "1", "text": "When?", "split": "train"}
    lines(tmp_path / "set/unanswerable.jsonl", [row, row | {"query_id": "v", "split": "test"}])
    kinds = {"rows": "rows.jsonl", "answers": "answers.jsonl", "hotpot": "hotpot.json", "unanswerable": "set"}
    found = run(tmp_path, *(Source(kind=kind, path=Path(path)) for kind, path in kinds.items())).train  # type: ignore[arg-type]
    assert [(one.question, one.gold) for one in found] == [("Why?", (0,)), ("Who?", (0,)), ("What?", (0,)), ("When?", ())]


def test_what_leaves_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^sources: nothing is left to train on"):
        run(tmp_path, source(tmp_path, []))
    with pytest.raises(InputError, match=r"^sources: nothing is left to train on"):
        run(tmp_path, source(tmp_path, many(3), share=1e-9))


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.jsonl"):
        run(tmp_path, Source(kind="rows", path=Path("missing.jsonl")))
