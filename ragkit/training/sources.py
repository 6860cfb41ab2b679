"""Readers of annotated data: whatever the format, out come `Example`s. Rows marked `unambiguous: false` are left out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ragkit.errors import InputError
from ragkit.evaluation.datasets import load_dataset
from ragkit.training.composed import Answered, composed
from ragkit.training.examples import Example, Passage, same_text, split_sentences
from ragkit.training.jsonl import first_fault, open_packed, placed, read_lines, readable


class _Row(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    unambiguous: bool = True


class _Annotated(_Row):
    id: str
    question: str
    title: str = ""
    sentences: list[str]
    gold: list[int]
    source: str = ""
    kind: str | None = None


class _Judged(_Row):
    query_id: str
    corpus_id: str
    sentences: list[str]
    gold: list[int]


class _Unanswerable(_Row):
    query_id: str
    corpus_id: str
    text: str
    split: str


class _AnswerRow(_Row):
    id: str
    question: str
    title: str = ""
    context: str
    answer: str
    answer_start: int
    source: str = ""


class _Document(_Row):
    id: str = Field(alias="_id")
    title: str | None = None
    text: str
    sentences: list[str] | None = None


class _Query(_Row):
    id: str = Field(alias="_id")
    answers: list[str] = []


class _Multihop(_Row):
    id: str = Field(alias="_id")
    question: str
    context: list[tuple[str, list[str]]]
    supporting_facts: list[tuple[str, int]]


def read_rows(path: str | Path, *, without: Collection[str] = ()) -> list[Example]:
    """JSONL rows of `id`, `question`, `title`, `sentences`, `gold`, `source` and perhaps `kind`; `without` leaves kinds out.

    The rows of one question form a group with the id of the first. Raises `InputError`, naming file, line and field.
    """
    groups: dict[str, str] = {}
    examples = []
    for place, row in read_lines(Path(path), TypeAdapter(_Annotated)):
        if row.unambiguous and row.kind not in without:
            group = groups.setdefault(same_text(row.question), row.id)
            passage = Passage(row.title, tuple(row.sentences))
            source = row.source or _name(Path(path))
            with placed(place):
                examples.append(annotated(row.id, group, row.question, passage, row.gold, source=source))
    return examples


def read_sentences(folder: str | Path, split: str) -> list[Example]:
    """A dataset folder with `sentences.<split>.jsonl` beside its corpus, queries and `qrels/<split>.tsv`; see `load_dataset`.

    A passage is relevant if the qrels say so; one without evidence sentences then has unknown gold. A row that comes twice is
    read once. Raises `InputError`, naming file, line and field.
    """
    folder = Path(folder)
    dataset = load_dataset(folder, split)
    titles = {document.id: document.metadata["title"] for document in dataset.documents}
    examples: dict[str, Example] = {}
    for place, row in read_lines(folder / f"sentences.{split}.jsonl", TypeAdapter(_Judged)):
        if not row.unambiguous:
            continue
        with placed(place):
            if row.query_id not in dataset.queries:
                raise InputError(f"query_id: {row.query_id!r} is not among the queries with judgements in qrels/{split}.tsv")
            if row.corpus_id not in titles:
                raise InputError(f"corpus_id: {row.corpus_id!r} is not in the corpus")
            example = annotated(
                f"{row.query_id}/{row.corpus_id}",
                row.query_id,
                dataset.queries[row.query_id],
                Passage(titles[row.corpus_id], tuple(row.sentences)),
                row.gold,
                relevant=dataset.qrels[row.query_id].get(row.corpus_id, 0) > 0,
                source=dataset.name,
            )
            if examples.setdefault(example.id, example) != example:
                raise InputError(f"corpus_id: {row.corpus_id!r} has two different rows for query {row.query_id!r}")
    return list(examples.values())


def read_unanswerable(folder: str | Path, split: str = "train") -> list[Example]:
    """Questions of `unanswerable.jsonl` that their passage, one of the folder's corpus, does not answer.

    Raises `InputError`, naming file, line and field.
    """
    folder = Path(folder)
    corpus = read_corpus(folder)
    examples = []
    for place, row in read_lines(folder / "unanswerable.jsonl", TypeAdapter(_Unanswerable)):
        if row.split == split and row.unambiguous:
            with placed(place):
                if row.corpus_id not in corpus:
                    raise InputError(f"corpus_id: {row.corpus_id!r} is not in the corpus")
                id_ = f"{row.query_id}/{row.corpus_id}"
                examples.append(annotated(id_, row.query_id, row.text, corpus[row.corpus_id], [], source=folder.name))
    return examples


def read_answers(path: str | Path, language: str = "en") -> list[Example]:
    """JSONL rows of `id`, `question`, `title`, `context`, `answer` and `answer_start`: gold is where the answer stands.

    `language` (ISO 639-1) is that of the sentence splitter. Raises `InputError`, naming file, line and field.
    """
    return [question.example for question in _read_answered(path, language)]


def read_composed(path: str | Path, language: str = "en") -> list[Example]:
    """Questions in two steps, `composed` of those of a file that `read_answers` reads. Raises `InputError` like it."""
    return composed(_read_answered(path, language))


def _read_answered(path: str | Path, language: str) -> list[Answered]:
    contexts: dict[str, tuple[str, ...]] = {}
    questions = []
    for place, row in read_lines(Path(path), TypeAdapter(_AnswerRow)):
        if row.unambiguous:
            with placed(place):
                end = row.answer_start + len(row.answer)
                if row.answer_start < 0 or not row.answer or row.context[row.answer_start : end] != row.answer:
                    raise InputError(f"answer_start: {row.answer_start} is not where the answer {row.answer!r} stands in context")
                if row.context not in contexts:
                    contexts[row.context] = split_sentences(row.context, language)
                passage = Passage(row.title, contexts[row.context])
                gold = _touched(passage.sentences, row.answer_start, end)
                source = row.source or _name(Path(path))
                example = annotated(row.id, row.id, row.question, passage, gold, source=source)
                questions.append(Answered(example, row.answer))
    return questions


def read_hotpot(path: str | Path) -> list[Example]:
    """A JSON list in the form of HotpotQA: `_id`, `question`, `context` and `supporting_facts`; one example per passage.

    Facts name a passage by its title. Where one points behind the last sentence, as a few do, the passage is relevant and its
    gold unknown. Empty passages are left out. Raises `InputError`, naming file, item and field.
    """
    path = Path(path)
    with readable(path), open_packed(path) as file:
        data = file.read()
    try:
        items = TypeAdapter(list[_Multihop]).validate_json(data)
    except ValidationError as error:
        raise InputError(f"{path}: {first_fault(error)}") from None
    examples = []
    for number, item in enumerate(items):
        if item.unambiguous:
            with placed(f"{path}, item {number}"):
                examples += _passages(item, _name(path))
    return examples


def read_corpus(folder: str | Path) -> dict[str, Passage]:
    """The passages of a folder's `corpus.jsonl` by id; those without `sentences` are split. Blank ones are left out.

    Raises `InputError`, naming file, line and field.
    """
    passages: dict[str, Passage] = {}
    for _, row in read_lines(Path(folder) / "corpus.jsonl", TypeAdapter(_Document)):
        sentences, _ = without_blanks(row.sentences, ()) if row.sentences else (split_sentences(row.text), ())
        if sentences:
            passages[row.id] = Passage(row.title or "", sentences)
    return passages


def read_answer_strings(folder: str | Path) -> dict[str, tuple[str, ...]]:
    """The reference answers in a folder's `queries.jsonl` by question, for `mine_negatives`. Raises `InputError`."""
    queries = read_lines(Path(folder) / "queries.jsonl", TypeAdapter(_Query))
    return {row.id: tuple(row.answers) for _, row in queries if row.answers}


