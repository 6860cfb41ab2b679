"""Candidate pipelines around the default one, what each costs, and the one that suits a goal best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from itertools import product
from math import nan
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from ragkit.chains.config import PipelineConfig, build_pipeline
from ragkit.chains.default import default_config
from ragkit.chains.pipeline import Pipeline
from ragkit.errors import InputError
from ragkit.evaluation.collection import Collection
from ragkit.evaluation.experiment import Run, System, run_systems
from ragkit.evaluation.tuning import (
    Choice,
    Floats,
    Goal,
    Ints,
    Option,
    allowed,
    choose,
    choose_threshold,
    evidence_kept,
    pareto,
)
from ragkit.evaluation.tuning_work import WAYS, Workbench
from ragkit.indexes.base import Positions
from ragkit.pruners.provence import ProvencePruner
from ragkit.rerankers.base import Reranker
from ragkit.store.store import Store

THRESHOLDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Of the pruner."""
_BLENDS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
_RERANKED = ("hybrid", "multi-hop")  # behind these a reranker and the blend leave other fusions nothing to add


class Setting(NamedTuple):
    """A way to retrieve, what reranks it, and how many passages come from the one to the other."""

    way: str
    reranker: str | None
    depth: int
    weight: float = 0.0
    """Of the retriever's scores in the order behind the reranker."""

    @property
    def name(self) -> str:
        """As it is shown."""
        if self.reranker is None:
            return self.way
        blended = f" >> blend {self.weight:g}" if self.weight else ""
        return f"{self.way} {self.depth} >> {self.reranker}{blended}"


class Cost(NamedTuple):
    """Of a question: milliseconds (the median) and calls of a language model (the mean)."""

    ms: float
    calls: float


class Row(NamedTuple):
    """A candidate, as the front shows it: mean nDCG@10, share of evidence kept by its pruner, and what a question costs."""

    name: str
    value: float
    evidence: float
    ms: float
    calls: float


class Tuned(NamedTuple):
    """The configuration, how it was chosen, and what was to choose from."""

    config: PipelineConfig
    setting: Setting
    choice: Choice[Setting]
    chosen: Row
    default: Row
    front: list[Row]
    """Of what was tried, cheapest first."""


