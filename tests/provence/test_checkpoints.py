"""Public checkpoints against straight-line computations from the same tensors, on tiny random models in the published layouts."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch.nn import functional

from ragkit.errors import InputError, RagkitError
from ragkit.provence.checkpoints import load_checkpoint
from ragkit.provence.family import Family
from ragkit.provence.pair import Logits, Pair, Window

pytestmark = pytest.mark.usefixtures("one_thread")

HIDDEN, HEADS, VOCABULARY, POSITIONS, LOCAL = 16, 2, 90, 70, 8
ARCHITECTURES = {"bert": "Bert", "deberta-v2": "DebertaV2", "modernbert": "ModernBert", "xlm-roberta": "XLMRoberta"}
# what the published config.json files say beyond sizes
SHAPES: dict[str, dict[str, Any]] = {
    "bert": {"pad_token_id": 0, "type_vocab_size": 2},
    "deberta-v2": {
        "pad_token_id": 0,
        "type_vocab_size": 0,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_buckets": 8,
        "pooler_hidden_size": HIDDEN,
        "layer_norm_eps": 1e-7,
    },
    "modernbert": {
        "pad_token_id": 3,
        "bos_token_id": 1,
        "cls_token_id": 1,
        "eos_token_id": 2,
        "sep_token_id": 2,
        "local_attention": LOCAL,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 900.0,
    },
    "xlm-roberta": {"pad_token_id": 1, "type_vocab_size": 1},
}
LAYOUTS = ["provence", "xprovence", "xprovence-roberta-head"] + [
    f"{age}-{architecture}" for age in ("open", "old") for architecture in ARCHITECTURES
]
LENGTHS = [9, 1, 64, 17, 30]


class Files(NamedTuple):
    """What lies in a checkpoint's folder."""

    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        save_file(self.tensors, folder / "model.safetensors")
        return folder


def architecture_of(layout: str) -> str:
    return {"provence": "deberta-v2", "xprovence": "xlm-roberta"}.get(layout.split("-")[0], layout.split("-", 1)[-1])


@cache
def base(architecture: str, labels: int = 1) -> Files:
    """A model for sequence classification; its weights are large enough to tell windows apart."""
    torch.manual_seed(len(architecture))
    sizes = {"hidden_size": HIDDEN, "num_attention_heads": HEADS, "intermediate_size": 24, "vocab_size": VOCABULARY}
    config = {**sizes, "num_hidden_layers": 3, "max_position_embeddings": POSITIONS, **SHAPES[architecture]}
    prefix = ARCHITECTURES[architecture]
    made = getattr(transformers, f"{prefix}Config").from_dict({**config, "num_labels": labels})
    network = getattr(transformers, f"{prefix}ForSequenceClassification")(made)
    tensors = {}
    for key, tensor in network.named_parameters():
        noise = 1.0 if "embeddings.weight" in key else 0.3 if tensor.ndim == 2 else 0.05
        tensors[key] = (tensor + torch.randn_like(tensor) * noise).detach()
    return Files({**config, "model_type": architecture, "torch_dtype": "float16"}, tensors)


def linear(name: str, outputs: int, width: int = HIDDEN) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.randn(outputs, width), f"{name}.bias": torch.randn(outputs) * 0.1}


def files(layout: str, labels: int = 1) -> Files:
    architecture = architecture_of(layout)
    config, tensors = base(architecture, labels)
    torch.manual_seed(7)
    pruning = linear("token_classifier", 2)
    if layout.startswith(("open", "old")):
        pruning = {key.replace("token_classifier", "pruning_head.classifier"): tensor for key, tensor in pruning.items()}
        ranking = {("ranking_model." if layout.startswith("open") else "") + key: tensor for key, tensor in tensors.items()}
        outer = {"model_type": "open_provence", "base_model_config": config, "max_length": 64, "num_labels": labels}
        return Files({**outer, "default_threadshold": 0.25}, ranking | pruning)
    if layout == "provence":
        remote = {"AutoConfig": "modeling_provence.ProvenceConfig", "AutoModel": "modeling_provence.Provence"}
        config = {**config, "model_type": "Provence", "architectures": ["Provence"], "auto_map": remote}
        return Files(config, tensors | pruning)
    if layout == "xprovence":
        backbone = {key: tensor for key, tensor in tensors.items() if key.startswith("roberta.")}
        tensors = backbone | linear("roberta.pooler.dense", HIDDEN) | linear("classifier", labels)
    return Files({**config, "model_type": "XProvence"}, tensors | pruning)


