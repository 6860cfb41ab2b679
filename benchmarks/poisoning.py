"""How often planted passages reach the generator, and what keeping them out costs.

    python benchmarks/poisoning.py --questions 20 --default 6 --clean 60

Each attack of ragkit/evaluation/poisoning is planted for every question into a copy of a cached index; only what is planted is
encoded. The caps and thresholds were chosen by their cost on training questions, where nothing is planted. Writes
benchmarks/results/poisoning.md. Indexes are those that benchmarks/retrieval.py makes.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from retrieval import DATA, ROOT, open_store

from ragkit.chains.config import PipelineConfig, build_pipeline
from ragkit.chains.default import default_config
from ragkit.chains.pipeline import Pipeline
from ragkit.compressor import Compressor, CompressorInput, Outcome
from ragkit.evaluation.datasets import Dataset, load_dataset
from ragkit.evaluation.experiment import Run, System, run_systems
from ragkit.evaluation.measures import measure_rankings
from ragkit.evaluation.poisoning.attacks import ATTACKS
from ragkit.evaluation.poisoning.exposure import defended, exposure
from ragkit.evaluation.poisoning.plants import plant, poisoned
from ragkit.evaluation.tables import Table
from ragkit.rerankers.duplicates import DuplicateReranker
from ragkit.rerankers.source_cap import SourceCapReranker
from ragkit.retrievers.hybrid import HybridRetriever
from ragkit.store.store import Store

CHOSEN_ON, REPORTED = ("squad:train", "scifact:train"), ("squad:test", "scifact:test")
ATTACKED = ("squad:test",)
RETRIEVERS = ("bm25", "dense", "hybrid")
MEASURE = "nDCG@10"
RESULTS = ROOT / "benchmarks" / "results" / "poisoning.md"


def sampled(name: str, most: int) -> Dataset:
    """A dataset with at most so many of its questions, drawn with a fixed seed."""
    folder, split = name.split(":")
    dataset = load_dataset(DATA / folder, split)
    ids = list(dataset.queries)
    ids = [ids[at] for at in np.random.default_rng(0).permutation(len(ids))[:most]]
    return replace(dataset, queries={id_: dataset.queries[id_] for id_ in ids}, qrels={id_: dataset.qrels[id_] for id_ in ids})


def defences() -> dict[str, Compressor]:
    """What is put behind a retriever; titles stand for sources, which these corpora do not have."""
    duplicates = {f"duplicates, {share:g}": DuplicateReranker(threshold=share) for share in (0.5, 0.65, 0.8)}
    return {**duplicates, **{f"cap {most}": SourceCapReranker(most=most, field="title") for most in (1, 2, 3, 4)}}


def cost(name: str, most: int) -> list[list[str]]:
    """What defences cost hybrid retrieval where nothing is planted."""
    dataset = sampled(name, most)
    ids, texts = list(dataset.queries), list(dataset.queries.values())
    with open_store(dataset) as store:
        found = HybridRetriever(store=store).batch(texts, k=20)
    inputs: list[CompressorInput] = [{"documents": its, "query": text} for its, text in zip(found, texts, strict=True)]
    gold = [{one for one, gain in dataset.qrels[id_].items() if gain > 0} for id_ in ids]
    rows, base = [], None
    for label, reranker in {"hybrid": None, **defences()}.items():
        outcomes = [Outcome(its) for its in found] if reranker is None else reranker.outcomes(inputs)
        ranked = [[str(document.id) for document in outcome.documents] for outcome in outcomes]
        value = nDCG(dict(zip(ids, ranked, strict=True)), dataset)
        base = value if base is None else base
        hit = np.mean([bool(its & {*order[:5]}) for its, order in zip(gold, ranked, strict=True)])
        moved = np.mean([outcome.usage.get("moved", 0) for outcome in outcomes])
        rows.append([f"{name}, {label}", f"{value:.4f}", f"{value - base:+.4f}", f"{hit:.3f}", f"{moved:.2f}"])
        print(rows[-1], flush=True)
    return rows


def attacked(name: str, most: int, kinds: Sequence[str]) -> list[list[str]]:
    """How far planted passages get in pipelines of these kinds, and behind defences."""
    dataset, rows = sampled(name, most), []
    open_store(dataset).close()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / ".cache" / "benchmarks" / dataset.name, Path(folder) / "index")
        with Store.open(Path(folder) / "index") as store:
            systems = {kind: pipeline(kind, store) for kind in kinds}
            plain = systems[kinds[-1]]
            systems[f"{kinds[-1]}, duplicates"] = defended(plain, DuplicateReranker())
            systems[f"{kinds[-1]}, duplicates and cap 3"] = defended(plain, DuplicateReranker(), SourceCapReranker(most=3))
            for run in asked(systems, dataset.queries):
                rows.append([f"{run.name}, nothing planted", "", "", "", f"{nDCG(run.rankings(), dataset):.3f}"])
            for attack in ATTACKS:
                plants = plant(attack, dataset.queries)
                with poisoned(store, plants):
                    for run in asked(systems, plants.questions):
                        found, value = exposure(run.traced.values(), plants.ids), nDCG(run.rankings(), dataset)
                        rows.append([f"{run.name}, {attack.name}", *map("{:.3f}".format, found), f"{value:.3f}"])
                        print(name, rows[-1], flush=True)
    return rows


def pipeline(kind: str, store: Store) -> Pipeline:
    """ragkit's default one, or a retriever alone."""
    if kind == "default":
        return build_pipeline(Pipeline, default_config(store.language), store)
    return build_pipeline(Pipeline, PipelineConfig(retriever={"type": kind, "k": 20}), store)


