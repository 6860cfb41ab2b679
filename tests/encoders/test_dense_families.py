"""Families of dense encoders on tiny random models: against straight computation one text at a time, without padding."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from ragkit.encoders.dense import DenseEncoder
from ragkit.errors import InputError, RagkitError

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [f"w{i}" for i in range(40)]
TEXTS = ["", *(" ".join(random.Random(n).choices(WORDS, k=n)) for n in (1, 12, 3, 25, 7, 7, 2))]
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}


def save_tokenizer(folder: Path, *, template: str = "[CLS] $A [SEP]", **config: Any) -> Path:
    import tokenizers

    ids = {token: i for i, token in enumerate([*SPECIALS, *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(SPECIALS)
    if template:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=template, special_tokens=[(token, ids[token]) for token in SPECIALS if token in template]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "eos_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, **names, **config})
    )
    return folder


def save(folder: Path, model: Any, **tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    return save_tokenizer(folder, **tokenizer)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    return save(tmp_path_factory.mktemp("bert"), BertModel(BertConfig(**SIZES, max_position_embeddings=64)))


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved whole, with its decoder."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(2)
    config = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=3, num_heads=2, vocab_size=50, decoder_start_token_id=0)
    return save(tmp_path_factory.mktemp("t5"), T5ForConditionalGeneration(config), template="$A [SEP]")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model whose tokenizer.json adds nothing, with an eos that only tokenizer_config.json asks for."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, max_position_embeddings=64))
    return save(tmp_path_factory.mktemp("llama"), model, template="", add_eos_token=True)


@pytest.fixture(scope="module")
def dpr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two encoders in folders of one."""
    import torch
    from transformers import DPRConfig, DPRContextEncoder, DPRQuestionEncoder

    torch.manual_seed(4)
    root = tmp_path_factory.mktemp("dpr")
    config = DPRConfig(**SIZES, projection_dim=6, max_position_embeddings=64)
    for name, kind in (("ctx_encoder", DPRContextEncoder), ("question_encoder", DPRQuestionEncoder)):
        save(root / name, kind(config))
    return root


def ids_of(text: str) -> list[int]:
    return [[*SPECIALS, *WORDS].index(word) for word in text.split()]


