"""A small gradient-boosted ranker that corrects scores which are good already, fitted on few questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from ragkit.errors import InputError, MissingExtraError
from ragkit.indexes.base import Scores
from ragkit.retrievers.fusion_features import Features

_BASE = 20.0
"""What one unit of the given score is worth in the model's units. The larger, the less the trees can change; with 0 they would
have to learn from a hundred questions what the given score knows already, and do not."""
_SETTINGS = {
    "objective": "lambdarank",
    "num_leaves": 5,
    "learning_rate": 0.05,
    "min_data_in_leaf": 20,
    "lambda_l2": 5.0,
    "feature_fraction": 0.5,
    "lambdarank_truncation_level": 15,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


class Judged(NamedTuple):
    """One question's candidates: features [n, columns], the score they have already [n], and gains [n], whole numbers."""

    features: Features
    given: Scores
    gains: Scores


class LambdaMART:
    """Boosted trees over the features of candidates (Burges, MSR-TR-2010-82), added to a score that these have already."""

    def __init__(self, booster: Any) -> None:
        """`booster` is a `lightgbm.Booster`."""
        self._booster = booster

    @classmethod
    def fit(
        cls, questions: Sequence[Judged], names: Sequence[str], directions: Sequence[int], *, trees: int = 20, seed: int = 0
    ) -> Self:
        """Trees for these questions; `names` and `directions` (1, -1 or 0: rising, falling, free) are those of the columns.

        The same arguments give the same trees. Raises `InputError` if no question has both a candidate with a gain and one with
        less, and `MissingExtraError` without LightGBM.
        """
        lightgbm = _lightgbm()
        usable = [question for question in questions if len(np.unique(question.gains)) > 1]
        if not usable:
            raise InputError("questions: none has both relevant and other candidates; label more, or retrieve deeper")
        gains = np.concatenate([np.maximum(question.gains, 0) for question in usable]).astype(np.int64)
        data = lightgbm.Dataset(
            np.concatenate([question.features for question in usable]),
            gains,
            group=[len(question.gains) for question in usable],
            init_score=_BASE * np.concatenate([question.given for question in usable]),
            feature_name=list(names),
        )
        settings = {
            **_SETTINGS,
            "seed": seed,
            "monotone_constraints": list(directions),
            "label_gain": list(range(int(gains.max()) + 1)),
        }
        return cls(lightgbm.train(settings, data, trees))

    @property
    def names(self) -> list[str]:
        """Names of the columns that it was fitted on."""
        return list(self._booster.feature_name())

    def scores(self, features: Features, given: Scores) -> Scores:
        """The corrected scores [n] of candidates with features [n, columns] and given scores [n]."""
        if not len(features):
            return np.empty(0)
        corrections: Scores = self._booster.predict(features, num_threads=1)
        return _BASE * given + corrections

    def save(self, path: str | Path) -> None:
        """Write the trees as text, in LightGBM's format."""
        Path(path).write_text(self._booster.model_to_string(), "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. Raises `InputError` if it cannot be read, `MissingExtraError` without LightGBM."""
        lightgbm = _lightgbm()
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"model: cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
        try:
            return cls(lightgbm.Booster(model_str=text))
        except lightgbm.basic.LightGBMError:
            raise InputError(f"model: {path} is no model in LightGBM's text format; name a file that `save` wrote") from None


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise MissingExtraError("learned fusion", "ltr") from None
    return lightgbm
