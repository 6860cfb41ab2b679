"""Every reranking strategy with a simulated judge: quality against calls, rounds, tokens and time.

    python benchmarks/strategies.py                  # prints, and writes benchmarks/results/strategies.md and strategies.svg
    python benchmarks/strategies.py --questions 10 --seeds 1

The best 10 of BM25's first 100 (of NovelEval's own 20 candidates) are wanted. The judges know the relevances and err as
`ragkit.evaluation.simulation` describes. Datasets are folders below $RAGKIT_DATA (default: ../shared/data); candidates are
kept in .cache/benchmarks.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ragkit import BM25Retriever
from ragkit.evaluation.curve import load_matplotlib
from ragkit.evaluation.datasets import load_dataset, read_jsonl
from ragkit.evaluation.simulation import PERFECT, STRONG, WEAK, Errors, SimulatedJudge, Spent, relevances, simulate
from ragkit.evaluation.tables import Table
from ragkit.rerankers.strategies import listwise, pairwise, setwise
from ragkit.rerankers.strategies.base import Ranked, Strategy
from ragkit.rerankers.strategies.consensus import consensus
from ragkit.rerankers.strategies.groups import groups
from ragkit.rerankers.strategies.pointwise import pointwise
from ragkit.rerankers.strategies.relay import renumbered
from ragkit.rerankers.strategies.tournament import listt5, tourrank

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("RAGKIT_DATA", ROOT.parent / "shared" / "data"))
RESULTS = ROOT / "benchmarks" / "results"
DEPTH = 100
K = 10


def first_stage(n: int, k: int) -> Strategy:
    """Asks nothing."""
    yield from ()
    return Ranked(range(n))


def cascade(n: int, k: int, depth: int = 20) -> Strategy:
    """What a `CascadeReranker` of a pointwise and a listwise reranker asks."""
    graded = yield from pointwise(n, depth)
    head, behind = graded.order[:depth], graded.order[depth:]
    best = yield from renumbered(listwise.full(len(head), k), head)
    return Ranked([*best.order, *behind])


STRATEGIES: dict[str, Callable[[int, int], Strategy]] = {
    "first stage": first_stage,
    "pointwise": pointwise,
    "pairwise, all pairs": pairwise.allpair,
    "pairwise, heapsort": pairwise.heapsort,
    "pairwise, sliding": pairwise.sliding,
    "setwise, heapsort of 4": setwise.heapsort,
    "setwise, heapsort of 10": partial(setwise.heapsort, c=9),
    "setwise, bubbles of 4": setwise.bubble,
    "listwise, sliding window": listwise.sliding,
    "listwise, full": listwise.full,
    "listwise, groups": groups,
    "tournament, TourRank-1": partial(tourrank, rounds=1),
    "tournament, TourRank-2": tourrank,
    "tournament, ListT5": listt5,
    "consensus, 5 x full": partial(consensus, listwise.full),
    "consensus, 5 x sliding": partial(consensus, listwise.sliding),
    "cascade, pointwise, 20 listwise": cascade,
}
JUDGES = {"perfect": PERFECT, "strong": STRONG, "weak": WEAK}
REFERENCE = "listwise, sliding window"
OURS = "listwise, groups"


class Candidates(NamedTuple):
    """The candidates of one question, in the order of the first stage."""

    gains: list[int]
    ideal: list[int]
    """The gains of all that is relevant, found or not, highest first."""


class Outcome(NamedTuple):
    """One strategy with one judge on one set of questions."""

    ndcg: list[float]
    """Per question, the mean over seeds."""
    spent: Spent
    """The mean over questions and seeds."""


def graded(questions: int, seed: int) -> list[Candidates]:
    """Made-up questions like those of TREC's deep learning tracks: many relevant passages, grades 0 to 3, half of them found."""
    made = []
    for number in range(questions):
        chance = np.random.default_rng((seed, number))
        shares = np.array([0.13, 0.11, 0.06]) * chance.gamma(2, 0.5)
        shares = np.array([max(0.05, 1 - shares.sum()), *shares])
        gains = chance.choice(4, size=160, p=shares / shares.sum())
        order = np.argsort(-(0.62 * gains + chance.normal(size=160)))
        made.append(Candidates(gains[order][:DEPTH].tolist(), sorted(gains.tolist(), reverse=True)))
    return [each for each in made if each.ideal[0] > 0]


def shuffled(questions: Sequence[Candidates]) -> list[Candidates]:
    """The same candidates in a random order."""
    return [
        each._replace(gains=np.random.default_rng(number).permutation(each.gains).tolist())
        for number, each in enumerate(questions)
    ]