def states(model: Any, ids: list[int], layer: int = -1) -> np.ndarray:
    import torch

    with torch.no_grad():
        output = model.eval()(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return np.asarray((output.last_hidden_state if layer == -1 else output.hidden_states[layer])[0].double())


def unit(vectors: Any) -> np.ndarray:
    array = np.asarray(vectors)
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def test_t5_runs_its_encoder(t5: Path) -> None:
    from transformers import T5EncoderModel

    straight = [states(T5EncoderModel.from_pretrained(t5), [*ids_of(text), 3]).mean(0) for text in TEXTS]
    np.testing.assert_allclose(DenseEncoder(t5, batch_tokens=64).encode_documents(TEXTS), unit(straight), atol=1e-5)


def test_a_causal_model_gives_its_last_token_which_is_the_eos_that_is_asked_for(llama: Path, tmp_path: Path) -> None:
    from transformers import LlamaModel

    model = LlamaModel.from_pretrained(llama)
    encoder = DenseEncoder(llama, query_prompt="w1 w2 w3 ", batch_tokens=64)
    straight = unit([states(model, [*ids_of(text), 3])[-1] for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), straight, atol=1e-5)
    asked = unit([states(model, [*ids_of("w1 w2 w3 " + text), 3])[-1] for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), asked, atol=1e-5)
    # a tokenizer.json that adds the token itself gets no second one, and without both there is none
    shutil.copytree(llama, tmp_path, dirs_exist_ok=True)
    save_tokenizer(tmp_path, template="$A [SEP]", add_eos_token=True)
    np.testing.assert_allclose(DenseEncoder(tmp_path).encode_documents(TEXTS), straight, atol=1e-5)
    save_tokenizer(tmp_path, template="")
    bare = unit([states(model, ids_of(text))[-1] for text in TEXTS[1:]])
    np.testing.assert_allclose(DenseEncoder(tmp_path).encode_documents(TEXTS[1:]), bare, atol=1e-5)
    save_tokenizer(tmp_path, template="", add_eos_token=True, eos_token="</s>")
    with pytest.raises(RagkitError, match="</s>"):
        DenseEncoder(tmp_path).encode_queries(["w1"])


def test_weighted_mean_of_a_causal_model(llama: Path) -> None:
    from transformers import LlamaModel

    model, straight = LlamaModel.from_pretrained(llama), []
    for text in TEXTS:
        tokens = states(model, [*ids_of(text), 3])
        straight.append(np.average(tokens, axis=0, weights=np.arange(1, len(tokens) + 1)))
    found = DenseEncoder(llama, pooling="weighted_mean", batch_tokens=64).encode_documents(TEXTS)
    np.testing.assert_allclose(found, unit(straight), atol=1e-5)


@pytest.mark.parametrize("apart", [False, True])
def test_dpr_has_an_encoder_for_each_side(dpr: Path, apart: bool) -> None:
    import torch
    from transformers import DPRContextEncoder, DPRQuestionEncoder

    context, question = dpr / "ctx_encoder", dpr / "question_encoder"
    encoder = DenseEncoder(context, query_model=question) if apart else DenseEncoder(dpr)

    def straight(model: Any) -> list[np.ndarray]:
        with torch.no_grad():
            return [model.eval()(torch.tensor([[2, *ids_of(text), 3]])).pooler_output[0].numpy() for text in TEXTS]

    documents = encoder.encode_documents(TEXTS)
    np.testing.assert_allclose(documents, straight(DPRContextEncoder.from_pretrained(context)), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), straight(DPRQuestionEncoder.from_pretrained(question)), atol=1e-5)
    assert encoder.dimension == 6
    assert encoder.fingerprint["query"]["digest"] != encoder.fingerprint["digest"]


def test_towers_have_to_agree_in_dimension(bert: Path, dpr: Path) -> None:
    with pytest.raises(InputError, match=r"^query_model: .*16.*6"):
        _ = DenseEncoder(dpr / "ctx_encoder", query_model=bert).dimension
    with pytest.raises(InputError, match=r"^model: "):
        DenseEncoder(bert, query_model=dpr / "nothing")


def test_an_instruction_with_a_separator(bert: Path) -> None:
    """TART: "instruction [SEP] question"."""
    from transformers import BertModel

    encoder = DenseEncoder(bert, query_prompt="w5 w6 [SEP] ")
    ids = [[2, *ids_of("w5 w6"), 3, *ids_of(text), 3] for text in TEXTS]
    straight = [states(BertModel.from_pretrained(bert), row).mean(0) for row in ids]
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), unit(straight), atol=1e-5)