def annotated(
    id: str,
    group: str,
    question: str,
    passage: Passage,
    gold: Iterable[int] | None,
    *,
    relevant: bool | None = None,
    source: str = "",
) -> Example:
    """An example from an annotation: gold sorted, blank sentences joined to their neighbour.

    A passage with gold is relevant; one that is `relevant` without any has unknown gold, as has one whose gold is None. Raises
    `InputError` for what cannot be an example.
    """
    sentences, gold = without_blanks(passage.sentences, gold or ())
    relevant = bool(gold or relevant)
    return Example(
        id=id,
        group=group,
        question=question,
        title=passage.title,
        sentences=sentences,
        gold=None if relevant and not gold else gold,
        relevant=relevant,
        source=source,
    )


def without_blanks(sentences: Sequence[str], gold: Iterable[int]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The same text with every blank sentence joined to the one before (a first one to the next), and gold to match.

    Gold that names a blank sentence is dropped.
    """
    whole: list[str] = []
    place: dict[int, int] = {}
    blank = ""
    for at, sentence in enumerate(sentences):
        if sentence.strip():
            place[at] = len(whole)
            whole.append(blank + sentence)
            blank = ""
        elif whole:
            whole[-1] += sentence
        else:
            blank += sentence
    kept = {place.get(at, at) for at in gold if at in place or not 0 <= at < len(sentences)}
    return tuple(whole), tuple(sorted(kept))


def _passages(item: _Multihop, source: str) -> list[Example]:
    examples = []
    seen = set()
    for number, (title, sentences) in enumerate(item.context):
        passage = Passage(title, _spaced(sentences))
        if passage in seen or not any(map(str.strip, sentences)):
            continue
        seen.add(passage)
        facts = {at for name, at in item.supporting_facts if name == title}
        known = facts if all(0 <= at < len(sentences) for at in facts) else None
        id_ = f"{item.id}/{number}"
        examples.append(annotated(id_, item.id, item.question, passage, known, relevant=bool(facts), source=source))
    return examples


def _spaced(sentences: Sequence[str]) -> tuple[str, ...]:
    """The sentences with white space between any two: some copies of these data sets have lost it."""
    return tuple(
        sentence if not at or sentence[:1].isspace() or sentences[at - 1][-1:].isspace() else f" {sentence}"
        for at, sentence in enumerate(sentences)
    )


def _touched(sentences: Sequence[str], start: int, end: int) -> list[int]:
    """Indices of the sentences that share a character with the span."""
    touched, at = [], 0
    for number, sentence in enumerate(sentences):
        if start < at + len(sentence) and at < end:
            touched.append(number)
        at += len(sentence)
    return touched


def _name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")
