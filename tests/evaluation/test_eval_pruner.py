"""`ragkit eval-pruner`, from a folder of data to tables, a file of numbers and a figure."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from typer.testing import CliRunner, Result

from ragkit import ExtractivePruner, InputError, RagkitError, provenance
from ragkit.cli import app
from ragkit.compressor import Task
from ragkit.documents.provenance import passage_text
from ragkit.errors import MissingExtraError
from ragkit.evaluation import pruner_command
from ragkit.evaluation.baselines import KeepAll, Lead, Random
from ragkit.evaluation.curve import draw_curves
from ragkit.evaluation.datasets import data_folder
from ragkit.evaluation.once import EncodeOnce
from ragkit.evaluation.pruner_comparison import evaluate_pruners
from ragkit.evaluation.pruner_report import headline, tables, write_report
from ragkit.evaluation.sentences import load_sentences
from ragkit.pruners.base import Judgement, Pruner

ROWS = [
    # question, passage, sentences, gold
    ("q1", "p1", ["The apple is red. ", "Nobody knows why. ", "Cars have wheels."], [0]),
    ("q1", "p2", ["Pears are green. ", "An apple grows on a tree."], []),
    ("q2", "p3", ["Boats float. ", "Cars have wheels. ", "So do some boats."], [1, 2]),
]
QUESTIONS = {"q1": "What colour is the apple?", "q2": "Which cars have wheels?"}


class Knowing(Pruner):
    """Gives a sentence 1 if the question's last word is in it, else 0.25, and a passage the best of its sentences."""

    bonus: float = 0.0

    def judge(self, tasks: Sequence[Task], units: Any) -> list[list[Judgement]]:
        judged = []
        for task, task_units in zip(tasks, units, strict=True):
            word, judged_one = task.query.rstrip("?").split()[-1], []
            for document, its_units in zip(task.documents, task_units, strict=True):
                texts = [passage_text(document)[unit.start : unit.end] for unit in its_units]
                scores = np.array([1.0 if word in text else 0.25 for text in texts]) + self.bonus
                judged_one.append(Judgement(scores, float(scores.mean())))
            judged.append(judged_one)
        return judged

    def select(self, task: Task, units: Any, judgements: Sequence[Judgement]) -> list[Any]:
        return [judgement.units >= 0.5 for judgement in judgements]


class Forgetful(Knowing):
    """Returns only the first document."""

    def process(self, tasks: Sequence[Task]) -> Any:
        return super().process([task._replace(documents=task.documents[:1]) for task in tasks])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    rows = [dict(zip(("query_id", "corpus_id", "sentences", "gold"), row, strict=True)) for row in ROWS]
    rows.append({"query_id": "q2", "corpus_id": "p1", "sentences": ["Which?"], "gold": [0], "unambiguous": False})
    parts = {
        "sentences.dev": rows,
        "queries": [{"_id": id_, "text": text} for id_, text in QUESTIONS.items()],
        "corpus": [{"_id": row[1], "title": "Things", "text": "".join(row[2])} for row in ROWS],
    }
    for name, records in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, make_encoder: Any) -> None:
    """A stand-in for the trained pruner and for the encoder of the baselines."""
    module = ModuleType("ragkit.pruners.provence")
    module.ProvencePruner = lambda model=None: Knowing(bonus=0.0 if model is None else 2.0)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ragkit.pruners.provence", module)
    monkeypatch.setattr("ragkit.encoders.factory._default", make_encoder)


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["eval-pruner", *map(str, arguments)])


def cells(text: str, caption: str) -> dict[str, dict[str, str]]:
    """The markdown table below a caption, by row and column."""
    block = text.split(caption + "\n\n")[1].split("\n\n")[0]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


@pytest.mark.usefixtures("offline")
def test_the_command_prints_tables(folder: Path) -> None:
    done = run(folder)
    assert done.exit_code == 0
    assert done.stdout.startswith("tiny dev: 2 questions, 3 passages, 2 of them with gold sentences; 1 ambiguous rows left out\n")
    configured = cells(done.stdout, "As configured")
    assert list(configured) == ["Provence", "hybrid", "embedding", "BM25", "lead", "random", "keep all"]
    first = len("The apple is red.") / len("The apple is red.Nobody knows why.Cars have wheels.")
    third = len("Cars have wheels.") / len("Boats float.Cars have wheels.So do some boats.")
    apple = len("An apple grows on a tree.") / len("Pears are green.An apple grows on a tree.")
    assert configured["Provence"] == {
        "pruner": "Provence",
        "gold kept": "0.667",
        "removed, relevant": f"{1 - (first + third) / 2:.3f}",
        "removed, irrelevant": f"{1 - apple:.3f}",
        "F1": "0.667",
        "F2": "0.667",
        "evidence whole": "0.500",
    }
    assert configured["keep all"]["gold kept"] == "1.000"
    assert configured["keep all"]["removed, relevant"] == "0.000"
    at_95 = cells(done.stdout, "At the threshold that keeps 95% of the gold sentences")
    assert at_95["Provence"]["threshold"] == "0.250"
    assert at_95["lead"]["threshold"] == "0.333"
    ranked = cells(done.stdout, "Ranking of sentences and passages, and gold sentences kept at equal text removed")
    # the first passage of q1 has the smaller mean, which is the passage score
    assert (ranked["Provence"]["gold first"], ranked["Provence"]["MRR"]) == ("1.000", "0.500")
    assert ranked["keep all"]["50% removed"] == "-"
    assert f"{float(ranked['Provence']['50% removed']):.3f}" == ranked["Provence"]["50% removed"]
    swept = cells(done.stdout, "Provence by threshold")
    assert swept["0.200"]["gold kept"] == "1.000"
    assert swept["0.300"]["gold kept"] == "0.667"


