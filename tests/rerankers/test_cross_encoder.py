"""The cross-encoder against one pair at a time through transformers' own classes, on tiny random models of several families."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document

from ragkit import CascadeReranker, CrossEncoderReranker, InputError, provenance
from ragkit.errors import RagkitError
from ragkit.rerankers.pair_model import PairModel

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = [f"w{i}" for i in range(120)]
POSITIONS = 40
BERT_LIKE = (["[PAD]", "[UNK]", "[CLS]", "[SEP]"], "[CLS] $A [SEP] $B:1 [SEP]:1")
ROBERTA_LIKE = (["<s>", "<pad>", "</s>", "<unk>"], "<s> $A </s> </s> $B </s>")
DECODER_LIKE = (["<unk>", "<s>", "</s>", "<pad>"], "$A </s> $B </s>")
# family: prefix of the classes, special tokens with the template, and the most tokens that the model takes
FAMILIES: dict[str, tuple[str, tuple[list[str], str], int]] = {
    "bert": ("Bert", BERT_LIKE, POSITIONS),
    "electra": ("Electra", BERT_LIKE, POSITIONS),
    "roberta": ("Roberta", ROBERTA_LIKE, POSITIONS - 2),
    "xlm-roberta": ("XLMRoberta", ROBERTA_LIKE, POSITIONS - 2),
    "camembert": ("Camembert", ROBERTA_LIKE, POSITIONS - 2),
    "mpnet": ("MPNet", ROBERTA_LIKE, POSITIONS - 2),
    "deberta": ("DebertaV2", BERT_LIKE, POSITIONS),
    "modernbert": ("ModernBert", BERT_LIKE, POSITIONS),
    "qwen2": ("Qwen2", DECODER_LIKE, POSITIONS),
}


def make_model(folder: Path, family: str, *, labels: int = 1, head: str = "ForSequenceClassification") -> Path:
    """A random model with a word-level vocabulary; its weights are large enough to tell pairs apart."""
    import torch
    import transformers

    prefix, (specials, _), _ = FAMILIES[family]
    pad = next(i for i, token in enumerate(specials) if "pad" in token.lower())
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    if family == "deberta":
        shape |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0, "pooler_hidden_size": 16}
    if family == "modernbert":
        shape |= {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    if family == "qwen2":
        shape |= {"num_key_value_heads": 1}
    torch.manual_seed(len(family))
    config = getattr(transformers, f"{prefix}Config")(
        vocab_size=300,
        max_position_embeddings=POSITIONS,
        pad_token_id=pad,
        num_labels=labels,
        **shape,
    )
    network = getattr(transformers, prefix + head)(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    network.save_pretrained(folder)
    save_tokenizer(folder, family)
    return folder


def save_tokenizer(folder: Path, family: str) -> None:
    import tokenizers

    _, (specials, template), _ = FAMILIES[family]
    vocabulary = {token: i for i, token in enumerate([*specials, *WORDS])}
    unknown = next(token for token in specials if "unk" in token.lower())
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unknown))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=template.split(" $B")[0], pair=template, special_tokens=list(vocabulary.items())[: len(specials)]
    )
    # as many published files do: these settings must not matter
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if ":1" in template else [])]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": unknown, "model_input_names": names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("models")
    return cache(lambda family, labels=1: make_model(root / f"{family}-{labels}", family, labels=labels))


@cache
def reference(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

    # for a decoder AutoTokenizer puts the family's own way of cutting words in place of what the file says
    kind = PreTrainedTokenizerFast if folder.name.startswith("qwen") else AutoTokenizer
    return AutoModelForSequenceClassification.from_pretrained(folder).eval(), kind.from_pretrained(folder)


def straight(folder: Path, question: str, passage: str) -> np.ndarray:
    """The outputs for one pair that fits: no batch, no padding, no truncation."""
    import torch

    network, tokenizer = reference(folder)
    inputs = tokenizer([question], [passage], return_tensors="pt", truncation=False, padding=False)
    if folder.name.startswith("modernbert"):
        inputs.pop("token_type_ids")
    assert inputs["input_ids"].shape[1] <= POSITIONS
    with torch.no_grad():
        outputs: np.ndarray = network(**inputs).logits[0].double().numpy()
    return outputs


def text(length: int, seed: Any) -> str:
    return " ".join(random.Random(str(seed)).choices(WORDS, k=length))


def documents(texts: Sequence[str]) -> list[Document]:
    return [Document(id=str(i), page_content=passage) for i, passage in enumerate(texts)]


def scores(reranker: CrossEncoderReranker, question: str, passages: Sequence[str]) -> np.ndarray:
    """Scores in the order of the passages."""
    by_id = {document.id: document.metadata["relevance_score"] for document in reranker.invoke(pair(question, passages))}
    return np.array([by_id[str(i)] for i in range(len(passages))])


def pair(question: str, passages: Sequence[str]) -> Any:
    return {"documents": documents(passages), "query": question}


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_models_own(models: Any, family: str) -> None:
    folder = models(family)
    question = text(5, "question")
    passages = [text(n, n) for n in (1, 3, 8, 20, 28, 2)] + ["", "unheard of w3"]
    expected = np.array([straight(folder, question, passage)[0] for passage in passages])
    assert np.ptp(expected) > 0.05
    found = scores(CrossEncoderReranker(model=folder, activation="raw"), question, passages)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    found = scores(CrossEncoderReranker(model=str(folder)), question, passages)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-expected)), atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_two_outputs_are_log_odds(models: Any, family: str) -> None:
    folder = models(family, 2)
    question, passages = text(4, "q"), [text(n, n) for n in (1, 9, 30)]
    outputs = np.array([straight(folder, question, passage) for passage in passages])
    found = scores(CrossEncoderReranker(model=folder, activation="raw"), question, passages)
    np.testing.assert_allclose(found, outputs[:, 1] - outputs[:, 0], atol=1e-4)
    found = scores(CrossEncoderReranker(model=folder), question, passages)
    np.testing.assert_allclose(found, np.exp(outputs[:, 1]) / np.exp(outputs).sum(1), atol=1e-4)


@pytest.mark.parametrize("labels", [1, 2])
def test_a_device_without_float64_will_do(models: Any, without_float64: Any, labels: int) -> None:
    model = PairModel(models("bert", labels))
    windows, _ = model.windows([("w1 w2", "w3"), ("w4", "w5 w6")])
    expected = model.logits(windows)
    model._network.register_forward_hook(lambda _, inputs, outputs: type(outputs)(logits=without_float64(outputs.logits)))
    found = model.logits(windows)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "qwen2"])
@pytest.mark.parametrize("max_length", [None, 16])
def test_a_long_passage_has_the_score_of_its_best_window(models: Any, family: str, max_length: int | None) -> None:
    folder, longest = models(family), max_length or FAMILIES[family][2]
    question, passages = text(4, "q"), [text(1, "short"), " ".join(WORDS), text(75, "long")]
    windows, owners = PairModel(folder, max_length).windows([(question, passage) for passage in passages])
    specials = FAMILIES[family][1][0]
    parts = []
    for window, owner in zip(windows, owners, strict=True):
        words = [token for token in window.tokens if token not in specials]
        assert len(window.ids) <= longest
        assert words[:4] == question.split()
        parts.append((owner, words[4:]))
    # every word is in a window, and neighbouring windows overlap
    for owner, passage in enumerate(passages):
        covered: list[str] = []
        for count, part in enumerate(part for its_owner, part in parts if its_owner == owner):
            overlap = next((n for n in range(1, len(part) + 1) if covered[-n:] == part[:n]), 0)
            assert overlap or not count
            covered += part[overlap:]
        assert covered == passage.split()
    best = [max(straight(folder, question, " ".join(part))[0] for o, part in parts if o == owner) for owner in range(3)]
    assert sum(owner == 1 for owner in owners) > 3
    reranker = CrossEncoderReranker(model=folder, activation="raw", max_length=max_length)
    np.testing.assert_allclose(scores(reranker, question, passages), best, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_longest_input_is_what_the_model_takes(models: Any, family: str) -> None:
    folder, longest = models(family), FAMILIES[family][2]
    passages = [" ".join(WORDS)]
    full = CrossEncoderReranker(model=folder, activation="raw", max_length=longest)
    assert scores(full, "w1", passages) == scores(CrossEncoderReranker(model=folder, activation="raw"), "w1", passages)
    with pytest.raises(InputError, match=rf"max_length: {family}-1 takes at most {longest} tokens, not {longest + 1}"):
        scores(CrossEncoderReranker(model=folder, max_length=longest + 1), "w1", passages)


def test_without_position_embeddings_any_length_goes(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForSequenceClassification

    shape = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=4 + len(WORDS), pad_token_id=1, eos_token_id=2, decoder_start_token_id=1, num_labels=1, **shape)
    T5ForSequenceClassification(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, "roberta")
    model = PairModel(tmp_path, 900)
    windows, _ = model.windows([(text(3, 1), text(850, 2))])
    assert len(windows) == 1
    assert model.logits(windows).shape == (1,)


def test_a_long_question_is_cut_with_a_warning(models: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder = models("bert")
    question, passages = text(30, "long question"), [text(n, n) for n in (3, 19)]
    reranker = CrossEncoderReranker(model=folder, activation="raw")
    with caplog.at_level(logging.WARNING):
        found = scores(reranker, question, passages)
    # three of the forty tokens are special, so the question may have eighteen
    short = " ".join(question.split()[:18])
    np.testing.assert_allclose(found, [straight(folder, short, passage)[0] for passage in passages], atol=1e-4)
    assert [record.getMessage() for record in caplog.records] == ["question of 30 tokens cut to 18 for reranking"]
    caplog.clear()
    scores(reranker, text(18, "fits"), passages)
    assert not caplog.records


def test_a_cut_question_does_not_end_in_a_token_of_white_space(tmp_path: Path) -> None:
    import tokenizers

    make_model(tmp_path, "bert")
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *alphabet])}
    tokenizer.model = tokenizers.models.BPE({**vocabulary, "Ġa": 270}, [("Ġ", "a")])
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    # as RoBERTa's does: the space before a word belongs to its token, but not to its offsets
    trim = tokenizers.processors.ByteLevel(trim_offsets=True)
    tokenizer.post_processor = tokenizers.processors.Sequence([trim, tokenizer.post_processor])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (window, *_), _ = PairModel(tmp_path).windows([("a" + " a" * 30, "b")])
    question = [token for token, kind in zip(window.tokens, window.type_ids, strict=True) if kind == 0][1:-1]
    assert question == ["a"] + ["Ġa"] * 17


@pytest.mark.parametrize("family", ["bert", "roberta", "qwen2"])
def test_batches_change_no_score(models: Any, family: str) -> None:
    folder = models(family)
    questions = [text(n, f"q{n}") for n in (1, 6, 12)]
    inputs = [
        pair(question, [text(3 * n, (question, n)) for n in range(count)])
        for question, count in zip(questions, (5, 0, 8), strict=True)
    ]
    results = []
    for batch_tokens in (8, 64, 100_000):
        reranker = CrossEncoderReranker(model=folder, activation="raw", batch_tokens=batch_tokens)
        results += [reranker.batch(inputs), [reranker.invoke(value) for value in inputs]]
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            assert [document.id for document in one] == [document.id for document in other]
            ours, theirs = ([d.metadata["relevance_score"] for d in found] for found in (one, other))
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_many_pairs_are_tokenized_in_portions(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    value = pair(text(3, "q"), [text(n % 50, n) for n in range(40)])
    whole = CrossEncoderReranker(model=models("bert")).invoke(value)
    monkeypatch.setattr("ragkit.rerankers.cross_encoder._CHUNK", 7)
    portions = CrossEncoderReranker(model=models("bert")).invoke(value)
    assert [document.id for document in whole] == [document.id for document in portions]


def test_threads_may_share_a_model(models: Any) -> None:
    model = PairModel(models("bert"), 20)
    inputs = [[(text(n % 20, (n, i)), text(30 * i, n)) for i in range(4)] for n in range(40)] * 5

    def ids(pairs: list[tuple[str, str]]) -> list[list[int]]:
        return [window.ids for window in model.windows(pairs)[0]]

    expected = [ids(pairs) for pairs in inputs]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ids, inputs)) == expected


def test_a_pruned_passage_is_judged_whole(models: Any) -> None:
    from ragkit.documents.provenance import Provenance, with_provenance

    whole = text(12, "whole")
    pruned = with_provenance(Document(id="0", page_content=whole[:2]), Provenance(), passage=whole, spans=((0, 2),))
    reranker = CrossEncoderReranker(model=models("bert"))
    (document,) = reranker.compress_documents([pruned], "w5")
    assert document.metadata["relevance_score"] == pytest.approx(scores(reranker, "w5", [whole])[0])
    assert document.page_content == whole[:2]
    assert provenance(document).spans == ((0, 2),)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_model_that_gives_nan_leaves_the_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    network = AutoModelForSequenceClassification.from_pretrained(make_model(tmp_path, "bert"))
    with torch.no_grad():
        network.classifier.bias.fill_(torch.nan)
    network.save_pretrained(tmp_path)
    found = CrossEncoderReranker(model=tmp_path).invoke(pair("w1", ["w2", "w3", " ".join(WORDS)]))
    assert [document.id for document in found] == ["0", "1", "2"]
    assert "CrossEncoderReranker did not give one finite score" in caplog.text


def test_more_than_two_outputs_are_refused(models: Any) -> None:
    with pytest.raises(InputError, match="bert-3 has 3 outputs; a cross-encoder has one or two"):
        CrossEncoderReranker(model=models("bert", 3)).invoke(pair("q", ["text"]))


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "encoder", "bert", head="Model")
    with pytest.raises(RagkitError, match=r"lack .* tensors of the network"):
        CrossEncoderReranker(model=folder).invoke(pair("q", ["text"]))


def test_what_cannot_be_loaded_is_named(models: Any, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(InputError, match="missing is neither an existing folder nor"):
        CrossEncoderReranker(model=str(missing)).invoke(pair("q", ["text"]))
    with pytest.raises(InputError, match="missing is neither an existing folder nor"):
        CrossEncoderReranker(model=missing).invoke(pair("q", ["text"]))
    with pytest.raises(InputError, match=r"holds no config\.json"):
        CrossEncoderReranker(model=tmp_path).invoke(pair("q", ["text"]))
    with pytest.raises(RagkitError, match="model: ragkit-tests/no-such-model is not in the local cache"):
        CrossEncoderReranker(model="ragkit-tests/no-such-model").invoke(pair("q", ["text"]))
    (tmp_path / "config.json").write_bytes((models("bert") / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights that must not be unpickled")
    with pytest.raises(RagkitError, match="cannot be loaded from safetensors"):
        CrossEncoderReranker(model=tmp_path).invoke(pair("q", ["text"]))


def test_nothing_is_loaded_for_no_documents(tmp_path: Path) -> None:
    assert CrossEncoderReranker(model=tmp_path / "missing").batch([{"documents": [], "query": "q"}]) == [[]]


def test_a_cascade_loads_its_weights_once(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []

    class Counted(PairModel):
        def __init__(self, folder: Path, *rest: Any) -> None:
            loaded.append(folder)
            super().__init__(folder, *rest)

    monkeypatch.setattr("ragkit.rerankers.pair_model.PairModel", Counted)
    reranker = CrossEncoderReranker(model=models("bert"))
    cascade = CascadeReranker(stages=[reranker])
    first, second = (cascade.invoke(pair("w1", ["w2", "w3"])) for _ in range(2))
    assert first == second
    assert loaded == [models("bert")]
    reranker.model_copy(update={"model": models("electra")}).invoke(pair("w1", ["w2"]))
    assert loaded == [models("bert"), models("electra")]
