"""8-bit linear layers: close to float32, each row by itself, and refused where they do not work."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from langchain_core.documents import Document
from torch import nn
from transformers import BertConfig

from ragkit import InputError, ProvenceModel
from ragkit.documents.model import Unit
from ragkit.documents.sentences import units_of
from ragkit.encoders.int8 import Int8Linear, check_int8, to_int8
from ragkit.encoders.int8_bert import Int8Bert
from ragkit.provence.checkpoints import load_checkpoint
from ragkit.provence.inputs import MARKS, PASSAGE_INPUTS, UNIT_INPUTS
from ragkit.provence.marked import Batch, MarkedBert, Output
from ragkit.provence.model import SHIPPED
from ragkit.provence.own import MarkedNetwork, load_own, save_own
from ragkit.provence.pair import Pair
from ragkit.provence.rounding import unit_scores

TEXT = (
    "The lighthouse stands on a cliff above the bay. It was built in 1874 by a local mason. Tourists climb its stairs in summer. "
    "The lamp burns oil from whales no longer. A keeper lived there until 1962."
)
QUESTIONS = [
    "When was the lighthouse built?",
    "Who built it?",
    "Where is the lamp?",
    "What do tourists do?",
    "How do trains brake?",
]
shipped = pytest.mark.skipif(not (SHIPPED / "config.json").is_file(), reason="the shipped model is not there")


def works() -> bool:
    try:
        check_int8("cpu")
    except InputError:
        return False
    return True


int8 = pytest.mark.skipif(not works(), reason="this machine has no int8")


def layer(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(inputs, outputs, bias=bias)


@int8
@pytest.mark.parametrize(("inputs", "outputs", "bias"), [(384, 1152, True), (33, 7, True), (64, 1, False)])
def test_close_to_float32(inputs: int, outputs: int, bias: bool) -> None:
    linear = layer(inputs, outputs, bias)
    x = torch.randn(3, 11, inputs) * torch.logspace(-3, 3, 11)[:, None] + 5
    with torch.inference_mode():
        expected, found = linear(x), Int8Linear(linear)(x)
    assert found.shape == expected.shape
    error = (found - expected).norm(dim=-1) / (x - x.amin(-1, keepdim=True)).norm(dim=-1)
    assert error.max() < 0.02


@int8
def test_extreme_values_do_not_overflow() -> None:
    """All at their largest: two products still fit into the 16 bits in which some processors add them."""
    linear = layer(256, 8)
    with torch.no_grad():
        linear.weight.fill_(1.0)
        linear.weight[::2].neg_()
        x = torch.ones(4, 256)
        x[:, 0] = -1.0  # so that the ones are at the top of the range
        torch.testing.assert_close(Int8Linear(linear)(x), linear(x), rtol=1e-5, atol=1e-3)


@int8
def test_weights_in_int8_rows_are_kept_exactly() -> None:
    linear = layer(40, 6)
    with torch.no_grad():
        rows = torch.randint(-127, 128, (6, 40))
        rows[:, 0] = 127
        linear.weight.copy_(rows * torch.rand(6, 1))
        x = torch.randint(0, 128, (5, 40)).float()
        x[:, 0], x[:, 1] = 0, 127  # and so the inputs are kept, too
        torch.testing.assert_close(Int8Linear(linear)(x), linear(x), rtol=1e-5, atol=1e-3)


@int8
def test_a_row_does_not_depend_on_the_others() -> None:
    network = Int8Linear(layer(48, 20))
    x = torch.randn(9, 48) * torch.logspace(-2, 2, 9)[:, None]
    with torch.inference_mode():
        assert torch.equal(network(x)[4:5], network(x[4:5]))


@int8
def test_constant_rows_and_rows_that_are_not_numbers() -> None:
    linear = layer(16, 4)
    x = torch.stack([torch.full((16,), 2.5), torch.zeros(16), torch.full((16,), torch.nan), torch.ones(16)])
    with torch.inference_mode():
        found, expected = Int8Linear(linear)(x), linear(x)
    torch.testing.assert_close(found[[0, 1, 3]], expected[[0, 1, 3]], rtol=1e-2, atol=5e-2)
    assert found[2].isnan().all()


@int8
def test_every_linear_layer_is_replaced_and_nothing_else() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Sequential(nn.GELU(), nn.Linear(8, 2)))
    to_int8(network)
    assert [type(module) for module in network.modules() if not list(module.children())] == [
        Int8Linear,
        nn.LayerNorm,
        nn.GELU,
        Int8Linear,
    ]
    assert network(torch.randn(3, 8)).shape == (3, 2)


def saved(folder: Path, **settings: Any) -> Path:
    """A tiny model in ragkit's own format, of random weights."""
    torch.manual_seed(4)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = MarkedBert(BertConfig(vocab_size=90, type_vocab_size=MARKS, initializer_range=0.1, **sizes, **settings))
    (folder / "tokenizer.json").write_text("{}")
    save_own(folder / "model", model, None, folder, {"threshold": 0.1, "max_length": 64})
    return folder / "model"


