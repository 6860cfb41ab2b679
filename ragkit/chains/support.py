"""How far sentences bear out a statement, by a Provence model: a second opinion beside the words that they share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ragkit.chains.claims import Claim
from ragkit.chains.context import Citation, GroundedContext, GroundedPassage
from ragkit.documents.model import Unit
from ragkit.errors import RagkitError
from ragkit.provence.model import ProvenceModel
from ragkit.provence.pair import Pair
from ragkit.provence.rounding import unit_scores


class ModelSupport:
    """Asks a Provence model with the question and each statement behind it, and the passages that hold the statement's evidence.

    A statement alone often leaves out what the question has said ("In 1932."), and the model needs both: see
    benchmarks/results/claims.md. It is loaded when the first statement is judged. ragkit's own has learnt from English text.
    """

    def __init__(self, model: str | Path | ProvenceModel | None = None, *, device: str | None = None) -> None:
        """`model` is a folder, a hub name or a loaded model; None is ragkit's own. `device` None is a GPU where there is one."""
        self.model, self.device = model, device

    def weigh(self, claims: Sequence[Claim], context: GroundedContext) -> tuple[Claim, ...]:
        """The claims with their `probability`, the mean of what the model gives the sentences of the evidence; all in one batch.

        A claim without evidence stays as it is. Raises whatever the model raises, and `RagkitError` for scores that are no
        numbers.
        """
        resting = [claim for claim in claims if claim.evidence]
        if not resting:
            return tuple(claims)
        passages = [_passages(claim, context) for claim in resting]
        asked = [f"{context.question} {claim.text}" for claim in resting]
        scores = iter(sentence_scores(self._model(), asked, passages))
        return tuple(_weighed(claim, next(scores)) if claim.evidence else claim for claim in claims)

    def _model(self) -> ProvenceModel:
        if isinstance(self.model, ProvenceModel):
            return self.model
        return ProvenceModel.from_pretrained(self.model, device=self.device)


def sentence_scores(
    model: ProvenceModel, asked: Sequence[str], passages: Sequence[Sequence[GroundedPassage]]
) -> list[dict[Citation, float]]:
    """The score of each kept sentence of the passages that go with each question, from 0 to 1, all in one batch.

    The model reads of a passage what is kept of it.
    """
    family = model.family
    groups = [[_pair(text, passage) for passage in its] for text, its in zip(asked, passages, strict=True)]
    return [
        {
            sentence.citation: float(score)
            for passage, pair, verdict in zip(its, pairs, verdicts, strict=True)
            for sentence, score in zip(
                passage.sentences, unit_scores(verdict, pair.units, family.rounding, family.threshold), strict=True
            )
        }
        for its, pairs, verdicts in zip(passages, groups, model.judge_groups(groups), strict=True)
    ]


def _passages(claim: Claim, context: GroundedContext) -> list[GroundedPassage]:
    numbers = {citation.n for citation in claim.evidence}
    return [passage for passage in context.best_first if passage.n in numbers]


def _weighed(claim: Claim, scores: Mapping[Citation, float]) -> Claim:
    probability = sum(scores[citation] for citation in claim.evidence) / len(claim.evidence)
    if not math.isfinite(probability):
        raise RagkitError("support: the model gave scores that are not finite")
    return replace(claim, probability=probability)


def _pair(text: str, passage: GroundedPassage) -> Pair:
    """The kept sentences of a passage as a text of their own."""
    units, at = [], 0
    for sentence in passage.sentences:
        units.append(Unit(at, at + len(sentence.citation.text)))
        at = units[-1].end + 1
    return Pair(text, " ".join(sentence.citation.text for sentence in passage.sentences), tuple(units))
