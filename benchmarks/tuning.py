"""What `ragkit tune` chooses on one half of the labelled questions, and what that is worth on the other.

    python benchmarks/tuning.py scifact squad hotpotqa vaswani cacm --tune 50 --report 100

Writes benchmarks/results/tuning.md, where the sets of earlier runs stay. Datasets are folders below $RAGKIT_DATA (default:
../shared/data); indexes are those of benchmarks/hybrid.py, in .cache/benchmarks. A set without a training split is cut in two:
every other question is tuned on, the rest reported. Chosen and default pipeline are timed side by side; on a machine with
nothing else to do, `--again` times them again, and chooses nothing. What the model judges is kept in .cache/benchmarks.
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
from ragkit.training.assemble import is_held_out

RESULTS = ROOT / "benchmarks" / "results" / "tuning.md"
CACHE = ROOT / ".cache" / "benchmarks"
FIGURES = CACHE / "tuned.json"
DEPTHS = (20, 30, 40)
HELD_OUT = {"squad": ("title", 0.16), "hotpotqa": ("question", 0.2), "scifact": ("question", 0.15)}
"""What the packaged model's training held out; see ragkit/models/provence-minilm/training.yaml."""
FEWEST = 50


class Remembered(ProvenceModel):
    """The packaged model; what it has judged is kept in a file, so that a run that was interrupted goes on.

    As in the model's own memo, what was judged beside these passages is known, or what was judged beside these and more.
    """

    def __init__(self, path: Path, dtype: str | None = None) -> None:
        self._inner, self._path = ProvenceModel.from_pretrained(dtype=dtype), path
        self.family = self._inner.family
        self._known: dict[str, list[dict[str, Judged]]] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            question, rows = json.loads(line)
            judged = {key: Judged(score, np.array(keep, np.float32), *map(np.array, ends)) for key, score, keep, *ends in rows}
            self._known.setdefault(question, []).append(judged)

    def judge_groups(self, groups: Sequence[Sequence[Pair]], *, batch_tokens: int | None = None) -> list[list[Judged]]:
        """See `ProvenceModel.judge_groups`."""
        return [self._judged(group, batch_tokens) for group in groups]

    def _judged(self, group: Sequence[Pair], batch_tokens: int | None) -> list[Judged]:
        if not group:
            return []
        question, keys = _digest(group[0].question), [_digest(pair.passage) for pair in group]
        seen = self._known.setdefault(question, [])
        beside = min((its for its in seen if its.keys() >= set(keys)), key=len, default=None)
        if beside is None:
            [found] = self._inner.judge_groups([group], batch_tokens=batch_tokens)
            beside = dict(zip(keys, found, strict=True))
            seen.append(beside)
            with self._path.open("a") as file:
                file.write(json.dumps([question, [_row(key, judged) for key, judged in beside.items()]]) + "\n")
        return [beside[key] for key in keys]


def _row(key: str, judged: Judged) -> list[Any]:
    keep = [round(float(probability), 5) for probability in judged.keep]
    return [key, judged.score, keep, judged.starts.tolist(), judged.ends.tolist()]


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=12).hexdigest()


def parts(name: str, tune: int, report: int) -> tuple[Collection, Collection]:
    """Questions to tune on and questions to report on."""
    split = SPLITS.get(name, "test")
    if (DATA / name / "qrels" / "train.tsv").exists():
        train, test = load_collection(str(DATA / name), "train"), load_collection(str(DATA / name), split)
        return _some(train, _unseen(name, train)[:tune]), _some(test, _shuffled(test)[:report])
    whole = load_collection(str(DATA / name), split)
    return _some(whole, _shuffled(whole)[0::2][:tune]), _some(whole, _shuffled(whole)[1::2][:report])


def _unseen(name: str, train: Collection) -> list[str]:
    """Questions that the packaged model was not trained on: of others it knows what is relevant. All, if these are too few."""
    ids = _shuffled(train)
    if name not in HELD_OUT:
        return ids
    by, share = HELD_OUT[name]
    titles = {id_: str(train.documents[next(iter(train.qrels[id_]))].metadata["title"]) for id_ in ids}
    unseen = [id_ for id_ in ids if is_held_out(titles[id_] if by == "title" else id_, share)]
    return unseen if len(unseen) >= FEWEST else ids


def _shuffled(collection: Collection) -> list[str]:
    """Questions with a relevant document, in an order of a fixed seed."""
    ids = sorted(id_ for id_, gains in collection.qrels.items() if any(gain > 0 for gain in gains.values()))
    random.Random(0).shuffle(ids)
    return ids


