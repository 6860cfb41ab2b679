"""The local model against one prompt at a time through transformers' own classes, on tiny random models of several families."""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from ragkit.encoders.folder import locate
from ragkit.errors import InputError, RagkitError
from ragkit.llms.adapt import as_llm
from ragkit.llms.base import LLM, Cost, ScoresText
from ragkit.llms.local import LocalLLM

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = [f"w{i}" for i in range(60)]
SPECIALS = ["<unk>", "<s>", "</s>", "<pad>", "<user>"]
POSITIONS = 64
FAMILIES = ("gpt2", "llama", "mistral", "bloom", "t5", "bart")
SEQ2SEQ = ("t5", "bart")
TEMPLATE = "{% for m in messages %}<user> {{ m.role }} {{ m.content }} {% endfor %}{% if add_generation_prompt %}<s>{% endif %}"
LABELS = [["w1", "w2"], ["w3 w4", "w3 w5 w6", "w7"], ["w8 w9 w10 w11"]]


def make_model(folder: Path, family: str, *, template: str | None = None) -> Path:
    """A random model with a word-level vocabulary; its weights are large enough to tell prompts apart."""
    import torch
    import transformers

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    shapes: dict[str, tuple[str, dict[str, Any]]] = {
        "gpt2": ("GPT2LMHeadModel", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS}),
        "llama": ("LlamaForCausalLM", {**small, "num_key_value_heads": 1, "max_position_embeddings": POSITIONS}),
        "mistral": ("MistralForCausalLM", {**small, "num_key_value_heads": 1, "sliding_window": 8}),
        "bloom": ("BloomForCausalLM", {"hidden_size": 16, "n_layer": 2, "n_head": 2}),
        "t5": ("T5ForConditionalGeneration", {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}),
        "bart": (
            "BartForConditionalGeneration",
            {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
            | {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": POSITIONS, "forced_eos_token_id": None},
        ),
    }
    kind, shape = shapes[family]
    architecture = getattr(transformers, kind)
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    if family in SEQ2SEQ:
        tokens["decoder_start_token_id"] = 3
    torch.manual_seed(len(family))
    network = architecture(architecture.config_class(vocab_size=len(SPECIALS) + len(WORDS), **shape, **tokens))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    network.save_pretrained(folder)
    save_tokenizer(folder, family, template)
    return folder


def save_tokenizer(folder: Path, family: str, template: str | None) -> None:
    import tokenizers

    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "<unk>"))
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    single = "$A </s>" if family in SEQ2SEQ else "<s> $A"
    special = [("<s>", 1), ("</s>", 2)]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single=single, special_tokens=special)
    tokenizer.enable_truncation(7)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("models")
    return cache(lambda family, template=None: make_model(root / f"{family}-{len(template or '')}", family, template=template))


def test_chat_templates_of_the_hub_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import filter_repo_objects

    files = [
        "config.json",
        "tokenizer.model",
        "model.safetensors",
        "chat_template.jinja",
        "additional_chat_templates/tools.jinja",
    ]

    def fetch(name: str, allow_patterns: list[str]) -> str:
        assert name == "someone/something"
        assert list(filter_repo_objects([*files, "model.bin", "code.py"], allow_patterns=allow_patterns)) == files
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert locate("someone/something") == tmp_path


@cache
def reference(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind = AutoModelForSeq2SeqLM if folder.name.split("-")[0] in SEQ2SEQ else AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype="float32").eval()


def ids(text: str) -> list[int]:
    return [{token: i for i, token in enumerate([*SPECIALS, *WORDS])}.get(word, 0) for word in text.split()]


