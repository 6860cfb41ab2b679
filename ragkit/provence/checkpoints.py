"""Public Provence checkpoints without their remote code: which family a folder is of, and what its tensors are called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ragkit.encoders.folder import longest_input
from ragkit.errors import InputError, RagkitError
from ragkit.provence.family import Family
from ragkit.provence.pair import Network
from ragkit.provence.transformer import CLASSES, build_network

Tensors = dict[str, torch.Tensor]


class Checkpoint(NamedTuple):
    """A checkpoint in the names of transformers, whichever family it is of."""

    config: dict[str, Any]
    """The backbone's config.json."""
    ranking: Tensors
    """What the backbone's model for sequence classification holds."""
    pruning: tuple[torch.Tensor, torch.Tensor]
    """Weight [2, hidden] and bias [2]; the second output stands for a token worth keeping."""
    family: Family


def load_checkpoint(folder: Path, device: str | None = None, dtype: str | None = None) -> tuple[Network, Family]:
    """The network in a folder, and how it was trained to be used.

    Takes ragkit's own format, Provence (DeBERTa-v2), XProvence (XLM-RoBERTa) and OpenProvence (BERT, DeBERTa-v2, ModernBERT,
    XLM-RoBERTa). `device` defaults to a GPU where there is one; `dtype` is float32, bfloat16 or float16, by default bfloat16 on
    CUDA and float32 elsewhere, and the heads compute in float32 anyhow; of ragkit's own see `load_own`. Raises `InputError` or
    `RagkitError` if the folder holds anything else, or not all of it.
    """
    config = _config(folder)
    if config.get("model_type") == "ragkit-provence":
        from ragkit.provence.own import load_own

        return load_own(folder, device, dtype)
    checkpoint = _recognised(folder, config, _weights(folder))
    network = build_network(folder, checkpoint.config, checkpoint.ranking, checkpoint.pruning, device, dtype)
    return network, checkpoint.family


