"""Bonuses for what a ranking by terms or vectors does not see: literal phrases, exact words, titles, headings, hosts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated
from urllib.parse import unquote, urlsplit

import numpy as np
from langchain_core.documents import Document
from pydantic import Field, field_validator

from ragkit.compressor import Task
from ragkit.documents.provenance import provenance, score_of
from ragkit.encoders.languages import language_name
from ragkit.encoders.lexical import Analyzer, words
from ragkit.indexes.base import Scores
from ragkit.rerankers.base import Reranker

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_QUOTED = re.compile('"([^"]+)"|“([^“”]+)”|„([^„“”]+)[“”]|«([^«»]+)»|「([^「」]+)」')


class BoostReranker(Reranker):
    """Adds weighted bonuses to the scores that the documents have: `BM25Retriever(..., k=100) >> BoostReranker()`.

    A document's score becomes `score + spread * sum(weight * bonus)`. The spread is the highest score given less the lowest, so
    that one setting serves BM25 and cosines alike, and a weight says what part of the way from the last place to the first its
    bonus is worth. The scores given count if all documents have a finite `relevance_score` and come in its descending order, else
    they are not what the order rests on: then, and where all are equal, the bonus alone decides, and the previous order between
    equal ones. Without any bonus the order stays.

    A bonus is a share from 0 to 1, but that of phrases, which counts them. Question terms are those of the `Analyzer`, each
    once, stop words left out. No model is asked, and no other document: a document's bonus is its own.
    """

    phrase: Weight = 0.5
    """For each phrase that the question has in quotation marks ("...", “...”, „...“, «...», 「...」) and the text has literally:
    the same words in the same order, whatever their case and what separates them."""
    exact: Weight = 0.1
    """For the share of question terms that the text has in just this form, before stemming."""
    title: Weight = 0.05
    """For the share of question terms, stemmed, that are in `metadata["title"]`."""
    headings: Weight = 0.05
    """For the share of question terms, stemmed, that are in the headings above the passage."""
    host: Weight = 0.1
    """For a document from a site that the question names, as in "Domain-specific Question Answering with Hybrid Search" (Sultania
    et al. 2024): 1 if the question has the words of the host, of a label of it (not the last, nor "www") or of a part of
    the path, of a URL in `metadata["url"]` or `metadata["source"]`."""
    language: str = "english"
    """English name or ISO 639-1 code."""

    @field_validator("language")
    @classmethod
    def _known(cls, language: str) -> str:
        return language_name(language)

    @property
    def stage(self) -> str:
        """See `Reranker.stage`."""
        return "boost"

    def scores(self, tasks: Sequence[Task]) -> list[Scores]:
        """See `Reranker.scores`."""
        return [self._scores(task) for task in tasks]

    def _scores(self, task: Task) -> Scores:
        base = _given(task.documents)
        spread = float(np.ptp(base)) or 1.0
        return base + spread * self._bonuses(task.query, task.documents)

    def _bonuses(self, query: str, documents: Sequence[Document]) -> Scores:
        """[documents] weighted sums of what each is given for."""
        stemmed, whole = Analyzer(self.language), Analyzer(self.language, stemming=False)
        terms, forms = set(stemmed(query)), set(whole(query))
        phrases = {line for quoted in _QUOTED.findall(query) if (line := self._line("".join(quoted))) != _EMPTY}
        question = self._line(query)
        bonuses = np.zeros(len(documents))
        if self.phrase and phrases:
            lines = (self._line(document.page_content) for document in documents)
            bonuses += self.phrase * np.array([sum(phrase in line for phrase in phrases) for line in lines])
        if self.exact:
            bonuses += self.exact * _shares(forms, whole.analyze([document.page_content for document in documents]))
        if self.title:
            bonuses += self.title * _shares(terms, stemmed.analyze([_text(document, "title") for document in documents]))
        if self.headings:
            headings = ["\n".join(provenance(document).headings) for document in documents]
            bonuses += self.headings * _shares(terms, stemmed.analyze(headings))
        if self.host:
            names = ({self._line(name) for name in _names(document)} - {_EMPTY} for document in documents)
            stopped = {self._line(word) for word in words(query, self.language) if not whole(word)}
            bonuses += self.host * np.array([any(name in question for name in its - stopped) for its in names], float)
        return bonuses

    def _line(self, text: str) -> str:
        """The words of a text between spaces, so that `in` finds whole words alone."""
        return f" {' '.join(words(text, self.language))} "


_EMPTY = "  "


def _given(documents: Sequence[Document]) -> Scores:
    """The scores that the order rests on; all zero if there are none."""
    scores = [score_of(document) for document in documents]
    if all(score is not None and math.isfinite(score) for score in scores):
        base = np.array(scores, np.float64)
        if (base[:-1] >= base[1:]).all():
            return base
    return np.zeros(len(documents))


def _shares(wanted: set[str], texts: Iterable[Sequence[str]]) -> Scores:
    return np.array([len(wanted.intersection(terms)) for terms in texts]) / max(len(wanted), 1)


def _text(document: Document, field: str) -> str:
    value = document.metadata.get(field)
    return value if isinstance(value, str) else ""


def _names(document: Document) -> Iterator[str]:
    """What the URLs of a document call its site and its place there."""
    for field in ("url", "source"):
        try:
            url = urlsplit(_text(document, field))
            host = url.hostname
        except ValueError:  # no URL after all
            continue
        if url.scheme and host:
            yield host
            yield from (label for label in host.split(".")[:-1] if label != "www")
            yield from (part.rsplit(".", 1)[0] for part in unquote(url.path).split("/"))