def straight(folder: Path, prompt: list[int], continuation: list[int]) -> float:
    """The log-probability of a continuation: one pass, no batch, no cache, no padding."""
    import torch

    network = reference(folder)
    with torch.no_grad():
        if network.config.is_encoder_decoder:
            decoder = torch.tensor([[3, *continuation[:-1]]])
            logits = network(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder).logits[0]
        else:
            logits = network(input_ids=torch.tensor([[*prompt, *continuation]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    table = torch.log_softmax(logits.double(), -1)
    return float(sum(table[i, token] for i, token in enumerate(continuation)))


def greedy(folder: Path, prompt: list[int], limit: int) -> list[int]:
    import torch

    written = reference(folder).generate(
        input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False, max_new_tokens=limit, pad_token_id=3,
    )  # fmt: skip
    tokens: list[int] = written[0].tolist()
    return tokens[1:] if reference(folder).config.is_encoder_decoder else tokens[len(prompt) :]


def rendered(folder: Path, text: str) -> list[int]:
    return [*ids(text), 2] if folder.name.split("-")[0] in SEQ2SEQ else [1, *ids(text)]


def words(length: int, seed: Any) -> str:
    return " ".join(random.Random(str(seed)).choices(WORDS, k=length))


def texts() -> list[str]:
    """Prompts of different lengths: some begin with the same twenty words, two are equal, and one is the beginning itself."""
    shared = words(20, "shared")
    return [f"{shared} {words(n, n)}" for n in (1, 4, 9, 17, 4)] + [words(n, n) for n in (1, 5, 30)] + [shared, "w1 strange w2"]


def user(text: str) -> list[BaseMessage]:
    return [HumanMessage(text)]


@pytest.mark.parametrize("batch_tokens", [1, 120, 100_000])
@pytest.mark.parametrize("family", FAMILIES)
def test_labels_have_the_probabilities_of_a_plain_pass(models: Any, family: str, batch_tokens: int) -> None:
    folder, prompts = models(family), texts()
    labels = [LABELS[i % 3] for i in range(len(prompts))]
    expected = [
        [straight(folder, rendered(folder, prompt), ids(label)) for label in its]
        for prompt, its in zip(prompts, labels, strict=True)
    ]
    assert np.ptp([value for its in expected for value in its]) > 0.5
    found = LocalLLM(folder, batch_tokens=batch_tokens).score_labels([user(prompt) for prompt in prompts], labels)
    for prompt, its, scores, answer in zip(prompts, labels, expected, found, strict=True):
        assert not isinstance(answer, Exception)
        np.testing.assert_allclose(answer.scores, scores, atol=1e-4)
        places = 1 + sum(len(label.split()) - 1 for label in its)
        assert answer.cost == Cost(1, len(prompt.split()) + 1, places)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_prompts_that_begin_alike_are_read_once(models: Any, family: str) -> None:
    """All prompts in one pass share twenty tokens; the network must see them once, and the scores must not change."""
    folder = models(family)
    prompts = texts()[:5]
    llm = LocalLLM(folder)
    llm.score_labels([user("w1")], [["w1"]])
    network, seen = llm._loaded.reader.network, []  # type: ignore[union-attr]
    part = network.get_encoder() if family == "t5" else network
    handle = part.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"].numel()), with_kwargs=True)
    found = llm.score_labels([user(prompt) for prompt in prompts], [["w1", "w2"]] * 5)
    handle.remove()
    longest = max(len(rendered(folder, prompt)) for prompt in prompts)
    assert seen == ([5 * longest] if family == "t5" else [21, 5 * (longest - 21)])
    for prompt, answer in zip(prompts, found, strict=True):
        np.testing.assert_allclose(
            answer.scores, [straight(folder, rendered(folder, prompt), ids(label)) for label in ("w1", "w2")], atol=1e-4
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_query_likelihood_is_the_sum_over_the_question(models: Any, family: str) -> None:
    folder, prompts = models(family), texts()
    questions = [words(1 + i % 6, f"question {i}") for i in range(len(prompts))]
    found = LocalLLM(folder, batch_tokens=200).query_likelihood([user(prompt) for prompt in prompts], questions)
    for prompt, question, answer in zip(prompts, questions, found, strict=True):
        assert not isinstance(answer, Exception)
        assert answer.score == pytest.approx(straight(folder, rendered(folder, prompt), ids(question)), abs=1e-4)
        assert answer.cost == Cost(1, len(prompt.split()) + 1, len(question.split()))


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_those_written_one_by_one(models: Any, family: str) -> None:
    folder, prompts = models(family), texts()
    answers = [greedy(folder, rendered(folder, prompt), 12) for prompt in prompts]
    found = LocalLLM(folder, max_new_tokens=12).generate([user(prompt) for prompt in prompts])
    for prompt, answer, completion in zip(prompts, answers, found, strict=True):
        assert not isinstance(completion, Exception)
        assert completion.text.split() == [WORDS[token - 5] for token in answer if token >= 5]
        assert completion.cost == Cost(1, len(prompt.split()) + 1, len(answer))
    assert len({completion.text for completion in found}) > 1


def test_an_answer_ends_with_its_last_token(models: Any, tmp_path: Path) -> None:
    """Answers of one batch may be of different lengths: those that are finished wait."""
    folder = models("llama")
    prompts = texts()
    written = [greedy(folder, rendered(folder, prompt), 12) for prompt in prompts]
    end = written[0][3]
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": [2, end]}))
    found = LocalLLM(tmp_path, max_new_tokens=12).generate([user(prompt) for prompt in prompts])
    expected = [tokens.index(end) + 1 if end in tokens else 12 for tokens in written]
    assert [answer.cost.completion_tokens for answer in found] == expected
    assert len(set(expected)) > 1


def test_prompts_go_through_the_chat_template(models: Any) -> None:
    folder = models("llama", TEMPLATE)
    prompt = [SystemMessage("w1 w2"), HumanMessage("w3")]
    tokens = ids("<user> system w1 w2 <user> user w3 <s>")
    (found,) = LocalLLM(folder).score_labels([prompt], [["w4", "w5 w6"]])
    np.testing.assert_allclose(found.scores, [straight(folder, tokens, ids(label)) for label in ("w4", "w5 w6")], atol=1e-4)
    assert found.cost.prompt_tokens == len(tokens)
    (found,) = LocalLLM(folder).score_labels([[HumanMessage("w3"), AIMessage("w7 w8")]], [["w4"]])
    begun = ids("<user> user w3 <user> assistant w7 w8")
    assert found.scores[0] == pytest.approx(straight(folder, begun, ids("w4")), abs=1e-4)


def test_a_template_without_a_system_message_gets_it_with_the_users(models: Any) -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
    folder = models("llama", strict)
    (found,) = LocalLLM(folder).score_labels([[SystemMessage("w1 w2"), HumanMessage("w3")]], [["w4"]])
    assert found.scores[0] == pytest.approx(straight(folder, ids("<user> user w1 w2 w3 <s>"), ids("w4")), abs=1e-4)


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_special_tokens_in_a_passage_are_mere_text(models: Any, template: str | None) -> None:
    folder = models("llama", template)
    read = LocalLLM(folder)._load().renderer.prompt(user("w1 </s> w2 <s> w3 <user> system")).ids
    assert 2 not in read
    assert read.count(1) == 1
    assert read.count(4) == (template is not None)


def test_labels_follow_a_text_as_its_next_word(models: Any, tmp_path: Path) -> None:
    """Byte-level tokenizers have one token for a word at the beginning and another for one behind a space."""
    import tokenizers

    folder = models("gpt2")
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, "A", "ĠA", "B", "ĠB", "Ġ", ":", "Ċ"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("Ġ", "A"), ("Ġ", "B")]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    llm = LocalLLM(tmp_path)
    prompts = [user("A:"), user("A:\n"), user("A: ")]
    renderer = llm._load().renderer
    found = [renderer.continuation("A", renderer.prompt(prompt)) for prompt in prompts]
    assert found == [[vocabulary["ĠA"]], [vocabulary["A"]], [vocabulary["A"]]]
    assert renderer.continuation(" B", renderer.prompt(prompts[0])) == [vocabulary["ĠB"]]


@pytest.mark.parametrize("family", ["gpt2", "bart"])
def test_a_prompt_that_does_not_fit_fails_alone(models: Any, family: str) -> None:
    llm = LocalLLM(models(family), max_new_tokens=4)
    long, short = user(words(POSITIONS, "long")), user("w1")
    problem = rf"65 tokens of prompt.* do not fit into the 64 of {family}-0; use fewer or shorter passages"
    for found in (
        llm.generate([short, long, short]),
        llm.score_labels([short, long, short], [["w1"]] * 3),
        llm.query_likelihood([short, long, short], ["w1"] * 3),
    ):
        assert isinstance(found[1], InputError)
        assert re.search(problem, str(found[1]))
        assert not isinstance(found[0], Exception)
        assert found[0] == found[2]
    (found,) = LocalLLM(models("t5"), window=3).generate([user("w1 w2 w3")])
    assert isinstance(found, InputError)


def test_bad_requests_fail_alone(models: Any) -> None:
    llm = LocalLLM(models("gpt2"))
    tool = [ToolMessage("w1", tool_call_id="1")]
    found = llm.score_labels([user("w1"), tool, user("w1")], [["w1"], ["w1"], [""]])
    assert not isinstance(found[0], Exception)
    assert "reads system, human and ai messages, not 'tool'" in str(found[1])
    assert "'' has no tokens" in str(found[2])


def test_threads_may_share_a_model(models: Any) -> None:
    llm = LocalLLM(models("llama"), batch_tokens=100)
    calls = [[user(words(1 + (n + i) % 9, (n, i))) for i in range(4)] for n in range(12)]
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda prompts: llm.score_labels(prompts, [["w1", "w2 w3"]] * 4), calls))
    for prompts, answers in zip(calls, found, strict=True):
        for prompt, answer in zip(prompts, answers, strict=True):
            (alone,) = llm.score_labels([prompt], [["w1", "w2 w3"]])
            np.testing.assert_allclose(answer.scores, alone.scores, atol=1e-4)


async def test_async_gives_the_same_and_can_be_cancelled(models: Any) -> None:
    llm = LocalLLM(models("gpt2"), batch_tokens=1, max_new_tokens=5)
    prompts = [user(prompt) for prompt in texts()]
    assert await llm.agenerate(prompts) == llm.generate(prompts)
    assert await llm.ascore_labels(prompts, [["w1"]] * len(prompts)) == llm.score_labels(prompts, [["w1"]] * len(prompts))
    assert await llm.aquery_likelihood(prompts, ["w1"] * len(prompts)) == llm.query_likelihood(prompts, ["w1"] * len(prompts))
    passes, reading = [], threading.Event()

    def note(*_: Any) -> None:
        passes.append(1)
        reading.set()
        threading.Event().wait(0.02)

    handle = llm._load().reader.network.register_forward_pre_hook(note)
    task = asyncio.create_task(llm.ascore_labels(prompts * 20, [["w1"]] * 20 * len(prompts)))
    await asyncio.to_thread(reading.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(llm._lock.acquire)  # the pass that was under way
    llm._lock.release()
    handle.remove()
    assert len(passes) < 10


def test_abilities(models: Any) -> None:
    llm = LocalLLM(models("gpt2"))
    assert isinstance(llm, LLM)
    assert isinstance(llm, ScoresText)
    assert as_llm(llm) is llm
    assert llm.identity == LocalLLM(str(models("gpt2"))).identity
    assert llm.identity != LocalLLM(models("gpt2"), max_new_tokens=3).identity
    assert llm.identity != LocalLLM(models("llama")).identity


def test_what_cannot_be_loaded_is_named(models: Any, tmp_path: Path) -> None:
    assert LocalLLM(tmp_path / "missing").generate([]) == []
    with pytest.raises(InputError, match="missing is neither an existing folder nor"):
        LocalLLM(tmp_path / "missing").generate([user("w1")])
    with pytest.raises(InputError, match="batch_tokens: at least 1, not 0"):
        LocalLLM("name", batch_tokens=0)
    (tmp_path / "config.json").write_bytes((models("gpt2") / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights that must not be unpickled")
    with pytest.raises(RagkitError, match="cannot be loaded from safetensors"):
        LocalLLM(tmp_path).generate([user("w1")])


def test_a_model_with_a_state_is_refused(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=len(SPECIALS) + len(WORDS), hidden_size=8, num_hidden_layers=1, state_size=4)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, "llama", None)
    with pytest.raises(InputError, match="is not a pure attention model"):
        LocalLLM(tmp_path).generate([user("w1")])
