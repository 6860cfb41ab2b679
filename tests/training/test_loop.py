"""The loop on a task that a tiny BERT learns: exact resumption, the best model kept, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ragkit import InputError, ProvenceModel, RagkitError
from ragkit.encoders.pairs import PairTokenizer
from ragkit.provence.matching import rarity_of
from ragkit.provence.own import collate, load_own, new_model
from ragkit.training import dev, loop
from ragkit.training.config import Config, Source
from ragkit.training.examples import Example
from ragkit.training.loop import Trainer
from ragkit.training.losses import Targets, pruning_losses, ranking_loss
from ragkit.training.rows import Labelled, labelled

NOUNS = ["cat", "dog", "fish", "bird", "horse", "cow", "tree", "river", "stone", "house", "road", "boat", "lamp", "bread"]
PLAIN: dict[str, Any] = {
    "sources": [Source(kind="examples", path=Path("none"))],
    "epochs": 2,
    "max_length": 48,
    "window": 64,
    "group_size": 4,
    "batch_tokens": 250,
    "learning_rate": 1e-3,
    "head_learning_rate": 1e-2,
    "evaluate": 2,
    "patience": 99,
}

pytestmark = pytest.mark.usefixtures("one_thread")


def config(**changes: Any) -> Config:
    return Config(**PLAIN | changes)


def examples(seed: int, count: int) -> list[Example]:
    """Each question names a thing, and the sentence that names it too is gold; the second passage does not name it."""
    random = np.random.default_rng(seed)
    found = []
    for at in range(count):
        wanted, *others = random.permutation(NOUNS)
        for relevant in (True, False):
            named = others[:3] if relevant else others[3:7]
            gold = int(random.integers(0, len(named)))
            if relevant:
                named[gold] = wanted
            group = f"{seed}-{at}"
            found.append(
                Example(
                    id=f"{group}-{relevant}",
                    group=group,
                    question=f"who is on the {wanted}?",
                    sentences=tuple(f"the {others[8 + n]} is in the {noun}. " for n, noun in enumerate(named)),
                    gold=(gold,) if relevant else (),
                    relevant=relevant,
                    source="odd" if at % 2 else "even",
                )
            )
    return found


class World:
    """Data and a base, read once; `trainer` begins a run."""

    def __init__(self, base: Path) -> None:
        self.base = base
        train, held_out = examples(1, 24), examples(2, 12)
        self.table = rarity_of([one.passage for one in train])
        tokenizer = PairTokenizer(base, 48)
        rarity = self.table.astype(np.float32) / np.float32(255)
        self.train, self.held_out = (labelled(part, tokenizer, rarity, lambda n: None) for part in (train, held_out))

    def trainer(self, output: Path, settings: Config | None = None, held_out: list[Labelled] | None = None) -> Trainer:
        torch.manual_seed(3)
        held_out = self.held_out if held_out is None else held_out
        model = new_model(self.base)
        return Trainer(settings or config(), model, self.train, held_out, output=output, base=self.base, rarity=self.table)


@pytest.fixture(scope="module")
def world(tiny_base: Path) -> World:
    return World(tiny_base)


def silent(step: int, note: str) -> None:
    pass


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def straight(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer]:
    """A run from beginning to end."""
    output = tmp_path_factory.mktemp("run")
    trainer = world.trainer(output)
    trainer.run(silent)
    return output, trainer


# ---- learning ----


def test_a_task_is_learnt(world: World, tmp_path: Path) -> None:
    losses: list[float] = []
    trainer = world.trainer(tmp_path, config(epochs=6))
    update = trainer._update
    trainer._update = lambda lots: losses.append(update(lots)) or losses[-1]  # type: ignore[func-returns-value, method-assign]
    before = dev.metrics([passage for _, passage in dev.score(trainer.model, world.held_out)], 0.95)
    best = trainer.run(silent)
    assert len(losses) == trainer.total
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])
    assert before["gold_first"] < 0.8
    assert (best["gold_first"], best["mrr"]) == (1.0, 1.0)
    assert min(best["removed_relevant"], best["removed_irrelevant"]) > 0.3
    # and so says the model that is left behind
    model = ProvenceModel.from_pretrained(tmp_path / "model", device="cpu")
    assert model.family.threshold == pytest.approx(best["threshold"], abs=1e-4)
    assert model.family.max_length == 64


def test_the_loss_of_a_step_is_that_of_all_its_windows_at_once(world: World, tmp_path: Path) -> None:
    settings = config(token_loss=0.3, listwise_loss=0.7, ranking_loss=1.1, batch_tokens=900)
    trainer = world.trainer(tmp_path, settings)
    unknown = [one._replace(gold=None) if at % 5 == 1 else one for at, one in enumerate(world.train)]
    taught = [one._replace(teacher=0.4) if at % 7 == 3 else one for at, one in enumerate(unknown)]
    groups = [taught[at : at + 2] for at in range(0, 16, 2)]
    windows = [one for group in groups for one in group]
    batch = collate([one.row for one in windows])
    gold = torch.zeros(batch.units.shape[:2])
    for at, one in enumerate(windows):
        if one.gold is not None:
            gold[at, : len(one.gold)] = torch.from_numpy(one.gold)
    with torch.no_grad():
        output = trainer.model(batch)
        known = torch.tensor([one.gold is not None for one in windows])
        parts = pruning_losses(output, batch, Targets(gold, known), 0.02, 1.5)
        relevant = torch.tensor([float(one.relevant) for one in windows])
        teacher = torch.tensor([float("nan") if one.teacher is None else one.teacher for one in windows])
        numbers = torch.tensor([at for at, group in enumerate(groups) for _ in group])
        ranking = ranking_loss(output.rank, relevant, teacher, numbers, 0.02)
        expected = (parts.sentences + 0.3 * parts.tokens + 0.7 * parts.listwise + 1.1 * ranking) / len(windows)
    assert trainer._update(groups) == pytest.approx(float(expected), rel=1e-5)


def test_words_stay_and_all_else_moves(world: World, straight: tuple[Path, Trainer]) -> None:
    before, after = weights(world.trainer(straight[0] / "unused")), weights(straight[1])
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {"backbone.embeddings.word_embeddings.weight"}


def test_the_learning_rates_rise_and_fall(world: World, tmp_path: Path) -> None:
    trainer = world.trainer(tmp_path, config(warmup=0.3, learning_rate=1e-4, head_learning_rate=1e-2))
    rates: list[list[float]] = [[group["lr"] for group in trainer.optimizer.param_groups]]
    trainer.run(lambda step, note: rates.append([group["lr"] for group in trainer.optimizer.param_groups]))
    total, rising = trainer.total, round(0.3 * trainer.total)
    assert len(rates) == total + 1
    for step, found in enumerate(rates[:-1]):
        share = min((step + 1) / rising, (total - step) / (total - rising))
        assert found == pytest.approx([1e-4 * share, 1e-4 * share, 1e-2 * share])
    assert max(rates) == pytest.approx([1e-4, 1e-4, 1e-2])


def test_new_parts_learn_at_their_own_rate_and_only_the_backbones_matrices_decay(world: World, tmp_path: Path) -> None:
    trainer = world.trainer(tmp_path)
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    matrices, vectors, new = ([names[id(one)] for one in group["params"]] for group in trainer.optimizer.param_groups)
    assert [group["weight_decay"] for group in trainer.optimizer.param_groups] == [0.01, 0, 0]
    assert all(name.startswith("backbone.") and "token_type" not in name for name in matrices + vectors)
    assert all(name.endswith("weight") for name in matrices)
    assert all("LayerNorm" in name or name.endswith("bias") for name in vectors)
    heads = {name for name in names.values() if not name.startswith("backbone.")}
    assert set(new) == heads | {"backbone.embeddings.token_type_embeddings.weight"}
    assert len(matrices) + len(vectors) + len(new) == len(names) - 1


# ---- the same again ----


def test_two_runs_with_the_same_seed_are_one(world: World, straight: tuple[Path, Trainer], tmp_path: Path) -> None:
    again = world.trainer(tmp_path)
    assert again.run(silent) == straight[1].best
    assert same(weights(again), weights(straight[1]))
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "model" / name).read_bytes() == (straight[0] / "model" / name).read_bytes()
    other = world.trainer(tmp_path / "other", config(seed=4))
    other.run(silent)
    assert not same(weights(other), weights(again))


def interrupted(trainer: Trainer, at: int) -> None:
    def stop(step: int, note: str) -> None:
        if step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(stop)


def test_an_interrupted_run_ends_as_if_it_had_not_been(
    world: World, straight: tuple[Path, Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", -1)
    total = straight[1].total
    assert total > 12
    for at in (1, 3, total // 2 + 1, total // 2 + 2, total):
        interrupted(world.trainer(tmp_path), at)
    last = world.trainer(tmp_path)
    assert last.run(silent) == straight[1].best
    assert same(weights(last), weights(straight[1]))
    assert (tmp_path / "model/model.safetensors").read_bytes() == (straight[0] / "model/model.safetensors").read_bytes()
    assert log(tmp_path) == log(straight[0])


def test_between_evaluations_nothing_need_have_been_saved(world: World, straight: tuple[Path, Trainer], tmp_path: Path) -> None:
    """Killed before the first checkpoint, and then between two."""
    interrupted(world.trainer(tmp_path), 2)
    assert not (tmp_path / "checkpoint.pt").exists()
    interrupted(world.trainer(tmp_path), straight[1].total - 1)
    steps: list[int] = []
    last = world.trainer(tmp_path)
    last.run(lambda step, note: steps.append(step))
    assert steps[0] == log(straight[0])[-2]["step"] + 1
    assert same(weights(last), weights(straight[1]))


def test_a_finished_run_does_nothing_more(world: World, straight: tuple[Path, Trainer]) -> None:
    before = {path: path.read_bytes() for path in straight[0].rglob("*") if path.is_file()}
    again = world.trainer(straight[0])

    def forbidden(step: int, note: str) -> None:
        raise AssertionError

    assert again.run(forbidden) == straight[1].best
    assert {path: path.read_bytes() for path in straight[0].rglob("*") if path.is_file()} == before


# ---- when to stop, and what to keep ----


@pytest.fixture
def merits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_to(*values: float) -> None:
        left = iter(values)
        monkeypatch.setattr(dev, "figure_of_merit", lambda metrics: next(left))

    return set_to


def test_the_best_model_is_kept(world: World, tmp_path: Path, merits: Callable[..., None]) -> None:
    merits(0.2, 0.8, 0.5, 0.7)
    trainer = world.trainer(tmp_path)
    seen: list[dict[str, torch.Tensor]] = []
    evaluate = trainer._evaluate
    trainer._evaluate = lambda: (seen.append(weights(trainer)), evaluate())[1]  # type: ignore[method-assign]
    best = trainer.run(silent)
    entries = log(tmp_path)
    assert [entry["merit"] for entry in entries] == [0.2, 0.8, 0.5, 0.7]
    assert best["step"] == entries[1]["step"] == trainer.total // 2
    kept = load_own(tmp_path / "model", "cpu")[0].model.state_dict()
    for name, tensor in seen[1].items():
        off = (kept[name] - tensor).abs()
        assert (off <= tensor.abs().amax(-1, keepdim=True) / 254 + 1e-6).all()
    assert any((kept[name] - seen[2][name]).abs().max() > 0.01 for name in kept)
    assert set(entries[0]["by_source"]) == {"odd", "even"}


def test_a_run_that_gets_no_better_stops_early(world: World, tmp_path: Path, merits: Callable[..., None]) -> None:
    merits(0.5, 0.6, 0.6, 0.4, 0.9)
    settings = config(epochs=5, evaluate=1, patience=2)
    trainer = world.trainer(tmp_path, settings)
    assert trainer.run(silent)["merit"] == 0.6
    assert trainer.step < trainer.total
    assert [entry["merit"] for entry in log(tmp_path)] == [0.5, 0.6, 0.6, 0.4]
    again = world.trainer(tmp_path, settings)
    assert again.run(silent)["merit"] == 0.6
    assert again.step == trainer.step


def test_steps_shorten_the_schedule_and_stop_only_the_run(world: World, tmp_path: Path) -> None:
    whole = world.trainer(tmp_path / "whole")
    assert config(steps=10**6).steps == 10**6
    assert world.trainer(tmp_path / "unused", config(steps=10**6)).total == whole.total
    short = world.trainer(tmp_path / "short", config(steps=3))
    assert short.total == 3
    short.run(silent)
    assert [entry["step"] for entry in log(tmp_path / "short")] == [3]
    assert short.optimizer.param_groups[0]["lr"] == 0

    stopped = world.trainer(tmp_path / "stopped", config(stop=3))
    stopped.run(silent)
    seen: list[dict[str, torch.Tensor]] = []
    whole.run(lambda step, note: seen.append(weights(whole)) if step == 3 else None)
    assert (stopped.step, stopped.total) == (3, whole.total)
    assert same(weights(stopped), seen[0])
    assert [entry["step"] for entry in log(tmp_path / "stopped")] == [3]


def test_with_nothing_held_out_the_latest_model_is_kept(world: World, tmp_path: Path) -> None:
    trainer = world.trainer(tmp_path, config(steps=4), held_out=[])
    assert trainer.run(silent) == {}
    network, family = load_own(tmp_path / "model", "cpu")
    assert family.threshold == 0.5
    for name, tensor in weights(trainer).items():
        off = (network.model.state_dict()[name] - tensor).abs()
        assert (off <= tensor.abs().amax(-1, keepdim=True) / 254 + 1e-6).all()


def test_nothing_to_choose_by_is_refused_at_once(world: World, tmp_path: Path) -> None:
    irrelevant = [one for one in world.held_out if not one.relevant]
    unknown = [one._replace(gold=None) for one in world.held_out]
    for held_out in (irrelevant, unknown, irrelevant + unknown):
        with pytest.raises(InputError, match=r"^dev: none of the passages that are held out has a gold sentence$"):
            world.trainer(tmp_path, held_out=held_out)


# ---- evaluation ----


def test_held_out_windows_are_scored_as_by_hand(world: World, tmp_path: Path) -> None:
    trainer = world.trainer(tmp_path)
    unread = world.held_out[2]._replace(row=world.held_out[2].row._replace(owners=np.full_like(world.held_out[2].row.owners, -1)))
    windows = [world.held_out[0], world.held_out[1]._replace(gold=None), unread, *world.held_out[3:9]]
    found = dev.score(trainer.model, windows, batch_tokens=100)
    scored = [window for at, window in enumerate(windows) if at not in (1, 2)]
    assert [source for source, _ in found] == [window.source for window in scored]
    groups = list(dict.fromkeys(window.group for window in scored))
    for (_, passage), window in zip(found, scored, strict=True):
        with torch.no_grad():
            output = trainer.model(collate([window.row]))
        keep = (1 / (1 + np.exp(-output.tokens[0].double().numpy())))[: len(window.row.ids)]
        owners = window.row.owners
        assert window.gold is not None
        expected = [keep[owners == unit].mean() for unit in range(len(window.gold))]
        np.testing.assert_allclose(passage.scores, expected, atol=1e-6)
        assert passage.lengths.tolist() == [int((owners == unit).sum()) for unit in range(len(window.gold))]
        assert passage.gold.tolist() == [bool(value) for value in window.gold]
        assert passage.question == groups.index(window.group)
        assert passage.relevance == pytest.approx(float(output.rank[0]), abs=1e-5)
    assert trainer.model.training


# ---- checkpoints that are of no use ----


def test_a_checkpoint_of_another_configuration_is_refused(world: World, straight: tuple[Path, Trainer]) -> None:
    for changes in ({"seed": 1}, {"learning_rate": 2e-3}, {"epochs": 3}):
        with pytest.raises(
            InputError, match=r"checkpoint\.pt belongs to a run with another configuration; remove it or"
        ) as caught:
            world.trainer(straight[0], config(**changes)).run(silent)
        assert str(straight[0]) in str(caught.value)


def test_a_checkpoint_from_before_a_field_was_added_is_resumed(
    world: World, straight: tuple[Path, Trainer], tmp_path: Path
) -> None:
    state = torch.load(straight[0] / "checkpoint.pt", weights_only=True)
    older = json.loads(state["config"])
    del older["stop"]
    torch.save(state | {"config": json.dumps(older)}, tmp_path / "checkpoint.pt")
    assert world.trainer(tmp_path).run(silent) == straight[1].best


@pytest.mark.parametrize("damage", ["torn", "half", "empty", "text", "list", "fields", "config"])
def test_a_checkpoint_that_cannot_be_read_is_named_in_one_line(
    world: World, straight: tuple[Path, Trainer], tmp_path: Path, damage: str
) -> None:
    file = tmp_path / "checkpoint.pt"
    whole = (straight[0] / "checkpoint.pt").read_bytes()
    state = torch.load(straight[0] / "checkpoint.pt", weights_only=True)
    if damage == "list":
        torch.save([1, 2], file)
    elif damage in ("fields", "config"):
        changed = {key: value for key, value in state.items() if key != "optimizer"} if damage == "fields" else {"config": "{"}
        torch.save(changed, file)
    else:
        file.write_bytes({"torn": whole[:-50], "half": whole[: len(whole) // 2], "empty": b"", "text": b"not at all"}[damage])
    with pytest.raises(RagkitError, match=r"^output: .*checkpoint\.pt cannot be read; remove it to start again: ") as caught:
        world.trainer(tmp_path).run(silent)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_half_written_is_not_one(world: World, straight: tuple[Path, Trainer], tmp_path: Path) -> None:
    (tmp_path / "checkpoint.new").write_bytes(b"killed while it was writt")
    again = world.trainer(tmp_path)
    again.run(silent)
    assert same(weights(again), weights(straight[1]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "log.jsonl", "model"]
