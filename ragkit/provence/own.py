"""ragkit's own format of a Provence model: config.json, tokenizer.json, and weights as 8-bit rows in model.safetensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ragkit.encoders.int8 import check_int8, to_int8
from ragkit.encoders.int8_bert import Int8Bert
from ragkit.encoders.network import best_device, load_network, moved
from ragkit.errors import InputError, RagkitError
from ragkit.provence.company import accompanied
from ragkit.provence.earlier import widened
from ragkit.provence.family import Family
from ragkit.provence.inputs import MARKS, Row, rows
from ragkit.provence.marked import Batch, MarkedBert
from ragkit.provence.matching import BUCKETS
from ragkit.provence.pair import Logits, Pair, Window

MODEL_TYPE = "ragkit-provence"
_VERSION = 2
_TOKENIZER = "tokenizer.json"
_RARITY, _SCALE = "rarity", ".scale"
_DTYPES = {
    None: torch.float32,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.float32,  # of what is not multiplied in integers
}


class MarkedNetwork:
    """A `MarkedBert` in evaluation mode; windows in, logits out. Nothing changes after construction, so threads may share it."""

    def __init__(self, model: MarkedBert, rarity: NDArray[np.float32] | None) -> None:
        """`rarity`: see `inputs.rows`."""
        self.model = model.eval()
        self.rarity = rarity

    def accompany(self, pairs: Sequence[Pair]) -> list[Pair]:
        """See `Network`: they are the company of each other."""
        return list(pairs) if self.rarity is None else accompanied(pairs, self.rarity)

    def __call__(self, windows: Sequence[Window]) -> Logits:
        """See `Network`."""
        weight = self.model.pruning.weight
        batch = collate(rows(windows, self.rarity), weight.device)
        cast = weight.device.type if weight.device.type != "mps" else "cpu"
        with torch.inference_mode(), torch.autocast(cast, weight.dtype, enabled=weight.dtype != torch.float32):
            output = self.model(batch)
        keep = torch.sigmoid(output.tokens.float()).cpu().numpy()
        lengths = [len(window.ids) for window in windows]
        return Logits(output.rank.cpu().double().numpy(), [row[:length] for row, length in zip(keep, lengths, strict=True)])


def collate(several: Sequence[Row], device: torch.device | str = "cpu") -> Batch:
    """Rows as tensors, padded to the longest."""
    n, t = len(several), max(len(row.ids) for row in several)
    units = np.zeros((n, max(1, *(len(row.units) for row in several)), several[0].units.shape[1]), np.float32)
    ids, marks, mask = (np.zeros((n, t), np.int64) for _ in range(3))
    owners = np.full((n, t), -1, np.int64)
    for i, row in enumerate(several):
        length = len(row.ids)
        ids[i, :length], marks[i, :length], mask[i, :length], owners[i, :length] = row.ids, row.marks, 1, row.owners
        units[i, : len(row.units)] = row.units
    whole = np.stack([row.whole for row in several])
    return Batch(*(torch.from_numpy(array).to(device) for array in (ids, marks, mask, owners, units, whole)))


def new_model(base: Path, device: str = "cpu") -> MarkedBert:
    """The BERT in a folder with marks in place of segment ids and new heads, which are random: seed torch before.

    Raises `InputError` or `RagkitError` if the folder holds no BERT, or not all of it, or for an unknown device.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"base: {base} cannot be read: {_line(error)}") from error
    if config.model_type != "bert":
        raise InputError(f"base: {base} is a {config.model_type}; this network is made from a BERT")
    if not (base / _TOKENIZER).is_file():
        raise InputError(f"base: {base} holds no {_TOKENIZER}, which becomes a part of the model")
    trained = load_network(base, "cpu").state_dict()
    config.type_vocab_size = MARKS
    # a reader of short texts gains nothing from dropout in one or two epochs, and it costs time
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    model = MarkedBert(config)
    kinds = "embeddings.token_type_embeddings.weight"
    trained[kinds] = trained[kinds][:1] + 0.005 * torch.randn(MARKS, config.hidden_size)
    model.backbone.load_state_dict({name: tensor for name, tensor in trained.items() if not name.startswith("pooler.")})
    with torch.no_grad():
        # at first the passage's score is mostly that of its best unit
        model.ranking.weight.mul_(0.1)
        model.ranking.weight[0, -1] = 0.5
    return moved(model, device, torch.float32)


