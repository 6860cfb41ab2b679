"""`ragkit train provence` as a user runs it: a model that loads, runs that go on, and mistakes named before the data is read."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from langchain_core.documents import Document
from safetensors.torch import load_file
from typer.testing import CliRunner

from ragkit import ProvenceModel, ProvencePruner, ProvenceReranker
from ragkit.cli import app, main
from ragkit.provence.matching import rarity_of
from ragkit.training.config import Config, read_config
from ragkit.training.examples import Example, read_examples, write_examples

pytestmark = pytest.mark.usefixtures("one_thread")
NOUNS = ["cat", "dog", "fish", "bird", "horse", "cow", "tree", "river", "stone", "house", "road", "boat", "lamp", "bread"]
RUN: dict[str, Any] = {
    "max_length": 48,
    "window": 64,
    "batch_tokens": 300,
    "learning_rate": 0.001,
    "head_learning_rate": 0.01,
    "evaluate": 2,
    "epochs": 3,
}


class Done(NamedTuple):
    code: int
    out: str
    err: str


def ragkit(capsys: pytest.CaptureFixture[str], *arguments: Any) -> Done:
    """What `ragkit ARGUMENTS` prints and exits with."""
    with mock.patch.object(sys, "argv", ["ragkit", *map(str, arguments)]), pytest.raises(SystemExit) as exit:
        main()
    return Done(exit.value.code, *capsys.readouterr())  # type: ignore[arg-type]


def made_up(count: int) -> list[Example]:
    random = np.random.default_rng(4)
    found = []
    for at in range(count):
        wanted, *others = random.permutation(NOUNS)
        for relevant in (True, False):
            named = [wanted, others[0]] if relevant else others[1:3]
            sentences = tuple(f"the {noun} is in the {others[5 + n]}. " for n, noun in enumerate(named))
            common: dict[str, Any] = {"group": f"q{at}", "question": f"who is on the {wanted}?", "title": f"Title {at % 9}"}
            gold = (0,) if relevant else ()
            found.append(Example(id=f"{at}-{relevant}", sentences=sentences, gold=gold, relevant=relevant, **common))
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_examples(folder / "examples.jsonl.gz", made_up(40))
    return folder


def written(folder: Path, tiny_base: Path, **changes: Any) -> Path:
    sources = [{"kind": "examples", "path": "examples.jsonl.gz", "dev": {"share": 0.25}, "negatives": [{"n": 1, "share": 0.5}]}]
    settings = {"sources": sources, "base": str(tiny_base)} | RUN | changes
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in settings.items() if value is not ...}))
    return file


@pytest.fixture(scope="module")
def trained(tiny_base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a whole run."""
    folder = tmp_path_factory.mktemp("run")
    config = written(folder, tiny_base)
    arguments = ["train", "provence", "--config", config, "--output", folder / "out", "--data", data, "--device", "cpu"]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    (folder / "stdout").write_text(done.stdout)
    return folder


def test_a_run_leaves_a_model_that_reranks_and_prunes(trained: Path, data: Path) -> None:
    model = ProvenceModel.from_pretrained(trained / "out/model", device="cpu")
    assert model.family.max_length == 64
    examples = read_examples(data / "examples.jsonl.gz")[:4]
    documents = [Document(id=one.id, page_content=one.passage) for one in examples]
    ranked = ProvenceReranker(model=model).compress_documents(documents, examples[0].question)
    assert {document.id for document in ranked} == {one.id for one in examples}
    scores = [document.metadata["relevance_score"] for document in ranked]
    assert len(set(scores)) == 4
    pruned = ProvencePruner(model=model, threshold=0).compress_documents(documents, examples[0].question)
    assert [document.page_content.strip() for document in pruned] == [one.passage.strip() for one in examples]

    [report] = (trained / "stdout").read_text().splitlines()
    found = json.loads(report)
    assert found["model"] == str(trained / "out/model")
    assert found["threshold"] == pytest.approx(model.family.threshold, abs=1e-4)
    merits = [json.loads(line)["merit"] for line in (trained / "out/log.jsonl").read_text().splitlines()]
    assert found["merit"] == max(merits)


def test_rarity_is_that_of_the_passages_trained_on(trained: Path, data: Path) -> None:
    from ragkit.training.assemble import assemble

    passages = {one.passage for one in assemble(read_config(trained / "run.yaml").sources, data, 0, lambda line: None).train}
    stored = load_file(trained / "out/model/model.safetensors")["rarity"].numpy()
    assert np.array_equal(stored, rarity_of(list(passages)))


