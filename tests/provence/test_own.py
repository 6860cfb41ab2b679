"""ragkit's own format and network: what is saved is loaded, and a batch is what one window at a time gives by hand."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from langchain_core.documents import Document
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from ragkit import InputError, ProvenceModel, ProvencePruner, ProvenceReranker, RagkitError, provenance
from ragkit.documents.model import Unit
from ragkit.encoders.pairs import PairTokenizer
from ragkit.provence.checkpoints import load_checkpoint
from ragkit.provence.company import accompanied
from ragkit.provence.family import Family
from ragkit.provence.inputs import MARKS, Row, rows
from ragkit.provence.marked import MarkedBert
from ragkit.provence.matching import BUCKETS, rarity_of
from ragkit.provence.own import MarkedNetwork, is_own, load_own, new_model, save_own, trained_model
from ragkit.provence.pair import Pair, Window
from ragkit.provence.windows import cut

pytestmark = pytest.mark.usefixtures("one_thread")

HIDDEN, POSITIONS = 32, 96
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
NOUNS = ["cat", "dog", "fish", "bird", "horse", "cow", "tree", "river", "stone", "house", "road", "boat", "lamp", "bread"]
VERBS = ["eats", "sees", "finds", "holds", "likes", "drops", "takes", "keeps", "the", "in", "on", "and", "what", "who"]
PIECES = [*LETTERS, *(f"##{char}" for char in LETTERS), *(f"##{char}{char}" for char in LETTERS)]
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *".,?!'#", *PIECES, *NOUNS, *VERBS]
SETTINGS = {"threshold": 0.25, "max_length": 64}


def write_tokenizer(folder: Path) -> None:
    vocabulary = {token: at for at, token in enumerate(TOKENS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT, with weights large enough to tell windows apart."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(1)
    sizes = {"hidden_size": HIDDEN, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 140}
    network = BertModel(BertConfig(vocab_size=len(TOKENS), max_position_embeddings=POSITIONS, **sizes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.ndim == 2 else 0.05))
    network.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def rarity() -> Any:
    return rarity_of(["the cat eats bread", "the dog", "the moon and the star", "a fish in the river"])


def made(base: Path) -> MarkedBert:
    """A model as if trained: heads and marks matter."""
    torch.manual_seed(2)
    model = new_model(base)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("backbone") or "token_type" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.fixture(scope="module")
def saved(base: Path, rarity: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "some-model"
    save_own(folder, made(base), rarity, base, SETTINGS)
    return folder


def sentences(seed: int, count: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [f"The {' '.join(random.choice(NOUNS + VERBS, random.integers(2, 9)))}. " for _ in range(count)]


def pair_of(seed: int, count: int, title: str = "") -> Pair:
    parts = sentences(seed, count)
    edges = np.cumsum([0, *map(len, parts)]).tolist()
    units = tuple(Unit(start, end) for start, end in pairwise(edges))
    return Pair(f"Who sees the {NOUNS[seed]} and {NOUNS[seed * 5 % 14]}?", "".join(parts), units, title)


PAIRS = [
    pair_of(1, 1),
    pair_of(2, 3, "The moon"),
    pair_of(3, 12),
    pair_of(4, 2),
    Pair("?", "", ()),
    Pair("the cat", "zebra 日本 ???", ()),
    pair_of(5, 6, "bread " * 40),
]


def windows_of(folder: Path, pairs: list[Pair], length: int = 64) -> list[Window]:
    return [window for its_windows in cut(PairTokenizer(folder, length), pairs) for window in its_windows]


# ---- by hand: numbers from the file, one window, no padding ----


def tensors_in(folder: Path) -> dict[str, np.ndarray]:
    found = {name: tensor.numpy() for name, tensor in load_file(folder / "model.safetensors").items()}
    scales = {name: found.pop(name) for name in list(found) if name.endswith(".scale")}
    return {
        name: np.stack([row.astype(np.float32) * scale for row, scale in zip(value, scales[f"{name}.scale"], strict=True)])
        if f"{name}.scale" in scales
        else value
        for name, value in found.items()
    }


def gelu(values: np.ndarray) -> np.ndarray:
    return values * np.vectorize(lambda value: 0.5 * (1 + math.erf(value / math.sqrt(2))), otypes=[float])(values)


def by_hand(folder: Path, row: Row) -> tuple[float, np.ndarray]:
    """The passage logit and the token logits of one row."""
    weights = tensors_in(folder)
    config = json.loads((folder / "config.json").read_text())["backbone"]
    backbone = BertModel(BertConfig.from_dict(config), add_pooling_layer=False).eval()
    own = {name.removeprefix("backbone."): torch.from_numpy(value) for name, value in weights.items() if "backbone" in name}
    backbone.load_state_dict(own)
    with torch.no_grad():
        ids, marks = (torch.from_numpy(array)[None] for array in (row.ids, row.marks))
        states = backbone(input_ids=ids, token_type_ids=marks).last_hidden_state[0].double().numpy()
    inputs = np.concatenate([row.units, np.tile(row.whole, (len(row.units), 1))], 1)
    hidden = gelu(inputs @ weights["evidence.0.weight"].T + weights["evidence.0.bias"])
    shifts = hidden @ weights["evidence.2.weight"][0] + weights["evidence.2.bias"][0]
    logits = states @ weights["pruning.weight"][0] + weights["pruning.bias"][0]
    for at, owner in enumerate(row.owners):
        if owner >= 0:
            logits[at] += shifts[owner]
    means = [logits[row.owners == unit].mean() for unit in range(len(row.units)) if (row.owners == unit).any()]
    parts = [*states[0], *row.whole, max(means, default=-30.0)]
    return float(np.dot(parts, weights["ranking.weight"][0]) + weights["ranking.bias"][0]), logits


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


# ---- a new model ----


def test_a_new_model_is_its_base_with_marks_and_heads(base: Path) -> None:
    torch.manual_seed(5)
    model = new_model(base)
    trained = load_file(base / "model.safetensors")
    state = model.state_dict()
    marks = "embeddings.token_type_embeddings.weight"
    for name, tensor in trained.items():
        if name != marks and not name.startswith("pooler"):
            assert torch.equal(state[f"backbone.{name}"], tensor), name
    assert state[f"backbone.{marks}"].shape == (MARKS, HIDDEN)
    # every mark begins near the base's first kind of token, none quite like another
    apart = state[f"backbone.{marks}"] - trained[marks][0]
    assert 0.003 < apart.std() < 0.007
    assert len(set(state[f"backbone.{marks}"][:, 0].tolist())) == MARKS
    assert {name.split(".")[0] for name in state} == {"backbone", "pruning", "evidence", "ranking"}
    torch.manual_seed(5)
    again = new_model(base).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_training_and_evaluation_compute_the_same(base: Path) -> None:
    model = made(base)
    assert not [module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.p]


# ---- the format ----


def test_a_model_of_version_1_judges_as_it_did(base: Path, rarity: Any, tmp_path: Path) -> None:
    """Of the weights of version 1, by hand: 17 marks, and heads that know nothing of a passage's company."""
    model = made(base)
    state = model.state_dict()
    marks, hidden = "backbone.embeddings.token_type_embeddings.weight", HIDDEN
    with torch.no_grad():
        # what version 2 has beyond version 1 has no influence here
        state[marks][16:20] = state[marks][[10, 10, 11, 11]]
        state["evidence.0.weight"][:, 4:] = 0
        state["ranking.weight"][:, hidden + 3 : -1] = 0
    save_own(tmp_path / "now", model, rarity, base, SETTINGS)
    earlier = tmp_path / "earlier"
    shutil.copytree(tmp_path / "now", earlier)
    tensors = load_file(earlier / "model.safetensors")
    tensors[marks] = tensors[marks][[*range(16), 20]].contiguous()
    if f"{marks}.scale" in tensors:
        tensors[f"{marks}.scale"] = tensors[f"{marks}.scale"][[*range(16), 20]].contiguous()
    tensors["evidence.0.weight"] = tensors["evidence.0.weight"][:, :4].contiguous()
    ranking = tensors["ranking.weight"]
    tensors["ranking.weight"] = torch.cat([ranking[:, : hidden + 3], ranking[:, -1:]], 1)
    save_file(tensors, earlier / "model.safetensors")
    settings = json.loads((earlier / "config.json").read_text())
    (earlier / "config.json").write_text(json.dumps({**settings, "version": 1}))
    expected = ProvenceModel.from_pretrained(tmp_path / "now", device="cpu").judge(PAIRS)
    for ours, theirs in zip(ProvenceModel.from_pretrained(earlier, device="cpu").judge(PAIRS), expected, strict=True):
        assert ours.score == pytest.approx(theirs.score, abs=1e-6)
        assert ours.keep == pytest.approx(theirs.keep, abs=1e-6)


