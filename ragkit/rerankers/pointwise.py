"""Reranking by a judgement of each passage alone."""

from __future__ import annotations

from typing import Literal

from ragkit.errors import InputError
from ragkit.llms.base import ScoresText
from ragkit.prompting import load_prompt
from ragkit.rerankers.driver import Judge
from ragkit.rerankers.forms import Form, Graded, Shown, YesNo
from ragkit.rerankers.judges import LikelihoodJudge, ScoreJudge, TextJudge
from ragkit.rerankers.llm import LLMReranker
from ragkit.rerankers.reasoning import ReasoningJudge
from ragkit.rerankers.strategies.base import Strategy
from ragkit.rerankers.strategies.pointwise import pointwise


class PointwiseReranker(LLMReranker):
    """One judgement per passage, all of them in one round of n calls; the score is what the judgement says."""

    method: Literal["yes-no", "graded", "query-likelihood", "reasoning"] = "graded"
    """"yes-no": the probability of yes. "graded": the expected grade from 0 to 4 (InstUPR). "query-likelihood": the
    log-probability of the question given the passage (UPR), for models that can tell, such as local ones. "reasoning": thinks
    before it says yes or no (Rank1); what it thought is in the `notes` of the usage."""
    answers: Literal["scores", "text"] = "scores"
    """Judge by the probabilities of the possible answers, where the model gives them, or by what it writes."""

    def strategy(self, n: int, k: int) -> Strategy:
        """See `LLMReranker`."""
        return pointwise(n, k)

    def judge(self) -> Judge[Shown]:
        """See `LLMReranker`."""
        if self.method == "query-likelihood":
            return self._likelihood()
        if self.method == "reasoning":
            template = self.template(ReasoningJudge.prompt, ReasoningJudge.variables)
            verdict = load_prompt("rerank_reasoning_verdict") if self.answers == "scores" else None
            return ReasoningJudge(self.model(), template, verdict)
        form: Form = YesNo() if self.method == "yes-no" else Graded()
        kind = ScoreJudge if self.answers == "scores" else TextJudge
        return kind(self.model(), self.template(form.prompt, form.variables), form)

    def _likelihood(self) -> LikelihoodJudge:
        model = self.model()
        if not isinstance(model, ScoresText):
            raise InputError(
                f"method: query-likelihood needs a model that scores a given text, such as LocalLLM, not {type(model).__name__}; "
                "use graded"
            )
        return LikelihoodJudge(model, self.template(LikelihoodJudge.prompt, LikelihoodJudge.variables))