def test_several_poolings_stand_beside_each_other(bert: Path) -> None:
    from transformers import BertModel

    rows = [states(BertModel.from_pretrained(bert), [2, *ids_of(text), 3]) for text in TEXTS]
    straight = [np.concatenate([row[0], row.max(0)]) for row in rows]
    encoder = DenseEncoder(bert, pooling=["cls", "max"], normalize=False, batch_tokens=64)
    assert encoder.dimension == 32
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), straight, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_first_layers(bert: Path, t5: Path, llama: Path, layers: int) -> None:
    from transformers import BertModel, LlamaModel, T5EncoderModel

    cut = {"layers": layers, "batch_tokens": 64}
    found = DenseEncoder(bert, dimension=10, **cut).encode_documents(TEXTS)
    straight = [states(BertModel.from_pretrained(bert), [2, *ids_of(text), 3], layers).mean(0)[:10] for text in TEXTS]
    np.testing.assert_allclose(found, unit(straight), atol=1e-5)
    model: Any = LlamaModel.from_pretrained(llama)
    model.layers = model.layers[:layers]  # the last norm stays
    straight = [states(model, [*ids_of(text), 3])[-1] for text in TEXTS]
    np.testing.assert_allclose(DenseEncoder(llama, **cut).encode_documents(TEXTS), unit(straight), atol=1e-5)
    model = T5EncoderModel.from_pretrained(t5)
    model.encoder.block = model.encoder.block[:layers]
    straight = [states(model, [*ids_of(text), 3]).mean(0) for text in TEXTS]
    np.testing.assert_allclose(DenseEncoder(t5, **cut).encode_documents(TEXTS), unit(straight), atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
@pytest.mark.parametrize("family", ["bert", "t5", "llama", "dpr"])
def test_fewer_bits_give_nearly_the_same_vectors(request: pytest.FixtureRequest, family: str, dtype: Any) -> None:
    folder = request.getfixturevalue(family)
    if dtype == "int8":
        from ragkit.encoders.int8 import check_int8

        try:
            check_int8("cpu")
        except InputError as error:
            pytest.skip(str(error))
    encoder = DenseEncoder(folder, normalize=True, dtype=dtype, device="cpu", batch_tokens=64)
    whole = DenseEncoder(folder, normalize=True, device="cpu", batch_tokens=64)
    vectors, exact = encoder.encode_documents(TEXTS), whole.encode_documents(TEXTS)
    assert vectors.dtype == np.float32
    assert (vectors * exact).sum(1).min() > 0.995
    assert np.abs(vectors - exact).max() > 1e-6
    assert encoder.fingerprint == {**whole.fingerprint, "dtype": dtype}


def test_int8_is_for_the_cpu(bert: Path) -> None:
    with pytest.raises(InputError, match=r"^dtype: .*cuda"):
        DenseEncoder(bert, dtype="int8", device="cuda").encode_queries(["w1"])


def test_int8_needs_linear_layers(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50, "n_positions": 64}
    save(tmp_path, GPT2Model(GPT2Config(**sizes)))
    with pytest.raises(InputError, match=r"^dtype: "):
        DenseEncoder(tmp_path, dtype="int8", device="cpu").encode_queries(["w1"])


def test_fingerprints_tell_variants_apart(bert: Path) -> None:
    facts = DenseEncoder(bert).fingerprint
    assert set(facts) == {
        *("kind", "model", "digest", "pooling", "normalize", "max_length"),
        *("query_prompt", "document_prompt"),
    }
    variants: list[dict[str, Any]] = [{"dimension": 8}, {"layers": 2}, {"pooling": ["mean", "cls"]}, {"dtype": "bfloat16"}]
    found = [json.dumps(DenseEncoder(bert, **options).fingerprint) for options in variants]
    assert len({*found, json.dumps(facts)}) == 5
    assert DenseEncoder(bert, dimension=16, query_model=bert).fingerprint == facts


def test_more_than_the_model_has_is_refused(bert: Path) -> None:
    options: list[tuple[dict[str, Any], str]] = [
        ({"layers": 4}, "layers: .*at most 3 layers, not 4"),
        ({"dimension": 17}, "dimension: .*at most 16 numbers, not 17"),
        ({"layers": 0}, "layers: must be at least 1"),
        ({"dtype": "int4"}, "dtype: 'int4' is not one of"),
        ({"pooling": ["mean", "median"]}, "pooling: "),
        ({"pooling": []}, "pooling: "),
    ]
    for given, message in options:
        with pytest.raises(InputError, match=f"^{message}"):
            _ = DenseEncoder(bert, **given).dimension


def test_an_encoder_decoder_without_a_separate_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bart", "is_encoder_decoder": True, "d_model": 16}))
    with pytest.raises(InputError, match=r"^model: .*encoder-decoder.*t5"):
        _ = DenseEncoder(tmp_path).dimension