def asked(systems: Mapping[str, Pipeline], questions: Mapping[str, str]) -> list[Run]:
    """One run per system, in order."""
    return run_systems(questions, [System(label, pipeline, {}) for label, pipeline in systems.items()], alone=0)


def nDCG(rankings: Mapping[str, Sequence[str]], dataset: Dataset) -> float:
    """The mean over all questions."""
    return measure_rankings(rankings, dataset.qrels, (MEASURE,)).overall[MEASURE]


def report(costs: Iterable[Table], attacks: Iterable[Table], command: str) -> str:
    """The page."""
    described = [f"- {attack.name}: {attack.describes}" for attack in ATTACKS]
    parts = [
        "# Planted passages",
        "Every attack is planted for all questions at once. Reached: questions with a planted passage in the context. Share: of "
        "the context's characters. 1/rank: of the best planted passage among those found.",
        "\n".join(described),
        *(table.markdown() for table in attacks),
        "## What defences cost where nothing is planted",
        "Hybrid retrieval. Sources are titles here, of which SQuAD has many passages each, SciFact one. Gold in 5: questions "
        "with a gold passage among the first five. Moved: passages per question, of 20.",
        *(table.markdown() for table in costs),
        f"`{command}`",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=20, help="that are attacked, for retrievers")
    parser.add_argument("--default", type=int, default=6, help="the same for the default pipeline; 0: leave it out")
    parser.add_argument("--clean", type=int, default=60, help="of each dataset where nothing is planted")
    given = parser.parse_args()
    options = " ".join(f"--{option} {value}" for option, value in vars(given).items())
    command = f"python benchmarks/poisoning.py {options}"
    header = ["", MEASURE, "difference", "gold in 5", "moved"]
    costs, attacks = list[Table](), list[Table]()
    for caption, names in (("Chosen on:", CHOSEN_ON), ("Reported:", REPORTED)):
        costs.append(Table(caption, header, [row for name in names for row in cost(name, given.clean)]))
        RESULTS.write_text(report(costs, attacks, command))
    for most, kinds in ((given.questions, RETRIEVERS), (given.default, ["default"])):
        for name in ATTACKED if most else ():
            rows = attacked(name, most, kinds)
            attacks.append(Table(f"{name}, {most} questions:", ["", "reached", "share", "1/rank", MEASURE], rows))
            RESULTS.write_text(report(costs, attacks, command))


if __name__ == "__main__":
    main()
