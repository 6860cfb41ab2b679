"""What a training run is made of, as a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ragkit.errors import InputError
from ragkit.training.jsonl import first_fault


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Negatives(_Part):
    """Hard negatives for a source, mined with BM25 from its corpus, or from its own passages where it has none."""

    n: int = Field(default=1, gt=0)
    """Passages per question."""
    skip: int = Field(default=0, ge=0)
    """How many of the best to leave out, as they may answer the question unnoticed."""
    depth: int = Field(default=50, gt=0)
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the source's questions to mine for."""

    @model_validator(mode="after")
    def _deep_enough(self) -> Self:
        if self.depth < self.n + self.skip:
            raise ValueError(f"depth: {self.depth} is less than n + skip, {self.n + self.skip}")
        return self


class Dev(_Part):
    """What of a source is held out to choose by, never trained on."""

    share: float = Field(gt=0, lt=1)
    by: Literal["question", "title"] = "question"
    """Hold out questions, or titles with all their passages and questions (where there is no title, passages)."""


class Source(_Part):
    """One data set."""

    kind: Literal["examples", "rows", "sentences", "unanswerable", "answers", "composed", "hotpot"]
    """How to read it: `read_examples`, or one of the readers in `training/sources.py`."""
    path: Path
    """A file, or a folder for "sentences" and "unanswerable"; relative to the run's data folder."""
    split: str = "train"
    share: float = Field(default=1.0, gt=0)
    """Share of its questions to train on; 2 is twice per epoch."""
    dev: Dev | None = None
    negatives: list[Negatives] = []


class Config(_Part):
    """A run of `ragkit train provence`."""

    sources: Annotated[list[Source], Field(min_length=1)]
    base: Path | None = None
    """Folder of the BERT to start from, or of a model that this trained before; None is the packaged all-MiniLM-L6-v2."""
    lexical: bool = True
    """Whether the network sees which words question and passage share, and how rare they are. Only for a new one."""
    seed: int = 0
    epochs: int = Field(default=1, gt=0)
    max_length: int = Field(default=384, ge=32)
    """Tokens per window in training; longer passages are read in several."""
    group_size: int = Field(default=5, ge=1)
    """Windows of one question in one batch at most, relevant ones first, the others drawn anew in each epoch."""
    batch_tokens: int = Field(default=5000, gt=0)
    """Tokens per step."""
    learning_rate: float = Field(default=1e-4, gt=0)
    head_learning_rate: float = Field(default=1e-3, gt=0)
    """For heads and marks, which start from nothing."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; afterwards it falls linearly."""
    weight_decay: float = Field(default=0.01, ge=0)
    label_smoothing: float = Field(default=0.02, ge=0, lt=0.5)
    gold_weight: float = Field(default=1.5, gt=0)
    """Weight of a gold sentence against another one."""
    token_loss: float = Field(default=0.5, ge=0)
    listwise_loss: float = Field(default=0.5, ge=0)
    ranking_loss: float = Field(default=0.5, ge=0)
    steps: int | None = Field(default=None, gt=0)
    """How many steps to make; None is the whole of the epochs."""
    stop: int | None = Field(default=None, gt=0)
    """End after this step although the learning rate is that of a longer run, for another run to go on with other data."""
    evaluate: int = Field(default=1, gt=0)
    """Evaluations on the held-out part per epoch."""
    patience: int = Field(default=3, gt=0)
    """Stop after so many evaluations without a better one."""
    keep_gold: float = Field(default=0.95, gt=0, le=1)
    """The model's default threshold keeps this share of the held-out gold sentences."""
    window: int = Field(default=512, ge=32)
    """Tokens per window of the finished model."""


def read_config(path: str | Path) -> Config:
    """Raises `InputError`, naming the file and the field."""
    path = Path(path)
    try:
        return Config.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"config: cannot read {path}: {error.strerror or error}") from None
    except ValidationError as error:
        raise InputError(f"config: {path}: {first_fault(error)}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"config: {path} is not YAML: {' '.join(str(error).split())[:200]}") from None
