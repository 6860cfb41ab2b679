"""An attack on all questions of a collection at once, in and out of a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from langchain_core.documents import Document

from ragkit.evaluation.poisoning.attacks import Attack
from ragkit.store.store import Store


@dataclass(frozen=True)
class Plants:
    """What is planted, and how questions are asked then."""

    documents: tuple[Document, ...]
    questions: Mapping[str, str]
    """Text by question id."""

    @property
    def ids(self) -> frozenset[str]:
        """Of the documents."""
        return frozenset(str(document.id) for document in self.documents)


def plant(attack: Attack, questions: Mapping[str, str]) -> Plants:
    """The passages of an attack on questions (text by id); their ids are no document's that does not begin with "planted "."""
    documents = tuple(
        Document(id=f"planted {id_} {at}", page_content=poison.text, metadata={"source": poison.source, "title": ""})
        for id_, question in questions.items()
        for at, poison in enumerate(attack.make(question, f"planted {id_}"))
    )
    return Plants(documents, {id_: f"{question} {attack.said}".strip() for id_, question in questions.items()})


@contextmanager
def poisoned(store: Store, plants: Plants) -> Iterator[Store]:
    """The store with the plants in it, as long as the block lasts. Only they are encoded."""
    store.upsert(plants.documents)
    try:
        yield store
    finally:
        store.delete([*plants.ids])
