from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

from ragkit.chains.pipeline import Pipeline
from ragkit.compressor import Outcome, Task
from ragkit.errors import InputError, RagkitError
from ragkit.evaluation.collection import Collection, load_collection
from ragkit.evaluation.experiment import Run, Step, System, Traced, run_systems
from ragkit.evaluation.finished import Finished, _code
from ragkit.evaluation.measures import measure_rankings
from ragkit.evaluation.summary import as_json, differences, summarise
from ragkit.pruners.extractive import ExtractivePruner
from ragkit.pruners.provence import ProvencePruner
from ragkit.rerankers.base import Reranker
from ragkit.rerankers.cascade import CascadeReranker
from ragkit.rerankers.provence import ProvenceReranker
from ragkit.retrievers.bm25 import BM25Retriever

pytest.importorskip("ir_measures", reason="ir-measures is not installed")

MEASURES = ["nDCG@10", "R@100", "MRR@10"]


class Shortest(Reranker):
    """The shortest first, for calls and tokens that it makes up; counts how often it is asked what."""

    asked: Any = None

    def scores(self, tasks: Any) -> Any:
        raise NotImplementedError

    def process(self, tasks: Any) -> list[Outcome]:
        if self.asked is not None:
            self.asked.append(tuple(task.query for task in tasks))
        return [self._outcome(task) for task in tasks]

    def _outcome(self, task: Task) -> Outcome:
        found = sorted(task.documents, key=lambda document: len(document.page_content))[: self.top_k]
        return Outcome(found, {"calls": 2, "prompt_tokens": 30, "completion_tokens": None, "notes": [{}]})


@pytest.fixture
def tiny(beir: Path) -> Collection:
    return load_collection(str(beir))


def bm25(collection: Collection, **fields: Any) -> BM25Retriever:
    return BM25Retriever.from_documents(list(collection.documents.values()), **fields)


def systems(collection: Collection, **pipelines: Pipeline) -> list[System]:
    return [System(name, pipeline, {"of": name, "corpus": collection.digest}) for name, pipeline in pipelines.items()]


def test_stages_are_as_the_pipeline_leaves_them(tiny: Collection) -> None:
    retriever = bm25(tiny, k=4)
    pipeline = Pipeline(retriever=retriever, k=2) >> Shortest(top_k=3) >> ExtractivePruner(scorer="bm25")
    [run] = run_systems(tiny.queries, systems(tiny, mine=pipeline), alone=2)
    assert list(run.traced) == list(tiny.queries)
    for id_, text in tiny.queries.items():
        traced, found = run.traced[id_], retriever.invoke(text)
        assert [step.kind for step in traced.steps] == ["retrieve", "rerank", "prune"]
        assert traced.steps[0].ids == tuple(document.id for document in found)
        shortest = sorted(found, key=lambda document: len(document.page_content))[:3]
        assert traced.steps[1].ids == tuple(document.id for document in shortest)
        assert traced.chosen == traced.steps[1].ids[:2]
        assert traced.steps[1].usage == {"calls": 2, "prompt_tokens": 30}
        context = pipeline.ground(text)
        assert [(shown.id, shown.text, shown.spans) for shown in traced.shown] == [
            (passage.id, passage.text, passage.spans) for passage in context.passages
        ]
        assert (traced.tokens_retrieved, traced.tokens_kept) == (context.tokens_retrieved, context.tokens_kept)


def test_what_a_stage_left_out_comes_after_what_it_put_out() -> None:
    def step(*ids: str) -> Step:
        return Step("s", "rerank", ids, tuple(None for _ in ids), None, {})

    traced = Traced((step("a", "b", "c", "d"), step("c", "a", "b"), step("a")), ("c", "a"), (), 0, 0)
    assert traced.ranking() == ["a", "c", "b", "d"]
    assert traced.ranking(2) == ["c", "a", "b", "d"]
    assert traced.ranking(1) == ["a", "b", "c", "d"]