def windows(lengths: Sequence[int] = LENGTHS) -> list[Window]:
    """Random tokens but no padding, the last two thirds of them of type 1."""
    random = np.random.default_rng(3)
    made = []
    for length in lengths:
        ids = random.integers(4, VOCABULARY, length)
        types = (np.arange(length) >= length / 3).astype(np.int64)
        zeros = np.zeros(length, np.int64)
        made.append(Window(Pair("q", "p", ()), ids, types, zeros.astype(np.int8), zeros, zeros))
    return made


# ---- straight-line references: one window, no padding ----


def dense(tensors: dict[str, torch.Tensor], name: str, inputs: torch.Tensor) -> torch.Tensor:
    return functional.linear(inputs, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))


def norm(tensors: dict[str, torch.Tensor], name: str, inputs: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(inputs, (HIDDEN,), tensors[f"{name}.weight"], eps=1e-5)


def backbone_states(architecture: str, tensors: dict[str, torch.Tensor], window: Window) -> torch.Tensor:
    """Last hidden states [tokens, hidden] of the backbone alone."""
    prefix = {"bert": "bert.", "deberta-v2": "deberta.", "xlm-roberta": "roberta."}[architecture]
    config = getattr(transformers, f"{ARCHITECTURES[architecture]}Config").from_dict(base(architecture).config)
    network = getattr(transformers, f"{ARCHITECTURES[architecture]}Model")(config).float().eval()
    own = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    report = network.load_state_dict(own, strict=False)
    assert not report.unexpected_keys
    assert all("pooler" in key for key in report.missing_keys)
    inputs = {"input_ids": torch.from_numpy(window.ids)[None]}
    if architecture == "bert":
        inputs["token_type_ids"] = torch.from_numpy(window.types)[None]
    states: torch.Tensor = network(**inputs).last_hidden_state[0]
    return states


def modernbert_states(tensors: dict[str, torch.Tensor], window: Window) -> torch.Tensor:
    """What ModernBERT's layers give, before its final norm, by hand: every third layer sees all, the others what is near."""
    length, width = len(window.ids), HIDDEN // HEADS
    states = norm(tensors, "model.embeddings.norm", tensors["model.embeddings.tok_embeddings.weight"][window.ids])
    positions = torch.arange(length)
    near = (positions[:, None] - positions[None]).abs() <= LOCAL // 2
    for layer in range(3):
        name = f"model.layers.{layer}"
        inputs = norm(tensors, f"{name}.attn_norm", states) if layer else states
        query, key, value = dense(tensors, f"{name}.attn.Wqkv", inputs).view(length, 3, HEADS, width).permute(1, 2, 0, 3)
        theta = 10_000.0 if layer % 3 else 900.0
        angles = positions[:, None] * theta ** (-torch.arange(0, width, 2) / width)
        query, key = rotated(query, angles), rotated(key, angles)
        scores = query @ key.transpose(-1, -2) / width**0.5
        if layer % 3:
            scores = scores.masked_fill(~near, -torch.inf)
        mixed = (scores.softmax(-1) @ value).transpose(0, 1).reshape(length, HIDDEN)
        states = states + dense(tensors, f"{name}.attn.Wo", mixed)
        inner, gate = dense(tensors, f"{name}.mlp.Wi", norm(tensors, f"{name}.mlp_norm", states)).chunk(2, -1)
        states = states + dense(tensors, f"{name}.mlp.Wo", functional.gelu(inner) * gate)
    return states


def rotated(inputs: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    first, second = inputs.chunk(2, -1)
    return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1)


def ranked(architecture: str, tensors: dict[str, torch.Tensor], states: torch.Tensor) -> torch.Tensor:
    """The ranking head's outputs."""
    first = states[0]
    if architecture == "modernbert":
        hidden = norm(
            tensors, "head.norm", functional.gelu(dense(tensors, "head.dense", norm(tensors, "model.final_norm", first)))
        )
    elif architecture == "deberta-v2":
        hidden = functional.gelu(dense(tensors, "pooler.dense", first))
    elif architecture == "bert":
        hidden = dense(tensors, "bert.pooler.dense", first).tanh()
    elif "classifier.weight" in tensors:
        hidden = dense(tensors, "roberta.pooler.dense", first).tanh()
    else:
        return dense(tensors, "classifier.out_proj", dense(tensors, "classifier.dense", first).tanh())
    return dense(tensors, "classifier", hidden)


def straight(layout: str, checkpoint: Files, window: Window) -> tuple[float, np.ndarray]:
    architecture = architecture_of(layout)
    tensors = {key.removeprefix("ranking_model."): tensor.float() for key, tensor in checkpoint.tensors.items()}
    with torch.no_grad():
        if architecture == "modernbert":
            states = modernbert_states(tensors, window)
        else:
            states = backbone_states(architecture, tensors, window)
        pruning = "pruning_head.classifier" if "pruning_head.classifier.weight" in tensors else "token_classifier"
        keep = dense(tensors, pruning, states).softmax(-1)[:, 1].numpy()
        return float(ranked(architecture, tensors, states)[0]), keep


def check(found: Logits, expected: Sequence[tuple[float, np.ndarray]], atol: float = 1e-5) -> None:
    assert found.rank.dtype == np.float64
    assert all(keep.dtype == np.float32 for keep in found.keep)
    np.testing.assert_allclose(found.rank, [rank for rank, _ in expected], atol=atol)
    assert len(found.keep) == len(expected)
    for keep, (_, expected_keep) in zip(found.keep, expected, strict=True):
        np.testing.assert_allclose(keep, expected_keep, atol=atol)


# ---- tests ----


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_of_mixed_lengths_equals_one_window_at_a_time_without_padding(layout: str, tmp_path: Path) -> None:
    checkpoint = files(layout)
    network, _ = load_checkpoint(checkpoint.write(tmp_path), "cpu")
    batch = windows()
    expected = [straight(layout, checkpoint, window) for window in batch]
    assert np.ptp([rank for rank, _ in expected]) > 0.05
    assert all(np.ptp(keep) > 0.05 for _, keep in expected if len(keep) > 1)
    check(network(batch), expected)
    for window, one in zip(batch, expected, strict=True):
        check(network([window]), [one])


def test_families(tmp_path: Path) -> None:
    naver = {"activation": "raw", "rounding": "released", "keep_title": True, "normalize_question": True, "top_k": 5}
    opened = {"activation": "sigmoid", "rounding": "mean", "keep_title": False, "normalize_question": False, "top_k": None}
    expected = {
        "provence": Family("provence", threshold=0.1, max_length=POSITIONS, **naver),
        "xprovence": Family("xprovence", threshold=0.3, max_length=POSITIONS - 2, **naver),
        "open-modernbert": Family("open-provence", threshold=0.25, max_length=64, **opened),
    }
    for layout, family in expected.items():
        assert load_checkpoint(files(layout).write(tmp_path / layout), "cpu")[1] == family


@pytest.mark.parametrize(
    ("entries", "threshold", "length"),
    [
        ({}, 0.1, 512),
        ({"default_threadshold": None, "default_threshold": 0.5}, 0.5, 512),
        ({"default_threadshold": 0, "default_threshold": 0.5, "max_length": 8192}, 0.0, 1000),
    ],
)
def test_what_the_config_of_open_provence_says(entries: dict[str, Any], threshold: float, length: int, tmp_path: Path) -> None:
    config, tensors = files("open-modernbert")
    bare = {
        "model_type": config["model_type"],
        "base_model_config": {**config["base_model_config"], "max_position_embeddings": 1000},
    }
    _, family = load_checkpoint(Files(bare | entries, tensors).write(tmp_path), "cpu")
    assert (family.threshold, family.max_length) == (threshold, length)


def test_published_lengths(tmp_path: Path) -> None:
    for layout, positions, key, length in (
        ("provence", 512, "deberta.embeddings.position_embeddings.weight", 512),
        ("xprovence", 8194, "roberta.embeddings.position_embeddings.weight", 8192),
    ):
        config, tensors = files(layout)
        table = {key: torch.zeros(positions, HIDDEN)} if key in tensors else {}
        checkpoint = Files({**config, "max_position_embeddings": positions}, tensors | table)
        assert load_checkpoint(checkpoint.write(tmp_path / layout), "cpu")[1].max_length == length


@pytest.mark.parametrize("layout", ["provence", "xprovence", "open-bert"])
def test_of_two_ranking_outputs_the_first_counts(layout: str, tmp_path: Path) -> None:
    checkpoint = files(layout, labels=2)
    network, _ = load_checkpoint(checkpoint.write(tmp_path), "cpu")
    check(network(windows()), [straight(layout, checkpoint, window) for window in windows()])


def test_the_pruning_head_of_modernbert_reads_what_goes_into_the_final_norm(tmp_path: Path) -> None:
    checkpoint = files("open-modernbert")
    (window,) = windows([30])
    network, _ = load_checkpoint(checkpoint.write(tmp_path), "cpu")
    (found,) = network([window]).keep
    tensors = {key.removeprefix("ranking_model."): tensor for key, tensor in checkpoint.tensors.items()}
    after = norm(tensors, "model.final_norm", modernbert_states(tensors, window))
    trap = dense(tensors, "pruning_head.classifier", after).softmax(-1)[:, 1].numpy()
    assert np.abs(found - trap).max() > 0.1


def test_tensors_that_nothing_reads_may_lie_about(tmp_path: Path) -> None:
    extra = {
        "xprovence": {"roberta.embeddings.position_ids": torch.arange(POSITIONS)[None]},
        "xprovence-roberta-head": linear("roberta.pooler.dense", HIDDEN),
        "open-xlm-roberta": linear("pruning_head.pooling_weights", 1),
    }
    for layout, tensors in extra.items():
        checkpoint = files(layout)
        network, _ = load_checkpoint(Files(checkpoint.config, checkpoint.tensors | tensors).write(tmp_path / layout), "cpu")
        check(network(windows()), [straight(layout, checkpoint, window) for window in windows()])


def test_a_provence_checkpoint_may_call_itself_by_its_backbone(tmp_path: Path) -> None:
    for layout in ("provence", "xprovence"):
        config, tensors = files(layout)
        checkpoint = Files({**config, "model_type": architecture_of(layout)}, tensors)
        assert load_checkpoint(checkpoint.write(tmp_path / layout), "cpu")[1].name == layout


def sharded(checkpoint: Files, folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(checkpoint.config))
    where = {key: f"model-0000{i % 3 + 1}-of-00003.safetensors" for i, key in enumerate(sorted(checkpoint.tensors))}
    for file in set(where.values()):
        save_file({key: tensor for key, tensor in checkpoint.tensors.items() if where[key] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return where


@pytest.mark.parametrize("layout", ["provence", "open-modernbert"])
def test_weights_may_be_spread_over_files(layout: str, tmp_path: Path) -> None:
    checkpoint = files(layout)
    where = sharded(checkpoint, tmp_path)
    network, _ = load_checkpoint(tmp_path, "cpu")
    check(network(windows()), [straight(layout, checkpoint, window) for window in windows()])
    lost = tmp_path / min(where.values())
    content = lost.read_bytes()
    lost.write_bytes(content[: len(content) // 2])
    with pytest.raises(RagkitError, match=r"00001-of-00003\.safetensors cannot be read, download it again"):
        load_checkpoint(tmp_path, "cpu")
    lost.unlink()
    with pytest.raises(RagkitError, match=r"00001-of-00003\.safetensors cannot be read, download it again"):
        load_checkpoint(tmp_path, "cpu")


@pytest.mark.parametrize("layout", ["provence", "xprovence", "open-modernbert", "open-bert"])
def test_precision(layout: str, tmp_path: Path) -> None:
    checkpoint = files(layout)
    checkpoint.write(tmp_path)
    exact, _ = load_checkpoint(tmp_path, "cpu", "float32")
    for dtype, width, atol in (("bfloat16", torch.bfloat16, 0.3), ("float16", torch.float16, 0.03)):
        network: Any = load_checkpoint(tmp_path, "cpu", dtype)[0]
        check(network(windows()), [*zip(*exact(windows()), strict=True)], atol=atol)
        heads = {name: parameter.dtype for name, parameter in network.classifier.named_parameters() if "classifier" in name}
        assert set(heads.values()) == {torch.float32}
        assert {p.dtype for name, p in network.classifier.named_parameters() if name not in heads} == {width}
        # rotary frequencies of less precision would misplace all but the first tokens
        assert {b.dtype for b in network.classifier.buffers() if b.is_floating_point()} <= {torch.float32}
        rank = torch.from_numpy(network(windows()).rank)
        assert not torch.equal(rank, rank.to(width).double())


def test_half_precision_files_are_computed_in_float32(tmp_path: Path) -> None:
    config, tensors = files("open-modernbert")
    halved = Files(config, {key: tensor.half() for key, tensor in tensors.items()})
    network: Any = load_checkpoint(halved.write(tmp_path), "cpu")[0]
    assert {parameter.dtype for parameter in network.classifier.parameters()} == {torch.float32}
    check(network(windows()), [straight("open-modernbert", halved, window) for window in windows()])


def test_a_network_is_gone_with_its_last_user(tmp_path: Path) -> None:
    for layout in ("provence", "open-modernbert"):
        network: Any = load_checkpoint(files(layout).write(tmp_path / layout), "cpu")[0]
        network(windows())
        gc.collect()
        gc.disable()
        try:
            last = weakref.ref(network.classifier)
            del network
            assert last() is None
        finally:
            gc.enable()


@pytest.mark.parametrize("layout", ["open-modernbert", "open-bert"])
def test_threads_may_share_a_network(layout: str, tmp_path: Path) -> None:
    network, _ = load_checkpoint(files(layout).write(tmp_path), "cpu")
    batches = [windows([length, 60 - length]) for length in range(2, 30)]
    expected = [network(batch) for batch in batches]
    with ThreadPoolExecutor(6) as threads:
        for found, one in zip(threads.map(network, batches * 3), expected * 3, strict=True):
            check(found, [*zip(*one, strict=True)])


def test_what_is_not_a_number_is_passed_on(tmp_path: Path) -> None:
    config, tensors = files("provence")
    broken = Files(
        config, tensors | {"classifier.bias": torch.tensor([torch.nan]), "token_classifier.bias": torch.full((2,), torch.nan)}
    )
    found = load_checkpoint(broken.write(tmp_path), "cpu")[0](windows([4, 2]))
    assert np.isnan(found.rank).all()
    assert [np.isnan(keep).tolist() for keep in found.keep] == [[True] * 4, [True] * 2]


def without(*keys: str) -> Callable[[Files], Files]:
    return lambda f: Files(f.config, {key: tensor for key, tensor in f.tensors.items() if not key.startswith(keys)})


def plus(**tensors: torch.Tensor) -> Callable[[Files], Files]:
    return lambda f: Files(f.config, f.tensors | {key.replace("__", "."): tensor for key, tensor in tensors.items()})


def saying(**entries: Any) -> Callable[[Files], Files]:
    return lambda f: Files(f.config | entries, f.tensors)


REFUSED: list[tuple[str, Callable[[Files], Files], str]] = [
    ("provence", without("token_classifier"), r"has no pruning head .*; pass a Provence checkpoint, or rerank with CrossEncoder"),
    ("provence", without("token_classifier.bias"), r"lack the pruning head's token_classifier\.bias"),
    ("provence", without("classifier"), r"lack a ranking head \(classifier\.weight\)"),
    ("provence", without("classifier.bias"), r"lack 1 tensors of the network, such as classifier\.bias"),
    ("provence", without("pooler"), r"lack 2 tensors of the network, such as pooler\.dense\.bias"),
    ("provence", without("deberta"), r"has a backbone that is not supported; Provence has deberta"),
    ("provence", plus(token_classifier__weight=torch.zeros(3, HIDDEN)), r"pruning head in .* has the shape \(3, 16\)"),
    ("provence", plus(token_classifier__weight=torch.zeros(2, 8)), r"pruning head in .* need \(2, 16\)"),
    ("provence", plus(token_classifier__bias=torch.zeros(3)), r"pruning head in "),
    (
        "provence",
        plus(classifier__weight=torch.zeros(3, HIDDEN)),
        r"ranking head in .* has the shape \(3, 16\); a reranker has one or",
    ),
    ("provence", plus(classifier__weight=torch.zeros(1, 8)), r"1 tensors of another size .*, such as classifier\.weight"),
    ("provence", plus(classifier__bias=torch.zeros(2)), r"1 tensors of another size .*, such as classifier\.bias"),
    ("provence", plus(deberta__extra=torch.zeros(2)), r"1 tensors that the network has no place for, such as deberta\.extra"),
    ("provence", saying(hidden_size=32), r"tensors of another size than config\.json says"),
    ("provence", saying(num_hidden_layers=4), r"lack 16 tensors of the network, such as deberta\.encoder\.layer\.3"),
    (
        "provence",
        saying(num_hidden_layers=2),
        r"16 tensors that the network has no place for, such as deberta\.encoder\.layer\.2",
    ),
    ("provence", saying(num_attention_heads=5), r"cannot be loaded as deberta-v2: "),
    ("provence", saying(hidden_act="nonsense"), r"cannot be loaded as deberta-v2: "),
    ("provence", saying(hidden_size="wide"), r"cannot be loaded as deberta-v2: "),
    ("xprovence", without("roberta.pooler"), r"lack 2 tensors of the network, such as classifier\.dense\.bias"),
    ("xprovence", without("token_classifier"), r"has no pruning head"),
    ("xprovence-roberta-head", without("classifier.out_proj"), r"lack a ranking head"),
    ("open-modernbert", without("pruning_head"), r"lack the pruning head's pruning_head\.classifier\.weight"),
    ("open-modernbert", without("ranking_model.classifier"), r"lack a ranking head"),
    ("open-modernbert", without("ranking_model.head"), r"lack 2 tensors of the network, such as head\.dense\.weight"),
    ("open-modernbert", without("ranking_model.model.final_norm"), r"lack 1 tensors .* such as model\.final_norm\.weight"),
    ("open-modernbert", saying(base_model_config=None), r"needs a base_model_config in its config\.json"),
    (
        "open-modernbert",
        saying(base_model_config={"model_type": "gpt2"}),
        r"with a model_type out of bert, deberta-v2, modernbert",
    ),
    ("open-modernbert", saying(default_threadshold="low"), r"default_threadshold in .* is not a number: 'low'"),
    ("open-modernbert", saying(max_length=True), r"max_length in .* is not a number: True"),
    ("old-bert", without("bert.pooler"), r"lack 2 tensors of the network, such as bert\.pooler\.dense\.bias"),
]


@pytest.mark.parametrize(("layout", "change", "message"), REFUSED)
def test_no_part_may_be_random_left_out_or_of_the_wrong_size(
    layout: str, change: Callable[[Files], Files], message: str, tmp_path: Path
) -> None:
    folder = change(files(layout)).write(tmp_path / "some-model")
    with pytest.raises(RagkitError, match=message) as caught:
        load_checkpoint(folder, "cpu")
    assert "some-model" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_ordinary_cross_encoder_is_refused(architecture: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no pruning head"):
        load_checkpoint(base(architecture).write(tmp_path), "cpu")


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the folder .*nowhere holds no config\.json"):
        load_checkpoint(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json cannot be read as JSON"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match=r"config\.json holds no JSON object"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(files("provence").config))
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights that must not be unpickled")
    with pytest.raises(InputError, match=r"holds no model\.safetensors; weights in other formats must be converted"):
        load_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not at all")
    with pytest.raises(RagkitError, match=r"model\.safetensors cannot be read, download it again"):
        load_checkpoint(tmp_path)


def test_device_and_precision_are_checked(tmp_path: Path) -> None:
    folder = files("provence").write(tmp_path)
    with pytest.raises(InputError, match="device: 'abacus' cannot be used"):
        load_checkpoint(folder, "abacus")
    with pytest.raises(InputError, match="dtype: 'int8' is not one of float32, bfloat16, float16"):
        load_checkpoint(folder, "cpu", "int8")
