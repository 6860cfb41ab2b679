"""The training loop: steps, evaluations, checkpoints that can be resumed, early stopping."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ragkit.errors import InputError, RagkitError
from ragkit.provence.marked import MarkedBert
from ragkit.provence.own import collate, save_own
from ragkit.training import dev
from ragkit.training.batches import Group, batches, groups_of, similar
from ragkit.training.config import Config
from ragkit.training.losses import Targets, pruning_losses, ranking_loss
from ragkit.training.rows import Labelled

_log = logging.getLogger(__name__)
_CHECKPOINT_SECONDS = 300


class Trainer:
    """Trains a model on windows and leaves the best one, by what was held out, in `output`.

    `output/checkpoint.pt` holds the state of the run; a run with the same configuration goes on from there. `output/log.jsonl`
    gets a line per evaluation.
    """

    def __init__(
        self,
        config: Config,
        model: MarkedBert,
        train: Sequence[Labelled],
        held_out: Sequence[Labelled],
        *,
        output: Path,
        base: Path,
        rarity: NDArray[np.uint8] | None,
    ) -> None:
        """`model` is trained on the device where it lies.

        Raises `InputError` if there are held-out windows and none of them shows a gold sentence to choose by.
        """
        if held_out and not any(window.relevant and window.gold is not None for window in held_out):
            raise InputError("dev: none of the passages that are held out has a gold sentence")
        self.config, self.model, self.held_out = config, model, held_out
        self.output, self.base, self.rarity, self.device = output, base, rarity, model.pruning.weight.device
        # few words of a vocabulary come up in fine-tuning: moving those would part them from the others
        model.backbone.embeddings.word_embeddings.weight.requires_grad_(False)
        self._groups = groups_of(train)
        self._epochs = [self._batches(epoch) for epoch in range(config.epochs)]
        self.total = min(config.steps or sum(map(len, self._epochs)), sum(map(len, self._epochs)))
        self.step = 0
        self.best: dict[str, Any] = {}
        self._worse = 0
        self.optimizer = _optimizer(model, config)
        warmup = max(1, round(config.warmup * self.total))
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / warmup, max(0.0, (self.total - step) / max(1, self.total - warmup)))
        )

    def run(self, advance: Callable[[int, str], None]) -> dict[str, Any]:
        """Train to the end, or until the model stops getting better; the figures of the best model.

        `advance` is told the step and a line about it.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        self._resume()
        plan = [lots for epoch in self._epochs for lots in epoch][: self.total]
        due = self._evaluations()
        saved, started, tokens, loss = time.monotonic(), time.monotonic(), 0, 0.0
        self.model.train()
        last = min(self.total, self.config.stop or self.total)
        while self.step < last and self._worse < self.config.patience:
            lots = plan[self.step]
            value = self._update(lots)
            loss = value if loss == 0 else 0.95 * loss + 0.05 * value
            tokens += sum(len(window.row.ids) for group in lots for window in group)
            self.step += 1
            advance(self.step, f"loss {loss:.3f}, {tokens / (time.monotonic() - started):.0f} tokens/s")
            if self.step in due:
                self._evaluate()
            if self.step in due or time.monotonic() - saved > _CHECKPOINT_SECONDS:
                self._save()
                saved = time.monotonic()
        return self.best

    def _batches(self, epoch: int) -> list[list[Group]]:
        return batches(self._groups, self.config.group_size, self.config.batch_tokens, self.config.seed + epoch)

    def _evaluations(self) -> set[int]:
        ends, start = {self.total, self.config.stop or self.total}, 0
        for epoch in self._epochs:
            ends |= {start + len(epoch) * part // self.config.evaluate for part in range(1, self.config.evaluate + 1)}
            start += len(epoch)
        return ends

    def _update(self, lots: Sequence[Group]) -> float:
        windows = [window for group in lots for window in group]
        numbers = torch.tensor([at for at, group in enumerate(lots) for _ in group], device=self.device)
        total = torch.zeros((), device=self.device)
        ranks, order = [], []
        for lot in similar(windows):
            batch = collate([windows[at].row for at in lot], self.device)
            targets = _targets([windows[at] for at in lot], batch.units.shape[1], self.device)
            with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
                output = self.model(batch)
            output = type(output)(*(logits.float() for logits in output))
            parts = pruning_losses(output, batch, targets, self.config.label_smoothing, self.config.gold_weight)
            total = total + parts.sentences + self.config.token_loss * parts.tokens + self.config.listwise_loss * parts.listwise
            ranks.append(output.rank)
            order += lot
        relevant = torch.tensor([float(windows[at].relevant) for at in order], device=self.device)
        known = [windows[at].teacher for at in order]
        teacher = torch.tensor([float("nan") if score is None else score for score in known], device=self.device)
        ranking = ranking_loss(torch.cat(ranks), relevant, teacher, numbers[order], self.config.label_smoothing)
        loss = (total + self.config.ranking_loss * ranking) / len(windows)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def _evaluate(self) -> None:
        if not self.held_out:
            self._export({"threshold": 0.5})
            return
        passages = dev.score(self.model, self.held_out)
        found = dev.metrics([passage for _, passage in passages], self.config.keep_gold)
        by_source = {}
        for source in dict.fromkeys(source for source, _ in passages):
            its_own = [passage for its_source, passage in passages if its_source == source]
            if any(passage.gold.any() for passage in its_own):
                by_source[source] = dev.metrics(its_own, self.config.keep_gold)
        found |= {"step": self.step, "merit": dev.figure_of_merit(found)}
        with (self.output / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(found | {"by_source": by_source}) + "\n")
        if found["merit"] > self.best.get("merit", -1.0):
            self.best, self._worse = found, 0
            self._export(found)
        else:
            self._worse += 1

    def _export(self, found: dict[str, Any]) -> None:
        settings = {"threshold": round(found["threshold"], 4), "max_length": self.config.window}
        save_own(self.output / "model", self.model, self.rarity, self.base, settings)

    def _save(self) -> None:
        state = {
            "config": self.config.model_dump_json(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "step": self.step,
            "best": self.best,
            "worse": self._worse,
        }
        torch.save(state, self.output / "checkpoint.new")
        os.replace(self.output / "checkpoint.new", self.output / "checkpoint.pt")

    def _resume(self) -> None:
        file = self.output / "checkpoint.pt"
        if not file.exists():
            return
        try:
            state = torch.load(file, map_location=self.device, weights_only=True)
            its_own = Config.model_validate_json(state["config"]) == self.config
            if its_own:
                self.model.load_state_dict(state["model"])
                self.optimizer.load_state_dict(state["optimizer"])
                self.scheduler.load_state_dict(state["scheduler"])
                self.step, self.best, self._worse = state["step"], state["best"], state["worse"]
        except Exception as error:  # torch has no one type for a file that it cannot read
            reason = " ".join(str(error).split())[:200]
            raise RagkitError(f"output: {file} cannot be read; remove it to start again: {reason}") from error
        if not its_own:
            raise InputError(f"output: {file} belongs to a run with another configuration; remove it or choose another folder")
        _log.warning("going on from step %d of %d", self.step, self.total)


def _targets(windows: Sequence[Labelled], units: int, device: torch.device) -> Targets:
    gold = np.zeros((len(windows), units), np.float32)
    for at, window in enumerate(windows):
        if window.gold is not None:
            gold[at, : len(window.gold)] = window.gold
    known = np.array([window.gold is not None for window in windows])
    return Targets(torch.from_numpy(gold).to(device), torch.from_numpy(known).to(device))


def _optimizer(model: MarkedBert, config: Config) -> torch.optim.Optimizer:
    new: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            fresh = not name.startswith("backbone.") or "token_type" in name
            (new if fresh else matrices if parameter.ndim > 1 else vectors).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": matrices, "lr": config.learning_rate, "weight_decay": config.weight_decay},
            {"params": vectors, "lr": config.learning_rate, "weight_decay": 0.0},
            {"params": new, "lr": config.head_learning_rate, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
        fused=True,
    )