def test_what_is_saved_is_loaded_within_half_a_step_of_its_row(base: Path, saved: Path, rarity: Any) -> None:
    before, after = made(base).state_dict(), load_own(saved, "cpu")[0].model.state_dict()
    assert before.keys() == after.keys()
    stored = load_file(saved / "model.safetensors")
    packed = {name for name, tensor in stored.items() if tensor.dtype == torch.int8}
    assert {"backbone.embeddings.word_embeddings.weight", "backbone.encoder.layer.1.output.dense.weight"} <= packed
    for name, tensor in before.items():
        if name in packed:
            steps = tensor.abs().amax(1, keepdim=True) / 127
            assert ((after[name] - tensor).abs() <= steps / 2 + 1e-7).all(), name
        else:
            assert torch.equal(after[name], tensor), name
    sizes = [sum(tensor.numel() for name, tensor in stored.items() if (name in packed) == inside) for inside in (True, False)]
    assert sizes[0] > 0.6 * sum(tensor.numel() for tensor in before.values())
    assert np.array_equal(stored["rarity"].numpy(), rarity)
    assert (saved / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_row_of_zeros_and_one_of_extremes_survive(base: Path, tmp_path: Path) -> None:
    model = made(base)
    rows_of = model.backbone.embeddings.word_embeddings.weight
    with torch.no_grad():
        rows_of[3] = 0
        rows_of[4] = 1e-6
        rows_of[5, 0] = 1e6
    save_own(tmp_path, model, None, base, SETTINGS)
    loaded = load_own(tmp_path, "cpu")[0].model.backbone.embeddings.word_embeddings.weight
    assert not loaded[3].any()
    torch.testing.assert_close(loaded[4], rows_of[4])
    torch.testing.assert_close(loaded[5, 0], rows_of[5, 0])
    assert torch.isfinite(loaded).all()


def test_saving_again_replaces_and_gives_the_same_bytes(base: Path, saved: Path, rarity: Any, tmp_path: Path) -> None:
    save_own(tmp_path, new_model(base), None, base, SETTINGS | {"threshold": 0.9})
    save_own(tmp_path, made(base), rarity, base, SETTINGS)
    for file in saved.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_a_loaded_model_saves_itself_unchanged(base: Path, saved: Path, rarity: Any, tmp_path: Path) -> None:
    save_own(tmp_path, load_own(saved, "cpu")[0].model, rarity, base, SETTINGS)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path, saved))
    assert all(torch.allclose(ours[name].float(), theirs[name].float(), rtol=1e-6) for name in theirs)