def load(name: str, split: str) -> list[Candidates]:
    """The first candidates of BM25 for each question of a dataset; the dataset's own candidates if it has some to be reranked."""
    path = ROOT / ".cache" / "benchmarks" / f"candidates-{name}-{split}-{DEPTH}.json"
    if not path.exists():
        dataset = load_dataset(DATA / name, split)
        own = {}
        if name == "noveleval":
            own = {str(record["_id"]): record["candidates"] for record in read_jsonl(DATA / name / "queries.jsonl")}
        retriever = BM25Retriever.from_documents(dataset.documents, k=len(dataset.documents) if own else DEPTH)
        found = []
        for (id_, _), documents in zip(dataset.queries.items(), retriever.batch(list(dataset.queries.values())), strict=True):
            ids = [str(document.id) for document in documents]
            if own:
                ids = [*(one for one in ids if one in own[id_]), *(one for one in own[id_] if one not in ids)]
            relevances = dataset.qrels[id_]
            found.append(Candidates([relevances.get(one, 0) for one in ids], sorted(relevances.values(), reverse=True)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    return [Candidates(*each) for each in json.loads(path.read_text())]


def sample(questions: Sequence[Candidates], most: int) -> list[Candidates]:
    """Evenly spread over the dataset."""
    count = min(most, len(questions))
    return [questions[number * len(questions) // count] for number in range(count)]


def ndcg(gains: Sequence[int], ideal: Sequence[int]) -> float:
    """nDCG@10 with the gain itself, as in trec_eval."""
    discounts = 1 / np.log2(np.arange(2, K + 2))
    best = np.array(ideal[:K])
    return float((np.array(gains[:K]) * discounts[: len(gains[:K])]).sum() / (best * discounts[: len(best)]).sum())


def measure(name: str, questions: Sequence[Candidates], errors: Errors, seeds: int) -> Outcome:
    """Run a strategy over all questions."""
    values, costs = [], []
    for number, (gains, ideal) in enumerate(questions):
        of_seeds = []
        for seed in range(seeds):
            judge = SimulatedJudge(relevances(gains, max(ideal)), errors, seed=seeds * number + seed)
            order, spent = simulate(STRATEGIES[name](len(gains), K), judge)
            of_seeds.append(ndcg([gains[at] for at in order], ideal))
            costs.append(spent)
        values.append(float(np.mean(of_seeds)))
    return Outcome(values, Spent(*np.mean(costs, axis=0).tolist()))


def mean(values: Sequence[float]) -> str:
    """With its standard error."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


def table(caption: str, outcomes: Mapping[str, Outcome]) -> Table:
    """One row per strategy."""
    reference = outcomes[REFERENCE].ndcg
    header = ("strategy", "nDCG@10", "against sliding window", "calls", "rounds", "passages", "tokens", "s", "s, 8 at a time")
    rows = []
    for name, (values, spent) in outcomes.items():
        against = "" if name == REFERENCE else mean(np.subtract(values, reference).tolist())
        counts = (spent.calls, spent.rounds, spent.passages, spent.tokens)
        times = (spent.seconds, spent.limited_seconds)
        rows.append((name, mean(values), against, *(f"{each:,.0f}" for each in counts), *(f"{each:,.1f}" for each in times)))
    return Table(caption, header, rows)


def draw(results: Mapping[tuple[str, str], Mapping[str, Outcome]], sets: Sequence[str], path: Path) -> None:
    """Quality, averaged over datasets, against tokens and rounds; a row per judge."""
    library = load_matplotlib()
    with library.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ragkit", "font.size": 8}):
        figure = library.figure.Figure(figsize=(12, 9), layout="constrained")
        axes = figure.subplots(2, 2, sharey="row")
        for line, judge in zip(axes, ("strong", "weak"), strict=True):
            for axis, (field, label) in zip(line, (("tokens", "tokens"), ("rounds", "rounds, one after the other")), strict=True):
                for name in STRATEGIES:
                    each = [results[set_, judge][name] for set_ in sets]
                    quality = float(np.mean([np.mean(outcome.ndcg) for outcome in each]))
                    if name == "first stage":
                        axis.axhline(quality, color="grey", linestyle=":", label=name)
                        continue
                    cost = float(np.mean([getattr(outcome.spent, field) for outcome in each]))
                    axis.plot(cost, quality, "*" if name == OURS else "o", color="C3" if name == OURS else "C0")
                    axis.annotate(name, (cost, quality), xytext=(4, 3), textcoords="offset points", fontsize=6.5)
                axis.set(xscale="log", xlabel=label, ylabel="nDCG@10", title=f"{judge} judge")
                axis.grid(alpha=0.3)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=["scifact:test", "hotpotqa:dev", "noveleval:test"], metavar="SET:SPLIT")
    parser.add_argument("--questions", type=int, default=60, help="per dataset, evenly spread over it")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each question, each with its own errors")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES), help=f"some of them, {REFERENCE!r} among them")
    arguments = parser.parse_args()
    load_matplotlib()
    questions = {name: sample(load(*name.split(":")), arguments.questions) for name in arguments.sets}
    questions["graded"] = graded(arguments.questions, seed=0)
    questions["graded, random order"] = shuffled(questions["graded"])
    cells = [(set_, judge) for set_ in arguments.sets for judge in ("strong", "weak")]
    cells += [(set_, judge) for set_ in ("graded", "graded, random order") for judge in JUDGES]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        futures = {
            cell: {
                name: pool.submit(measure, name, questions[cell[0]], JUDGES[cell[1]], arguments.seeds)
                for name in arguments.strategies
            }
            for cell in cells
        }
        results = {cell: {name: future.result() for name, future in row.items()} for cell, row in futures.items()}
    lines = [f"nDCG@10 of the best {K} of BM25's first {DEPTH} (NovelEval: of 20). Mean ± standard error over questions.", ""]
    for (set_, judge), outcomes in results.items():
        lines += [table(f"{set_}, {judge} judge: {len(questions[set_])} questions", outcomes).markdown(), ""]
    text = "\n".join([*lines, "![Quality against cost](strategies.svg)", "", "`python benchmarks/strategies.py`", ""])
    print(text)
    defaults = parser.parse_args([])
    if all(getattr(arguments, name) == getattr(defaults, name) for name in ("sets", "questions", "seeds", "strategies")):
        (RESULTS / "strategies.md").write_text(text)
        draw(results, arguments.sets, RESULTS / "strategies.svg")


if __name__ == "__main__":
    main()