def batch(lengths: list[int]) -> Batch:
    """Random windows of three units each."""
    random = torch.Generator().manual_seed(1)
    n, t = len(lengths), max(lengths)
    mask = (torch.arange(t) < torch.tensor(lengths)[:, None]).long()
    ids, marks = (torch.randint(bound, (n, t), generator=random) * mask for bound in (90, MARKS))
    owners = torch.where(mask > 0, torch.arange(t) // 4 % 4 - 1, -1)
    return Batch(
        *(ids, marks, mask, owners),
        *(torch.rand(n, 3, UNIT_INPUTS, generator=random), torch.rand(n, PASSAGE_INPUTS, generator=random)),
    )


@torch.inference_mode()
def said(network: MarkedNetwork, windows: Batch) -> Output:
    output: Output = network.model(windows)
    return output


@int8
@pytest.mark.parametrize(("activation", "packed"), [("gelu", True), ("relu", False)])
def test_own_models_in_int8(activation: str, packed: bool, tmp_path: Path) -> None:
    """Through the packed BERT where that one suits, else layer by layer; nearly the same logits either way."""
    folder, windows = saved(tmp_path, hidden_act=activation), batch([9, 30, 30, 12])
    fast, exact = (load_own(folder, "cpu", dtype)[0] for dtype in ("int8", "float32"))
    backbone: Any = fast.model.backbone
    assert isinstance(backbone, Int8Bert) is packed
    assert any(isinstance(module, Int8Linear) for module in backbone.modules()) is not packed
    found, expected = said(fast, windows), said(exact, windows)
    there = windows.mask.bool()
    assert (found.rank - expected.rank).norm() < 0.05 * (expected.rank - expected.rank.mean()).norm()
    assert (found.tokens - expected.tokens)[there].norm() < 0.05 * expected.tokens[there].std() * there.sum() ** 0.5


@int8
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_window_is_judged_alike_in_any_batch(activation: str, tmp_path: Path) -> None:
    lengths = [9, 30, 30, 12]
    network, windows = load_own(saved(tmp_path, hidden_act=activation), "cpu", "int8")[0], batch(lengths)
    together = said(network, windows)
    for i, length in enumerate(lengths):
        ids, marks, mask, owners = (tensor[i : i + 1, :length] for tensor in windows[:4])
        alone = said(network, Batch(ids, marks, mask, owners, windows.units[i : i + 1], windows.whole[i : i + 1]))
        torch.testing.assert_close(alone.rank[0], together.rank[i], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.tokens[0], together.tokens[i, :length], atol=1e-5, rtol=0)


@int8
def test_weights_that_are_not_numbers_are_not_hidden(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    network, _ = load_own(folder, "cpu", "float32")
    with torch.no_grad():
        network.model.backbone.encoder.layer[0].output.LayerNorm.bias[3] = math.nan
    save_own(folder, network.model, None, tmp_path, {"threshold": 0.1, "max_length": 64})
    found = said(load_own(folder, "cpu", "int8")[0], batch([9, 12]))
    assert found.rank.isnan().all()
    assert found.tokens.isnan().any(1).all()


@shipped
@int8
def test_the_shipped_model_takes_the_packed_bert() -> None:
    network, _ = load_own(SHIPPED, "cpu", "int8")
    assert isinstance(network.model.backbone, Int8Bert)


@shipped
@int8
def test_judgements_agree_with_float32() -> None:
    units = units_of(Document(TEXT))
    pairs = [Pair(question, TEXT, units) for question in QUESTIONS]
    exact, fast = (ProvenceModel.from_pretrained(device="cpu", dtype=dtype) for dtype in ("float32", "int8"))
    rounding, threshold = exact.family.rounding, exact.family.threshold
    for pair, expected, found in zip(pairs, exact.judge(pairs), fast.judge(pairs), strict=True):
        assert abs(found.score - expected.score) < 0.15
        scores = [unit_scores(judged, pair.units, rounding, threshold) for judged in (expected, found)]
        np.testing.assert_allclose(scores[1], scores[0], atol=0.15)


@shipped
@int8
def test_threads_may_share_it() -> None:
    units = (Unit(0, len(TEXT)),)
    pairs = [Pair(f"{question} {n}", TEXT, units) for n in range(4) for question in QUESTIONS]
    network, _ = load_checkpoint(SHIPPED, "cpu", "int8")
    model = ProvenceModel.from_pretrained(device="cpu", dtype="int8")
    alone = [model.__class__(network, model.family, model._tokenizer).judge([pair])[0].score for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: model.judge([pair])[0].score, pairs))
    np.testing.assert_allclose(together, alone, atol=0.02)


@shipped
def test_it_is_refused_on_a_gpu() -> None:
    with pytest.raises(InputError, match=r"^dtype: int8 is for the CPU, not for 'cuda:0'"):
        ProvenceModel.from_pretrained(device="cuda:0", dtype="int8")


def test_it_is_refused_on_other_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.encoders.int8.platform.machine", lambda: "aarch64")
    with pytest.raises(InputError, match=r"^dtype: int8 needs an x86 processor"):
        check_int8("cpu")