def test_the_family_is_what_was_set(saved: Path, rarity: Any) -> None:
    network, family = load_own(saved, "cpu")
    assert family == Family("ragkit", "sigmoid", "mean", 0.25, False, False, 64, None)
    np.testing.assert_allclose(network.rarity, rarity / 255.0, atol=1e-7)  # type: ignore[operator]
    assert not network.model.training
    loaded, its_family = load_checkpoint(saved, "cpu")
    assert isinstance(loaded, MarkedNetwork)
    assert its_family == family


def test_a_trained_model_goes_on_from_what_was_saved(base: Path, saved: Path, rarity: Any, tmp_path: Path) -> None:
    model, table = trained_model(saved)
    assert model.training
    assert np.array_equal(table, rarity)  # type: ignore[arg-type]
    assert table.dtype == np.uint8  # type: ignore[union-attr]
    loaded = load_own(saved, "cpu")[0].model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    save_own(tmp_path, made(base), None, base, SETTINGS)
    assert trained_model(tmp_path)[1] is None
    assert [is_own(folder) for folder in (saved, tmp_path, base, tmp_path / "missing")] == [True, True, False, False]
    with pytest.raises(RagkitError, match="cannot be read"):
        trained_model(tmp_path / "missing")


# ---- the network ----


def test_a_device_without_float64_will_do(saved: Path, without_float64: Any) -> None:
    network, _ = load_own(saved, "cpu")
    windows = [
        window for [window] in cut(PairTokenizer(saved, 64), [Pair("cat", "a dog", (Unit(0, 5),)), Pair("dog", "the cat", ())])
    ]
    expected = network(windows)
    network.model.register_forward_hook(lambda _, inputs, output: output._replace(rank=without_float64(output.rank)))
    found = network(windows)
    assert found.rank.dtype == np.float64
    np.testing.assert_array_equal(found.rank, expected.rank)


