"""A cross-encoder of transformers with a second head, over its tokens: windows in, logits out. Needs torch."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ragkit.encoders.network import best_device, hushed, moved
from ragkit.errors import InputError, RagkitError
from ragkit.provence.pair import Logits, Pair, Window

CLASSES = {"bert": "Bert", "deberta-v2": "DebertaV2", "modernbert": "ModernBert", "xlm-roberta": "XLMRoberta"}
"""The backbones by model_type, with the prefix of their classes in transformers."""


class TransformerNetwork:
    """A sequence classifier whose first output ranks, and a linear layer that prunes its last hidden states.

    The pruning head of a ModernBERT checkpoint was trained on the states before the backbone's final norm: up to
    transformers 4.57 those were its last hidden states. Nothing changes after loading, so threads may share a network.
    """

    def __init__(self, classifier: nn.Module, pruning: nn.Linear) -> None:
        """`classifier` is a transformers model for sequence classification, of one of the backbones in `CLASSES`."""
        self.classifier, self.pruning = classifier, pruning
        config: Any = classifier.config
        self._padding = config.pad_token_id or 0
        self._typed = (
            getattr(config, "type_vocab_size", 0) > 1 and "token_type_ids" in inspect.signature(classifier.forward).parameters
        )
        # the hooks know this alone: a cycle through `self` would keep a model's memory after its last use
        self._seen = seen = threading.local()
        backbone: Any = classifier.base_model
        if config.model_type == "modernbert":
            backbone.final_norm.register_forward_pre_hook(lambda _, inputs: setattr(seen, "states", inputs[0]))
        else:
            backbone.register_forward_hook(lambda _, inputs, outputs: setattr(seen, "states", outputs[0]))

    def accompany(self, pairs: Sequence[Pair]) -> list[Pair]:
        """See `Network`: each passage is read by itself."""
        return list(pairs)

    def __call__(self, windows: Sequence[Window]) -> Logits:
        """One forward pass over windows of any lengths, padded to the longest; no window's result depends on the others."""
        inputs = {
            "input_ids": self._padded([window.ids for window in windows], self._padding),
            "attention_mask": self._padded([np.ones(len(window.ids), np.int64) for window in windows], 0),
        }
        if self._typed:
            inputs["token_type_ids"] = self._padded([window.types for window in windows], 0)
        with torch.inference_mode():
            rank = self.classifier(**inputs).logits[:, 0].cpu().double().numpy()
            # taken out, so that no batch is held on to until the thread's next one
            states = vars(self._seen).pop("states")
            keep = torch.softmax(self.pruning(states.float()), -1)[..., 1].cpu().numpy()
        return Logits(rank, [row[: len(window.ids)] for row, window in zip(keep, windows, strict=True)])

    def _padded(self, rows: Sequence[NDArray[np.int64]], padding: int) -> torch.Tensor:
        filled = np.full((len(rows), max(map(len, rows))), padding, np.int64)
        for i, row in enumerate(rows):
            filled[i, : len(row)] = row
        return torch.from_numpy(filled).to(self.pruning.weight.device)


def build_network(
    folder: Path,
    config: Mapping[str, Any],
    ranking: Mapping[str, torch.Tensor],
    pruning: tuple[torch.Tensor, torch.Tensor],
    device: str | None,
    precision: str | None,
) -> TransformerNetwork:
    """A network from tensors; `folder` is named in errors only.

    `config` is a config.json with a model_type in `CLASSES`, `ranking` holds the tensors of that architecture's model for
    sequence classification, `pruning` a weight [2, hidden] and a bias [2]. Raises `RagkitError` if they are not exactly what
    the architecture needs: what is missing would be random, what is left over would be ignored.
    """
    classifier: Any = _strictly_loaded(folder, config, ranking)
    weight, bias = pruning
    hidden: Any = classifier.config.hidden_size
    if weight.shape != (2, hidden) or bias.shape != (2,):
        raise RagkitError(
            f"model: the pruning head in {folder} has the shape {tuple(weight.shape)}; its backbone and two outcomes, keep or "
            f"drop, need {(2, hidden)}"
        )
    head = nn.Linear(hidden, 2)
    head.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    device = device or best_device()
    classifier, head = moved(classifier, device), moved(head, device)
    _lower(classifier, _dtype(precision, torch.device(device)))
    return TransformerNetwork(classifier.eval(), head.eval())


def _strictly_loaded(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    import transformers

    name = CLASSES[config["model_type"]]
    # without a type in the configuration the weights are read in their own
    settings = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
    with hushed():
        try:
            model, report = getattr(transformers, f"{name}ForSequenceClassification").from_pretrained(
                None,
                config=getattr(transformers, f"{name}Config").from_dict(settings),
                state_dict=dict(tensors),
                # flash attention would drop the padding, and with it the shape of the states
                attn_implementation="eager" if name == "DebertaV2" else "sdpa",
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except Exception as error:  # transformers has no one type for a config.json that makes no sense
            reason = " ".join(str(error).split())[:200]
            raise RagkitError(f"model: {folder} cannot be loaded as {config['model_type']}: {reason}") from error
    for problem, keys in (
        ("lack {n} tensors of the network, such as {key}", report["missing_keys"]),
        ("hold {n} tensors of another size than config.json says, such as {key}", report["mismatched_keys"]),
        ("hold {n} tensors that the network has no place for, such as {key}", report["unexpected_keys"]),
    ):
        if keys:
            first = min(key if isinstance(key, str) else key[0] for key in keys)
            raise RagkitError(f"model: the weights in {folder} " + problem.format(n=len(keys), key=first))
    loaded: nn.Module = model
    return loaded


def _dtype(precision: str | None, device: torch.device) -> torch.dtype:
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if precision is None:
        precision = "bfloat16" if device.type == "cuda" else "float32"
    if precision not in types:
        raise InputError(f"dtype: {precision!r} is not one of {', '.join(types)}")
    return types[precision]


def _lower(classifier: nn.Module, dtype: torch.dtype) -> None:
    """Cast the backbone's parameters, but neither its buffers nor the ranking head.

    Rounded rotary frequencies would misplace all but the first tokens, and rounded logits would tie passages.
    """
    for name, parameter in classifier.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if name.startswith("classifier.") else dtype)
    head: Any = classifier.classifier
    head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))
