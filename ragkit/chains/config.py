"""A pipeline as a YAML file.

    store: ./index               # an index directory, or the URL of a store; not needed where the caller names one
    encoder: null                # a path or hub name, if the index was not built with the default encoder
    retriever: {type: hybrid, k: 50, weights: [0.5, 0.5]}
    stages:
      - {type: cross-encoder, model: cross-encoder/ms-marco-MiniLM-L6-v2, top_k: 5}
      - {type: extractive, threshold: 0.5}
    k: 5
    max_tokens: 800
    max_passages: 5
    order: best-first            # or best-last, best-at-ends, source

Beside `type`, a component takes the fields of its class, with the same names and checks; a retriever over others has these
inside it, as in `{type: multi-hop, retriever: {type: bm25}}`. The `llm` of a retriever or reranker names a chat model as
PROVIDER:NAME, such as `{type: listwise, llm: "openai:gpt-4.1-mini"}`, whose key is taken from the environment, or else it is the
folder or hub name of a model to run locally.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from ragkit.chains.ordering import Order
from ragkit.engines.opening import open_store
from ragkit.errors import InputError, RagkitError
from ragkit.pruners.extractive import ExtractivePruner
from ragkit.store.base import BaseStore

if TYPE_CHECKING:
    from ragkit.chains.pipeline import Pipeline

RETRIEVERS = {
    "bm25": "ragkit.retrievers.bm25:BM25Retriever",
    "decomposition": "ragkit.retrievers.decomposition:DecompositionRetriever",
    "dense": "ragkit.retrievers.dense:DenseRetriever",
    "document-context": "ragkit.retrievers.documents:DocumentContextRetriever",
    "documents": "ragkit.retrievers.documents:DocumentRetriever",
    "exact": "ragkit.retrievers.exact:ExactRetriever",
    "hybrid": "ragkit.retrievers.hybrid:HybridRetriever",
    "hyde": "ragkit.retrievers.expansion:HydeRetriever",
    "late-interaction": "ragkit.retrievers.late_interaction:LateInteractionRetriever",
    "learned-fusion": "ragkit.retrievers.learned_fusion:LearnedFusionRetriever",
    "long-units": "ragkit.retrievers.long_units:LongUnitRetriever",
    "multi-hop": "ragkit.retrievers.multi_hop:MultiHopRetriever",
    "multi-query": "ragkit.retrievers.expansion:MultiQueryRetriever",
    "rm3": "ragkit.retrievers.feedback:RM3Retriever",
    "rocchio": "ragkit.retrievers.feedback:RocchioRetriever",
    "sparse": "ragkit.retrievers.sparse:SparseRetriever",
    "step-back": "ragkit.retrievers.expansion:StepBackRetriever",
    "typo-tolerant": "ragkit.retrievers.typos:TypoTolerantRetriever",
    "units": "ragkit.retrievers.units:UnitRetriever",
}
STAGES = {
    "blend": "ragkit.rerankers.blend:BlendReranker",
    "boosts": "ragkit.rerankers.boosts:BoostReranker",
    "consensus": "ragkit.rerankers.consensus:ConsensusReranker",
    "cross-encoder": "ragkit.rerankers.cross_encoder:CrossEncoderReranker",
    "duplicates": "ragkit.rerankers.duplicates:DuplicateReranker",
    "extractive": "ragkit.pruners.extractive:ExtractivePruner",
    "listwise": "ragkit.rerankers.listwise:ListwiseReranker",
    "maxsim": "ragkit.rerankers.maxsim:MaxSimReranker",
    "maxsim-pruner": "ragkit.pruners.maxsim:MaxSimPruner",
    "pairwise": "ragkit.rerankers.pairwise:PairwiseReranker",
    "pointwise": "ragkit.rerankers.pointwise:PointwiseReranker",
    "provence": "ragkit.pruners.provence:ProvencePruner",
    "provence-reranker": "ragkit.rerankers.provence:ProvenceReranker",
    "setwise": "ragkit.rerankers.setwise:SetwiseReranker",
    "source-cap": "ragkit.rerankers.source_cap:SourceCapReranker",
    "tournament": "ragkit.rerankers.tournament:TournamentReranker",
}

_DEEPEST = 5  # a YAML file may refer to itself

P = TypeVar("P", bound="Pipeline")


class PipelineConfig(BaseModel):
    """The file's top level."""

    model_config = ConfigDict(extra="forbid")

    store: str | None = None
    encoder: str | None = None
    retriever: dict[str, Any] = {"type": "hybrid"}
    stages: list[dict[str, Any]] = []
    k: int = Field(default=5, gt=0)
    max_tokens: int | None = Field(default=None, gt=0)
    max_passages: int | None = Field(default=None, gt=0)
    order: Order = "best-first"

    _origin: str = PrivateAttr(default="config")

    @property
    def origin(self) -> str:
        """The file it was read from, as errors name it; "config" if there is none."""
        return self._origin