@pytest.mark.parametrize("lexical", [True, False])
def test_a_batch_of_mixed_lengths_equals_one_window_by_hand(
    base: Path, saved: Path, rarity: Any, lexical: bool, tmp_path: Path
) -> None:
    if not lexical:
        save_own(tmp_path, made(base), None, base, SETTINGS)
    folder = saved if lexical else tmp_path
    network, _ = load_own(folder, "cpu")
    batch = windows_of(folder, PAIRS, 48)
    assert len(batch) > len(PAIRS)
    assert len({len(window.ids) for window in batch}) > 3
    its_rows = rows(batch, rarity / np.float32(255) if lexical else None)
    expected = [by_hand(folder, row) for row in its_rows]
    assert np.ptp([rank for rank, _ in expected]) > 0.1
    for found, wanted in ((network(batch), expected), (network(batch[::-1]), expected[::-1])):
        assert (found.rank.dtype, len(found.keep)) == (np.float64, len(batch))
        np.testing.assert_allclose(found.rank, [rank for rank, _ in wanted], atol=2e-5)
        for keep, (_, logits) in zip(found.keep, wanted, strict=True):
            assert keep.dtype == np.float32
            np.testing.assert_allclose(keep, sigmoid(logits), atol=1e-5)
    for window, (rank, logits) in zip(batch, expected, strict=True):
        alone = network([window])
        assert alone.rank[0] == pytest.approx(rank, abs=2e-5)
        np.testing.assert_allclose(alone.keep[0], sigmoid(logits), atol=1e-5)


def test_marks_units_and_title_matter(saved: Path) -> None:
    network, _ = load_own(saved, "cpu")
    pair = Pair("who sees the cat", "the cat eats bread. a dog.", (Unit(0, 20), Unit(20, 26)))
    [window, untitled, whole] = windows_of(saved, [pair, pair._replace(title="fish"), pair._replace(units=(Unit(0, 26),))])
    found = network([window, untitled, whole])
    assert len(set(found.rank.round(5))) == 3
    assert not np.allclose(found.keep[0], found.keep[2], atol=1e-3)
    blind = MarkedNetwork(network.model, None)([window])
    assert not np.allclose(blind.keep[0], found.keep[0], atol=1e-3)


def test_threads_may_share_a_network(saved: Path) -> None:
    network, _ = load_own(saved, "cpu")
    windows = windows_of(saved, PAIRS, 32)
    batches = [windows[at : at + 3] for at in range(len(windows) - 2)]
    expected = [network(batch).rank for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        for found, ranks in zip(threads.map(network, batches * 3), expected * 3, strict=True):
            np.testing.assert_allclose(found.rank, ranks, atol=1e-6)


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-6), ("bfloat16", 0.3), ("float16", 0.05)])
def test_precision(saved: Path, dtype: str, atol: float) -> None:
    windows = windows_of(saved, PAIRS)
    exact, found = load_own(saved, "cpu")[0](windows), load_own(saved, "cpu", dtype)[0](windows)
    np.testing.assert_allclose(found.rank, exact.rank, atol=atol * 2)
    for ours, theirs in zip(found.keep, exact.keep, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=atol)


# ---- from a folder to documents ----


def test_a_folder_reranks_and_prunes(saved: Path, rarity: Any) -> None:
    texts = ["".join(sentences(seed, 2 + 2 * seed)).strip() for seed in range(4)]
    documents = [Document(id=str(at), page_content=text) for at, text in enumerate(texts)]
    question = "Who keeps the lamp and the boat?"
    model = ProvenceModel.from_pretrained(saved, device="cpu")
    assert ProvenceModel.from_pretrained(str(saved), device="cpu") is model

    pruned = ProvencePruner(model=saved, device="cpu", threshold=0).compress_documents(documents, question)
    table = rarity / np.float32(255)
    units = [tuple(Unit(start, end) for start, end, *_ in provenance(document).units) for document in pruned]
    # the four of them are each other's company
    pairs = accompanied([Pair(question, text, its_units) for text, its_units in zip(texts, units, strict=True)], table)
    sizes = []
    for document, pair in zip(pruned, pairs, strict=True):
        windows = windows_of(saved, [pair])
        found = [by_hand(saved, row) for row in rows(windows, table)]
        score = sigmoid(np.array(max(rank for rank, _ in found)))
        assert document.metadata["relevance_score"] == pytest.approx(score, abs=1e-5)
        assert document.page_content == pair.passage
        if len(windows) == 1:
            [row], [(_, logits)] = rows(windows, table), found
            means = [sigmoid(logits[row.owners == unit]).mean() for unit in range(len(pair.units))]
            np.testing.assert_allclose(provenance(document).unit_scores, means, atol=1e-5)
        sizes.append(len(windows))
    assert sizes.count(1) > 1
    assert max(sizes) > 1

    ranked = ProvenceReranker(model=saved, device="cpu").compress_documents(documents, question)
    scores = [document.metadata["relevance_score"] for document in ranked]
    assert scores == sorted(scores, reverse=True)
    assert {document.id: score for document, score in zip(ranked, scores, strict=True)} == pytest.approx(
        {document.id: document.metadata["relevance_score"] for document in pruned}
    )
    assert len(ProvenceModel.from_pretrained(saved, device="cpu", max_length=32).judge([pair])[0].keep) > 0
    with pytest.raises(InputError, match="max_length: ragkit takes at most 64 tokens, not 65"):
        ProvenceModel.from_pretrained(saved, device="cpu", max_length=65)