def test_the_same_command_goes_on_and_gives_the_same(
    trained: Path,
    tiny_base: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config, output = written(tmp_path, tiny_base), tmp_path / "out"
    monkeypatch.setenv("RAGKIT_DATA", str(data))
    command = ("train", "provence", "--config", config, "--output", output, "--device", "cpu")
    with monkeypatch.context() as patch:
        merits = [json.loads(line)["merit"] for line in (trained / "out/log.jsonl").read_text().splitlines()]
        patch.setattr("ragkit.training.dev.figure_of_merit", mock.Mock(side_effect=[merits[0], KeyboardInterrupt]))
        assert ragkit(capsys, *command).code == 1
    with caplog.at_level(logging.WARNING):
        done = ragkit(capsys, *command)
    assert (done.code, json.loads(done.out)["merit"]) == (0, max(merits))
    assert any(message.startswith("going on from step ") for message in caplog.messages)
    state = [torch.load(folder / "checkpoint.pt", weights_only=True)["model"] for folder in (output, trained / "out")]
    assert all(torch.equal(state[0][name], tensor) for name, tensor in state[1].items())

    changed = ragkit(capsys, "train", "provence", "--config", written(tmp_path, tiny_base, seed=9), "--output", output)
    assert changed.code == 2
    assert "belongs to a run with another configuration" in changed.err.splitlines()[-1]


def test_without_lexical_evidence(tiny_base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = written(tmp_path, tiny_base, lexical=False, steps=2)
    assert ragkit(capsys, "train", "provence", "--config", config, "--output", tmp_path / "out", "--data", data).code == 0
    assert "rarity" not in load_file(tmp_path / "out/model/model.safetensors")
    ProvenceModel.from_pretrained(tmp_path / "out/model", device="cpu")


def test_a_trained_model_is_trained_further(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = trained / "out/model"
    done = ragkit(
        capsys, "train", "provence", "--config", written(tmp_path, base, steps=1), "--output", tmp_path / "out", "--data", data
    )
    assert done.code == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out/model"))
    assert before.keys() == after.keys()
    assert torch.equal(before["rarity"], after["rarity"])
    # one step away from it, not back at the beginning
    assert 0 < (after["ranking.weight"] - before["ranking.weight"]).abs().max() <= 0.011


def test_paths_are_relative_to_the_configuration_where_no_data_folder_is_given(
    tiny_base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAGKIT_DATA", raising=False)
    shutil.copy(data / "examples.jsonl.gz", tmp_path)
    config = written(tmp_path, tiny_base, steps=1)
    assert ragkit(capsys, "train", "provence", "--config", config, "--output", tmp_path / "out").code == 0


# ---- mistakes ----


SOURCE = {"kind": "examples", "path": "examples.jsonl.gz"}
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"learning_rate": -1}, "learning_rate: "),
    ({"epochs": "many"}, "epochs: "),
    ({"rate": 1}, "rate: Extra inputs"),
    ({"sources": []}, "sources: "),
    ({"sources": ...}, "sources: Field required"),
    ({"sources": [SOURCE | {"kind": "guesses"}]}, "sources.0.kind: "),
    ({"sources": [SOURCE | {"dev": {"share": 1}}]}, "sources.0.dev.share: "),
    ({"sources": [SOURCE | {"negatives": [{"n": 40, "skip": 20}]}]}, "sources.0.negatives.0: "),
    ({"max_length": 65}, "max_length: "),
    ({"window": 4096}, "window: "),
    ({"base": "/no/such/base"}, "model: /no/such/base is neither"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_a_mistake_is_named_before_any_data_is_read(
    changes: dict[str, Any], message: str, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = written(tmp_path, tiny_base, **changes)
    done = ragkit(capsys, "train", "provence", "--config", config, "--output", tmp_path / "out", "--data", tmp_path / "no data")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert message in done.err
    assert str(config) in done.err or "base" in changes
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sources: [", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"", "Input should be a valid dictionary"),
        (b"- 1", "Input should be a valid dictionary"),
        (None, "cannot read"),
    ],
)
def test_a_configuration_that_is_none(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    if content is not None:
        file.write_bytes(content)
    done = ragkit(capsys, "train", "provence", "--config", file, "--output", tmp_path / "out")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert f"config: {'' if content is not None else 'cannot read '}{file}" in done.err
    assert message in done.err


def test_bad_data_and_devices_are_named(tiny_base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = written(tmp_path, tiny_base)
    command = ("train", "provence", "--config", config, "--output", tmp_path / "out")
    done = ragkit(capsys, *command, "--data", tmp_path)
    assert done.code == 2
    assert "examples.jsonl.gz" in done.err.splitlines()[-1]
    done = ragkit(capsys, *command, "--data", data, "--device", "abacus")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "device: 'abacus' cannot be used" in done.err


def test_the_configuration_of_the_shipped_model_is_one() -> None:
    folder = Path(__file__).parents[2] / "ragkit/models/provence-minilm"
    found = [read_config(file) for file in folder.glob("*.yaml")]
    assert found
    assert all(isinstance(one, Config) and one.sources for one in found)