@pytest.mark.usefixtures("offline")
def test_the_command_writes_a_report(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGKIT_DATA", str(folder.parent))
    out = tmp_path / "out" / "deep"
    done = run("tiny", "--split", "dev", "--model", "mine|yours", "--no-baselines", "--output", out)
    assert done.exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["curve.svg", "report.md", "sweep.csv"]
    report = (out / "report.md").read_text()
    assert report.startswith(done.stdout)
    assert "(curve.svg)" in report
    assert r"| mine\|yours | 1.000 |" in report
    with (out / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # not probabilities, so the thresholds are scores
    assert [(row["pruner"], float(row["threshold"]), float(row["recall"])) for row in rows] == [
        ("mine|yours", 2.25, 1.0),
        ("mine|yours", 3.0, pytest.approx(2 / 3)),
    ]
    svg = (out / "curve.svg").read_text()
    assert "<svg" in svg
    assert "mine|yours" in svg
    assert run("tiny", "--model", "mine|yours", "--no-baselines", "--output", out).exit_code == 0
    assert (out / "curve.svg").read_text() == svg


@pytest.mark.usefixtures("offline")
def test_the_number_of_questions_can_be_limited(folder: Path) -> None:
    done = run(folder, "--questions", 1, "--no-baselines")
    assert done.stdout.startswith("tiny dev: 1 questions, 2 passages, 1 of them with gold sentences\n")
    assert run(folder, "--questions", 0).exit_code != 0


def test_a_dataset_that_is_not_there_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAGKIT_DATA", raising=False)
    with pytest.raises(InputError, match=r"DATASET: absent is no folder, and RAGKIT_DATA, .* is not set"):
        data_folder("absent")
    monkeypatch.setenv("RAGKIT_DATA", str(folder.parent))
    with pytest.raises(InputError, match="DATASET: absent is no folder, nor one below RAGKIT_DATA"):
        data_folder("absent")
    assert data_folder("tiny") == folder


@pytest.mark.usefixtures("offline")
def test_a_split_that_is_not_there_is_named(folder: Path) -> None:
    done = run(folder, "--split", "test")
    assert isinstance(done.exception, InputError)
    assert "'test' is none of those" in str(done.exception)
    assert str(done.exception).endswith("use one of dev")


@pytest.mark.usefixtures("offline")
def test_a_missing_library_is_said_before_the_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("ragkit.evaluation.pruner_comparison.evaluate_pruners", lambda *_: pytest.fail("it ran"))
    done = run(folder, "--output", tmp_path / "out")
    assert isinstance(done.exception, MissingExtraError)
    assert "pip install 'ragkit[eval]'" in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("offline")
def test_people_see_a_bar_and_tables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, Terminal())
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    pruner_command.eval_pruner(str(folder), baselines=False)
    shown, bar = sys.stdout.getvalue(), sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "tiny dev: 2 questions" in shown
    assert "As configured" in shown
    assert "| ---" not in shown
    assert "2/2" in bar
    pruner_command.eval_pruner(str(folder), baselines=False, quiet=True)
    assert sys.stderr.getvalue() == bar  # type: ignore[attr-defined]


def test_pruners_are_run_as_they_are_and_left_alone(folder: Path) -> None:
    dataset = load_sentences(folder)
    pruners = {"knowing": Knowing(), "at least two": Knowing(min_sentences=2)}
    told: list[tuple[int, int]] = []
    results = evaluate_pruners(dataset, pruners, lambda done, total: told.append((done, total)))
    assert told == [(2, 4), (4, 4)]
    assert [pruner.drop_empty for pruner in pruners.values()] == [True, True]
    assert [result.name for result in results] == list(pruners)
    assert results[0].scored.scores.tolist() == results[1].scored.scores.tolist() == [1, 0.25, 0.25, 0.25, 1, 0.25, 1, 0.25]
    assert results[0].scored.gold.nonzero()[0].tolist() == [0, 6, 7]
    assert results[0].scored.kept.tolist() == [True, False, False, False, True, False, True, False]
    assert results[1].scored.kept.tolist() == [True, True, False, True, True, True, True, False]
    assert results[0].scored.lengths.tolist() == [len(text.strip()) for _, _, sentences, _ in ROWS for text in sentences]
    assert results[0].scored.relevance == pytest.approx([0.5, 0.625, 0.5])


def test_many_questions_go_through_in_chunks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_sentences(folder)
    expected = evaluate_pruners(dataset, {"bm25": ExtractivePruner(scorer="bm25")})[0]
    monkeypatch.setattr("ragkit.evaluation.pruner_comparison._CHUNK", 1)
    told: list[int] = []
    found = evaluate_pruners(dataset, {"bm25": ExtractivePruner(scorer="bm25")}, lambda done, total: told.append(done))[0]
    assert told == [1, 2]
    assert found.scored.scores.tolist() == expected.scored.scores.tolist()
    assert found.scored.question.tolist() == [0, 0, 1]


def test_a_pruner_that_loses_passages_cannot_be_measured(folder: Path) -> None:
    with pytest.raises(RagkitError, match="lossy: gave no sentence scores for passage 'q1 p2'"):
        evaluate_pruners(load_sentences(folder), {"lossy": Forgetful()})


@pytest.mark.parametrize(
    ("pruner", "kept"),
    [
        (KeepAll(), "One. Two. Three."),
        (Lead(), "One."),
        (Lead(threshold=1 / 2), "One. Two."),
        (Lead(threshold=1 / 3), "One. Two. Three."),
        (Random(threshold=0), "One. Two. Three."),
    ],
)
def test_baselines_know_nothing_of_the_question(pruner: Pruner, kept: str) -> None:
    assert pruner.invoke({"query": "Two?", "documents": [Document("One. Two. Three.")]})[0].page_content == kept


def test_chance_follows_the_document_and_the_seed() -> None:
    def scores(seed: int, *ids: str) -> list[tuple[float, ...] | None]:
        documents = [Document("One. Two. Three.", id=id_) for id_ in ids]
        found = Random(seed=seed, drop_empty=False).invoke({"query": "q", "documents": documents})
        return [provenance(document).unit_scores for document in found]

    assert scores(0, "a", "b") == scores(0, "a", "b") == scores(0, "b", "a")[::-1]
    assert scores(0, "a") != scores(0, "b") != scores(1, "b")
    values = Random().score(Document("", id="x"), 2000)
    assert ((values >= 0) & (values < 1)).all()
    assert 0.45 < values.mean() < 0.55


def test_a_sentence_is_encoded_once(make_encoder: Any) -> None:
    plain, counted = make_encoder(), make_encoder()
    once = EncodeOnce(counted)
    for texts in (["a b", "c"], ["c", "a b", "c", "d"], []):
        np.testing.assert_array_equal(once.encode_documents(texts), plain.encode_documents(texts))
    assert counted.encoded == 3
    assert (once.dimension, once.fingerprint, once.tokenizer) == (64, counted.fingerprint, counted.tokenizer)


def test_the_figure_is_svg_or_png(folder: Path, tmp_path: Path) -> None:
    results = evaluate_pruners(load_sentences(folder), {"a $x_1$": Knowing(), "keep all": KeepAll()})
    curves = {result.name: result.curve for result in results}
    draw_curves(curves, tmp_path / "curve.svg", "title")
    svg = (tmp_path / "curve.svg").read_text()
    assert "a $x_1$" in svg
    assert "keep all" not in svg
    draw_curves(curves, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"must end in \.svg or \.png"):
        draw_curves(curves, tmp_path / "curve.pdf")


def test_tables_can_be_shown_in_a_terminal(folder: Path, tmp_path: Path) -> None:
    from rich.console import Console

    dataset = load_sentences(folder)
    results = evaluate_pruners(dataset, {"[red]a": Knowing()})
    console = Console(width=200, record=True, file=(tmp_path / "console").open("w"))
    with console.file:
        for table in tables(results, ["[red]a"]):
            console.print(table.rich())
    shown = console.export_text()
    assert "[red]a by threshold" in shown
    assert "0.667" in shown
    write_report(dataset, results, [], tmp_path)
    assert headline(dataset) in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(("name", "split", "questions", "first"), [("squad", "test", 1000, 0.82), ("hotpotqa", "dev", 150, 0.82)])
def test_bm25_finds_what_others_measured(data: Path, name: str, split: str, questions: int, first: float) -> None:
    """Another implementation, measured by somebody else on the first rows of the same files."""
    dataset = load_sentences(data / name, split, questions)
    assert evaluate_pruners(dataset, {"BM25": ExtractivePruner(scorer="bm25")})[0].first == pytest.approx(first, abs=0.02)
