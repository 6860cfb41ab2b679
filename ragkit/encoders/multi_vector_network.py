"""The part of late interaction that needs torch: a transformer with projections, and rows of token ids to matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import nn

from ragkit.encoders.base import Vectors
from ragkit.encoders.multi_vector_folder import Projection, TokenModel
from ragkit.encoders.network import load_network, padded, reading
from ragkit.errors import RagkitError


class Row(NamedTuple):
    """What a network reads of a text."""

    ids: list[int]
    seen: int
    """How many of the ids, from the first on, the attention sees; the others have vectors all the same."""
    kept: list[int]
    """The places in `ids` whose vectors are wanted."""


class TokenNetwork(nn.Module):
    """A transformer, and linear layers over each of its last hidden states."""

    def __init__(self, backbone: nn.Module, layers: Sequence[ProjectionLayer]) -> None:
        super().__init__()
        self.backbone, self.layers = backbone, nn.ModuleList(layers)

    def forward(self, ids: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        """Vectors of length 1, [n, tokens, dimension] float32, of token ids [n, tokens]."""
        states = self.backbone(input_ids=ids, attention_mask=attention).last_hidden_state.float()
        for layer in self.layers:
            states = layer(states)
        return nn.functional.normalize(states, dim=2)


class ProjectionLayer(nn.Module):
    """A linear layer, an activation, and what goes in added to what comes out if there is a residual."""

    def __init__(self, linear: nn.Linear, activation: nn.Module, residual: nn.Module | None) -> None:
        super().__init__()
        self.linear, self.activation, self.residual = linear, activation, residual

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[..., out] from [..., in]."""
        projected: torch.Tensor = self.activation(self.linear(states))
        return projected if self.residual is None else projected + self.residual(states)


def load_token_network(model: TokenModel, device: str | None) -> TokenNetwork:
    """The network of a folder in evaluation mode, float32, on `device` (a GPU where there is one, if not given).

    Raises `RagkitError` or `InputError` as `load_network` does, and if a projection lacks a tensor.
    """
    backbone = load_network(model.path, device)
    layers = [_layer(projection) for projection in model.projections]
    return TokenNetwork(backbone, layers).to(next(backbone.parameters()).device).eval()


def token_vectors(network: TokenNetwork, rows: Sequence[Row]) -> list[Vectors]:
    """Of each row the vectors of its kept places, [kept, dimension] float32."""
    device = next(network.parameters()).device
    ids = padded([row.ids for row in rows], device)
    attention = padded([[int(place < row.seen) for place in range(len(row.ids))] for row in rows], device)
    with torch.inference_mode():
        vectors = network(ids, attention).cpu().numpy()
    return [its_vectors[row.kept] for its_vectors, row in zip(vectors, rows, strict=True)]


def _layer(projection: Projection) -> ProjectionLayer:
    with reading(projection.file.parent), safe_open(projection.file, "pt") as file:
        tensors = {name: file.get_tensor(name).float() for name in list(file.keys()) if name.startswith(("linear.", "residual."))}
    linear = _linear(tensors["linear.weight"], tensors.get("linear.bias"))
    residual: nn.Module | None = None
    if projection.residual:
        residual = nn.Identity()
        if linear.in_features != linear.out_features:
            if "residual.weight" not in tensors:
                raise RagkitError(f"model: {projection.file} lacks residual.weight")
            residual = _linear(tensors["residual.weight"], None)
    return ProjectionLayer(linear, getattr(nn, projection.activation)(), residual)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return layer