# ---- what is refused ----


def config(**entries: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        found = json.loads(file.read_text()) | entries
        file.write_text(json.dumps({key: value for key, value in found.items() if value is not ...}))

    return change


def tensors(**entries: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found: dict[str, Any] = load_file(folder / "model.safetensors")
        found |= {name.replace("__", "."): value for name, value in entries.items()}
        save_file({name: value for name, value in found.items() if value is not None}, folder / "model.safetensors")

    return change


def backbone(**entries: Any) -> Callable[[Path], None]:
    return lambda folder: config(backbone=json.loads((folder / "config.json").read_text())["backbone"] | entries)(folder)


def torn(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


REFUSED: list[tuple[Callable[[Path], None], str]] = [
    (tensors(ranking__weight=None), r"does not hold a whole model: .*Missing key.*ranking\.weight"),
    (tensors(pruning__bias=torch.zeros(2)), r"does not hold a whole model: .*size mismatch for pruning\.bias"),
    (tensors(extra=torch.zeros(2)), r"does not hold a whole model: .*Unexpected key.*extra"),
    (tensors(**{"backbone__embeddings__word_embeddings__weight.scale": None}), r"word_embeddings\.weight\.scale"),
    (tensors(**{"backbone__embeddings__word_embeddings__weight.scale": torch.ones(1)}), r"does not hold a whole model: shape"),
    (tensors(rarity=torch.zeros(7, dtype=torch.uint8)), rf"has \[7\] rarities as torch\.uint8; this ragkit needs {BUCKETS}"),
    (tensors(rarity=torch.zeros(BUCKETS)), r"rarities as torch\.float32"),
    (config(version=3), r"has version 3; this ragkit reads versions 1 and 2"),
    (config(version=...), r"has version None"),
    (config(threshold=...), r"does not hold a whole model: 'threshold'"),
    (config(threshold="low"), r"does not hold a whole model: could not convert"),
    (config(max_length=None), r"does not hold a whole model"),
    (config(backbone=None), r"does not hold a whole model"),
    (backbone(num_hidden_layers=3), r"does not hold a whole model: .*Missing key"),
    (backbone(hidden_size="wide"), r"does not hold a whole model"),
    (lambda folder: (folder / "model.safetensors").unlink(), r"cannot be read"),
    (torn, r"cannot be read"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b""), r"cannot be read"),
    (lambda folder: (folder / "tokenizer.json").unlink(), r"the tokenizer in .* cannot be read"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_is_no_whole_model_is_refused_in_one_line(
    change: Callable[[Path], None], message: str, saved: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(saved, tmp_path / "some-model")
    change(folder)
    with pytest.raises(RagkitError, match=message) as caught:
        ProvenceModel.from_pretrained(folder, device="cpu")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_devices_and_precisions_are_refused(base: Path, saved: Path) -> None:
    with pytest.raises(InputError, match=r"^device: 'abacus' cannot be used"):
        load_own(saved, "abacus")
    with pytest.raises(InputError, match=r"^device: 'abacus' cannot be used"):
        new_model(base, "abacus")
    for dtype in ("int4", "wide", "Tensor"):
        with pytest.raises(InputError, match=f"^dtype: '{dtype}' is not one of float32, bfloat16, float16, int8$"):
            load_own(saved, "cpu", dtype)


def without_layer(folder: Path) -> None:
    found = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in found.items() if not name.startswith("encoder.layer.1.output")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


BASES: list[tuple[Callable[[Path], None], str]] = [
    (config(model_type="roberta"), r"is a roberta; this network is made from a BERT"),
    (config(model_type=...), r"cannot be read"),
    (lambda folder: (folder / "config.json").write_text("{"), r"cannot be read"),
    (lambda folder: (folder / "tokenizer.json").unlink(), r"holds no tokenizer\.json"),
    (lambda folder: (folder / "model.safetensors").unlink(), r"cannot be loaded from safetensors"),
    (without_layer, r"lack 4 tensors of the network, such as encoder\.layer\.1\.output"),
]


@pytest.mark.parametrize(("change", "message"), BASES)
def test_a_base_that_is_no_whole_bert_is_refused(
    change: Callable[[Path], None], message: str, base: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(base, tmp_path / "some-base")
    change(folder)
    with pytest.raises(RagkitError, match=message) as caught:
        new_model(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
