"""Folders that sentence-transformers has saved: the same vectors without it, or a refusal that names the reason."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

pytest.importorskip("sentence_transformers", minversion="6.0", reason="needs sentence-transformers")

from ragkit.encoders.dense import DenseEncoder
from ragkit.errors import InputError, RagkitError

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [f"w{i}" for i in range(40)]
TEXTS = ["", *(" ".join(random.Random(n).choices(WORDS, k=n)) for n in (1, 12, 3, 25, 7, 7, 2))]
SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def save_model(folder: Path, model: Any) -> str:
    import tokenizers

    model.save_pretrained(folder)
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({token: i for i, token in enumerate([*SPECIALS, *WORDS])}, "[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}))
    return str(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    return save_model(tmp_path_factory.mktemp("bert"), BertModel(BertConfig(**SIZES, max_position_embeddings=64)))


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(2)
    config = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=50, decoder_start_token_id=0)
    return save_model(tmp_path_factory.mktemp("t5"), T5ForConditionalGeneration(config))


def parts() -> Any:
    """The modules that sentence-transformers has, by name."""
    from types import SimpleNamespace

    from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
    from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling

    return SimpleNamespace(
        Dense=Dense,
        Normalize=Normalize,
        Router=Router,
        Transformer=Transformer,
        Dropout=Dropout,
        LayerNorm=LayerNorm,
        Pooling=Pooling,
    )


def saved(folder: Path, modules: list[Any], **options: Any) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(modules=modules, device="cpu", **{"similarity_fn_name": "dot", **options}).eval()
    torch.manual_seed(5)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):  # those of a new model do nothing
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    model.save(str(folder))
    return model


def agree(folder: Path, theirs: Any, **options: Any) -> DenseEncoder:
    """Compare both sides, in batches and one by one."""
    encoder = DenseEncoder(folder, batch_tokens=64, **options)
    for ours, expected in (
        (encoder.encode_documents(TEXTS), theirs.encode_document(TEXTS)),
        (encoder.encode_queries(TEXTS), theirs.encode_query(TEXTS, batch_size=1)),
    ):
        assert ours.shape == (len(TEXTS), encoder.dimension)
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    return encoder


CHAINS: dict[str, Callable[[Any], list[Any]]] = {
    "every pooling": lambda st: [st.Pooling(16, ("mean", "max", "cls", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"))],
    "normalised": lambda st: [st.Pooling(16, "weightedmean"), st.Normalize()],
    "tanh": lambda st: [st.Pooling(16, "cls"), st.Dense(16, 8)],
    "no bias": lambda st: [st.Pooling(16, ("cls", "max")), st.Dense(32, 8, bias=False, activation_function=None), st.Normalize()],
    "residual": lambda st: [st.Pooling(16), st.Dense(16, 16, use_residual=True), st.Dense(16, 8, use_residual=True)],
    "everything": lambda st: [
        *(st.Pooling(16), st.LayerNorm(16), st.Dropout(0.5)),
        *(st.Normalize(), st.Dense(16, 24), st.LayerNorm(24), st.Normalize()),
    ],
}


@pytest.mark.parametrize("chain", CHAINS)
def test_modules(bert: str, tmp_path: Path, chain: str) -> None:
    st = parts()
    agree(tmp_path, saved(tmp_path, [st.Transformer(bert), *CHAINS[chain](st)]))


def test_gtr_is_a_t5_encoder_with_a_dense_module(t5: str, tmp_path: Path) -> None:
    st = parts()
    modules = [st.Transformer(t5), st.Pooling(16), st.Dense(16, 12, bias=False, activation_function=None), st.Normalize()]
    assert agree(tmp_path, saved(tmp_path, modules)).dimension == 12


@pytest.mark.parametrize("include", [True, False])
def test_prompts_in_and_out_of_the_pooling(bert: str, tmp_path: Path, include: bool) -> None:
    st = parts()
    pooling = st.Pooling(16, ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"), include_prompt=include)
    encoder = agree(tmp_path, saved(tmp_path, [st.Transformer(bert), pooling], prompts={"query": "w1 w2 w3 ", "document": "w4 "}))
    assert (encoder.fingerprint["query_prompt"], encoder.fingerprint["document_prompt"]) == ("w1 w2 w3 ", "w4 ")


def test_the_default_prompt(bert: str, tmp_path: Path) -> None:
    st = parts()
    theirs = saved(tmp_path, [st.Transformer(bert), st.Pooling(16)])
    file = tmp_path / "config_sentence_transformers.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "prompts": {"query": "w1 ", "sts": "w7 w8 "}, "default_prompt_name": "sts"}))
    facts = DenseEncoder(tmp_path).fingerprint
    assert (facts["query_prompt"], facts["document_prompt"]) == ("w1 ", "w7 w8 ")
    expected = theirs.encode(TEXTS, prompt="w7 w8 ")
    np.testing.assert_allclose(DenseEncoder(tmp_path).encode_documents(TEXTS), expected, atol=1e-5)


def test_a_router_with_two_transformers(bert: str, t5: str, tmp_path: Path) -> None:
    st = parts()
    router = st.Router.for_query_document(
        [st.Transformer(bert), st.Pooling(16, "cls")], [st.Transformer(t5), st.Pooling(16, "mean")]
    )
    encoder = agree(tmp_path, saved(tmp_path, [router, st.Normalize()]))
    assert encoder.fingerprint["query"]["pooling"] == "cls"


def test_a_router_behind_a_shared_transformer(bert: str, tmp_path: Path) -> None:
    """The older Asym: the same transformer, a projection of its own for each side."""
    st = parts()
    router = st.Router({"query": [st.Dense(16, 8)], "document": [st.Dense(16, 8)]}, default_route="document")
    encoder = agree(tmp_path, saved(tmp_path, [st.Transformer(bert), st.Pooling(16), router, st.Normalize()]))
    assert len(encoder._backbones) == 1
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Asym"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    folder = tmp_path / modules[2]["path"]
    config = json.loads((folder / "router_config.json").read_text())
    config["structure"] = {"query": config["structure"]["query"], "doc": config["structure"]["document"]}
    (folder / "router_config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    np.testing.assert_allclose(
        DenseEncoder(tmp_path, batch_tokens=64).encode_documents(TEXTS), encoder.encode_documents(TEXTS), atol=1e-6
    )


@pytest.mark.parametrize("saved_as", ["option", "file"])
def test_matryoshka_dimensions_are_cut_and_then_normalised(bert: str, tmp_path: Path, saved_as: str) -> None:
    st = parts()
    options = {"truncate_dim": 6} if saved_as == "file" else {}
    theirs = saved(tmp_path, [st.Transformer(bert), st.Pooling(16), st.Normalize()], **options)
    encoder = DenseEncoder(tmp_path, dimension=None if saved_as == "file" else 6)
    assert encoder.dimension == 6
    expected = theirs.encode(TEXTS, truncate_dim=6, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), expected, atol=1e-5)
    if saved_as == "file":
        whole = DenseEncoder(tmp_path, dimension=16).encode_queries(TEXTS)
        np.testing.assert_allclose(whole, theirs.encode(TEXTS, truncate_dim=16), atol=1e-5)


def test_cosine_means_normalised_vectors(bert: str, tmp_path: Path) -> None:
    st = parts()
    theirs = saved(tmp_path, [st.Transformer(bert), st.Pooling(16)], similarity_fn_name="cosine")
    ours = DenseEncoder(tmp_path)
    similarities = ours.encode_queries(TEXTS) @ ours.encode_documents(TEXTS).T
    np.testing.assert_allclose(similarities, theirs.similarity(theirs.encode(TEXTS), theirs.encode(TEXTS)), atol=1e-5)
    np.testing.assert_allclose(DenseEncoder(tmp_path, normalize=False).encode_documents(TEXTS), theirs.encode(TEXTS), atol=1e-5)


def test_lower_case(bert: str, tmp_path: Path) -> None:
    st = parts()
    theirs = saved(tmp_path, [st.Transformer(bert, do_lower_case=True), st.Pooling(16)])
    settings = json.loads((tmp_path / "sentence_bert_config.json").read_text())
    (tmp_path / "sentence_bert_config.json").unlink()
    (tmp_path / "sentence_roberta_config.json").write_text(json.dumps({**settings, "do_lower_case": True}))
    # what the library has saved is already lower-casing; a tokenizer that came otherwise is not
    shutil.copy(Path(bert) / "tokenizer.json", tmp_path / "tokenizer.json")
    encoder = DenseEncoder(tmp_path)
    np.testing.assert_allclose(encoder.encode_queries(["W1 w2 W3"]), theirs.encode(["w1 W2 W3"]), atol=1e-5)
    assert encoder.tokenizer.starts(["W1  W2"])[0].tolist() == [0, 4]


def test_lengths_of_the_sides(bert: str, tmp_path: Path) -> None:
    st = parts()
    saved(tmp_path, [st.Transformer(bert, query_length=9, document_length=11), st.Pooling(16)])
    encoder = DenseEncoder(tmp_path)
    assert (encoder.max_length, encoder.fingerprint["query"]["max_length"]) == (11, 9)
    assert DenseEncoder(tmp_path, max_length=7).fingerprint["max_length"] == 7


@pytest.fixture(scope="module")
def plain(bert: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    st, folder = parts(), tmp_path_factory.mktemp("plain")
    saved(folder, [st.Transformer(bert), st.Pooling(16), st.Dense(16, 8)])
    return folder


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "^pooling: .*median"),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "cls"]}, "^pooling: .*16 numbers, not 32"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Softplus"}, "^model: .*Softplus"),
        ("2_Dense/config.json", {"activation_function": "mine.Tanh"}, "^model: .*mine.Tanh"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "^model: .*token_embeddings"),
        ("2_Dense/config.json", {"gate": True}, "^model: .*gate"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "^model: .*transformer_task"),
        ("sentence_bert_config.json", {"modality_config": {"image": {}}}, "^model: .*modality_config"),
        ("sentence_bert_config.json", {"query_expansion": {"length": 32}}, "^model: .*query_expansion"),
        (
            "sentence_bert_config.json",
            {"processing_kwargs": {"text": {"add_special_tokens": False}}},
            "^model: .*processing_kwargs",
        ),
        ("config_sentence_transformers.json", {"similarity_fn_name": "manhattan"}, "^model: .*manhattan"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(
    plain: Path, tmp_path: Path, file: str, values: dict[str, Any], message: str
) -> None:
    shutil.copytree(plain, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps({**config, **values}))
    with pytest.raises(InputError, match=message):
        _ = DenseEncoder(tmp_path).dimension


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (
            [
                "sentence_transformers.models.Transformer",
                "sentence_transformers.models.Pooling",
                "sentence_transformers.models.CNN",
            ],
            "CNN",
        ),
        (
            ["sentence_transformers.models.Transformer", "sentence_transformers.models.WeightedLayerPooling"],
            "WeightedLayerPooling",
        ),
        (["sentence_transformers.models.StaticEmbedding", "sentence_transformers.models.Normalize"], "StaticEmbedding"),
        (["custom_st.Transformer", "sentence_transformers.models.Pooling"], "code of its own.*custom_st.Transformer"),
    ],
)
def test_unknown_modules_are_refused(bert: str, tmp_path: Path, types: list[str], message: str) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    modules = [{"path": "" if i == 0 else str(i), "type": kind} for i, kind in enumerate(types)]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match=f"^model: .*{message}"):
        _ = DenseEncoder(tmp_path).dimension


def test_a_dense_module_without_safetensors_is_refused(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "2_Dense" / "model.safetensors"
    file.rename(file.with_name("pytorch_model.bin"))
    with pytest.raises(RagkitError, match=r"^model: .*model\.safetensors"):
        DenseEncoder(tmp_path).encode_queries(["w1"])
