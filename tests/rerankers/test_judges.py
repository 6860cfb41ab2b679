"""Questions to prompts, answers to verdicts: what a model is shown, and what its words and probabilities mean."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ragkit.llms.base import Completion, Cost, DeadlineError, LabelScores, TextScore
from ragkit.prompting import load_prompt
from ragkit.rerankers.driver import Asked, Judge, Verdict
from ragkit.rerankers.forms import Best, First, Form, Graded, Pair, Shown, YesNo
from ragkit.rerankers.judges import LikelihoodJudge, ListJudge, ScoreJudge, TextJudge
from ragkit.rerankers.reasoning import ReasoningJudge
from ragkit.rerankers.strategies.base import Choose, Compare, Grade, Order, Question

COST = Cost(1, 10, 2)
SHOWN = Shown("why?", ["cats", "dogs", "birds", "fish"], {"tags": ["mine"]})


class Scripted:
    """A model that gives what it is told to, and remembers what it was asked."""

    def __init__(self, *texts: str | Exception, scores: Sequence[Any] = ()) -> None:
        self.texts, self.scores = list(texts), list(scores)
        self.asked: list[tuple[str, Any, Any]] = []

    def generate(self, prompts: Any, configs: Any = None, until: Any = None) -> list[Any]:
        self.asked += [("generate", *request) for request in zip(prompts, configs, strict=True)]
        return [text if isinstance(text, Exception) else Completion(text, COST) for text in (self.texts.pop(0) for _ in prompts)]

    def score_labels(self, prompts: Any, labels: Any, configs: Any = None, until: Any = None) -> list[Any]:
        self.asked += [("score_labels", *request) for request in zip(prompts, labels, strict=True)]
        found = [self.scores.pop(0) for _ in prompts]
        return [scores if isinstance(scores, Exception) else LabelScores(tuple(scores), COST) for scores in found]

    def query_likelihood(self, prompts: Any, continuations: Any, configs: Any = None, until: Any = None) -> list[Any]:
        self.asked += [("query_likelihood", *request) for request in zip(prompts, continuations, strict=True)]
        return [TextScore(self.scores.pop(0), COST) for _ in prompts]

    async def agenerate(self, prompts: Any, configs: Any = None, until: Any = None) -> list[Any]:
        return self.generate(prompts, configs)

    async def ascore_labels(self, prompts: Any, labels: Any, configs: Any = None, until: Any = None) -> list[Any]:
        return self.score_labels(prompts, labels, configs)

    async def aquery_likelihood(self, prompts: Any, continuations: Any, configs: Any = None, until: Any = None) -> list[Any]:
        return self.query_likelihood(prompts, continuations, configs)


def sync_and_async(
    make: Callable[[Scripted], Judge[Shown]], model: Callable[[], Scripted], *questions: Question
) -> list[Verdict]:
    """The verdicts, which must be the same either way."""
    asked = [Asked(SHOWN, question) for question in questions]
    verdicts = list(make(model()).judge(asked))
    again = list(asyncio.run(make(model()).ajudge(asked)))
    assert [(one.answer, one.cost, str(one.error), one.note) for one in verdicts] == [
        (one.answer, one.cost, str(one.error), one.note) for one in again
    ]
    return verdicts


def scored(form: Form, question: Question, scores: Any) -> Verdict:
    make = lambda model: ScoreJudge(model, load_prompt(form.prompt), form)  # noqa: E731
    [verdict] = sync_and_async(make, lambda: Scripted(scores=[scores]), question)
    return verdict


def said(form: Form, question: Question, text: str | Exception) -> Verdict:
    make = lambda model: TextJudge(model, load_prompt(form.prompt), form)  # noqa: E731
    [verdict] = sync_and_async(make, lambda: Scripted(text), question)
    return verdict


def test_yes_or_no() -> None:
    assert scored(YesNo(), Grade(1), (math.log(0.3), math.log(0.1))).answer == pytest.approx(0.75)
    assert scored(YesNo(), Grade(1), (-1.0, -math.inf)).answer == 1.0
    assert said(YesNo(), Grade(1), "No.").answer == 0.0
    assert said(YesNo(), Grade(1), "はい").answer == 1.0


def test_a_grade_is_the_expected_one() -> None:
    logs = [math.log(share) for share in (0.1, 0.1, 0.2, 0.2, 0.4)]
    assert scored(Graded(), Grade(0), logs).answer == pytest.approx(2.7)
    assert said(Graded(), Grade(0), "Score: 3/4").answer == 3.0


def test_a_pair() -> None:
    assert scored(Pair(), Compare(2, 0), (math.log(0.2), math.log(0.6))).answer == pytest.approx(0.25)
    assert said(Pair(), Compare(2, 0), "Passage A").answer == 1.0
    assert said(Pair(), Compare(2, 0), "B").answer == 0.0


def test_the_best_of_a_set() -> None:
    assert scored(Best(), Choose((3, 1, 0)), (-math.inf, 0.0, 0.0)).answer == (0.0, 0.5, 0.5)
    assert said(Best(), Choose((3, 1, 0)), "[C]").answer == (0.0, 0.0, 1.0)


def test_first_orders_by_single_letters_and_leaves_the_others_as_shown() -> None:
    assert scored(First(), Order((3, 1, 0, 2)), (-2.0, -math.inf, -1.0, -math.inf)).answer == (0, 3, 1, 2)


@pytest.mark.parametrize(
    ("form", "question", "labels", "shown"),
    [
        (YesNo(), Grade(1), ("yes", "no"), "<passage>\ndogs\n</passage>"),
        (Graded(), Grade(1), ("0", "1", "2", "3", "4"), "<passage>\ndogs\n</passage>"),
        (Pair(), Compare(2, 0), ("A", "B"), "<passages>\n[A] birds\n[B] cats\n</passages>"),
        (Best(), Choose((3, 1, 0)), ("A", "B", "C"), "<passages>\n[A] fish\n[B] dogs\n[C] cats\n</passages>"),
        (First(), Order((3, 1)), ("A", "B"), "<passages>\n[A] fish\n[B] dogs\n</passages>"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Form) else "",
)
def test_what_a_model_is_shown(form: Form, question: Question, labels: tuple[str, ...], shown: str) -> None:
    model = Scripted(scores=[[0.0] * len(labels)])
    ScoreJudge(model, load_prompt(form.prompt), form).judge([Asked(SHOWN, question)])
    [(_, prompt, asked_labels)] = model.asked
    assert asked_labels == labels
    system, user = (str(message.content) for message in prompt)
    assert shown in user
    assert "Question: why?" in user
    assert "quoted data" in system
    assert not {"cats", "dogs", "why?"} & set(system.split())


def test_a_list_is_ordered() -> None:
    def judge(model: Any) -> ListJudge:
        return ListJudge(model, load_prompt(ListJudge.prompt))

    [verdict] = sync_and_async(judge, lambda: Scripted("[2] > [3] > [1]"), Order((3, 1, 0), top=2))
    assert verdict == Verdict((1, 0, 3), COST)
    [partly] = sync_and_async(judge, lambda: Scripted("[3]"), Order((3, 1, 0), top=2))
    assert partly.answer == (0, 3, 1)
    assert partly.note == "the answer orders 1 of 3 passages"
    [enough] = sync_and_async(judge, lambda: Scripted("[3] > [1]"), Order((3, 1, 0), top=2))
    assert enough == Verdict((0, 3, 1), COST)
    model = Scripted("[1]")
    judge(model).judge([Asked(SHOWN, Order((3, 1, 0), top=2))])
    [(_, prompt, config)] = model.asked
    user = str(prompt[1].content)
    assert "<passages>\n[1] fish\n[2] dogs\n[3] cats\n</passages>" in user
    assert "all 3 passages" in user
    assert "the best 2." in user
    assert config == {"tags": ["mine"]}


def test_query_likelihood() -> None:
    def judge(model: Any) -> LikelihoodJudge:
        return LikelihoodJudge(model, load_prompt(LikelihoodJudge.prompt))

    verdicts = sync_and_async(judge, lambda: Scripted(scores=[-3.5, -1.0]), Grade(0), Grade(1))
    assert [one.answer for one in verdicts] == [-3.5, -1.0]
    model = Scripted(scores=[0.0])
    judge(model).judge([Asked(SHOWN, Grade(1))])
    [(_, prompt, continuation)] = model.asked
    assert continuation == "why?"
    assert "<passage>\ndogs\n</passage>" in str(prompt[1].content)


def test_reasoning_keeps_the_chain_and_judges_behind_it() -> None:
    def judge(model: Any) -> ReasoningJudge:
        return ReasoningJudge(model, load_prompt(ReasoningJudge.prompt), load_prompt("rerank_reasoning_verdict"))

    boom = RuntimeError("boom")
    model = lambda: Scripted("<think>It is about dogs", boom, "no idea", scores=[(0.0, 0.0), boom])  # noqa: E731
    unfinished, failed, unscored = sync_and_async(judge, model, Grade(0), Grade(1), Grade(2))
    assert unfinished == Verdict(0.5, Cost(2, 20, 4), note="<think>It is about dogs")
    assert (failed.answer, failed.error, failed.note) == (None, boom, None)
    assert (unscored.answer, unscored.error, unscored.note) == (None, boom, "no idea")
    asked = Scripted("thoughts", scores=[(0.0, 0.0)])
    judge(asked).judge([Asked(SHOWN, Grade(0))])
    _, (_, prompt, labels) = asked.asked
    assert labels == ("yes", "no")
    assert [message.type for message in prompt] == ["system", "human", "ai", "human"]
    assert prompt[2].content == "thoughts"


def test_a_chain_without_scores_at_the_deadline_speaks_for_itself() -> None:
    def judge(model: Any) -> ReasoningJudge:
        return ReasoningJudge(model, load_prompt(ReasoningJudge.prompt), load_prompt("rerank_reasoning_verdict"))

    late = DeadlineError()
    model = lambda: Scripted("It fits.\nAnswer: yes", "hm", scores=[late, late])  # noqa: E731
    fits, unread = sync_and_async(judge, model, Grade(0), Grade(1))
    assert (fits.answer, fits.error, fits.cost) == (1.0, None, COST)
    assert (unread.answer, unread.error, unread.cost, unread.note) == (None, late, COST, "hm")


def test_a_written_answer_in_place_of_scores_is_read_by_the_form() -> None:
    class Writes(Scripted):
        def score_labels(self, prompts: Any, labels: Any, configs: Any = None, until: Any = None) -> list[Any]:
            return [Completion("はい", COST), Completion("who knows", COST)]

    make = lambda model: ScoreJudge(model, load_prompt(YesNo.prompt), YesNo())  # noqa: E731
    yes, unread = sync_and_async(make, Writes, Grade(0), Grade(1))
    assert (yes.answer, yes.cost) == (1.0, COST)
    assert (unread.answer, unread.cost) == (None, COST)


def test_reasoning_by_its_own_last_word() -> None:
    def judge(model: Any) -> ReasoningJudge:
        return ReasoningJudge(model, load_prompt(ReasoningJudge.prompt), None)

    texts = ("<think>yes? no</think>\nIt fits.\nAnswer: yes", "Answer: no", "<think>and so on", RuntimeError("boom"))
    fits, not_, unfinished, failed = sync_and_async(judge, lambda: Scripted(*texts), *map(Grade, range(4)))
    assert (fits.answer, fits.note) == (1.0, texts[0])
    assert (not_.answer, not_.cost) == (0.0, COST)
    assert (unfinished.answer, unfinished.note) == (None, "<think>and so on")
    assert str(failed.error) == "boom"


@pytest.mark.parametrize("text", ["", "I cannot do that.", "Je ne sais pas", "Z", "yes and no", "<think>hm", "[9]"])
def test_what_cannot_be_read_is_a_failure_that_costs(text: str) -> None:
    for form, question in [(YesNo(), Grade(0)), (Graded(), Grade(0)), (Pair(), Compare(0, 1)), (Best(), Choose((0, 1, 2)))]:
        verdict = said(form, question, text)
        assert (verdict.answer, verdict.cost) == (None, COST)
        assert "labels" in str(verdict.error)
    refuse = lambda: Scripted("I cannot do that.")  # noqa: E731
    [verdict] = sync_and_async(lambda model: ListJudge(model, load_prompt(ListJudge.prompt)), refuse, Order((0, 1)))
    assert (verdict.answer, verdict.cost) == (None, COST)
    assert "names no passage" in str(verdict.error)


def test_a_request_that_fails_and_labels_without_probability() -> None:
    boom = RuntimeError("boom")
    assert said(Pair(), Compare(0, 1), boom).error is boom
    nothing = scored(Pair(), Compare(0, 1), (-math.inf, -math.inf))
    assert (nothing.answer, nothing.cost) == (None, COST)
    assert "no probability" in str(nothing.error)


@pytest.mark.parametrize("kind", [YesNo(), Graded(), Pair(), Best(), First(), ListJudge, LikelihoodJudge, ReasoningJudge])
def test_shipped_prompts_have_the_variables_of_their_form(kind: Any) -> None:
    assert set(load_prompt(kind.prompt).input_variables) == kind.variables
