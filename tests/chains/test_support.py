"""A second opinion on statements: what a Provence model says of the sentences that bear them out."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda

from ragkit import Answer, BM25Retriever, GroundedAnswerer, Pipeline
from ragkit.chains.claims import Claim, claims_of
from ragkit.chains.context import GroundedContext
from ragkit.chains.grounding import ground
from ragkit.chains.markers import Marker, MarkerStream
from ragkit.chains.support import ModelSupport
from ragkit.documents.tokens import RegexTokenizer
from ragkit.encoders.lexical import Analyzer
from ragkit.provence.model import ProvenceModel
from ragkit.provence.pair import PASSAGE, Window

TEXTS = [
    "The bridge was built in 1932. It is red and long.",
    "Ada Smith designed the bridge. She came from Leeds.",
    "Leeds has a tower of brick.",
]
SAYS = "It was built in 1932 [1]. Ada Smith designed it [2], and it is red [1]. It is made of cheese [2]."


class Network:
    """Keeps the tokens of words that the question has with one probability, others with another; counts what it reads."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Window]] = []

    def accompany(self, pairs: Sequence[Any]) -> list[Any]:
        return list(pairs)

    def __call__(self, windows: Sequence[Window]) -> Any:
        from ragkit.provence.pair import Logits

        self.batches.append(windows)
        keep = [np.array([self.of(window, *at) for at in zip(*window[3:], strict=True)], np.float32) for window in windows]
        return Logits(np.zeros(len(windows)), keep)

    def of(self, window: Window, segment: int, start: int, end: int) -> float:
        word = window.pair.passage[start:end].lower()
        return 0.9 if segment == PASSAGE and word in window.pair.question.lower() else 0.3


@pytest.fixture
def context() -> GroundedContext:
    documents = [Document(id=str(n), page_content=text) for n, text in enumerate(TEXTS)]
    return ground("What is known of the bridge?", documents, RegexTokenizer())


def claims(said: str, context: GroundedContext) -> list[Claim]:
    stream = MarkerStream(len(context.passages))
    text = stream.feed(said) + stream.finish()
    markers: list[Marker] = stream.markers
    return claims_of(text, markers, context, Analyzer())


def test_a_statement_has_the_mean_of_what_the_model_gives_its_evidence(
    make_provence: Callable[..., Any], context: GroundedContext
) -> None:
    network = Network()
    model = make_provence(network)
    stated = claims(SAYS, context)
    weighed = ModelSupport(model).weigh(stated, context)
    assert [(claim.text, claim.evidence) for claim in weighed] == [(claim.text, claim.evidence) for claim in stated]
    assert len(network.batches) == 1
    first, second, third = weighed
    # of the evidence, all words but "long", one of six tokens of its sentence, stand in question or statement
    assert first.probability == pytest.approx(0.9)
    assert second.probability == pytest.approx((0.9 + (5 * 0.9 + 0.3) / 6) / 2)
    assert (third.probability, third.support) == (None, 0)
    assert [claim.support for claim in weighed] == [claim.support for claim in stated]
    # the question and each statement, with the passages of its evidence as far as kept
    asked = "What is known of the bridge? "
    assert [window.pair[:2] for window in sorted_windows(network)] == [
        (asked + "Ada Smith designed it, and it is red.", TEXTS[1]),
        (asked + "Ada Smith designed it, and it is red.", TEXTS[0]),
        (asked + "It was built in 1932.", TEXTS[0]),
    ]


def sorted_windows(network: Network) -> list[Window]:
    return sorted((w for batch in network.batches for w in batch), key=lambda window: window.pair[:2])


def test_the_model_reads_kept_sentences_alone(make_provence: Callable[..., Any]) -> None:
    from ragkit.documents.provenance import Provenance, with_provenance

    whole = "Tea is green. Tea is old. Milk is white."
    pruned = with_provenance(
        Document(id="a", page_content="Tea is green. Milk is white."), Provenance(passage=whole, spans=((0, 13), (26, 40)))
    )
    network = Network()
    of = ground("What is tea?", [pruned], RegexTokenizer())
    ModelSupport(make_provence(network)).weigh(claims("Tea is green [1].", of), of)
    assert [window.pair.passage for window in sorted_windows(network)] == ["Tea is green. Milk is white."]


def test_nothing_to_judge_loads_no_model(context: GroundedContext) -> None:
    nowhere = ModelSupport("/no/such/folder")
    stated = claims("It is made of cheese [2].", context)
    assert nowhere.weigh(stated, context) == tuple(stated)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(retriever=BM25Retriever.from_texts(TEXTS))


