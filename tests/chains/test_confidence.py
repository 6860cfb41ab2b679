"""Calibrated abstention: the regression against scikit-learn, the evidence read from contexts, and every way of asking."""

import asyncio
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from ragkit import BM25Retriever, InputError, Pipeline, ProvencePruner, ProvenceReranker, extractive_answer
from ragkit.chains.answer import NOT_ANSWERED, Answer, nearest
from ragkit.chains.answerer import GroundedAnswerer
from ragkit.chains.confidence import FEATURES, Calibration, calibrate, calibration_for, evidence, shipped
from ragkit.chains.logistic import Line, fit, probability, reliability

QUESTIONS = ["When was the bridge built?", "Who designed the bridge?", "What of zzz?"]
RNG = np.random.default_rng(5)


def cases(count: int = 300) -> tuple[Any, Any]:
    features = RNG.normal(size=(count, 3)) * [1.0, 5.0, 0.1] + [0, 3, 1]
    odds = features @ [1.0, -0.3, 8.0] - 7
    return features, RNG.random(count) < 1 / (1 + np.exp(-odds))


@pytest.mark.parametrize("ridge", [0.5, 3.0])
def test_the_regression_is_that_of_scikit_learn(ridge: float) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    features, labels = cases()
    line = fit(features, labels, ridge)
    means, spreads = features.mean(0), features.std(0)
    theirs = linear.LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=10000).fit((features - means) / spreads, labels)
    np.testing.assert_allclose(line.weights, theirs.coef_[0] / spreads, rtol=1e-4)
    ours = [probability(line, row) for row in features]
    np.testing.assert_allclose(ours, theirs.predict_proba((features - means) / spreads)[:, 1], atol=1e-5)


def test_the_regression_holds_where_it_is_hard() -> None:
    apart = fit([[-1.0], [1.0]], [0, 1])  # only the ridge keeps the weight finite
    assert 0 < apart.weights[0] < 10
    assert fit([[1.0, 2.0], [1.0, 3.0], [1.0, 2.0]], [0, 1, 0]).weights[0] == pytest.approx(0, abs=1e-6)
    assert probability(Line((1000.0,), 0.0), [-1]) == 0
    for features, labels in (
        ([[1.0], [2.0]], [1, 1]),
        ([[1.0]], [1, 0]),
        ([[math.nan], [1.0]], [0, 1]),
        ([[1.0], [2.0]], [2, 0]),
    ):
        with pytest.raises(InputError):
            fit(features, labels)


def test_reliability_of_a_few_cases() -> None:
    found = reliability([0.1, 0.15, 0.9, 1.0], [0, 1, 1, 1], bins=10)
    assert [one.cases for one in found.bins] == [2, 2]
    assert found.ece == pytest.approx((2 * abs(0.125 - 0.5) + 2 * abs(0.95 - 1)) / 4)
    assert found.brier == pytest.approx((0.01 + 0.7225 + 0.01) / 4)
    with pytest.raises(InputError, match="labels"):
        reliability([0.5], [])


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    documents = [
        Document(id="a", page_content="The bridge was built in 1932. It is red."),
        Document(id="b", page_content="Ada Smith designed the bridge. She came from Leeds."),
    ]
    return BM25Retriever.from_documents(documents) >> ProvenceReranker() >> ProvencePruner(threshold=0.3)


def log_odds(share: float) -> float:
    return math.log(share / (1 - share))


def test_evidence_is_read_from_the_context(pipeline: Pipeline) -> None:
    context = pipeline.ground(QUESTIONS[0])
    first, second = (result.score for result in context.trace[1].results)
    best = max((s for p in context.passages for s in p.sentences), key=lambda s: s.score or 0)
    assert best.citation.text == "The bridge was built in 1932."
    assert first is not None
    assert second is not None
    assert best.score is not None
    expected = [log_odds(min(p, 0.999)) for p in (first, best.score)]
    # "was" and "the" are stop words, and of the other three the sentence lacks "when"
    assert evidence(context) == pytest.approx((*expected, expected[0] - log_odds(max(second, 0.001)), 2 / 3))
    nothing = evidence(pipeline.ground("zzz"))
    assert nothing == pytest.approx((log_odds(0.001), log_odds(0.001), 0, 0))


def test_calibrating_on_ones_own_labels(pipeline: Pipeline, tmp_path: Path) -> None:
    contexts = [
        pipeline.ground(question) for question in (*QUESTIONS, "Who came from Leeds?", "What is red?", "Why is zzz green?")
    ]
    answered = [True, True, False, True, True, False]
    made = calibrate(contexts, answered, lose=0.25)
    said = [made(context) for context in contexts]
    assert min(p for p, label in zip(said, answered, strict=True) if label) > max(said[2], said[5])
    assert made.abstain_below == pytest.approx(np.quantile([said[at] for at in (0, 1, 3, 4)], 0.25))
    assert made.reliability == reliability(said, answered)
    made.save(tmp_path / "mine.json")
    assert Calibration.load(tmp_path / "mine.json") == made
    for wrong in ([True], [True] * 6):
        with pytest.raises(InputError, match=r"answered|labels"):
            calibrate(contexts, wrong)
    with pytest.raises(InputError, match="lose"):
        calibrate(contexts, answered, lose=1)


