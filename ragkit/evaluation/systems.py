"""What `ragkit eval` compares: the built-in systems, and pipelines from configuration files, over one store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ragkit.chains.config import PipelineConfig, build_pipeline, read_config
from ragkit.chains.default import default_config
from ragkit.chains.pipeline import Pipeline
from ragkit.errors import InputError
from ragkit.evaluation.charged import Charged
from ragkit.evaluation.experiment import System
from ragkit.evaluation.finished import file_marks
from ragkit.llms.cached import Cached
from ragkit.llms.named import named_llm
from ragkit.store.store import Store

DEPTH = 100
"""How many documents the built-in retrievers are asked for."""


BUILT_IN = ("bm25", "dense", "hybrid", "default")
"""Names of what `built_in` makes."""


def built_in(language: str | None) -> dict[str, PipelineConfig]:
    """bm25, dense and hybrid alone, and what `ragkit ask` does with text in `language`; each shows 5 passages."""
    plain = {kind: PipelineConfig(retriever={"type": kind, "k": DEPTH}) for kind in BUILT_IN if kind != "default"}
    return {**plain, "default": default_config(language)}


def read_configs(paths: Sequence[str | Path]) -> dict[str, PipelineConfig | None]:
    """Configurations by the stem of their file; None for one of `BUILT_IN` that is named where there is no such file.

    Raises `InputError` for one that cannot be read, or two of one name.
    """
    found: dict[str, PipelineConfig | None] = {}
    for path in map(Path, paths):
        if path.stem in found:
            raise InputError(f"--config: two are named {path.stem!r}, which is what their systems are called; rename one")
        found[path.stem] = None if str(path) in BUILT_IN and not path.exists() else read_config(path)
    return found


class Systems:
    """Makes systems of configurations, which then share stores, language models and their answers."""

    def __init__(self, digest: str, open_store: Callable[[str | None], Store], answers: str | Path) -> None:
        """`digest` stands for the indexed corpus; `open_store` is asked for its store with an encoder, None for the default one.

        `answers` is the file that keeps what language models said.
        """
        self._digest, self._open, self._answers = digest, open_store, answers
        self._stores: dict[str | None, Store] = {}
        self._models: dict[str, Charged] = {}

    def store(self, encoder: str | None = None) -> Store:
        """The corpus, indexed with an encoder; opened, or built, at the first call."""
        if encoder not in self._stores:
            self._stores[encoder] = self._open(encoder)
        return self._stores[encoder]

    def make(self, name: str, config: PipelineConfig) -> System:
        """The pipeline of a configuration over the corpus, whatever `store` it names. Raises `InputError`, naming the system."""
        store = self.store(config.encoder)
        try:
            pipeline = build_pipeline(Pipeline, self._with_models(config), store)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        described = config.model_dump(exclude={"store"})
        settings = {
            "corpus": self._digest,
            "indexes": dict(store.snapshot.settings),
            "config": described,
            "files": {value: file_marks(Path(value)) for value in _strings(described) if os.path.exists(value)},
        }
        return System(name, pipeline, settings, lambda: sum(model.recalled for model in self._models.values()))

    def _with_models(self, config: PipelineConfig) -> PipelineConfig:
        stages = [self._with_model(stage) for stage in config.stages]
        return config.model_copy(update={"retriever": self._with_model(config.retriever), "stages": stages})

    def _with_model(self, component: Mapping[str, Any]) -> dict[str, Any]:
        llm = component.get("llm")
        if not isinstance(llm, str):
            return dict(component)
        if llm not in self._models:
            self._models[llm] = Charged(Cached(named_llm(llm), self._answers))
        return {**component, "llm": self._models[llm]}


def _strings(value: Any) -> Iterable[str]:
    """All strings in JSON-like data: any of them may name a file."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item)
