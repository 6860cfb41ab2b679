"""One vector per text from the vectors of its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ragkit.encoders.dense_folder import Pooling


def pool(states: torch.Tensor, attention: torch.Tensor, kept: torch.Tensor, poolings: Sequence[Pooling]) -> torch.Tensor:
    """Vectors [n, len(poolings) * dimension] from `states` [n, tokens, dimension], one pooling beside the other.

    `attention` [n, tokens] is 1 for tokens and 0 for padding, which may be on either side. `kept` is 1 for those of the tokens
    that are pooled, at least one in each row.

    "cls" takes the first token, "last" the last, "max" the largest value of each dimension, "mean" averages. "weighted_mean"
    averages with weights 1, 2, 3, ... from the first token on (SGPT, Muennighoff, 2022, arXiv:2202.08904); "mean_sqrt_len" is the
    sum over the square root of the number of tokens. All are in float32.
    """
    states = states.float()
    return torch.cat([_pooled(states, attention, kept, pooling) for pooling in poolings], 1)


def _pooled(states: torch.Tensor, attention: torch.Tensor, kept: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    rows = torch.arange(len(states), device=states.device)
    if pooling == "cls":
        return states[rows, kept.argmax(1)]
    if pooling == "last":
        return states[rows, kept.shape[1] - 1 - kept.flip(1).argmax(1)]
    if pooling == "max":
        return states.masked_fill((kept == 0)[:, :, None], float("-inf")).amax(1)
    weights = (kept * attention.cumsum(1) if pooling == "weighted_mean" else kept).float()
    total = weights.sum(1, keepdim=True)
    return torch.einsum("ntd,nt->nd", states, weights) / (total.sqrt() if pooling == "mean_sqrt_len" else total)
