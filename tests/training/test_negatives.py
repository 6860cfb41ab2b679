"""Hard negatives: high in the ranking, and never an answer as far as anybody knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from ragkit import InputError
from ragkit.retrievers.bm25 import BM25Retriever
from ragkit.retrievers.dense import DenseRetriever
from ragkit.training.examples import Example, Passage, same_text
from ragkit.training.negatives import mine_negatives
from ragkit.training.sources import read_answer_strings, read_corpus, read_sentences


def example(group: str, question: str, *sentences: str, gold: tuple[int, ...] | None = (0,), relevant: bool = True) -> Example:
    id_ = f"{group}/{same_text(''.join(sentences))[:20]}"
    return Example(id=id_, group=group, question=question, sentences=sentences, gold=gold, relevant=relevant)


def passage(*sentences: str, title: str = "") -> Passage:
    return Passage(title, sentences)


class InOrder(BaseRetriever):
    """Every document for every question, in the order of the pool; knows no k, and gives its documents new ids."""

    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [Document(page_content="rewritten", metadata=one.metadata) for one in self.documents]


def in_order(documents: list[Document]) -> InOrder:
    return InOrder(documents=documents)


def mined(examples: list[Example], pool: list[Passage] | None = None, **options: Any) -> list[str]:
    return [one.passage for one in mine_negatives(examples, pool, **({"retriever": in_order, "n": 9} | options))]


QUESTION = "Where do cats sleep?"
POSITIVE = example("q1", QUESTION, "Cats sleep on mats. ", "They purr.")
OTHER = example("q2", "What do dogs chase, cats?", "Dogs chase cats. ", "Dogs sleep too.")


def test_the_best_other_passage_of_the_examples_is_taken() -> None:
    third = example("q3", "Which metal is liquid?", "Mercury is a liquid metal.")
    negatives = mine_negatives([POSITIVE, OTHER, third])
    assert [(one.group, one.question, one.passage) for one in negatives] == [
        ("q1", QUESTION, OTHER.passage),
        ("q2", OTHER.question, POSITIVE.passage),
    ]
    assert all((one.gold, one.relevant, one.teacher, one.source) == ((), False, None, "mined") for one in negatives)
    assert negatives[0].sentences == OTHER.sentences
    assert negatives[0].id.startswith("q1/")
    assert len({one.id for one in negatives}) == 2
    assert mine_negatives([POSITIVE, OTHER, third]) == negatives


def test_a_title_is_searched_and_kept() -> None:
    pool = [passage("Nothing here."), passage("They are asleep.", title="Where cats sleep")]
    [negative] = mine_negatives([POSITIVE], pool)
    assert (negative.title, negative.passage) == ("Where cats sleep", "They are asleep.")


def test_passages_of_the_question_and_texts_equal_to_them_are_left_out() -> None:
    known = example("q1", QUESTION, "Already a negative.", gold=(), relevant=False)
    unsure = example("q1", QUESTION, "Cited without evidence.", gold=None)
    pool = [
        passage("Cats  sleep on MATS.\n", "They purr."),
        passage("Already a negative."),
        passage("Cited without ", "evidence."),
        passage("Free."),
        passage("free. "),
    ]
    assert mined([POSITIVE, known, unsure], pool) == ["Free."]


def test_a_passage_with_a_gold_sentence_is_left_out() -> None:
    assert mined([POSITIVE], [passage("Before. ", "cats sleep on mats."), passage("They purr.")]) == ["They purr."]


def test_passages_that_hold_an_answer_are_left_out() -> None:
    pool = [
        passage("The MAT is there."),
        passage("A matter of fact."),
        passage("Split over the two ", "big mats."),
        passage("Titled.", title="Mat"),
        passage("猫はマットで寝る。"),
    ]
    assert mined([POSITIVE], pool, answers={"q1": ["mat", "big  mats", " ", "マット"], "q2": ["matter"]}) == ["A matter of fact."]
    assert len(mined([POSITIVE], pool, answers={"q2": ["mat"]})) == 5
    assert len(mined([POSITIVE], pool, answers={"q1": []})) == 5


def test_n_skip_and_depth_count_in_the_ranking() -> None:
    pool = [passage(f"Number {number}.") for number in range(6)]
    assert mined([POSITIVE], [passage(*POSITIVE.sentences), *pool], n=2, skip=1) == ["Number 1.", "Number 2."]
    assert mined([POSITIVE], pool, n=2, skip=3, depth=5) == ["Number 3.", "Number 4."]
    assert mined([POSITIVE], [passage(*POSITIVE.sentences), *pool], n=2, skip=1, depth=3) == ["Number 1."]
    assert mined([POSITIVE], pool, n=2, skip=5) == ["Number 5."]


def test_questions_without_a_relevant_passage_get_none() -> None:
    lost = example("q9", QUESTION, "No help.", gold=(), relevant=False)
    assert mined([lost], [passage("Free.")]) == []
    assert mined([lost, POSITIVE]) == ["No help."]
    assert mine_negatives([]) == mine_negatives([POSITIVE], []) == []


@pytest.mark.parametrize(("n", "skip", "depth"), [(0, 0, 50), (1, -1, 50), (3, 2, 4)])
def test_numbers_out_of_range_are_named(n: int, skip: int, depth: int) -> None:
    with pytest.raises(InputError, match=f"n={n}, skip={skip}, depth={depth}: "):
        mine_negatives([POSITIVE], n=n, skip=skip, depth=depth)


def test_any_retriever_of_ragkit_does(encoder: Any) -> None:
    pool = [passage("Dogs run."), passage("Where do cats sleep?"), passage("Cats do sleep.")]
    for retriever in (BM25Retriever.from_documents, lambda docs: DenseRetriever.from_documents(docs, encoder=encoder)):
        negatives = mine_negatives([POSITIVE], pool, n=2, retriever=retriever)
        assert [one.passage for one in negatives] == ["Where do cats sleep?", "Cats do sleep."]


def test_more_questions_than_one_batch() -> None:
    examples = [example(f"q{number}", f"Where is thing {number}?", f"Thing {number} is here.") for number in range(300)]
    negatives = mine_negatives(examples)
    assert [one.group for one in negatives] == [one.group for one in examples]
    assert all(f"Thing {one.group[1:]} " not in one.passage for one in negatives)


def test_real_questions_get_negatives_without_their_answers(data: Path) -> None:
    examples = [one for one in read_sentences(data / "hotpotqa", "train") if one.relevant]
    answers = read_answer_strings(data / "hotpotqa")
    pool = list(read_corpus(data / "hotpotqa").values())[:3000]
    negatives = mine_negatives(examples, pool, n=3, answers=answers)
    groups = {one.group for one in examples}
    assert len(negatives) >= 2.9 * len(groups)
    assert {one.group for one in negatives} <= groups
    relevant = {(one.group, same_text(one.passage)) for one in examples}
    for one in negatives:
        assert (one.group, same_text(one.passage)) not in relevant
        assert not any(len(answer) > 4 and answer in one.passage for answer in answers[one.group] if answer[0].isupper())
