"""The integer BERT against transformers' own, and its kernels against straight computations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf
from transformers import BertConfig, BertModel

from ragkit.encoders import int8_kernels
from ragkit.encoders.int8 import check_int8
from ragkit.encoders.int8_bert import Int8Bert
from ragkit.errors import InputError

try:
    check_int8("cpu")
except InputError as unusable:
    pytest.skip(str(unusable), allow_module_level=True)


def bert(**settings: Any) -> BertModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 200, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    network = BertModel(BertConfig(**(sizes | {"initializer_range": 0.05} | settings)), add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for layer in network.encoder.layer:
            # what real ones have: a number that is large in every token
            for norm, place, value in ((layer.attention.output.LayerNorm, 3, 10), (layer.output.LayerNorm, 5, -15)):
                norm.weight.mul_(4)
                norm.bias[place] = value
    return network


def batch(lengths: list[int]) -> dict[str, torch.Tensor]:
    mask = torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    ids = torch.randint(200, mask.shape, generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids * mask, "attention_mask": mask}


@torch.inference_mode()
def states(network: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    found: torch.Tensor = network(**inputs).last_hidden_state
    return found


def error(found: torch.Tensor, expected: torch.Tensor, mask: torch.Tensor) -> float:
    """The relative error without the number that is large in every token, beside which nothing else would count."""
    others = [i for i in range(48) if i != 5]
    expected = expected[mask.bool()][:, others]
    return float((found[mask.bool()][:, others] - expected).norm() / expected.norm())


def test_states_are_nearly_those_of_the_network() -> None:
    network, inputs = bert(), batch([9, 30, 30, 1, 17])
    assert error(states(Int8Bert(network), inputs), states(network, inputs), inputs["attention_mask"]) < 0.06


def test_types_of_segments_count() -> None:
    network, inputs = bert(), batch([12, 7])
    types = torch.randint(2, inputs["input_ids"].shape, generator=torch.Generator().manual_seed(2))
    found = states(Int8Bert(network), inputs | {"token_type_ids": types})
    assert error(found, states(network, inputs | {"token_type_ids": types}), inputs["attention_mask"]) < 0.06
    assert error(found, states(network, inputs), inputs["attention_mask"]) > 0.1


def test_company_and_padding_have_no_part_in_a_text() -> None:
    network, inputs = Int8Bert(bert()), batch([9, 30, 1])
    together = states(network, inputs)
    for i, length in enumerate((9, 30, 1)):
        alone = states(network, {name: tensor[i : i + 1, :length] for name, tensor in inputs.items()})
        torch.testing.assert_close(together[i, :length], alone[0], atol=1e-4, rtol=1e-4)
        assert not together[i, length:].any()


def test_padding_may_stand_in_front() -> None:
    network, inputs = bert(), batch([9, 14])
    flipped = {name: tensor.flip(1) for name, tensor in inputs.items()}
    assert error(states(Int8Bert(network), flipped), states(network, flipped), flipped["attention_mask"]) < 0.06


def test_more_tokens_than_one_block() -> None:
    network = bert(num_hidden_layers=1)
    inputs = batch([200] * 7 + [3])
    assert error(states(Int8Bert(network), inputs), states(network, inputs), inputs["attention_mask"]) < 0.03


@pytest.mark.parametrize(
    ("settings", "suits"),
    [({}, True), ({"hidden_act": "relu"}, False), ({"is_decoder": True}, False), ({"num_hidden_layers": 0}, False)],
)
def test_only_plain_berts_suit(settings: dict[str, Any], suits: bool) -> None:
    assert Int8Bert.suits(bert(**settings)) is suits
    assert not Int8Bert.suits(torch.nn.Linear(2, 2))


def rows(n: int, width: int, seed: int = 0) -> np.ndarray:
    return (5 * np.random.default_rng(seed).standard_normal((n, width))).astype(np.float32)


def read(out: np.ndarray, lows: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return out * steps[:, None] + lows[:, None]


def integers(run: Callable[..., None], y: np.ndarray, *facts: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a kernel's rows stand for, and half a step of each."""
    out, lows, steps = np.empty(y.shape, np.uint8), np.full(len(y), 0.5, np.float32), np.full(len(y), 0.25, np.float32)
    run(y, lows, steps, *facts, out)
    assert out.max() <= 127
    return read(out, lows, steps), 0.501 * steps[:, None] + 1e-4


def test_quantize_is_off_by_half_a_step() -> None:
    x = rows(20, 37)
    x[3] = 7  # nothing to divide
    out, lows, steps = np.empty(x.shape, np.uint8), np.empty(20, np.float32), np.empty(20, np.float32)
    int8_kernels.quantize(x, out, lows, steps)
    assert (np.abs(read(out, lows, steps) - x) <= 0.501 * steps[:, None] + 1e-5).all()
    np.testing.assert_allclose(lows, x.min(1))
    np.testing.assert_allclose(steps[:3], (x.max(1) - x.min(1))[:3] / 127, rtol=1e-5)


def test_outputs() -> None:
    y, sums, bias = rows(6, 19), rows(1, 19, 1)[0], rows(1, 19, 2)[0]
    lows, steps = rows(1, 6, 3)[0], np.abs(rows(1, 6, 4)[0])
    expected = y * steps[:, None] + lows[:, None] * sums + bias
    int8_kernels.outputs(y, lows, steps, sums, bias)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_gelu() -> None:
    y, sums, bias = 4 * rows(20, 64), rows(1, 64, 1)[0], rows(1, 64, 2)[0]
    x = y * 0.25 + 0.5 * sums + bias
    expected = x * (1 + erf(x / np.sqrt(2))) / 2
    found, tolerance = integers(int8_kernels.gelu, y, sums, bias)
    assert (np.abs(found - expected) <= tolerance).all()
    np.testing.assert_allclose(y, expected, atol=1e-5, rtol=1e-5)


def test_gelu_far_out() -> None:
    y = np.array([[-4000, -400, 0, 400, 4000]], np.float32)
    zeros = np.zeros(5, np.float32)
    integers(int8_kernels.gelu, y, zeros, zeros)
    np.testing.assert_allclose(y, [[0, 0, 0, 100, 1000]], atol=1e-5)


def test_add_and_norm() -> None:
    y, states = rows(20, 64), rows(20, 64, 5)
    sums, bias, weight, shift = rows(4, 64, 1)
    added = torch.from_numpy(y * 0.25 + 0.5 * sums + bias + states)
    expected = torch.nn.functional.layer_norm(added, [64], torch.from_numpy(weight), torch.from_numpy(shift), 1e-3).numpy()
    facts = (sums, bias, states, weight, shift, np.float32(1e-3))
    found, tolerance = integers(int8_kernels.add_and_norm, y, *facts)
    np.testing.assert_allclose(states, expected, atol=1e-4, rtol=1e-4)
    assert (np.abs(found - expected) <= tolerance).all()


def test_an_encoder_in_int8_uses_it(tmp_path: Path) -> None:
    from ragkit.encoders.dense_folder import Tower
    from ragkit.encoders.dense_network import load_backbone

    network = bert()
    network.save_pretrained(tmp_path)
    assert isinstance(load_backbone(Tower(tmp_path, 48, 512), "cpu", "int8"), Int8Bert)