def is_own(folder: Path) -> bool:
    """Whether a folder says that it holds this format."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == MODEL_TYPE


def trained_model(base: Path, device: str = "cpu") -> tuple[MarkedBert, NDArray[np.uint8] | None]:
    """A model in ragkit's own format, to be trained further, and its table of rarities. Raises like `load_own`."""
    network, _ = load_own(base, device, "float32")
    rarity = None if network.rarity is None else np.round(network.rarity * 255).astype(np.uint8)
    return network.model.train(), rarity


def save_own(folder: Path, model: MarkedBert, rarity: NDArray[np.uint8] | None, base: Path, settings: Mapping[str, Any]) -> None:
    """Write the format that `load_own` reads. `settings` holds threshold and max_length; the tokenizer is that of `base`.

    Matrices are stored as int8 with one scale per row, largest magnitude to 127: a quarter of the size, see the model card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().float().cpu()
        if tensor.ndim == 2 and len(tensor) > 1 and tensor.numel() > 4096:
            scale = tensor.abs().amax(1).clamp(min=1e-12) / 127
            tensors[name] = torch.round(tensor / scale[:, None]).to(torch.int8)
            tensors[name + _SCALE] = scale
        else:
            tensors[name] = tensor.contiguous()
    if rarity is not None:
        tensors[_RARITY] = torch.from_numpy(rarity)
    config = {"model_type": MODEL_TYPE, "version": _VERSION, **settings, "backbone": model.backbone.config.to_diff_dict()}
    shutil.copyfile(base / _TOKENIZER, folder / _TOKENIZER)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")


def load_own(folder: Path, device: str | None = None, dtype: str | None = None) -> tuple[MarkedNetwork, Family]:
    """What `save_own` wrote; `dtype` None is float32 on every device, "int8" is for the CPU, see `ragkit.encoders.int8_bert`.

    Raises `InputError` or `RagkitError`, naming the folder, for anything less or of another version.
    """
    from transformers import BertConfig

    if dtype not in _DTYPES:
        raise InputError(f"dtype: {dtype!r} is not one of {', '.join(filter(None, _DTYPES))}")
    device = device or best_device()
    if dtype == "int8":
        check_int8(device)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise RagkitError(f"model: {folder} cannot be read: {_line(error)}") from error
    if config.get("version") not in (1, _VERSION):
        raise InputError(f"model: {folder} has version {config.get('version')}; this ragkit reads versions 1 and {_VERSION}")
    rarity = tensors.pop(_RARITY, None)
    if rarity is not None and (rarity.shape, rarity.dtype) != ((BUCKETS,), torch.uint8):
        raise InputError(
            f"model: {folder} has {list(rarity.shape)} rarities as {rarity.dtype}; this ragkit needs {BUCKETS} bytes"
        )
    try:
        family = Family("ragkit", "sigmoid", "mean", float(config["threshold"]), False, False, int(config["max_length"]), None)
        weights = _unpacked(tensors)
        if config["version"] < _VERSION:
            weights = widened(weights)
        model = MarkedBert(BertConfig.from_dict({**config["backbone"], "type_vocab_size": MARKS}))
        model.load_state_dict(weights)
    except Exception as error:  # transformers has no one type for a configuration that makes no sense
        raise InputError(f"model: {folder} does not hold a whole model: {_line(error)}") from error
    model = moved(model, device, _DTYPES[dtype])
    if dtype == "int8" and Int8Bert.suits(model.backbone):
        model.backbone = Int8Bert(model.backbone)
    elif dtype == "int8":
        to_int8(model.backbone.encoder)
    return MarkedNetwork(model, None if rarity is None else rarity.numpy().astype(np.float32) / np.float32(255)), family


def _unpacked(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # an int8 matrix without its scales must not pass for weights
    return {
        name: tensor.float() * tensors[name + _SCALE].view(len(tensor), 1) if tensor.dtype == torch.int8 else tensor
        for name, tensor in tensors.items()
        if not name.endswith(_SCALE)
    }


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