def read_config(path: str | Path) -> PipelineConfig:
    """The checked top level of a file. Raises `InputError` naming the file and the field."""
    try:
        data = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read config {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold a mapping with the fields {', '.join(PipelineConfig.model_fields)}")
    try:
        config = PipelineConfig(**data)
    except (ValidationError, TypeError) as error:
        raise InputError(f"{path}: {_explain(error, PipelineConfig)}") from None
    config._origin = str(path)
    return config


def build_pipeline(kind: type[P], config: PipelineConfig, store: BaseStore | str | Path | None = None) -> P:
    """The pipeline a config describes, over its own store or the one given. Raises `InputError` naming the file and the field."""
    place = store if store is not None else config.store
    if place is None:
        raise InputError(
            f"{config.origin}: store is missing; name an index directory or the URL of a store there, or give store="
        )
    opened = place if isinstance(place, BaseStore) else open_store(place, encoder=config.encoder)
    try:
        stages = [_component(f"stages.{n}", stage, STAGES) for n, stage in enumerate(config.stages)]
        retriever = _retriever("retriever", config.retriever, opened)
    except RagkitError as error:
        raise _placed(f"{config.origin}: ", error) from error
    for stage in stages:
        if isinstance(stage, ExtractivePruner) and stage.encoder is None:
            stage.encoder = opened.encoder
    return kind(
        retriever=retriever,
        stages=stages,
        k=config.k,
        max_tokens=config.max_tokens,
        max_passages=config.max_passages,
        order=config.order,
    )


def _retriever(field: str, settings: Mapping[str, Any], store: Any) -> Any:
    if field.count("retriever") > _DEEPEST:
        raise InputError(f"{field} is inside of too many others; nest at most {_DEEPEST}")
    inner = dict(settings)
    if isinstance(inner.get("retriever"), Mapping):
        inner["retriever"] = _retriever(f"{field}.retriever", inner["retriever"], store)
    if isinstance(inner.get("retrievers"), list):
        inner["retrievers"] = [
            _retriever(f"{field}.retrievers.{n}", its, store) if isinstance(its, Mapping) else its
            for n, its in enumerate(inner["retrievers"])
        ]
    return _component(field, inner, RETRIEVERS, store=store)


def _component(field: str, settings: Mapping[str, Any], known: Mapping[str, str], **extra: Any) -> Any:
    name = str(settings.get("type"))
    if name not in known:
        raise InputError(f"{field}.type is {settings.get('type')!r}; use one of {', '.join(known)}")
    module, _, attribute = known[name].partition(":")
    kind = getattr(import_module(module), attribute)
    try:
        return kind(**{key: value for key, value in settings.items() if key != "type"}, **extra)
    except (ValidationError, TypeError) as error:
        raise InputError(f"{field}.{_explain(error, kind)}") from None
    except RagkitError as error:  # a model's missing package or key, say
        raise _placed(f"{field}.", error) from error


def _placed(place: str, error: RagkitError) -> RagkitError:
    """The error with its place in front; one that is more than its text as it is."""
    return type(error)(f"{place}{error}") if type(error) in (InputError, RagkitError) else error


def _explain(error: ValidationError | TypeError, kind: type[BaseModel]) -> str:
    if isinstance(error, TypeError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"{place} is not a known field; use one of {', '.join(kind.model_fields)}"
    if not place:  # a rule over several fields, whose message names them
        return first["msg"].removeprefix("Value error, ")
    got = f", got {first['input']!r}" if isinstance(first["input"], str | int | float | None) else ""
    return f"{place}: {first['msg']}{got}"
