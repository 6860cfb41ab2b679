"""What `ragkit tune` chooses on one half of the labelled questions, and what that is worth on the other.

    python benchmarks/tuning.py scifact squad hotpotqa vaswani cacm --tune 50 --report 100

Writes benchmarks/results/tuning.md, where the sets of earlier runs stay. Datasets are folders below $RAGKIT_DATA (default:
../shared/data); indexes are those of benchmarks/hybrid.py, in .cache/benchmarks. A set without a training split is cut in two:
every other question is tuned on, the rest reported. Chosen and default pipeline are timed side by side.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from hybrid import SPLITS
from retrieval import DATA, ROOT

from ragkit import Pipeline, Store
from ragkit.chains.config import PipelineConfig, build_pipeline
from ragkit.evaluation.collection import Collection, load_collection
from ragkit.evaluation.experiment import System, run_systems
from ragkit.evaluation.significance import randomisation_test
from ragkit.evaluation.tuned import Candidates, Setting, Tuned
from ragkit.evaluation.tuning import Goal
from ragkit.evaluation.tuning_work import Workbench
from ragkit.provence.model import ProvenceModel
from ragkit.provence.pair import Judged, Pair
from ragkit.pruners.provence import ProvencePruner
from ragkit.rerankers.provence import ProvenceReranker

RESULTS = ROOT / "benchmarks" / "results" / "tuning.md"
CACHE = ROOT / ".cache" / "benchmarks"
FIGURES = CACHE / "tuning.json"
DEPTHS = (10, 20, 30, 40)


class Remembered(ProvenceModel):
    """The packaged model; what it has judged is kept in a file, so that a run that was interrupted goes on."""

    def __init__(self, path: Path, dtype: str | None = None) -> None:
        self._inner, self._path = ProvenceModel.from_pretrained(dtype=dtype), path
        self.family = self._inner.family
        self._known: dict[str, Judged] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            key, score, keep, starts, ends = json.loads(line)
            self._known[key] = Judged(score, np.array(keep, np.float32), np.array(starts), np.array(ends))

    def judge_groups(self, groups: Sequence[Sequence[Pair]], *, batch_tokens: int | None = None) -> list[list[Judged]]:
        """See `ProvenceModel.judge_groups`."""
        for group in groups:
            new = [pair for pair in group if _key(pair) not in self._known]
            with self._path.open("a") as file:
                for pair, judged in zip(new, self._inner.judge_groups([new], batch_tokens=batch_tokens)[0], strict=True):
                    self._known[_key(pair)] = judged
                    keep = [round(float(probability), 5) for probability in judged.keep]
                    row = [_key(pair), judged.score, keep, judged.starts.tolist(), judged.ends.tolist()]
                    file.write(json.dumps(row) + "\n")
        return [[self._known[_key(pair)] for pair in group] for group in groups]


def _key(pair: Pair) -> str:
    return blake2b(f"{pair.question}\0{pair.passage}".encode(), digest_size=12).hexdigest()


def parts(name: str, tune: int, report: int) -> tuple[Collection, Collection]:
    """Questions to tune on and questions to report on."""
    if (DATA / name / "qrels" / "train.tsv").exists():
        split = SPLITS.get(name, "test")
        return _some(load_collection(str(DATA / name), "train"), tune), _some(load_collection(str(DATA / name), split), report)
    whole = load_collection(str(DATA / name), SPLITS.get(name, "test"))
    return _some(whole, tune, 0), _some(whole, report, 1)


def _some(collection: Collection, count: int, half: int | None = None) -> Collection:
    """That many questions with a relevant document, drawn with a fixed seed; with `half` (0 or 1) from every other one."""
    ids = sorted(id_ for id_, gains in collection.qrels.items() if any(gain > 0 for gain in gains.values()))
    random.Random(0).shuffle(ids)
    ids = (ids if half is None else ids[half::2])[:count]
    return replace(collection, queries={id_: collection.queries[id_] for id_ in ids})


def bench(store: Store, collection: Collection, name: str) -> Workbench:
    """The shared work, with the packaged model for both stages, as it is and in 8-bit integers."""
    model, fast = Remembered(CACHE / f"tuning-{name}.jsonl"), Remembered(CACHE / f"tuning-{name}-int8.jsonl", "int8")
    rerankers = {"provence-reranker": ProvenceReranker(model=model), "provence-reranker int8": ProvenceReranker(model=fast)}
    return Workbench(store, collection, rerankers=rerankers, pruner=ProvencePruner(model=model))


def measure(name: str, tune: int, report: int, timed: int) -> dict[str, Any]:
    """Tune on one part, report on the other."""
    store = Store.open(CACHE / name)
    train, test = parts(name, tune, report)
    candidates = Candidates(store.language, [], DEPTHS)
    costs = candidates.costs(train, store, timed)
    work = bench(store, train, name)
    tuned = candidates.choose(work, costs, Goal(ms=costs[candidates.default].ms), 0.95)
    print(f"{name}: {tuned.setting.name}, {tuned.config}")
    held = bench(store, test, name)
    weights = tuned.config.retriever.get("weights")
    pruners = {stage["type"]: stage for stage in tuned.config.stages}
    threshold = pruners.get("provence", {}).get("threshold")
    default = candidates.default_config.stages[-1]["threshold"]
    figures = {
        "default": _figures(held, candidates.default, None, default),
        "tuned": _figures(held, tuned.setting, weights, threshold),
    }
    times = _times(store, test, {"default": candidates.default_config, "tuned": tuned.config}, timed)
    difference = figures["tuned"].pop("each") - figures["default"].pop("each")
    return {
        "about": f"{name}: tuned on {len(work.ids)} questions of {train.split}, reported on {len(held.ids)} of {test.split}",
        "tuned": _described(tuned, threshold),
        "held_out": [tuned.choice.gain, tuned.choice.error],
        "rows": {system: {**its, "ms": times[system]} for system, its in figures.items()},
        "difference": float(difference.mean()),
        "p": randomisation_test(difference),
    }


def _figures(work: Workbench, setting: Setting, weights: Sequence[float] | None, threshold: float | None) -> dict[str, Any]:
    from ragkit.evaluation.tuning import evidence_kept

    rankings = work.rankings(setting.way, np.arange(0)) if weights is None else work.convex(weights)
    orders = work.orders(rankings, setting.reranker, setting.depth, setting.weight)
    each = work.values(orders)
    marked = [its for its in work.marked(orders, 5) if any(passage.gold for passage in its)]
    kept = [evidence_kept(its, [-1.0 if threshold is None else threshold])[0] for its in marked]
    return {"ndcg": float(each.mean()), "evidence": float(np.mean(kept)) if kept else None, "each": each}


def _times(store: Store, collection: Collection, configs: dict[str, PipelineConfig], timed: int) -> dict[str, float]:
    """Median milliseconds of a question, asked one at a time, the two taking turns."""
    some = dict(list(collection.queries.items())[:timed])
    systems = [System(name, build_pipeline(Pipeline, config, store), {}) for name, config in configs.items()]
    runs = run_systems(some, systems, alone=len(some))
    return {run.name: float(np.median([1000 * (its.seconds or 0.0) for its in run.traced.values()])) for run in runs}


def _described(tuned: Tuned, threshold: float | None) -> str:
    weights = tuned.config.retriever.get("weights")
    told = [tuned.setting.name, *([f"weights {weights[0]:g} and {weights[1]:g}"] if weights else [])]
    return ", ".join([*told, "no pruner" if threshold is None else f"pruning threshold {threshold:g}"])


def report(figures: dict[str, dict[str, Any]]) -> str:
    """All figures so far, as Markdown."""
    lines = [
        "# Tuned against the default",
        "",
        "Default: hybrid, 20 passages >> provence-reranker >> blend 0.5 >> provence at 0.3, 5 passages shown. The goal is its",
        "time and 95% of the evidence in the 5 passages. nDCG@10 is of the ranking before pruning; ms are medians of the two",
        "taking turns, and only to be compared within a row. p is of a paired randomisation test.",
        "",
        "| dataset | what was chosen | nDCG@10 default | tuned | difference | p "
        "| evidence default | tuned | ms default | tuned |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, its in figures.items():
        default, tuned = its["rows"]["default"], its["rows"]["tuned"]
        cells = [
            name,
            its["tuned"],
            f"{default['ndcg']:.4f}",
            f"{tuned['ndcg']:.4f}",
            f"{its['difference']:+.4f}",
            f"{its['p']:.3f}",
            *("-" if row["evidence"] is None else f"{row['evidence']:.3f}" for row in (default, tuned)),
            f"{default['ms']:.0f}",
            f"{tuned['ms']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- {its['about']}; held-out gain while tuning {_gain(*its['held_out'])}" for its in figures.values()), ""]
    return "\n".join([*lines, f"`python benchmarks/tuning.py {' '.join(figures)}`", ""])


def _gain(gain: float, error: float) -> str:
    return f"{gain:+.4f} (standard error {error:.4f})" if isfinite(gain) else "unknown"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--tune", type=int, default=50, help="questions to tune on")
    parser.add_argument("--report", type=int, default=100, help="questions to report on")
    parser.add_argument("--timed", type=int, default=10, help="questions that are asked one at a time")
    chosen = parser.parse_args(arguments)
    for name in chosen.datasets:
        found = measure(name, chosen.tune, chosen.report, chosen.timed)
        figures = (json.loads(FIGURES.read_text()) if FIGURES.exists() else {}) | {name: found}
        FIGURES.write_text(json.dumps(figures, indent=1))
        RESULTS.write_text(report(figures))
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