def every_way(answerer: GroundedAnswerer, question: str) -> list[Answer]:
    async def streamed() -> Any:
        return [piece async for piece in answerer.astream(question)][-1]

    return [
        answerer.invoke(question),
        [*answerer.stream(question)][-1],
        *answerer.batch([question, question]),
        asyncio.run(answerer.ainvoke(question)),
        asyncio.run(answerer.abatch([question]))[0],
        asyncio.run(streamed()),
    ]


def shown(answer: Answer) -> Any:
    return answer.text, answer.claims, answer.citations, answer.unsupported, answer.abstained, answer.problems, answer.usage


def test_every_way_gives_the_same_verdict(make_provence: Callable[..., Any], pipeline: Pipeline) -> None:
    answers = [
        answer
        for _ in range(2)
        for answer in every_way(
            GroundedAnswerer(
                pipeline=pipeline, llm=FakeListChatModel(responses=[SAYS]), support=ModelSupport(make_provence(Network()))
            ),
            "What is known of the bridge?",
        )
    ]
    assert all(shown(answer) == shown(answers[0]) for answer in answers)
    assert [claim.probability is None for claim in answers[0].claims] == [False, False, True]


def fails(*arguments: Any, **settings: Any) -> Any:
    raise MemoryError("no room for it")


@pytest.mark.parametrize("broken", ["network", "scores", "loading"])
def test_a_model_that_fails_leaves_the_words(
    broken: str, make_provence: Callable[..., Any], pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network()
    if broken == "network":
        monkeypatch.setattr(network, "accompany", fails)
    elif broken == "scores":
        monkeypatch.setattr(network, "of", lambda *at: float("nan"))
    else:
        monkeypatch.setattr(ProvenceModel, "from_pretrained", fails)
    support: Any = "model" if broken == "loading" else ModelSupport(make_provence(network))
    llm = FakeListChatModel(responses=[SAYS])
    plain = GroundedAnswerer(pipeline=pipeline, llm=llm).invoke("What is known of the bridge?")
    for answer in every_way(GroundedAnswerer(pipeline=pipeline, llm=llm, support=support), "What is known of the bridge?"):
        assert (answer.claims, answer.unsupported, answer.citations) == (plain.claims, plain.unsupported, plain.citations)
        assert "support is that of words alone, since the model for it failed" in answer.usage["warning"]
    assert "warning" not in plain.usage


@pytest.mark.parametrize(("keeps", "doubted"), [(0.19, True), (0.21, False)])
def test_what_the_model_doubts_is_unsupported(
    keeps: float, doubted: bool, make_provence: Callable[..., Any], pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network()
    monkeypatch.setattr(network, "of", lambda *at: keeps)
    llm = FakeListChatModel(responses=["It was built in 1932 [1]."])
    answer = GroundedAnswerer(pipeline=pipeline, llm=llm, support=ModelSupport(make_provence(network))).invoke("What bridge?")
    [claim] = answer.claims
    assert claim.support == 1
    assert bool(answer.unsupported) == doubted
    assert bool(answer.citations) != doubted


def test_the_shipped_model_tells_who_designed_from_who_walks() -> None:
    texts = ["Ada Smith designed the bridge in 1932.", "Ben Jones, a baker, often walks across the bridge with his dog."]
    pipeline = Pipeline(retriever=BM25Retriever.from_texts(texts))
    llm = RunnableLambda(lambda prompt: "Ada Smith designed the bridge. Ben Jones designed the bridge.")
    right, wrong = GroundedAnswerer(pipeline=pipeline, llm=llm, support="model").invoke("Who designed the bridge?").claims
    assert right.support == wrong.support == 1
    assert right.probability is not None
    assert wrong.probability is not None
    assert right.probability > 0.8 > 0.5 > wrong.probability


def test_no_model_is_loaded_where_none_is_asked() -> None:
    code = (
        "import sys\n"
        "from langchain_core.language_models import FakeListChatModel\n"
        "from ragkit import BM25Retriever, GroundedAnswerer, Pipeline\n"
        "pipeline = Pipeline(retriever=BM25Retriever.from_texts(['Tea is green.']))\n"
        "answerer = GroundedAnswerer(pipeline=pipeline, llm=FakeListChatModel(responses=['Tea is green [1].']))\n"
        "assert answerer.invoke('What is green?').claims\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