def test_a_sample_is_asked_alone_and_timed(tiny: Collection) -> None:
    asked: list[tuple[str, ...]] = []
    pipeline = Pipeline(retriever=bm25(tiny)) >> Shortest(asked=asked)
    [run] = run_systems(tiny.queries, systems(tiny, mine=pipeline), alone=2)
    assert [id_ for id_, traced in run.traced.items() if traced.seconds is not None] == ["q1", "q3"]
    texts = tiny.queries
    # the last of all warms up
    assert asked == [(texts["q5"],), (texts["q1"],), (texts["q3"],), (texts["q2"], texts["q4"], texts["q5"])]
    for alone, timed in ((0, 0), (5, 5), (50, 5)):
        [run] = run_systems(tiny.queries, systems(tiny, mine=pipeline), alone=alone)
        assert sum(traced.seconds is not None for traced in run.traced.values()) == timed
    # as if a cache had known an answer to the first and the second
    counts = iter([0, 1, 1, 2, 2, 2, 2, 2, 2, 2])
    known = System("known", Pipeline(retriever=bm25(tiny)), {}, lambda: next(counts))
    [run] = run_systems(tiny.queries, [known], alone=5)
    assert [traced.seconds is None for traced in run.traced.values()] == [True, True, False, False, False]


@pytest.mark.parametrize("where", ["stage", "cascade", "pipeline"])
def test_no_system_profits_from_what_a_model_said_to_another(
    tiny: Collection, make_provence: Any, make_network: Any, where: str
) -> None:
    network = make_network()
    model = make_provence(network)

    def pipeline() -> Pipeline:
        reranker, first = ProvenceReranker(model=model), Pipeline(retriever=bm25(tiny))
        if where == "pipeline":
            return Pipeline(retriever=first >> reranker)
        # a pruner at the end of each would see to it in any case
        return (
            first >> CascadeReranker(stages=[reranker])
            if where == "cascade"
            else first >> reranker >> ProvencePruner(model=model)
        )

    pipelines = {name: pipeline() for name in "ab"}
    run_systems({"q1": tiny.queries["q1"]}, systems(tiny, **pipelines), alone=1)
    found = len(bm25(tiny).invoke(tiny.queries["q1"]))
    # the first warms up and is asked, the second is asked, having warmed up on what was known; the pruners ask for nothing new
    assert len(network.pairs) == 3 * found


def test_traces_are_json(tiny: Collection, tmp_path: Path) -> None:
    [run] = run_systems(tiny.queries, systems(tiny, mine=bm25(tiny) >> ExtractivePruner(scorer="bm25")))
    finished = Finished(tmp_path)
    finished.put({id_: traced.to_json() for id_, traced in run.traced.items()}, "key", {"of": 1})
    again = {id_: Traced.from_json(data) for id_, data in finished.get("key", {"of": 1}).items()}
    assert again == run.traced
    assert finished.get("key", {"of": 2}) is None


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    Finished(tmp_path).put([1], "key")
    [path] = tmp_path.rglob("*.json")
    path.write_text("[")
    with pytest.raises(RagkitError, match=rf"cache: {path} cannot be read .*; delete it"):
        Finished(tmp_path).get("key")


def test_no_result_outlives_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    monkeypatch.setattr("ragkit.evaluation.finished.shipped_prompts", lambda: prompts)
    finished = Finished(tmp_path / "results")
    try:
        _code.cache_clear()
        finished.put(1, "key")
        assert finished.get("key") == 1
        (prompts / "new.yaml").write_text("user: hello")
        _code.cache_clear()
        assert finished.get("key") is None
    finally:
        _code.cache_clear()