class Candidates:
    """Everything that may be chosen for text in `language` (ISO code): settings of the default pipeline's parts.

    `rerankers` are configurations by the name of their type, as in a pipeline's file. Where this machine can run ragkit's own in
    8-bit integers, which takes half the time, the default's judgements are taken to be those of its twin in 8 bits, and all other
    settings with that model have 8 bits.
    """

    def __init__(self, language: str | None, rerankers: Sequence[Mapping[str, Any]], depths: Sequence[int]) -> None:
        """The default's own reranker and number of passages are always among them."""
        config = default_config(language)
        self._k, size = config.k, int(config.retriever["k"])
        stages = {str(stage["type"]): stage for stage in config.stages}
        self.rerankers = {name: stage for name, stage in stages.items() if name.endswith("reranker")}
        self._twins = {name: f"{name} int8" for name in self._in_int8()}
        self.rerankers |= {twin: {**self.rerankers[name], "dtype": "int8"} for name, twin in self._twins.items()}
        self.rerankers |= {str(stage["type"]): dict(stage) for stage in rerankers}
        self._moving = [stage for name, stage in stages.items() if name == "duplicates"]
        self.pruner = next((stage for name, stage in stages.items() if name in ("provence", "extractive")), None)
        weight = float(stages.get("blend", {}).get("weight", 0.0))
        self.default = Setting("hybrid", next((name for name in stages if name in self.rerankers), None), size, weight)
        reranked = [
            Setting(*parts)
            for name in self.rerankers
            if name not in self._twins
            for parts in product(_RERANKED, [name], sorted({*depths, size}), sorted({*_BLENDS, weight}))
        ]
        unranked = [Setting(way, None, size) for way in WAYS]
        self.settings = list(dict.fromkeys([self.default, *unranked, *reranked]))

    @property
    def default_config(self) -> PipelineConfig:
        """The configuration of the default setting."""
        return self.config(self.default, None, self.pruner)

    def config(self, setting: Setting, weights: Sequence[float] | None, pruner: Mapping[str, Any] | None) -> PipelineConfig:
        """A setting as a pipeline; `weights` are those of the way "fitted"."""
        kind = setting.way if setting.way in ("bm25", "dense", "multi-hop") else "hybrid"
        retriever: dict[str, Any] = {"type": kind, "k": setting.depth}
        if setting.way == "rrf":
            retriever["fusion"] = "rrf"
        if weights is not None:
            retriever["weights"] = [round(weight, 6) for weight in weights]
        stages: list[dict[str, Any]] = [] if setting.reranker is None else [dict(self.rerankers[setting.reranker])]
        if setting.weight:
            stages.append({"type": "blend", "weight": setting.weight})
        stages += map(dict, self._moving)
        if pruner is not None:
            # of one dtype, the two share their pass
            shared = {key: value for stage in stages[:1] for key, value in stage.items() if key == "dtype"}
            stages.append({**pruner, **(shared if pruner["type"] == "provence" else {})})
        return PipelineConfig(retriever=retriever, stages=stages, k=self._k)

    def _in_int8(self) -> list[str]:
        from ragkit.encoders.int8 import check_int8
        from ragkit.encoders.network import best_device

        try:
            check_int8(best_device())
        except InputError:
            return []
        return [name for name in self.rerankers if name == "provence-reranker"]

    def build_rerankers(self, store: Store) -> dict[str, Reranker]:
        """Every reranker, by name. Raises `InputError`, naming it, for one that is unknown, incomplete or something else."""
        built = build_pipeline(Pipeline, PipelineConfig(stages=[dict(stage) for stage in self.rerankers.values()]), store)
        found: dict[str, Reranker] = {}
        for name, stage in zip(self.rerankers, built.stages, strict=True):
            if not isinstance(stage, Reranker):
                raise InputError(f"reranker: {name} is none; name a stage that orders passages, such as cross-encoder=FOLDER")
            found[name] = stage
        return found | {name: found[twin] for name, twin in self._twins.items()}

    def build_pruner(self, store: Store) -> ProvencePruner | None:
        """The pruner, if it is one whose threshold can be chosen; in 8 bits, if the reranker has a twin in these."""
        stages = [] if self.pruner is None else [{**self.pruner, **({"dtype": "int8"} if self._twins else {})}]
        built = build_pipeline(Pipeline, PipelineConfig(stages=stages), store).stages
        return next((stage for stage in built if isinstance(stage, ProvencePruner)), None)

    def costs(self, collection: Collection, store: Store, questions: int) -> dict[Setting, Cost]:
        """What each setting costs, with the default's pruner: so many questions, evenly spread, are asked one at a time.

        Ways that do the same work share their figures, so that none is chosen for a difference that is only in the clock.
        """
        timed = {self._same_work(setting): setting for setting in self.settings}
        systems = [System(same.name, build_pipeline(Pipeline, self.config(same, None, self.pruner), store), {}) for same in timed]
        ids = list(collection.queries)
        some = [ids[at * len(ids) // questions] for at in range(questions)] if questions < len(ids) else ids
        runs = run_systems({id_: collection.queries[id_] for id_ in some}, systems, alone=len(some))
        found = dict(zip(timed, map(_cost, runs), strict=True))
        return {setting: found[self._same_work(setting)] for setting in self.settings}

    def _same_work(self, setting: Setting) -> Setting:
        way = setting.way if setting.way in ("bm25", "dense", "multi-hop") else "hybrid"
        return setting._replace(way=way, weight=0.0)

    def choose(self, bench: Workbench, costs: Mapping[Setting, Cost], goal: Goal, keep: float) -> Tuned:
        """The setting that `tuning.choose` reaches within the goal, with a threshold that keeps that share of the evidence.

        It starts from the default or its twin, whichever takes less time; where both cost too much, from hybrid retrieval
        alone, or else from what costs least. It changes the reranker, the retriever, the number of passages and the blend, in
        this order. Without known evidence the pruner stays as it is; if no threshold keeps so much, there is none.
        """
        tried = {setting for setting in self.settings if setting.reranker is None}
        options = {setting: _option(bench, setting, costs[setting], tried) for setting in self.settings}
        within = allowed(options, goal)
        twin = self.default._replace(reranker=self._twins.get(self.default.reranker or "", self.default.reranker))
        alone = Setting("hybrid", None, self.default.depth)
        start = next((its for its in within if its in (self.default, twin)), alone if alone in within else next(iter(within)))
        parts = [partial(part, within) for part in (self._rerankers, self._ways, self._depths, self._weights)]
        choice = choose(within, start, parts, len(bench.ids))
        setting = choice.setting
        everything = np.arange(len(bench.ids))
        marked = bench.marked(_orders(bench, setting, everything), self._k)
        known = any(passage.gold for passages in marked for passage in passages)
        threshold = choose_threshold(marked, THRESHOLDS, keep) if known else None
        pruner = self.pruner
        if known:
            pruner = None if threshold is None or pruner is None else {**pruner, "threshold": threshold}
        weights = bench.weights(everything) if setting.way == "fitted" else None
        points = {its: self._row(bench, its, options[its]) for its in self.settings if its in tried | {self.default}}
        front = pareto(list(points.values()))
        shown = [self._with_evidence(bench, its, row, pruner) for its, row in points.items() if row in front]
        return Tuned(
            config=self.config(setting, weights, pruner),
            setting=setting,
            choice=choice,
            chosen=self._with_evidence(bench, setting, points[setting], pruner),
            default=self._with_evidence(bench, self.default, points[self.default], self.pruner),
            front=sorted(shown, key=lambda row: (row.calls, row.ms, -row.value)),
        )

    def _rerankers(self, within: Iterable[Setting], setting: Setting) -> list[Setting]:
        """Each reranker over as many passages, or as many as are allowed, and none."""
        depths = {its.reranker: its.depth for its in sorted(within, key=lambda its: its.depth) if its.depth <= setting.depth}
        weight = setting.weight if setting.reranker else self.default.weight
        size = self.default.depth
        return [
            setting._replace(reranker=name, depth=size if name is None else depth, weight=weight if name else 0.0)
            for name, depth in depths.items()
        ]

    def _ways(self, within: Iterable[Setting], setting: Setting) -> list[Setting]:
        return [setting._replace(way=way) for way in WAYS]

    def _depths(self, within: Iterable[Setting], setting: Setting) -> list[Setting]:
        return [setting._replace(depth=its.depth) for its in within]

    def _weights(self, within: Iterable[Setting], setting: Setting) -> list[Setting]:
        return [setting._replace(weight=its.weight) for its in within]

    def _row(self, bench: Workbench, setting: Setting, option: Option) -> Row:
        return Row(option.name, float(option.values(np.arange(len(bench.ids))).mean()), nan, option.ms, option.calls)

    def _with_evidence(self, bench: Workbench, setting: Setting, row: Row, pruner: Mapping[str, Any] | None) -> Row:
        marked = bench.marked(_orders(bench, setting, np.arange(len(bench.ids))), self._k)
        threshold = -1.0 if pruner is None else float(pruner.get("threshold", 0.0))
        kept = [evidence_kept(its, [threshold])[0] for its in marked if any(passage.gold for passage in its)]
        return row._replace(evidence=float(np.mean(kept)) if kept else nan)


def _orders(bench: Workbench, setting: Setting, train: Ints) -> list[Positions]:
    return bench.orders(bench.rankings(setting.way, train), setting.reranker, setting.depth, setting.weight)


def _option(bench: Workbench, setting: Setting, cost: Cost, tried: set[Setting]) -> Option:
    @cache
    def known(train: tuple[int, ...]) -> Floats:
        return bench.values(_orders(bench, setting, np.array(train, np.int64)))

    def values(train: Ints) -> Floats:
        tried.add(setting)
        # only fitted weights depend on the questions
        return known(tuple(train.tolist()) if setting.way == "fitted" else ())

    return Option(setting.name, values, cost.ms, cost.calls)


def _cost(run: Run) -> Cost:
    traced = list(run.traced.values())
    calls = [sum(float(step.usage.get("calls") or 0) for step in its.steps) for its in traced]
    return Cost(median(1000 * its.seconds for its in traced if its.seconds is not None), sum(calls) / len(calls))
