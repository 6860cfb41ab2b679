"""Planted passages: what they are made of, that they come and go, and how far they get."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit.chains.pipeline import Pipeline
from ragkit.evaluation.experiment import Shown, Step, System, Traced, run_systems
from ragkit.evaluation.poisoning.attacks import ATTACKS, TRIGGER, Attack, keywords, payload
from ragkit.evaluation.poisoning.exposure import Exposure, defended, exposure
from ragkit.evaluation.poisoning.plants import plant, poisoned
from ragkit.pruners.extractive import ExtractivePruner
from ragkit.rerankers.duplicates import DuplicateReranker, repeats
from ragkit.rerankers.source_cap import SourceCapReranker
from ragkit.retrievers.bm25 import BM25Retriever

QUESTION = "What does the pump of the old mill need?"
BY_NAME = {attack.name: attack for attack in ATTACKS}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
@given(question=st.text(max_size=60))
def test_every_passage_says_what_the_attacker_wants(attack: Attack, question: str) -> None:
    made = attack.make(question, "me")
    assert made == attack.make(question, "me")
    assert len({poison.text for poison in made}) == len(made)
    assert all(payload(question) in poison.text for poison in made)


def test_the_attacks_differ_in_what_they_repeat() -> None:
    def texts(name: str) -> list[str]:
        return [poison.text for poison in BY_NAME[name].make(QUESTION, "me")]

    assert keywords("the pump of the old mill") == "pump old mill pump old mill pump old mill"
    assert texts("question")[0].startswith(QUESTION)
    assert "ignore all previous instructions" in texts("instruction")[0].lower()
    assert texts("trigger")[0].count(TRIGGER) == 2
    assert len(repeats(texts("flood"), 0.8)) == 4  # all but the first
    assert len(repeats(texts("paraphrases"), 0.8)) == 0
    sources = {name: {poison.source for poison in BY_NAME[name].make(QUESTION, "me")} for name in BY_NAME}
    assert {name: len(its) for name, its in sources.items() if len(its) > 1} == {"sybils": 5}


def test_plants_come_and_go() -> None:
    corpus = [Document(id="oil", page_content="The pump of the old mill needs oil.")]
    retriever = BM25Retriever.from_documents(corpus)
    before = retriever.invoke(QUESTION)
    plants = plant(BY_NAME["flood"], {"1": QUESTION, "2": "Where is the mixer?"})
    with suppress(RuntimeError), poisoned(retriever.store, plants) as store:
        assert len(store) == 11
        assert {str(document.id) for document in retriever.invoke(QUESTION, k=11)} - {"oil"} <= plants.ids
        raise RuntimeError
    assert len(store) == 1
    assert [(document.id, document.metadata["relevance_score"]) for document in retriever.invoke(QUESTION)] == [
        (document.id, document.metadata["relevance_score"]) for document in before
    ]


def test_only_a_trigger_changes_the_question() -> None:
    for attack in ATTACKS:
        asked = plant(attack, {"1": QUESTION}).questions["1"]
        assert asked == (f"{QUESTION} {TRIGGER}" if attack.name == "trigger" else QUESTION)


def traced(ranked: list[str], shown: dict[str, str]) -> Traced:
    step = Step("x", "retrieve", tuple(ranked), (None,) * len(ranked), None, {})
    return Traced((step,), tuple(ranked), tuple(Shown(id_, text, ()) for id_, text in shown.items()), 0, 0)


def test_exposure_by_hand() -> None:
    runs = [
        traced(["a", "x", "y"], {"a": "12345", "x": "123"}),
        traced(["x"], {"x": "12"}),
        traced(["a", "b", "c", "y"], {"a": "1"}),
        traced([], {}),
    ]
    found = exposure(runs, {"x", "y"})
    assert found == Exposure(2 / 4, pytest.approx((3 / 8 + 1 + 0 + 0) / 4), pytest.approx((1 / 2 + 1 + 1 / 4 + 0) / 4))


def test_defences_stand_before_the_first_pruner(encoder: Any) -> None:
    retriever = BM25Retriever.from_texts(["x"])
    duplicates, cap, pruner = DuplicateReranker(), SourceCapReranker(), ExtractivePruner(encoder=encoder)
    pipeline = Pipeline(retriever=retriever, stages=[duplicates, pruner])
    assert defended(pipeline, cap).stages == [duplicates, cap, pruner]
    assert defended(Pipeline(retriever=retriever), cap, duplicates).stages == [cap, duplicates]
    assert pipeline.stages == [duplicates, pruner]


def test_defences_leave_room_for_what_is_true() -> None:
    """Five copies fill a context of five; without them, both true passages are there."""
    true = ["The pump of the old mill needs oil.", "The old pump of the mill runs on oil, and may need a new belt."]
    retriever = BM25Retriever.from_texts(true, ids=["a", "b"], k=20)
    plain = Pipeline(retriever=retriever, k=5)
    systems = {
        "plain": plain,
        "duplicates": defended(plain, DuplicateReranker()),
        "cap": defended(plain, SourceCapReranker(most=3)),
    }
    reached = {}
    for name in ("flood", "paraphrases", "sybils"):
        plants = plant(BY_NAME[name], {"1": QUESTION})
        with poisoned(retriever.store, plants):
            runs = run_systems(plants.questions, [System(label, its, {}) for label, its in systems.items()], alone=0)
        reached[name] = {run.name: sum(bool(re.match("planted", id_)) for id_ in run.traced["1"].chosen) for run in runs}
    assert reached["flood"]["duplicates"] == reached["sybils"]["duplicates"] == 3
    assert reached["flood"]["cap"] == reached["paraphrases"]["cap"] == 3
    assert reached["sybils"]["cap"] == reached["sybils"]["plain"]
