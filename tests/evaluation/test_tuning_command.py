"""`ragkit tune`: from a folder of data to a file that a pipeline is made of; what is wrong is said at once."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ragkit import InputError, Pipeline
from ragkit.chains.config import PipelineConfig, read_config
from ragkit.encoders.folder import locate
from ragkit.evaluation.tune_command import as_yaml, tune
from ragkit.evaluation.tuned import Candidates, Row, Setting, Tuned
from ragkit.evaluation.tuning import Choice

FACTS = {
    "heron": "The heron hunts fish at dawn. It stands on one leg.",
    "birch": "A birch has white bark. It grows in cold places.",
    "ember": "An ember is a piece of glowing coal. Wind makes it brighter.",
    "fjord": "A fjord is a long inlet of the sea. Ice has carved it.",
    "amber": "Amber is the resin of old trees. Some holds insects.",
    "grove": "A grove is a small wood. Olives grow in some.",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "facts"
    (path / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": name, "title": "", "text": text}) for name, text in FACTS.items()]
    (path / "corpus.jsonl").write_text("\n".join(lines))
    lines = [json.dumps({"_id": f"q-{name}", "text": f"What is {name}?"}) for name in FACTS]
    (path / "queries.jsonl").write_text("\n".join(lines))
    rows = [f"q-{name}\t{name}\t1" for name in FACTS]
    (path / "qrels" / "train.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    sentences = [
        {"query_id": f"q-{name}", "corpus_id": name, "sentences": [f"{text.split('. ')[0]}. ", text.split(". ")[1]], "gold": [0]}
        for name, text in FACTS.items()
    ]
    (path / "sentences.train.jsonl").write_text("\n".join(map(json.dumps, sentences)))
    return path


def run(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(tune)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_it_writes_a_pipeline_and_shows_what_there_was_to_choose_from(folder: Path, tmp_path: Path) -> None:
    try:
        locate(None)
    except Exception as error:
        pytest.skip(f"no packaged encoder: {error}")
    out = tmp_path / "tuned.yaml"
    shown = run(
        str(folder), "--out", str(out), "--depth", "3", "--limit", "3", "--cache", str(tmp_path / "cache"), "--goal-ms", "100000"
    )
    assert "| candidate | nDCG@10 | evidence kept | ms | LLM calls |" in shown
    assert "default: hybrid 20 >> provence-reranker" in shown
    assert "nDCG@10 +0.000 over hybrid 20 >> provence-reranker" in shown
    [index] = (tmp_path / "cache" / "indexes").iterdir()
    hits = Pipeline.from_config(out, store=index).invoke("What is heron?")
    assert "heron" in [hit.id for hit in hits]  # its evidence was to be kept
    assert read_config(out).k == 5
    with pytest.raises(InputError, match=r"^--out: .*tuned.yaml exists"):
        run(str(folder), "--out", str(out))


def test_a_configuration_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    some = Candidates("en", [{"type": "cross-encoder", "model": "folder"}], [7])
    row = Row("fitted", 0.8, 0.96, 3.0, 0.0)
    for setting in some.settings:
        weights = [0.3, 0.7] if setting.way == "fitted" else None
        config = some.config(setting, weights, some.pruner)
        choice = Choice(setting, some.default, 0.1, 0.01)
        text = as_yaml(Tuned(config, setting, choice, row, row, [row]), "facts train", tmp_path / "index")
        (tmp_path / "c.yaml").write_text(text)
        expected = {**config.model_dump(), "store": str(tmp_path / "index")}
        assert read_config(tmp_path / "c.yaml").model_dump() == PipelineConfig(**expected).model_dump()
    assert Setting("multi-hop", "cross-encoder", 7) in some.settings


def test_wrong_arguments_are_named_before_anything_takes_long(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is no folder"):
        run("nowhere", "--out", str(tmp_path / "x.yaml"))
    with pytest.raises(InputError, match="split: 'dev' is none of those"):
        run(str(folder), "--split", "dev", "--out", str(tmp_path / "x.yaml"))