@pytest.mark.parametrize("text", ["", "[]", '{"weights": {"x": 1}, "reliability": {}}', '{"weights": 3, "reliability": 1}'])
def test_files_that_are_no_calibration(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(InputError, match="calibration"):
        Calibration.load(tmp_path / "bad.json")
    with pytest.raises(InputError, match="cannot read"):
        Calibration.load(tmp_path / "none.json")


def test_the_shipped_calibration_belongs_to_the_shipped_model(pipeline: Pipeline) -> None:
    assert calibration_for(pipeline) is shipped()
    assert len(shipped().line.weights) == len(FEATURES)
    assert shipped().reliability.ece < 0.1
    assert calibration_for(Pipeline(retriever=pipeline.retriever)) is None
    other = Pipeline(retriever=pipeline.retriever, stages=[ProvenceReranker(model="mine"), ProvencePruner(model="mine")])
    assert calibration_for(other) is None


def test_extractive_answers_abstain(pipeline: Pipeline) -> None:
    context = pipeline.ground(QUESTIONS[0])
    assert extractive_answer(context).confidence is None
    sure = extractive_answer(context, calibration=shipped(), abstain_below=0)
    assert not sure.abstained
    assert sure.confidence == shipped()(context)
    weak = extractive_answer(context, calibration=shipped(), abstain_below=1)
    assert weak.abstained
    assert weak.text.startswith(NOT_ANSWERED)
    assert "[1]" in weak.text
    assert (weak.citations, weak.context, weak.confidence) == ((), context, sure.confidence)
    assert [candidate.id for candidate in nearest(context)] == [r.id for r in context.trace[1].results]
    assert len(nearest(context, 1)) == 1
    nothing = extractive_answer(pipeline.ground("zzz"), calibration=shipped())
    assert (nothing.text, nothing.abstained) == (NOT_ANSWERED, True)


def says(text: str) -> Any:
    """A model; without a text, one that fails."""

    def reply(prompt: Any) -> AIMessage:
        if not text:
            raise TimeoutError("too slow")
        return AIMessage(text)

    return RunnableLambda(reply)


def every_way(answerer: GroundedAnswerer) -> list[Answer]:
    question = QUESTIONS[0]

    async def streamed() -> Any:
        return [piece async for piece in answerer.astream(question)]

    pieces = list(answerer.stream(question)), asyncio.run(streamed())
    for its in pieces:
        assert "".join(its[:-1]) == its[-1].text
    return [
        *(its[-1] for its in pieces),
        answerer.invoke(question),
        answerer.batch([question])[0],
        asyncio.run(answerer.ainvoke(question)),
        asyncio.run(answerer.abatch([question]))[0],
    ]


def test_every_way_abstains_alike_and_asks_no_model(pipeline: Pipeline) -> None:
    answers = every_way(GroundedAnswerer(pipeline=pipeline, llm=says(""), abstain_below=1, on_failure="raise"))
    for answer in answers:
        assert answer.abstained
        assert answer.text == answers[0].text
        assert answer.text.startswith(NOT_ANSWERED)
        assert answer.usage == {"calls": 0}
        assert answer.context.passages
        assert answer.confidence == shipped()(answer.context)


@pytest.mark.parametrize("text", ["In 1932 [1].", ""])
def test_every_way_has_the_same_confidence(text: str, pipeline: Pipeline) -> None:
    answers = every_way(GroundedAnswerer(pipeline=pipeline, llm=says(text), abstain_below=0))
    assert {answer.confidence for answer in answers} == {shipped()(answers[0].context)}
    assert not any(answer.abstained for answer in answers)


def test_a_batch_abstains_question_by_question(pipeline: Pipeline) -> None:
    questions = [QUESTIONS[0], "Why is the moon made of red cheese?", QUESTIONS[2]]
    confidences = [shipped()(context) for context in pipeline.ground_batch(questions)]
    assert confidences[1] < confidences[0]
    middle = (confidences[0] + confidences[1]) / 2
    answerer = GroundedAnswerer(pipeline=pipeline, llm=says("In 1932 [1]."), abstain_below=middle)
    for answers in (answerer.batch(questions), asyncio.run(answerer.abatch(questions))):
        assert [answer.abstained for answer in answers] == [False, True, True]
        assert [answer.confidence for answer in answers] == confidences
        assert [answer.usage["calls"] for answer in answers] == [1, 0, 0]
