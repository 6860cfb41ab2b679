"""The model that comes with ragkit: small, loaded without a network, and right about simple questions."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from langchain_core.documents import Document

from ragkit import ProvencePruner, ProvenceReranker, provenance
from ragkit.provence.model import SHIPPED, ProvenceModel
from ragkit.provence.own import load_own

pytestmark = [
    pytest.mark.skipif(not (SHIPPED / "config.json").is_file(), reason=f"the shipped model is not at {SHIPPED}"),
    pytest.mark.usefixtures("one_thread"),
]
BANANAS = "Bananas ripen after harvest. They give off ethene. Green ones are sold to shops far away."
CARS = "Cars have four wheels. Trains run on rails."


class Simple(NamedTuple):
    question: str
    passage: tuple[str, ...]
    answer: int
    """Which of the sentences answers."""


SIMPLE = [
    Simple(
        "When was the lighthouse built?",
        (
            "The lighthouse stands on a cliff above the bay.",
            "It was built in 1874 by a local mason.",
            "Tourists climb its stairs in summer.",
            "The lamp burns oil from whales no longer.",
        ),
        1,
    ),
    Simple(
        "Who wrote the novel Silent Harbour?",
        (
            "Silent Harbour was a success in many countries.",
            "Critics praised its slow pace.",
            "The novel was written by Maria Lindqvist while she lived in Oslo.",
            "A film followed some years later.",
        ),
        2,
    ),
    Simple(
        "What is the boiling point of water at sea level?",
        (
            "Water at sea level boils at 100 degrees Celsius.",
            "Ice floats because it is less dense.",
            "Most of the earth is covered by oceans.",
            "Rivers carry sand to the coast.",
        ),
        0,
    ),
    Simple(
        "How many strings does a violin have?",
        (
            "Violins are made of maple and spruce.",
            "Players hold the bow in the right hand.",
            "Concert halls are built for orchestras.",
            "A violin has four strings, tuned in fifths.",
        ),
        3,
    ),
    Simple(
        "Why do leaves turn yellow in autumn?",
        (
            "Forests attract many visitors each October.",
            "Leaves turn yellow because their chlorophyll breaks down when days get shorter.",
            "Squirrels bury nuts at the same time.",
            "Snow may follow in November.",
        ),
        1,
    ),
    Simple(
        "Which company makes the Falcon tractor?",
        (
            "Farmers in the valley grow wheat and maize.",
            "The Falcon tractor is made by Harlow Industries.",
            "It replaced horses on most farms.",
            "Diesel is delivered every Monday.",
        ),
        1,
    ),
    Simple(
        "How do I reset the router?",
        (
            "The router comes with two antennas.",
            "It supports up to thirty devices.",
            "To reset the router, hold the small button on its back for ten seconds.",
            "The warranty lasts two years.",
        ),
        2,
    ),
    Simple(
        "What does the enzyme lactase break down?",
        (
            "Enzymes are proteins that speed up reactions.",
            "Lactase breaks down lactose, the sugar in milk.",
            "Pepsin works in the stomach.",
            "Many adults drink tea instead.",
        ),
        1,
    ),
    Simple(
        "Where is the headquarters of the company?",
        (
            "The company was founded by two engineers.",
            "Its shares have been traded since 2003.",
            "It makes pumps and valves.",
            "The headquarters is located in Graz, Austria.",
        ),
        3,
    ),
    Simple(
        "Who was the first person to climb the mountain?",
        (
            "The first person to climb the mountain was Anna Keller, in 1902.",
            "Its glaciers feed two rivers.",
            "A cable car opened in 1967.",
            "Ibex live on the southern slopes.",
        ),
        0,
    ),
    Simple(
        "How long does the ferry to the island take?",
        (
            "The island has a single village.",
            "Cars are not allowed there.",
            "The ferry takes forty minutes to the island.",
            "Its beaches are of black sand.",
        ),
        2,
    ),
    Simple(
        "What colour is the flag of the club?",
        (
            "The club was founded by sailors.",
            "Members meet on the first Friday of the month.",
            "Its flag is blue with a white anchor.",
            "Guests pay a small fee.",
        ),
        2,
    ),
    Simple(
        "Which vitamin is found in oranges?",
        (
            "Oranges grow in warm countries.",
            "They are rich in vitamin C.",
            "The trees flower in spring.",
            "Juice is exported in tankers.",
        ),
        1,
    ),
    Simple(
        "How much does a ticket to the museum cost?",
        (
            "The museum shows pottery and coins.",
            "It is closed on Mondays.",
            "Guided tours start at noon.",
            "A ticket costs nine euros, and children enter free.",
        ),
        3,
    ),
    Simple(
        "What caused the fire in the warehouse?",
        (
            "The warehouse stored paper and paint.",
            "Sixty firefighters came from three towns.",
            "Investigators found that the fire was caused by a faulty heater.",
            "Nobody was hurt.",
        ),
        2,
    ),
    Simple(
        "When does the library close on Saturdays?",
        (
            "The library lends books, films and tools.",
            "On Saturdays it closes at 4 pm.",
            "Members may borrow ten items.",
            "A café stands next to the entrance.",
        ),
        1,
    ),
    Simple(
        "What language is spoken in the village of Aran?",
        (
            "People in Aran speak Occitan as well as Spanish.",
            "The village lies below the pass.",
            "Sheep are brought up in June.",
            "The church dates from the twelfth century.",
        ),
        0,
    ),
    Simple(
        "Which function opens a file in the library?",
        (
            "The library needs Python 3.11.",
            "Errors are raised as exceptions.",
            "Call open_store() to open a file for reading.",
            "The source code is on the web.",
        ),
        2,
    ),
    Simple(
        "How fast can a cheetah run?",
        (
            "Cheetahs live in Africa and Iran.",
            "They hunt by day.",
            "Cubs stay with their mother for eighteen months.",
            "A cheetah can run at about 100 kilometres per hour.",
        ),
        3,
    ),
    Simple(
        "Who is the mayor of Eldham?",
        (
            "Eldham has a market every Thursday.",
            "The current mayor is Priya Nair, who was elected in 2021.",
            "The town lies on the river Wend.",
            "Its school was rebuilt after a flood.",
        ),
        1,
    ),
]


@pytest.fixture(scope="module")
def model() -> ProvenceModel:
    return ProvenceModel.from_pretrained(device="cpu")


def prune(texts: list[str], question: str, **fields: Any) -> list[Document]:
    documents = [Document(id=str(at), page_content=text) for at, text in enumerate(texts)]
    return ProvencePruner(device="cpu", **fields).compress_documents(documents, question)  # type: ignore[return-value]


def kept(document: Document, text: str) -> str:
    """What is left of a text; it must be made of spans of it."""
    spans = provenance(document).spans
    assert spans is not None
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    parts = [text[start:end] for start, end in spans]
    at = 0
    for part in parts:
        found = document.page_content.find(part, at)
        assert found >= 0
        # only white space is put between them
        assert not document.page_content[at:found].strip()
        at = found + len(part)
    assert not document.page_content[at:].strip()
    return document.page_content


def test_it_is_small() -> None:
    files = {path.name: path.stat().st_size for path in SHIPPED.iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= files.keys()
    assert sum(files.values()) <= 25_000_000
    assert not any(Path(name).suffix in (".pt", ".bin", ".pkl", ".new") for name in files)


def test_it_loads_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("no network is needed")

    monkeypatch.setattr(socket.socket, "connect", refused)
    network, family = load_own(SHIPPED, "cpu")
    assert network.rarity is not None
    assert (family.name, family.max_length) == ("ragkit", 512)
    assert 0 < family.threshold < 1


def test_the_sentence_that_answers_comes_first(model: ProvenceModel) -> None:
    right = []
    for one in SIMPLE:
        # without a threshold nothing is dropped, and every sentence has its score
        [document] = prune([" ".join(one.passage)], one.question, threshold=0)
        scores = provenance(document).unit_scores
        assert scores is not None
        assert len(scores) == len(one.passage)
        right.append(int(np.argmax(scores)) == one.answer)
    assert sum(right) >= 0.8 * len(SIMPLE), [one.question for one, found in zip(SIMPLE, right, strict=True) if not found]


def test_the_passage_that_answers_comes_first(model: ProvenceModel) -> None:
    documents = [Document(id=str(at), page_content=" ".join(one.passage)) for at, one in enumerate(SIMPLE)]
    reranker = ProvenceReranker(device="cpu")
    right = []
    for at, one in enumerate(SIMPLE):
        among = [documents[(at + step) % len(SIMPLE)] for step in (3, 1, 0, 4, 2)]
        right.append(reranker.compress_documents(among, one.question)[0].id == str(at))
    assert sum(right) >= 0.8 * len(SIMPLE), [one.question for one, found in zip(SIMPLE, right, strict=True) if not found]


def test_the_example_of_the_readme(model: ProvenceModel) -> None:
    pruned = {document.id: document for document in prune([BANANAS, CARS], "Which gas do bananas give off?")}
    assert "They give off ethene." in kept(pruned["0"], BANANAS)
    assert "1" not in pruned or len(pruned["1"].page_content) < len(CARS)
    scored = prune([BANANAS, CARS], "Which gas do bananas give off?", threshold=0)
    assert scored[0].metadata["relevance_score"] > scored[1].metadata["relevance_score"]
    assert np.argmax(provenance(scored[0]).unit_scores) == 1  # type: ignore[arg-type]

    texts = ["Paris is the capital of France.", "Berlin is the capital of Germany."]
    documents = [Document(page_content=text) for text in texts]
    ranked = ProvenceReranker(device="cpu").compress_documents(documents, "What is the capital of Germany?")
    assert ranked[0].page_content == texts[1]
    [tea] = prune(["Tea and coffee both hold caffeine.", "Water holds none."], "What holds caffeine?", top_k=1)
    assert tea.page_content == "Tea and coffee both hold caffeine."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "😀",
        "日本の首都は東京です。人口は多い。",
        "e\u0301te\u0301 naïve\u200b\ufeff Straße.\r\n\r\n- ₤5\x00 مرحبا שלום\u2028हिन्दी.",
        "# Heading\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```py\nprint('hello')\n```\n",
        "A" * 5000,
        "word",
        "? ! . ,",
    ],
)
@pytest.mark.parametrize("threshold", [None, 0])
def test_whatever_the_text_what_is_left_is_made_of_its_spans(model: ProvenceModel, text: str, threshold: float | None) -> None:
    for question in ("What is the capital of Japan?", "首都は？", "😀", "?"):
        for document in prune([text], question, threshold=threshold):
            kept(document, text)
            assert np.isfinite(document.metadata["relevance_score"])


def test_a_long_passage_is_read_to_its_end(model: ProvenceModel) -> None:
    filler = "The committee met again and talked about the weather for a while. "
    text = filler * 200 + "The password of the vault is swordfish. " + filler * 200
    assert len(text) > 25_000
    [document] = prune([text], "What is the password of the vault?")
    assert "The password of the vault is swordfish." in kept(document, text)
    assert len(document.page_content) < len(text) / 10
    scores = provenance(document).unit_scores
    assert scores is not None
    assert int(np.argmax(scores)) == 200


def test_a_long_question_is_cut_with_a_warning_and_no_text_is_lost(
    model: ProvenceModel, caplog: pytest.LogCaptureFixture
) -> None:
    question = "Which gas do bananas give off? " + "And why is that so? " * 600
    assert len(question.split()) > 3000
    with caplog.at_level(logging.WARNING):
        found = prune([BANANAS, CARS], question, threshold=0)
    assert [document.page_content for document in found] == [BANANAS, CARS]
    [warning] = caplog.messages
    assert warning.startswith("question of ")
    assert "cut to 254" in warning


def test_reranker_and_pruner_share_it(model: ProvenceModel) -> None:
    assert ProvenceReranker(device="cpu").provence() is ProvencePruner(device="cpu").provence() is model
