"""What the reranker and the pruner of a Provence model have in common: its fields, and documents to judgements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from langchain_core.documents import Document
from pydantic import Field, PrivateAttr, model_validator

from ragkit.compressor import Compressor, Task
from ragkit.documents.provenance import passage_text
from ragkit.documents.sentences import units_of
from ragkit.encoders.languages import iso_code
from ragkit.provence.model import ProvenceModel
from ragkit.provence.pair import Judged, Pair
from ragkit.provence.titles import name_of, title_of


class ProvenceStage(Compressor):
    """A stage that asks a Provence model. Stages of equal `model`, `device`, `dtype` and `max_length` share it: a passage that a
    reranker has scored costs a pruner behind it nothing.
    """

    model: str | Path | ProvenceModel | None = None
    """A folder, a hub name or a loaded model; None is ragkit's own."""
    device: str | None = None
    """None is a GPU where there is one."""
    dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None
    """Of the weights; None is what suits the device. "int8" is for ragkit's own model on x86 processors: about 1.6 times as fast
    as float32, and one sentence in two hundred is judged otherwise (benchmarks/results/provence.md)."""
    max_length: int | None = Field(default=None, ge=16)
    """Tokens of a window: question, title, passage and special tokens; None is what the model was trained on."""
    batch_tokens: int | None = Field(default=None, gt=0)
    """Tokens, padding included, that go through the model at once; None is the model's own: 2048 on a CPU, 8192 elsewhere."""
    language: str = "english"
    """Language of the text, by name or ISO code: for sentence boundaries of documents that ragkit did not split."""

    _loaded: tuple[Any, ProvenceModel] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _loaded_models_are_set_up(self) -> Self:
        if isinstance(self.model, ProvenceModel):
            for field in ("device", "dtype", "max_length"):
                if getattr(self, field) is not None:
                    raise ValueError(f"{field}: the model is loaded already; give it to ProvenceModel.from_pretrained")
        return self

    def provence(self) -> ProvenceModel:
        """The model, loaded at the first call."""
        if isinstance(self.model, ProvenceModel):
            return self.model
        wanted = (self.model, self.device, self.dtype, self.max_length)
        if self._loaded is None or self._loaded[0] != wanted:
            model = ProvenceModel.from_pretrained(self.model, device=self.device, dtype=self.dtype, max_length=self.max_length)
            self._loaded = (wanted, model)
        return self._loaded[1]

    def judged(self, tasks: Sequence[Task]) -> list[list[Judged]]:
        """A judgement of each document of each question, in one pass."""
        code = iso_code(self.language)
        groups = [[pair_of(task.query, document, code) for document in task.documents] for task in tasks]
        return self.provence().judge_groups(groups, batch_tokens=self.batch_tokens)


def pair_of(question: str, document: Document, language: str) -> Pair:
    """What a model reads of a document: its whole passage, also after a pruner has shortened it, its title and its name."""
    units = units_of(document, language)
    return Pair(question, passage_text(document), units, title_of(document, units), name_of(document))
