"""The sparse encoder against unbatched, straight computation on tiny random models, and against sentence-transformers."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from ragkit.encoders.sparse import SparseEncoder
from ragkit.encoders.sparse_base import as_sparse_encoder
from ragkit.errors import InputError, RagkitError
from ragkit.sparse_vectors import SparseVectors

pytestmark = pytest.mark.usefixtures("one_thread")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"w{i}" for i in range(30)]
TOKENS = [*SPECIAL, *WORDS, *(f"##x{i}" for i in range(10))]
IDS = {token: i for i, token in enumerate(TOKENS)}
SIZES = {
    "vocab_size": len(TOKENS) + 3,  # as many language models, more outputs than tokens
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 34,
    "initializer_range": 0.4,
}
Terms = dict[int, float]


def save_tokenizer(folder: Path, *, causal: bool = False) -> None:
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors
    from transformers import BertTokenizerFast

    tokenizer = tokenizers.Tokenizer(models.WordPiece(IDS, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if causal:
        # a tokenizer of the BERT kind would end texts in [SEP]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
        tokenizer.add_special_tokens(SPECIAL)
        tokenizer.save(str(folder / "tokenizer.json"))
    else:
        BertTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


def make_model(folder: Path, kind: str = "BertForMaskedLM") -> Path:
    """A random model with a WordPiece vocabulary, saved the way users' models are."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(SIZES)
    if kind.startswith("DistilBert"):
        sizes = {"vocab_size": SIZES["vocab_size"], "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
        sizes |= {"max_position_embeddings": 32, "initializer_range": 0.4}
    if kind.endswith("ForCausalLM"):
        sizes |= {"num_key_value_heads": 1}
    network = getattr(transformers, kind)
    network(network.config_class(**sizes)).save_pretrained(folder)
    save_tokenizer(folder, causal=kind.endswith("ForCausalLM"))
    return folder


def make_impact_model(folder: Path, layers: list[int], *, head: str, prefix: str = "") -> Path:
    """A BERT with a perceptron behind it, its tensors named as uniCOIL and DeepImpact name them."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    network = BertModel(BertConfig(**SIZES))
    network.config.architectures = ["ImpactModel"]
    network.config.save_pretrained(folder)
    tensors = {f"{prefix}bert.{name}": tensor for name, tensor in network.state_dict().items()}
    widths = [16, *layers]
    for at, (width, out) in enumerate(zip(widths, layers, strict=False)):
        name = f"{prefix}{head}" + (f".{3 * at}" if head == "impact_score_encoder" else "")
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = torch.randn(out, width) / 5, torch.rand(out) + 3
    save_file(tensors, folder / "model.safetensors")
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def tiny(home: Path) -> Path:
    return make_model(home / "tiny-splade")


@pytest.fixture(scope="module")
def unicoil(home: Path) -> Path:
    return make_impact_model(home / "tiny-unicoil", [1], head="tok_proj", prefix="coil_encoder.")


def sentence(length: int, seed: int = 0) -> str:
    """As many tokens; some words have two pieces."""
    rng, words = random.Random(f"{length} {seed}"), list[str]()
    while length > 0:
        pieces = min(length, rng.choice([1, 1, 2]))
        words.append(rng.choice(WORDS) + (f"x{rng.randrange(10)}" if pieces == 2 else ""))
        length -= pieces
    return " ".join(words)


def token_ids(text: str) -> list[int]:
    found = []
    for word in text.split():
        first, _, rest = word.partition("x")
        found += [IDS[first], *([IDS[f"##x{rest}"]] if rest else [])]
    return found


def row(vectors: SparseVectors, i: int = 0) -> Terms:
    terms, weights = vectors.row(i)
    assert (weights > 0).all()
    return dict(zip(terms.tolist(), weights.tolist(), strict=True))


def same(found: Terms, expected: Terms) -> None:
    expected = {term: weight for term, weight in expected.items() if weight > 0 and term >= len(SPECIAL)}
    assert found.keys() == expected.keys()
    for term, weight in expected.items():
        assert found[term] == pytest.approx(weight, abs=1e-5)


@cache
def language_model(folder: Path) -> Any:
    import transformers

    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(transformers, architecture).from_pretrained(folder).eval()


def saturate(x: float, activation: str) -> float:
    weight = math.log(1 + max(x, 0.0))
    return math.log(1 + weight) if activation == "log1p_relu" else weight


def straight(folder: Path, windows: list[list[int]], pooled: list[slice], pooling: str, activation: str) -> Terms:
    """One window after the other through the model, alone, without padding; then the definition, term by term."""
    import torch

    weights: Terms = defaultdict(float)
    for ids, places in zip(windows, pooled, strict=True):
        with torch.no_grad():
            logits = language_model(folder)(torch.tensor([ids])).logits[0].double().numpy()
        for token in logits[places]:
            for term, logit in enumerate(token):
                weight = saturate(logit, activation)
                weights[term] = max(weights[term], weight) if pooling == "max" else weights[term] + weight
    return weights


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "DistilBertForMaskedLM", "RobertaForMaskedLM"])
@pytest.mark.parametrize(("pooling", "activation"), [("max", "relu"), ("sum", "relu"), ("max", "log1p_relu")])
def test_windows_and_pooling_equal_straight_computation(home: Path, kind: str, pooling: Any, activation: Any) -> None:
    folder = home / kind
    if not folder.exists():
        make_model(folder, kind)
    encoder = SparseEncoder(
        folder, pooling=pooling, activation=activation, document_prompt="w1 w2 ", max_length=12, batch_tokens=40
    )
    texts = [sentence(n) for n in (0, 1, 5, 8, 9, 27, 3)]
    vectors = encoder.encode_documents(texts)
    assert len(vectors) == len(texts)
    for i, text in enumerate(texts):
        ids = token_ids(text)
        windows = [[2, *token_ids("w1 w2"), *ids[j : j + 8], 3] for j in range(0, max(len(ids), 1), 8)]
        same(row(vectors, i), straight(folder, windows, [slice(None)] * len(windows), pooling, activation))


def test_defaults_are_those_of_splade(tiny: Path) -> None:
    encoder = SparseEncoder(tiny)
    assert encoder.vocabulary == SIZES["vocab_size"]
    text = sentence(20)
    expected = straight(tiny, [[2, *token_ids(text), 3]], [slice(None)], "max", "relu")
    same(row(encoder.encode_documents([text])), expected)
    same(row(encoder.encode_queries([text])), expected)
    assert encoder.terms([5, 34, 35, SIZES["vocab_size"] - 1]) == ["w0", "w29", "##x0", ""]


def test_order_and_company_do_not_matter(tiny: Path) -> None:
    encoder = SparseEncoder(tiny, max_length=12, batch_tokens=64)
    texts = [sentence(n % 25, n) for n in range(50)]
    vectors, done = encoder.encode_documents(texts), list[int]()
    order = random.Random(1).sample(range(50), 50)
    shuffled = encoder.encode_documents([texts[i] for i in order], done.append)
    assert sum(done) == 50
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda text: encoder.encode_queries([text]), texts))
    for i, place in enumerate(order):
        assert row(shuffled, i) == pytest.approx(row(vectors, place), abs=1e-5)
        assert row(alone[place]) == pytest.approx(row(vectors, place), abs=1e-5)


async def test_no_texts_one_text_and_async(tiny: Path) -> None:
    encoder = SparseEncoder(tiny)
    assert len(encoder.encode_documents([])) == 0
    with pytest.raises(InputError, match=r"^texts: "):
        encoder.encode_queries("one text")
    assert row(await encoder.aencode_queries(["w1 w2"])) == row(encoder.encode_queries(["w1 w2"]))


def test_only_the_heaviest_terms_stay(tiny: Path) -> None:
    text = sentence(9)
    everything = row(SparseEncoder(tiny).encode_documents([text]))
    encoder = SparseEncoder(tiny, document_terms=7, query_terms=3)
    best = sorted(everything, key=lambda term: -everything[term])
    assert row(encoder.encode_documents([text])).keys() == set(best[:7])
    assert row(encoder.encode_queries([text])).keys() == set(best[:3])


def test_equal_weights_keep_the_lower_term(tiny: Path) -> None:
    encoder = SparseEncoder(tiny, query="binary", query_terms=2)
    assert row(encoder.encode_queries(["w9 w3 w7"])) == {IDS["w3"]: 1.0, IDS["w7"]: 1.0}


def test_literal_terms_gain_a_bonus(tiny: Path) -> None:
    text = sentence(25)
    expected = row(SparseEncoder(tiny, max_length=12).encode_documents([text]))
    for term in set(token_ids(text)):
        expected[term] = expected.get(term, 0.0) + 0.5
    same(row(SparseEncoder(tiny, max_length=12, literal=0.5).encode_documents([text])), expected)


def test_binary_and_idf_queries_read_no_network(tiny: Path, tmp_path: Path) -> None:
    assert row(SparseEncoder(tiny, query="binary").encode_queries(["w3 w1x2 w3 zzz"])) == {
        IDS["w3"]: 1.0,
        IDS["w1"]: 1.0,
        IDS["##x2"]: 1.0,
    }
    table = {"w3": 2.5, "##x2": 0.25, "[CLS]": 9.0, "[UNK]": 9.0, "w4": 0.0, "not a token": 1.0}
    for name, content in [
        ("idf.json", json.dumps(table)),
        ("query_token_weights.txt", "".join(f"{token}\t{weight}\n" for token, weight in table.items())),
    ]:
        folder = Path(shutil.copytree(tiny, tmp_path / name))
        (folder / name).write_text(content)
        encoder = SparseEncoder(folder)
        vectors = encoder.encode_queries(["w3 w1x2 w3 zzz w4", ""])
        assert row(vectors, 0) == {IDS["w3"]: 2.5, IDS["##x2"]: 0.25}
        assert row(vectors, 1) == {}
        assert not encoder._networks
        expected = row(SparseEncoder(tiny).encode_documents(["w3"]))
        assert row(encoder.encode_documents(["w3"])) == pytest.approx(expected)
        assert row(SparseEncoder(folder, query="document").encode_queries(["w3"])) == pytest.approx(expected)
    with pytest.raises(InputError, match=r"^query: .*idf\.json"):
        SparseEncoder(tiny, query="idf").encode_queries(["w1"])


def impacts(folder: Path, ids: list[int], relu_layers: list[str], prefix: str) -> np.ndarray:
    """Impact of every token of one window, from the tensors in the file."""
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    tensors = load_file(folder / "model.safetensors")
    network = BertModel(BertConfig(**SIZES))
    body = {k.removeprefix(f"{prefix}bert."): v for k, v in tensors.items() if k.startswith(f"{prefix}bert.")}
    network.load_state_dict(body)
    with torch.no_grad():
        states = network.eval()(torch.tensor([ids])).last_hidden_state[0].numpy()
    for name in relu_layers:
        states = np.maximum(states @ tensors[f"{name}.weight"].numpy().T + tensors[f"{name}.bias"].numpy(), 0)
    return states[:, 0]


def test_unicoil_takes_the_largest_impact_in_documents_and_the_sum_in_queries(unicoil: Path) -> None:
    encoder = SparseEncoder(unicoil, max_length=14, batch_tokens=60)
    texts = ["w1 w2 w1 w1x3", "", sentence(30, 3), "w5"]
    documents, queries = encoder.encode_documents(texts), encoder.encode_queries(texts)
    for i, text in enumerate(texts):
        ids, largest, total = token_ids(text), defaultdict[int, float](float), defaultdict[int, float](float)
        for at in range(0, len(ids), 12):
            window = ids[at : at + 12]
            weights = impacts(unicoil, [2, *window, 3], ["coil_encoder.tok_proj"], "coil_encoder.")[1:-1]
            for term, weight in zip(window, weights.tolist(), strict=True):
                largest[term] = max(largest[term], weight)
                total[term] += weight
        same(row(documents, i), largest)
        same(row(queries, i), total)
        assert (len(set(ids)) < len(ids)) == (total != largest)


@pytest.mark.parametrize("layers", [[1], [16, 1]])
def test_deep_impact_gives_a_word_the_impact_of_its_first_piece(home: Path, layers: list[int]) -> None:
    folder = make_impact_model(home / f"tiny-deep-impact-{len(layers)}", layers, head="impact_score_encoder")
    encoder = SparseEncoder(folder)
    texts = ["w1 w2x3 w1 w4x3", "w9"]
    vectors = encoder.encode_documents(texts)
    names = [f"impact_score_encoder.{3 * i}" for i in range(len(layers))]
    first = impacts(folder, [2, *token_ids(texts[0]), 3], names, "")[1:-1]
    w1, w2x3, w1_again, w4x3 = first[0], first[1], first[3], first[4]
    assert min(w1, w2x3, w1_again, w4x3) > 0
    same(
        row(vectors),
        {
            IDS["w1"]: max(w1, w1_again),
            IDS["w2"]: w2x3 / 2,
            IDS["w4"]: w4x3 / 2,
            IDS["##x3"]: max(w2x3, w4x3) / 2,
        },
    )
    query = row(encoder.encode_queries(["w2x3 w2x3"]))
    assert query == {IDS["w2"]: 1.0, IDS["##x3"]: 1.0}


@pytest.mark.parametrize("kind", ["MistralForCausalLM", "Qwen2ForCausalLM"])
def test_causal_models_read_twice_and_pool_the_repetition(home: Path, kind: str) -> None:
    folder = make_model(home / kind, kind)
    encoder = SparseEncoder(folder, document_prompt="w7 ", max_length=18, batch_tokens=50)
    texts = [sentence(n, 5) for n in (0, 1, 8, 20)]
    vectors = encoder.encode_documents(texts)
    for i, text in enumerate(texts):
        ids = token_ids(text)
        parts = [ids[j : j + 8] for j in range(0, max(len(ids), 1), 8)]
        windows = [[2, IDS["w7"], *part, *part] for part in parts]
        same(row(vectors, i), straight(folder, windows, [slice(2 + len(part), None) for part in parts], "max", "relu"))
    once = SparseEncoder(folder, echo=False).encode_documents(["w1 w2"])
    same(row(once), straight(folder, [[2, IDS["w1"], IDS["w2"]]], [slice(None)], "max", "relu"))


def test_queries_by_another_model_of_the_same_vocabulary(tiny: Path, unicoil: Path, home: Path) -> None:
    encoder = SparseEncoder(tiny, query_model=unicoil)
    assert row(encoder.encode_queries(["w1 w1"])) == row(SparseEncoder(unicoil).encode_queries(["w1 w1"]))
    assert row(encoder.encode_documents(["w1"])) == row(SparseEncoder(tiny).encode_documents(["w1"]))
    other = Path(shutil.copytree(tiny, home / "other-vocabulary"))
    file = other / "tokenizer.json"
    file.write_text(file.read_text().replace('"w29"', '"another"'))
    with pytest.raises(InputError, match=r"^query_model: .*vocabulary"):
        SparseEncoder(tiny, query_model=other).encode_queries(["w1"])


# against sentence-transformers, on folders that it has saved itself


def dense_rows(vectors: SparseVectors, width: int) -> np.ndarray:
    found = np.zeros((len(vectors), width), np.float32)
    for i in range(len(vectors)):
        terms, weights = vectors.row(i)
        found[i, terms] = weights
    return found


def theirs(model: Any, texts: list[str], side: str) -> np.ndarray:
    found: np.ndarray = getattr(model, f"encode_{side}")(texts).to_dense().numpy()
    found[:, : len(SPECIAL)] = 0
    return found


@pytest.mark.parametrize(("pooling", "activation"), [("max", "relu"), ("sum", "relu"), ("max", "log1p_relu")])
def test_splade_pooling_equals_sentence_transformers(tiny: Path, tmp_path: Path, pooling: Any, activation: Any) -> None:
    st = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sparse_encoder.modules")
    transformer = modules.Transformer(str(tiny), transformer_task="fill-mask")
    model = st.SparseEncoder(
        modules=[transformer, modules.SpladePooling(pooling, activation_function=activation)],
        prompts={"query": "w3 ", "document": "w1 w2 "},
        device="cpu",
    )
    model.save_pretrained(str(tmp_path / "model"))
    texts = [sentence(n) for n in (1, 4, 9, 25)]
    ours = SparseEncoder(tmp_path / "model")
    for side, found in (("document", ours.encode_documents(texts)), ("query", ours.encode_queries(texts))):
        expected = theirs(model, texts, side)
        np.testing.assert_allclose(dense_rows(found, expected.shape[1]), expected, atol=1e-5)
    overridden = SparseEncoder(tmp_path / "model", pooling="max", activation="relu", document_prompt="")
    assert row(overridden.encode_documents(texts)) == pytest.approx(row(SparseEncoder(tiny).encode_documents(texts)), abs=1e-5)


def test_router_with_static_queries_equals_sentence_transformers(tiny: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    st = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sparse_encoder.modules")
    transformer = modules.Transformer(str(tiny), transformer_task="fill-mask")
    static = modules.SparseStaticEmbedding(tokenizer=transformer.tokenizer, weight=torch.rand(len(TOKENS)), frozen=True)
    router = modules.Router.for_query_document(
        query_modules=[static], document_modules=[transformer, modules.SpladePooling("max", activation_function="log1p_relu")]
    )
    model = st.SparseEncoder(modules=[router], similarity_fn_name="dot", device="cpu", max_active_dims=12)
    model.save_pretrained(str(tmp_path / "model"))
    texts = [sentence(n) for n in (1, 4, 9, 25)]
    ours = SparseEncoder(tmp_path / "model", document_terms=100)
    model.max_active_dims = None
    expected = theirs(model, texts, "document")
    np.testing.assert_allclose(dense_rows(ours.encode_documents(texts), expected.shape[1]), expected, atol=1e-5)
    expected = theirs(model, ["w3 w1x2 w3", "zzz", ""], "query")
    np.testing.assert_allclose(dense_rows(ours.encode_queries(["w3 w1x2 w3", "zzz", ""]), expected.shape[1]), expected, atol=1e-5)
    assert ours.fingerprint["query"]["terms"] == 12
    # the layout of published models: the document side lies in the root, its key is the empty string
    root = tmp_path / "published"
    shutil.copytree(tmp_path / "model" / "document_0_Transformer", root)
    for name in (
        "modules.json",
        "config_sentence_transformers.json",
        "query_0_SparseStaticEmbedding",
        "document_1_SpladePooling",
    ):
        place = tmp_path / "model" / name
        (shutil.copytree if place.is_dir() else shutil.copy)(place, root / name)
    settings = (tmp_path / "model" / "router_config.json").read_text()
    (root / "router_config.json").write_text(settings.replace('"document_0_Transformer"', '""'))
    moved = SparseEncoder(root, document_terms=100)
    for found, known in [
        (moved.encode_documents(texts), ours.encode_documents(texts)),
        (moved.encode_queries(texts), ours.encode_queries(texts)),
    ]:
        assert [row(found, i) for i in range(4)] == [pytest.approx(row(known, i)) for i in range(4)]


# what is refused


def weights_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def with_weights(source: Path, folder: Path, **changes: Any) -> Path:
    """A copy in which tensors are changed, or dropped for None; dots in names are double underscores."""
    from safetensors.torch import save_file

    shutil.copytree(source, folder)
    tensors = weights_of(folder) | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file({k: v for k, v in tensors.items() if v is not None}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_missing_or_wrong_heads_are_refused(tiny: Path, unicoil: Path, tmp_path: Path) -> None:
    import torch

    for n, (source, change, message) in enumerate(
        [
            (tiny, {"cls__predictions__transform__dense__weight": None}, "lack 1 tensors.*transform"),
            (tiny, {"cls__predictions__bias": torch.zeros(7)}, "cannot be loaded"),
            (unicoil, {"coil_encoder__tok_proj__bias": None}, r"lack tok_proj\.bias"),
            (unicoil, {"coil_encoder__tok_proj__weight": torch.zeros(1, 5)}, r"shape \(1, 5\)"),
            (
                unicoil,
                {"coil_encoder__tok_proj__weight": torch.zeros(2, 16), "coil_encoder__tok_proj__bias": torch.zeros(2)},
                "gives 2",
            ),
            (unicoil, {"coil_encoder__bert__encoder__layer__0__output__dense__weight": None}, "lack 1 tensors"),
            (unicoil, {"coil_encoder__bert__extra__weight": torch.zeros(2)}, "beyond the network"),
        ]
    ):
        folder = with_weights(source, tmp_path / str(n), **change)
        with pytest.raises(RagkitError, match=f"^model: .*{message}"):
            SparseEncoder(folder).encode_documents(["w1"])


def test_other_models_are_refused(home: Path, tiny: Path, tmp_path: Path) -> None:
    plain = make_model(tmp_path / "plain", "BertModel")
    with pytest.raises(InputError, match=r"^model: plain is BertModel, .*ForMaskedLM"):
        SparseEncoder(plain).encode_documents(["w1"])
    pickled = Path(shutil.copytree(tiny, tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"^model: .*model\.safetensors"):
        SparseEncoder(pickled).encode_documents(["w1"])
    dense = Path(shutil.copytree(tiny, tmp_path / "dense"))
    kinds = ["Transformer", "Pooling"]
    (dense / "modules.json").write_text(json.dumps([{"path": "", "type": f"sentence_transformers.models.{x}"} for x in kinds]))
    with pytest.raises(InputError, match=r"^model: dense consists of Transformer \+ Pooling"):
        SparseEncoder(dense).encode_documents(["w1"])
    kinds = ["Transformer", "SpladePooling"]
    (dense / "modules.json").write_text(json.dumps([{"path": "", "type": f"sentence_transformers.models.{x}"} for x in kinds]))
    with pytest.raises(InputError, match=r"^model: .*'feature-extraction'"):
        SparseEncoder(dense).encode_documents(["w1"])
    (dense / "modules.json").write_text('[{"path": "", "type": "MLMTransformer"}, {"path": "1", "type": "SpladePooling"}]')
    (dense / "1").mkdir()
    (dense / "1" / "config.json").write_text('{"pooling_strategy": "mean"}')
    with pytest.raises(InputError, match=r"^model: .*mean of relu"):
        SparseEncoder(dense).encode_documents(["w1"])
    (dense / "1" / "config.json").write_text('{"pooling_strategy": "sum"}')
    assert SparseEncoder(dense).fingerprint["document"]["pooling"] == "sum"
    (dense / "config_sentence_transformers.json").write_text('{"similarity_fn_name": "cosine"}')
    with pytest.raises(InputError, match=r"^model: .*cosine"):
        SparseEncoder(dense).encode_documents(["w1"])
    with pytest.raises(InputError, match=r"^model: "):
        SparseEncoder(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("idf.json", '{"a": 1.0, "b": 2.0, "w1": 1.0}', "only 1"),
        ("idf.json", '{"w1": -1.0}', "negative"),
        ("idf.json", '{"w1": NaN}', "not finite"),
        ("idf.json", "[1]", "cannot be read"),
        ("query_token_weights.txt", "w1 2.0\n", "cannot be read|only 0"),
    ],
)
def test_wrong_tables_are_refused(tiny: Path, tmp_path: Path, name: str, content: str, message: str) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    (folder / name).write_text(content)
    with pytest.raises(RagkitError, match=f"^model: .*({message})"):
        SparseEncoder(folder).encode_queries(["w1"])


def test_wrong_settings_are_named(tiny: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"query": "same"}, "query"),
        ({"pooling": "mean"}, "pooling"),
        ({"activation": "gelu"}, "activation"),
        ({"document_terms": 0}, "document_terms"),
        ({"query_terms": 0}, "query_terms"),
        ({"max_length": 0}, "max_length"),
        ({"batch_tokens": 0}, "batch_tokens"),
        ({"literal": -1.0}, "literal"),
        ({"query": "binary", "query_model": tiny}, "query"),
        ({"max_length": 35}, "max_length"),
    ]
    for options, field in wrong:
        with pytest.raises(InputError, match=re.escape(f"{field}: ")):
            SparseEncoder(tiny, **options).encode_documents(["w1"])
    with pytest.raises(InputError, match=r"^max_length: .*no room"):
        SparseEncoder(tiny, max_length=2).encode_documents(["w1"])


def test_fingerprint_follows_what_matters(tiny: Path, unicoil: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(tiny, tmp_path / "elsewhere" / tiny.name))
    facts = SparseEncoder(tiny).fingerprint
    assert json.loads(json.dumps(facts)) == facts
    assert SparseEncoder(moved).fingerprint == facts
    assert SparseEncoder(tiny, batch_tokens=1).fingerprint == facts
    others: list[dict[str, Any]] = [
        {"query": "binary"},
        {"query_model": unicoil},
        {"pooling": "sum"},
        {"activation": "log1p_relu"},
        {"echo": True},
        {"literal": 0.5},
        {"document_terms": 5},
        {"query_terms": 5},
        {"document_prompt": "x"},
        {"query_prompt": "x"},
        {"max_length": 9},
    ]
    assert len({json.dumps(SparseEncoder(tiny, **options).fingerprint) for options in others} | {json.dumps(facts)}) == 12
    (moved / "idf.json").write_text('{"w1": 1.0}')
    first = SparseEncoder(moved).fingerprint
    (moved / "idf.json").write_text('{"w1": 2.0}')
    assert facts != first != SparseEncoder(moved).fingerprint


def test_what_may_be_given_as_an_encoder(tiny: Path, make_encoder: Any) -> None:
    encoder = SparseEncoder(tiny)
    assert as_sparse_encoder(encoder) is encoder
    assert repr(as_sparse_encoder(tiny)) == repr(encoder)
    for wrong in (None, 3, make_encoder()):
        with pytest.raises(InputError, match=r"^encoder: .*SparseEncoder"):
            as_sparse_encoder(wrong)
