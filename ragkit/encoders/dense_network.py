"""The part of dense encoding that needs torch: rows of token ids to pooled vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

from ragkit.encoders.base import Vectors
from ragkit.encoders.dense_folder import Pooling, Step, Tower
from ragkit.encoders.int8 import Int8Linear, check_int8, to_int8
from ragkit.encoders.int8_bert import Int8Bert
from ragkit.encoders.network import best_device, load_network, padded, reading
from ragkit.encoders.pooling import pool
from ragkit.errors import InputError, RagkitError


class Row(NamedTuple):
    """What a network reads."""

    ids: list[int]
    """At least one."""
    start: int = 0
    """The first token that is pooled."""


class PooledNetwork(nn.Module):
    """A transformer, pooling over its last states, and what comes behind that."""

    def __init__(self, backbone: nn.Module, pooling: Sequence[Pooling], steps: Sequence[nn.Module]) -> None:
        super().__init__()
        self.backbone, self.pooling, self.steps = backbone, tuple(pooling), nn.Sequential(*steps)

    def forward(self, ids: torch.Tensor, attention: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Vectors [n, dimension] float32 of token ids [n, tokens]; see `pool` for the masks."""
        states = self.backbone(input_ids=ids, attention_mask=attention).last_hidden_state
        vectors: torch.Tensor = self.steps(pool(states, attention, kept, self.pooling))
        return vectors

    def encode(self, rows: Sequence[Row]) -> Vectors:
        """Vectors [len(rows), dimension] of rows of token ids, not normalised at the end."""
        device = next(self.backbone.parameters()).device
        ids = padded([row.ids for row in rows], device)
        attention = padded([[1] * len(row.ids) for row in rows], device)
        kept = padded([[0] * row.start + [1] * (len(row.ids) - row.start) for row in rows], device)
        with torch.inference_mode():
            vectors: Vectors = self(ids, attention, kept).cpu().numpy()
        return vectors


class DprStates(nn.Module):
    """An encoder of DPR as a network that gives states: those of its BERT, through its projection if there is one.

    DPR (Karpukhin et al., 2020, arXiv:2004.04906) takes the first of them as the vector.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.bert = encoder.bert_model
        self.projection = encoder.encode_proj if encoder.projection_dim else nn.Identity()

    def forward(self, **inputs: torch.Tensor) -> Any:
        """What the BERT gives, with projected states."""
        output = self.bert(**inputs)
        output.last_hidden_state = self.projection(output.last_hidden_state)
        return output


class DenseStep(nn.Module):
    """A linear layer with an activation, and with a residual connection if it has one."""

    def __init__(self, linear: nn.Linear, activation: nn.Module, residual: nn.Module | None) -> None:
        super().__init__()
        self.linear, self.activation, self.residual = linear, activation, residual

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """[n, inputs] to [n, outputs]."""
        outputs: torch.Tensor = self.activation(self.linear(vectors))
        return outputs if self.residual is None else outputs + self.residual(vectors)


class Normalize(nn.Module):
    """To length one."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """[n, dimension] to the same."""
        return nn.functional.normalize(vectors, dim=1)


def load_backbone(tower: Tower, device: str | None, dtype: str) -> nn.Module:
    """The transformer of a tower in evaluation mode, on `device` or the fastest there is.

    Raises `InputError` if the device or the dtype cannot be used, and `RagkitError` if the weights cannot be read.
    """
    device = device or best_device()
    if dtype == "int8":
        check_int8(device)
    precision = "float32" if dtype == "int8" else dtype
    network: Any = load_network(tower.path, device, head=tower.head, dtype=precision, layers=tower.layers)
    if tower.head.startswith("DPR"):
        network = DprStates(network.ctx_encoder if tower.head == "DPRContextEncoder" else network.question_encoder)
    if dtype == "int8" and Int8Bert.suits(network):
        network = Int8Bert(network)
    elif dtype == "int8":
        to_int8(network)
        if not any(isinstance(module, Int8Linear) for module in network.modules()):
            raise InputError(f"dtype: {tower.path.name} has no linear layers that could be in int8; pass float32")
    loaded: nn.Module = network
    return loaded


def pooled_network(tower: Tower, backbone: nn.Module) -> PooledNetwork:
    """The whole network of a tower around its transformer. Raises `RagkitError` if weights of a module cannot be read."""
    device = next(backbone.parameters()).device
    return PooledNetwork(backbone, tower.pooling, [_step(step) for step in tower.steps]).eval().to(device)


def _step(step: Step) -> nn.Module:
    if step.path is None:
        return Normalize()
    file = step.path / "model.safetensors"
    if not file.is_file():
        raise RagkitError(
            f"model: {step.path} holds no model.safetensors; weights in other formats must be converted to it first"
        )
    with reading(step.path):
        tensors = {name: tensor.float() for name, tensor in load_file(file).items()}
        if step.kind == "layer_norm":
            norm = nn.LayerNorm(len(tensors["norm.weight"]))
            norm.load_state_dict({name.removeprefix("norm."): tensor for name, tensor in tensors.items()})
            return norm
        residual: nn.Module | None = None
        if step.residual:
            residual = _linear(tensors, "residual.") if "residual.weight" in tensors else nn.Identity()
        return DenseStep(_linear(tensors, "linear."), getattr(nn, step.activation)(), residual)


def _linear(tensors: dict[str, torch.Tensor], prefix: str) -> nn.Linear:
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    outputs, inputs = own["weight"].shape
    linear = nn.Linear(inputs, outputs, bias="bias" in own)
    linear.load_state_dict(own)
    return linear
