"""How likely a context answers its question: a few signs of the pipeline's run, weighed by what labelled questions have shown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Self

import numpy as np

from ragkit.chains.context import GroundedContext
from ragkit.chains.logistic import Bin, Line, Reliability, fit, probability, reliability
from ragkit.chains.pipeline import Pipeline
from ragkit.encoders.lexical import Analyzer
from ragkit.errors import InputError
from ragkit.pruners.provence import ProvencePruner
from ragkit.rerankers.behind import BehindReranker
from ragkit.rerankers.blend import BlendReranker
from ragkit.rerankers.provence import ProvenceReranker

FEATURES = ("passage", "sentence", "margin", "coverage")
"""The log odds of the best passage's score, and of the best kept sentence's; by how much the former lies above the second
passage's; the share of the question's terms that this sentence has."""
_LEAST = 1e-3
"""A probability is taken to lie this far from 0 and 1."""


def evidence(context: GroundedContext) -> tuple[float, ...]:
    """The `FEATURES` of a context whose passages and sentences have probabilities for scores, as Provence models give them.

    What is missing, because nothing was found or kept, counts as a probability of 0.
    """
    reranked = context.trace[1].results if len(context.trace) > 1 else ()
    scores = sorted((result.score for result in reranked if result.score is not None), reverse=True)
    first, second = (_log_odds(scores[at]) if at < len(scores) else _log_odds(0) for at in (0, 1))
    sentences = [sentence for passage in context.best_first for sentence in passage.sentences]
    best = max(sentences, key=lambda sentence: sentence.score or 0.0, default=None)
    analyzer = Analyzer()
    asked = set(analyzer(context.question))
    shared = asked.intersection(analyzer(best.citation.text)) if best else ()
    return (
        first,
        _log_odds(best.score or 0.0) if best else _log_odds(0),
        first - second,
        len(shared) / len(asked) if asked else 0.0,
    )


@dataclass(frozen=True)
class Calibration:
    """From a context to the probability that it answers its question; `calibrate` makes one."""

    line: Line
    """Over `FEATURES`."""
    abstain_below: float
    """Where an answerer abstains if it is not told otherwise."""
    reliability: Reliability
    """On the questions that it was made from."""

    def __call__(self, context: GroundedContext) -> float:
        """The probability, from 0 to 1. It means something for the pipeline only that the calibration was made with."""
        return probability(self.line, evidence(context))

    def too_weak(self, confidence: float, abstain_below: float | None = None) -> bool:
        """Whether to abstain: below what the caller says, or else the calibration does."""
        return confidence < (self.abstain_below if abstain_below is None else abstain_below)

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        found = self.reliability
        record = {
            "weights": dict(zip(FEATURES, self.line.weights, strict=True)),
            "bias": self.line.bias,
            "abstain_below": self.abstain_below,
            "reliability": {**found._asdict(), "bins": [one._asdict() for one in found.bins]},
        }
        Path(path).write_text(json.dumps(record, indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. Raises `InputError` for anything else."""
        try:
            record = json.loads(Path(path).read_text("utf-8"))
            weights = record["weights"]
            found = record["reliability"]
            if tuple(weights) != FEATURES:
                raise ValueError("its features are others")
            return cls(
                Line(tuple(map(float, weights.values())), float(record["bias"])),
                float(record["abstain_below"]),
                Reliability(**{**found, "bins": tuple(Bin(**one) for one in found["bins"])}),
            )
        except OSError as error:
            raise InputError(f"calibration: cannot read {path}: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"calibration: {path} is no calibration of this version ({error}); make one with calibrate()"
            ) from None


def calibrate(contexts: Sequence[GroundedContext], answered: Sequence[bool], *, lose: float = 0.05) -> Calibration:
    """What the evidence is worth on your own questions: `answered` says of each context whether it answers its question.

    All contexts come from one pipeline, and a few hundred are enough. The calibration abstains on a share `lose` of the answered
    ones. Raises `InputError` if the labels do not fit the contexts, or are all alike.
    """
    return calibrate_evidence([evidence(context) for context in contexts], answered, lose=lose)


def calibrate_evidence(rows: Sequence[Sequence[float]], answered: Sequence[bool], *, lose: float = 0.05) -> Calibration:
    """`calibrate` for contexts of which only the `evidence` is left."""
    if len(rows) != len(answered):
        raise InputError(f"answered: has {len(answered)} entries for {len(rows)} contexts; give one for each")
    if not 0 <= lose < 1:
        raise InputError(f"lose: must be at least 0 and below 1, not {lose!r}")
    labels = np.array(answered, np.float64)
    line = fit(np.array(rows).reshape(len(rows), len(FEATURES)), labels)
    said = np.array([probability(line, row) for row in rows])
    return Calibration(line, float(np.quantile(said[labels == 1], lose)), reliability(said, labels))


@cache
def shipped() -> Calibration:
    """The calibration of the pipeline of `ragkit ask` for English, made by `benchmarks/abstention.py`."""
    with as_file(files("ragkit.chains") / "assets" / "confidence.json") as path:
        return Calibration.load(path)


def calibration_for(pipeline: Pipeline) -> Calibration | None:
    """`shipped` for a pipeline that reranks and prunes with ragkit's own Provence model; None for any other."""
    match pipeline.stages:
        # those between change the order of passages, not what the reranker says of them
        case [ProvenceReranker(model=None), *others, ProvencePruner(model=None)] if all(
            isinstance(other, BlendReranker | BehindReranker) for other in others
        ):
            return shipped()
    return None


def _log_odds(share: float) -> float:
    within = min(max(share, _LEAST), 1 - _LEAST)
    return math.log(within / (1 - within))