def _some(collection: Collection, ids: Sequence[str]) -> Collection:
    return replace(collection, queries={id_: collection.queries[id_] for id_ in ids})


def bench(store: Store, collection: Collection, name: str, dtype: str | None) -> Workbench:
    """The shared work, with the packaged model for both stages, as it is (None) or in 8-bit integers."""
    model = Remembered(CACHE / f"judged-{name}{f'-{dtype}' if dtype else ''}.jsonl", dtype)
    rerankers = dict.fromkeys(["provence-reranker", "provence-reranker int8"], ProvenceReranker(model=model))
    return Workbench(store, collection, rerankers=rerankers, pruner=ProvencePruner(model=model))


def measure(name: str, tune: int, report: int, timed: int, depths: Sequence[int]) -> dict[str, Any]:
    """Tune on one part, report on the other."""
    store = Store.open(CACHE / name)
    train, test = parts(name, tune, report)
    candidates = Candidates(store.language, [], depths)
    costs = candidates.costs(train, store, timed)
    work = bench(store, train, name, "int8")
    tuned = candidates.choose(work, costs, Goal(ms=costs[candidates.default].ms), 0.95)
    print(f"{name}: {tuned.setting.name}, {tuned.config}, held out {tuned.choice.gain:+.4f} ({tuned.choice.error:.4f})")
    weights = tuned.config.retriever.get("weights")
    dtype = next((stage["dtype"] for stage in tuned.config.stages if "dtype" in stage), None)
    pruners = {stage["type"]: stage for stage in tuned.config.stages}
    threshold = pruners.get("provence", {}).get("threshold")
    default = candidates.default_config.stages[-1]["threshold"]
    figures = {
        "default": _figures(bench(store, test, name, None), candidates.default, None, default),
        "tuned": _figures(bench(store, test, name, dtype), tuned.setting, weights, threshold),
    }
    difference = figures["tuned"].pop("each") - figures["default"].pop("each")
    return {
        "about": f"{name}: tuned on {len(work.ids)} questions of {train.split}, over {' or '.join(map(str, depths))} passages; "
        f"reported on {len(difference)} of {test.split}",
        "tuned": _described(tuned, threshold),
        "config": tuned.config.model_dump(),
        "held_out": [tuned.choice.gain, tuned.choice.error],
        "rows": figures,
        "difference": float(difference.mean()),
        "p": randomisation_test(difference),
    }


def times(name: str, report: int, timed: int, tuned: dict[str, Any]) -> dict[str, float]:
    """Median milliseconds of a question, asked one at a time, default and tuned pipeline taking turns."""
    store = Store.open(CACHE / name)
    _, test = parts(name, 1, report)
    some = dict(list(test.queries.items())[:timed])
    configs = {"default": Candidates(store.language, [], []).default_config, "tuned": PipelineConfig(**tuned)}
    systems = [System(system, build_pipeline(Pipeline, config, store), {}) for system, config in configs.items()]
    runs = run_systems(some, systems, alone=len(some))
    return {run.name: float(np.median([1000 * (its.seconds or 0.0) for its in run.traced.values()])) for run in runs}


def _figures(work: Workbench, setting: Setting, weights: Sequence[float] | None, threshold: float | None) -> dict[str, Any]:
    from ragkit.evaluation.tuning import evidence_kept

    rankings = work.rankings(setting.way, np.arange(0)) if weights is None else work.convex(weights)
    orders = work.orders(rankings, setting.reranker, setting.depth, setting.weight)
    each = work.values(orders)
    marked = [its for its in work.marked(orders, 5) if any(passage.gold for passage in its)]
    kept = [evidence_kept(its, [-1.0 if threshold is None else threshold])[0] for its in marked]
    return {"ndcg": float(each.mean()), "evidence": float(np.mean(kept)) if kept else None, "each": each}


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
        "Tuned on questions that the packaged model was not trained on; hotpotqa has too few of these, so on all. None of the",
        "judgements while tuning was made in 32 bits: the default is taken to rank like its twin in 8 bits.",
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
            *(f"{its['ms'][system]:.0f}" for system in ("default", "tuned")),
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
    parser.add_argument("--depth", type=int, nargs="*", default=DEPTHS, help="numbers of passages to try")
    parser.add_argument("--again", action="store_true", help="only time what was chosen before again")
    chosen = parser.parse_args(arguments)
    for name in chosen.datasets:
        figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        if not chosen.again:
            figures[name] = measure(name, chosen.tune, chosen.report, chosen.timed, chosen.depth)
        figures[name]["ms"] = times(name, chosen.report, chosen.timed, figures[name]["config"])
        FIGURES.write_text(json.dumps(figures, indent=1))
        RESULTS.write_text(report(figures))
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
