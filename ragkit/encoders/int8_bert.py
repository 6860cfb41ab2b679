"""BERT in 8-bit integers for x86 processors: rows without their padding, and one pass from each product to the next."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ragkit.encoders import int8_kernels

_BLOCK = 512  # tokens that go from one attention to the next together: what they become on the way stays in the cache


class Product:
    """The integer part of a linear layer, and what its outputs need beside it; see `int8_kernels`."""

    def __init__(self, *linears: nn.Linear) -> None:
        """Layers with the same input, one's outputs beside the other's."""
        weight = torch.cat([linear.weight.detach().float() for linear in linears])
        self._scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        rows = torch.round(weight / self._scale[:, None])
        self._weight = torch.ops.onednn.qlinear_prepack(rows.to(torch.int8), None)
        # not those of the weight itself: a row's least value is large, and times the sum of their differences would be, too
        self.sums: NDArray[np.float32] = (rows.sum(1) * self._scale).numpy()
        self.bias: NDArray[np.float32] = torch.cat([linear.bias.detach().float() for linear in linears]).numpy()

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Products [n, outputs] float32 of 8-bit rows [n, inputs]."""
        products: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, 0, self._weight, self._scale, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return products


class _Layer:
    def __init__(self, layer: Any) -> None:
        attention = layer.attention
        self.heads = Product(attention.self.query, attention.self.key, attention.self.value)
        self.attended = Product(attention.output.dense)
        self.first_norm = _norm(attention.output.LayerNorm)
        self.wide = Product(layer.intermediate.dense)
        self.narrow = Product(layer.output.dense)
        self.second_norm = _norm(layer.output.LayerNorm)


def _norm(norm: nn.LayerNorm) -> tuple[Any, ...]:
    return norm.weight.detach().numpy(), norm.bias.detach().numpy(), np.float32(norm.eps)


class _Rows:
    """Rows [n, d] in 8 bits, as torch and numpy see them, with their least values and steps."""

    def __init__(self, integers: torch.Tensor, lows: NDArray[np.float32], steps: NDArray[np.float32]) -> None:
        self.integers, self.numbers, self.lows, self.steps = integers, integers.numpy(), lows, steps

    def __getitem__(self, part: slice) -> _Rows:
        return _Rows(self.integers[part], self.lows[part], self.steps[part])


class Int8Bert(nn.Module):
    """A `BertModel` of transformers without its pooler, called as that one is.

    Every row of a weight and every token's row has a scale of its own, so neither other texts nor padding have a part in how a
    token is rounded.
    """

    def __init__(self, network: Any) -> None:
        """Reads the weights once: what is done to `network` later has no effect. See `suits` for what it may be."""
        super().__init__()
        self.embeddings, self._heads = network.embeddings, network.config.num_attention_heads
        self._layers = [_Layer(layer) for layer in network.encoder.layer]

    @staticmethod
    def suits(network: Any) -> bool:
        """Whether this is a BERT that reads both ways, with GELU, and of finite weights: others would not give NaN here."""
        from transformers import BertModel

        if type(network) is not BertModel:
            return False
        config = network.config
        plain: bool = config.hidden_act == "gelu" and not config.is_decoder and len(network.encoder.layer) > 0
        return plain and all(bool(parameter.isfinite().all()) for parameter in network.parameters())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None) -> Any:
        """States [n, tokens, dimension] float32 of ids [n, tokens], as `last_hidden_state`; zeros where the mask is zero."""
        from transformers.modeling_outputs import BaseModelOutput

        there = attention_mask.bool()
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        places = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        with torch.inference_mode():
            embedded = self.embeddings(
                input_ids=input_ids[there][None], position_ids=places[there][None], token_type_ids=types[there][None]
            )
            packed = embedded[0].contiguous()
            self._run(packed, there.sum(1).tolist())
            states = packed.new_zeros(*input_ids.shape, packed.shape[1])
            states[there] = packed
        return BaseModelOutput(last_hidden_state=states)

    def _run(self, states: torch.Tensor, lengths: list[int]) -> None:
        """Embeddings of all tokens [n, d] to last states, in place."""
        n = len(states)
        numbers = states.numpy()
        rows = _Rows(torch.empty(states.shape, dtype=torch.uint8), np.empty(n, np.float32), np.empty(n, np.float32))
        int8_kernels.quantize(numbers, rows.numbers, rows.lows, rows.steps)
        for layer in self._layers:
            self._attend(layer.heads, rows, lengths)
            for start in range(0, n, _BLOCK):
                part = slice(start, start + _BLOCK)
                _feed(layer, rows[part], numbers[part])

    def _attend(self, heads: Product, rows: _Rows, lengths: list[int]) -> None:
        """Rows of states to rows of what each token sees, in place."""
        products = heads(rows.integers)
        int8_kernels.outputs(products.numpy(), rows.lows, rows.steps, heads.sums, heads.bias)
        for part, n in _runs(lengths):
            split = products[part].view(n, -1, 3, self._heads, rows.integers.shape[1] // self._heads)
            query, key, value = split.permute(2, 0, 3, 1, 4)
            seen = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
            target = rows[part]
            int8_kernels.quantize(seen.reshape(target.integers.shape).numpy(), target.numbers, target.lows, target.steps)


def _feed(layer: _Layer, rows: _Rows, states: NDArray[np.float32]) -> None:
    """What tokens see, as rows, and their states to the states behind the layer and these as rows, in place."""
    scales = rows.lows, rows.steps
    seen = layer.attended(rows.integers).numpy()
    attended = layer.attended
    int8_kernels.add_and_norm(seen, *scales, attended.sums, attended.bias, states, *layer.first_norm, rows.numbers)
    products = layer.wide(rows.integers).numpy()
    wide = np.empty(products.shape, np.uint8)
    int8_kernels.gelu(products, *scales, layer.wide.sums, layer.wide.bias, wide)
    narrowed = layer.narrow(torch.from_numpy(wide)).numpy()
    narrow = layer.narrow
    int8_kernels.add_and_norm(narrowed, *scales, narrow.sums, narrow.bias, states, *layer.second_norm, rows.numbers)


def _runs(lengths: list[int]) -> Iterator[tuple[slice, int]]:
    """Neighbours of equal length: where their tokens are, and how many there are of them."""
    start = 0
    for length, same in groupby(lengths):
        n = len(list(same))
        if length:
            yield slice(start, start + n * length), n
        start += n * length