def test_what_is_finished_is_not_asked_again(tiny: Collection, tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []
    finished = Finished(tmp_path)

    def run(of: str) -> Run:
        pipeline = Pipeline(retriever=bm25(tiny)) >> Shortest(asked=asked)
        [found] = run_systems(tiny.queries, systems(tiny, **{of: pipeline}), alone=2, finished=finished)
        return found

    first, count = run("mine"), len(asked)
    assert run("mine") == first
    assert len(asked) == count
    run("other settings")
    assert len(asked) == 2 * count


def test_a_failure_loses_only_what_was_under_way(tiny: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.evaluation.experiment._CHUNK", 1)

    class Failing(Shortest):
        fails: bool = True

        def process(self, tasks: Any) -> list[Outcome]:
            if self.fails and any("Rhine" in task.query for task in tasks):
                raise RuntimeError("down")
            return super().process(tasks)

    asked: list[tuple[str, ...]] = []
    for fails in (True, False):
        pipeline = Pipeline(retriever=bm25(tiny)) >> Failing(asked=asked, fails=fails)
        if fails:
            with pytest.raises(RuntimeError, match="down"):
                run_systems(tiny.queries, systems(tiny, mine=pipeline), alone=0, finished=Finished(tmp_path))
        else:
            [run] = run_systems(tiny.queries, systems(tiny, mine=pipeline), alone=0, finished=Finished(tmp_path))
    assert sorted(asked) == sorted((text,) for text in tiny.queries.values())
    assert list(run.traced) == list(tiny.queries)


SCRIPT = """
import sys, time
from pathlib import Path
from ragkit.chains.pipeline import Pipeline
from ragkit.evaluation import experiment, finished
from ragkit.evaluation.collection import load_collection
from ragkit.retrievers.bm25 import BM25Retriever

folder, cache, log, slow = sys.argv[1:]
finished._code = lambda: "the same"
experiment._CHUNK = 1
collection = load_collection(folder)

class Logged(BM25Retriever):
    def rank(self, snapshot, queries, k, filter):
        with open(log, "a") as file:
            file.write("".join(query + "\\n" for query in queries))
        if slow == "slow" and "cheese" in queries[0]:
            time.sleep(600)
        return super().rank(snapshot, queries, k, filter)

pipeline = Pipeline(retriever=Logged.from_documents(list(collection.documents.values())))
system = experiment.System("mine", pipeline, {"corpus": collection.digest})
[run] = experiment.run_systems(collection.queries, [system], alone=0, finished=finished.Finished(cache))
print(run.rankings())
"""


def test_it_goes_on_after_a_kill(beir: Path, tiny: Collection, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()

    def start(how: str) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", SCRIPT, str(beir), str(tmp_path / "cache"), str(log), how]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)

    with start("slow") as process:
        until = time.monotonic() + 120
        while "cheese" not in log.read_text() and time.monotonic() < until and process.poll() is None:
            time.sleep(0.05)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    texts = list(tiny.queries.values())
    assert log.read_text().splitlines() == texts[:3]
    with start("fast") as process:
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert log.read_text().splitlines() == [*texts[:3], *texts[2:]]
    assert not list((tmp_path / "cache").rglob("*.draft"))
    [run] = run_systems(tiny.queries, systems(tiny, mine=Pipeline(retriever=bm25(tiny))))
    assert printed.strip() == str(run.rankings())


def test_names_are_unique_and_there_is_a_question(tiny: Collection) -> None:
    pair = systems(tiny, mine=Pipeline(retriever=bm25(tiny))) * 2
    with pytest.raises(InputError, match="systems: the name 'mine' is given twice"):
        run_systems(tiny.queries, pair)
    with pytest.raises(InputError, match="questions: there are none"):
        run_systems({}, pair[:1])


def test_systems_take_turns(tiny: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.evaluation.experiment._CHUNK", 2)
    told: list[tuple[int, int]] = []
    both = systems(tiny, a=Pipeline(retriever=bm25(tiny)), b=Pipeline(retriever=bm25(tiny)))
    runs = run_systems(tiny.queries, both, alone=0, progress=lambda done, total: told.append((done, total)))
    assert [run.name for run in runs] == ["a", "b"]
    assert told == [(done, 10) for done in (2, 4, 6, 8, 9, 10)]


def reference(collection: Collection, run: Run) -> dict[str, float]:
    """The context figures in straight lines, sentence by sentence."""
    gold = {"q1": ("p1", ["The apple is red."]), "q2": ("p3", ["Cars have four wheels."])}
    gold["q3"] = ("p4", ["Cheese is made of milk.", "Milk comes from cows."])
    shares, kept = [], []
    for id_, (document, sentences) in gold.items():
        traced = run.traced[id_]
        texts = [shown.text for shown in traced.shown if shown.id == document]
        found = [float(bool(texts) and sentence in texts[0]) for sentence in sentences]
        shares.append(sum(found) / len(found))
        if document in traced.chosen:
            kept.append(sum(found) / len(found))
    answers = {"q1": ["red"], "q2": ["four wheels"], "q3": ["butter", "milk"], "q4": ["the lake"]}
    answered = [
        any(answer in " ".join(shown.text for shown in run.traced[id_].shown).lower() for answer in its)
        for id_, its in answers.items()
    ]
    removed = [1 - traced.tokens_kept / traced.tokens_retrieved for traced in run.traced.values()]
    means = {"evidence": shares, "evidence_kept": kept, "answers": answered, "compression": removed}
    return {name: sum(values) / len(values) for name, values in means.items()}


def test_figures(tiny: Collection) -> None:
    retriever = bm25(tiny, k=3)
    pruned = Pipeline(retriever=retriever, k=2) >> Shortest() >> ExtractivePruner(scorer="bm25", threshold=0.5)
    runs = run_systems(tiny.queries, systems(tiny, plain=Pipeline(retriever=retriever, k=2), pruned=pruned), alone=3)
    other = {"q1": ["p2", "p1"], "q3": ["p4"], "elsewhere": ["p1"]}
    plain, mine, foreign = summarise(tiny, runs, {"theirs": other}, MEASURES)

    assert plain.measured == measure_rankings({id_: its.ranking() for id_, its in runs[0].traced.items()}, tiny.qrels, MEASURES)
    for at, stage in enumerate(mine.stages, 1):
        ranked = {id_: its.ranking(at) for id_, its in runs[1].traced.items()}
        assert stage.measured == measure_rankings(ranked, tiny.qrels, MEASURES)
        assert stage.passages == sum(len(its.steps[at - 1].ids) for its in runs[1].traced.values()) / 5
    assert mine.measured == mine.stages[-1].measured
    assert mine.stages[0].measured == plain.measured
    assert mine.stages[1].usage == {"calls": 2, "prompt_tokens": 30}
    assert mine.times is not None
    assert mine.times.questions == 3
    assert mine.times.p50 <= mine.times.p99

    assert plain.context is not None
    assert mine.context is not None
    assert plain.context.compression == 0
    assert plain.context.evidence == plain.context.evidence_chosen
    for summary, run in ((plain, runs[0]), (mine, runs[1])):
        assert summary.context is not None
        for name, value in reference(tiny, run).items():
            assert getattr(summary.context, name) == pytest.approx(value), name
    assert mine.context.answers <= mine.context.answers_chosen
    assert 0 < mine.context.compression < 1

    assert foreign.measured == measure_rankings({"q1": ["p2", "p1"], "q3": ["p4"]}, tiny.qrels, MEASURES)
    [ndcg, *_] = foreign.compared
    its = differences(plain, foreign, "nDCG@10")
    assert ndcg.difference == pytest.approx(foreign.measured.overall["nDCG@10"] - plain.measured.overall["nDCG@10"])
    assert (ndcg.better, ndcg.worse) == (sum(d > 0 for d in its.values()), sum(d < 0 for d in its.values()))
    assert not plain.compared
    described = as_json(tiny, [plain, mine, foreign])
    assert list(described) == ["dataset", "split", "systems"]
    assert [list(system) for system in described["systems"]] == [["name", "metrics", "stages"]] * 3
    assert [stage["name"] for stage in described["systems"][1]["stages"]] == ["bm25", "rerank", "prune"]
    assert described["systems"][1]["metrics"] == described["systems"][1]["stages"][-1]["metrics"] == mine.measured.overall
    assert described["systems"][2]["stages"][-1]["system"]["ms"] is None


def test_answers_are_whole_words(tiny: Collection) -> None:
    [run] = run_systems({"q5": tiny.queries["q5"]}, systems(tiny, plain=Pipeline(retriever=bm25(tiny, k=3), k=2)))
    only = {name: {"q5": getattr(tiny, name)["q5"]} for name in ("queries", "qrels")}
    text = "Nobody knows it in 1912, in Ärzte's row. 東京都です"
    documents = {**tiny.documents, "p1": Document(id="p1", page_content=text)}
    said = {"no": 0, "row": 1, "know": 0, "KNOWS  it": 1, "19": 0, "1912": 1, "rzte": 0, "ärzte": 1, "京都": 1}
    for answer, there in said.items():
        its = replace(tiny, documents=documents, answers={"q5": (answer,)}, gold={}, **only)
        [summary] = summarise(its, [run], {}, MEASURES)
        assert summary.context is not None
        assert summary.context.answers_chosen == there, answer


def test_a_text_that_was_rewritten_is_compared_as_text(tiny: Collection) -> None:
    from langchain_core.documents import BaseDocumentCompressor

    class Shouting(BaseDocumentCompressor):
        def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> Any:
            return [Document(id=document.id, page_content=document.page_content.upper()) for document in documents]

    [run] = run_systems(tiny.queries, systems(tiny, loud=bm25(tiny) >> Shouting()))
    [loud] = summarise(tiny, [run], {}, MEASURES)
    assert loud.stages[1].kind == "other"
    assert loud.context is not None
    assert loud.context.evidence == loud.context.evidence_chosen > 0


def test_what_is_not_known_is_not_a_number(beir: Path, make_config: Callable[..., Path]) -> None:
    train = load_collection(str(beir), "train")
    [run] = run_systems(train.queries, systems(train, plain=Pipeline(retriever=bm25(train))), alone=0)
    [plain] = summarise(train, [run], {}, ["AP"])
    assert plain.times is None
    last = as_json(train, [plain])["systems"][0]["stages"][-1]
    assert last["ms"] is None
    assert last["system"]["context"]["evidence"] is None
    assert last["system"]["context"]["answers"] is not None