def _recognised(folder: Path, config: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> Checkpoint:
    """The checkpoint that config.json and tensors make up; `folder` is named in errors only.

    OpenProvence says what it is. The other families are told apart by their tensors: their model_type is their own.
    Raises `InputError` if it is none of them, or if a head is missing or of the wrong size.
    """
    # buffers that older versions of transformers have saved
    kept = {key: tensor for key, tensor in weights.items() if not key.endswith("position_ids")}
    if config.get("model_type") == "open_provence":
        return _open_provence(folder, config, kept)
    if not any(key.startswith("token_classifier.") for key in kept):
        raise InputError(
            f"model: {folder} has no pruning head (token_classifier or pruning_head); pass a Provence checkpoint, or rerank "
            "with CrossEncoderReranker if it is a cross-encoder"
        )
    pruning = _pruning_head(folder, kept, "token_classifier")
    ranking = {key: tensor for key, tensor in kept.items() if not key.startswith("token_classifier.")}
    if any(key.startswith("deberta.") for key in ranking):
        return _provence(folder, config, ranking, pruning)
    if any(key.startswith("roberta.") for key in ranking):
        return _xprovence(folder, config, ranking, pruning)
    raise InputError(f"model: {folder} has a backbone that is not supported; Provence has deberta.*, XProvence roberta.*")


def _provence(
    folder: Path, config: Mapping[str, Any], ranking: Tensors, pruning: tuple[torch.Tensor, torch.Tensor]
) -> Checkpoint:
    backbone = _backbone(folder, config, "deberta-v2", ranking.get("classifier.weight"))
    family = Family(
        name="provence",
        activation="raw",
        rounding="released",
        threshold=0.1,
        keep_title=True,
        normalize_question=True,
        max_length=_at_most(512, backbone),
        top_k=5,
    )
    return Checkpoint(backbone, ranking, pruning, family)


def _xprovence(
    folder: Path, config: Mapping[str, Any], ranking: Tensors, pruning: tuple[torch.Tensor, torch.Tensor]
) -> Checkpoint:
    if "classifier.weight" in ranking:
        # a linear layer over the backbone's own pooler: the same computation as the head of XLM-RoBERTa, by other names
        names = {"roberta.pooler.dense.": "classifier.dense.", "classifier.": "classifier.out_proj."}
        ranking = {_renamed(key, names): tensor for key, tensor in ranking.items()}
    else:
        ranking = {key: tensor for key, tensor in ranking.items() if not key.startswith("roberta.pooler.")}
    backbone = _backbone(folder, config, "xlm-roberta", ranking.get("classifier.out_proj.weight"))
    family = Family(
        name="xprovence",
        activation="raw",
        rounding="released",
        threshold=0.3,
        keep_title=True,
        normalize_question=True,
        max_length=_at_most(8192, backbone),
        top_k=5,
    )
    return Checkpoint(backbone, ranking, pruning, family)


def _open_provence(folder: Path, config: Mapping[str, Any], weights: Tensors) -> Checkpoint:
    base = config.get("base_model_config")
    if not isinstance(base, dict) or base.get("model_type") not in CLASSES:
        raise InputError(
            f"model: {folder} needs a base_model_config in its config.json, with a model_type out of {', '.join(CLASSES)}"
        )
    rest = {key: tensor for key, tensor in weights.items() if not key.startswith("pruning_head.")}
    if any(key.startswith("ranking_model.") for key in rest):
        rest = {_renamed(key, {"ranking_model.": ""}): tensor for key, tensor in rest.items()}
    rank = rest.get("classifier.weight", rest.get("classifier.out_proj.weight"))
    backbone = _backbone(folder, base, base["model_type"], rank)
    family = Family(
        name="open-provence",
        activation="sigmoid",
        rounding="mean",
        # published files misspell it
        threshold=float(_number(folder, config, ("default_threadshold", "default_threshold"), 0.1)),
        keep_title=False,
        normalize_question=False,
        max_length=_at_most(int(_number(folder, config, ("max_length",), 512)), backbone),
        top_k=None,
    )
    return Checkpoint(backbone, rest, _pruning_head(folder, weights, "pruning_head.classifier"), family)


def _pruning_head(folder: Path, weights: Mapping[str, torch.Tensor], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    weight, bias = weights.get(f"{name}.weight"), weights.get(f"{name}.bias")
    if weight is None or bias is None:
        raise InputError(
            f"model: the weights in {folder} lack the pruning head's {name}.{'weight' if weight is None else 'bias'}"
        )
    return weight, bias


def _backbone(folder: Path, config: Mapping[str, Any], model_type: str, rank: torch.Tensor | None) -> dict[str, Any]:
    """`config` as transformers knows it, with as many outputs as the last layer of the ranking head, `rank`, has."""
    if rank is None:
        raise InputError(f"model: the weights in {folder} lack a ranking head (classifier.weight)")
    if rank.ndim != 2 or len(rank) not in (1, 2):
        raise InputError(
            f"model: the ranking head in {folder} has the shape {tuple(rank.shape)}; a reranker has one or two outputs"
        )
    labels = {str(i): f"LABEL_{i}" for i in range(len(rank))}
    sized = {"model_type": model_type, "id2label": labels, "label2id": {label: int(i) for i, label in labels.items()}}
    return {key: value for key, value in config.items() if key != "num_labels"} | sized


def _at_most(length: int, backbone: Mapping[str, Any]) -> int:
    return min(length, longest_input(backbone) or length)


def _number(folder: Path, config: Mapping[str, Any], keys: tuple[str, ...], default: float) -> float:
    key, value = next(((key, config[key]) for key in keys if config.get(key) is not None), ("", default))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"model: {key} in {folder / 'config.json'} is not a number: {value!r}")
    return value


def _renamed(key: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"model: the folder {folder} holds no config.json")
    return _object(path)


def _weights(folder: Path) -> Tensors:
    """All tensors of model.safetensors, or of the files that its index names; a pickle is never opened."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        files = ["model.safetensors"]
    elif index.is_file():
        files = sorted(set(_object(index).get("weight_map", {}).values()))
    else:
        raise InputError(f"model: {folder} holds no model.safetensors; weights in other formats must be converted to it first")
    tensors: Tensors = {}
    for file in files:
        try:
            tensors |= load_file(folder / file)
        except (OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RagkitError(f"model: {folder / file} cannot be read, download it again: {reason}") from error
    return tensors


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"model: {path} cannot be read as JSON: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(value, dict):
        raise InputError(f"model: {path} holds no JSON object")
    return value
