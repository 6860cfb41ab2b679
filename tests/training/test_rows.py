"""Rows of examples against windows made one example at a time, and labels against where the gold sentences stand."""

from __future__ import annotations

from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit.documents.model import Unit
from ragkit.encoders.folder import locate
from ragkit.encoders.pairs import PairTokenizer
from ragkit.provence.company import accompanied
from ragkit.provence.inputs import rows
from ragkit.provence.matching import BUCKETS
from ragkit.provence.pair import PASSAGE, Pair
from ragkit.provence.stage import pair_of as pair_in_use
from ragkit.provence.windows import cut
from ragkit.training import rows as rows_module
from ragkit.training.examples import Example
from ragkit.training.rows import Labelled, labelled, pair_of

RARITY = np.random.default_rng(3).random(BUCKETS).astype(np.float32)
SENTENCE = st.lists(st.sampled_from(["cat", "naïve", "unbelievably", "日本", "mat."]), min_size=1, max_size=12).map(
    lambda words: " ".join(words) + " "
)


def example(*sentences: str, gold: tuple[int, ...] | None = (), relevant: bool | None = None, **fields: Any) -> Example:
    plain: dict[str, Any] = {"id": "e", "group": "q", "question": "Which cat?", "source": "made up"}
    return Example(sentences=sentences, gold=gold, relevant=bool(gold) if relevant is None else relevant, **plain | fields)


@cache
def tokenizer(length: int) -> PairTokenizer:
    return PairTokenizer(locate(None), length)


def read(examples: list[Example], length: int = 64, rarity: Any = RARITY) -> list[Labelled]:
    advanced: list[int] = []
    found = labelled(examples, tokenizer(length), rarity, advanced.append)
    assert sum(advanced) == len(examples)
    return found


@st.composite
def examples(draw: st.DrawFn) -> Example:
    sentences = draw(st.lists(SENTENCE, min_size=1, max_size=12))
    gold = draw(st.none() | st.sets(st.integers(0, len(sentences) - 1)).map(lambda chosen: tuple(sorted(chosen))))
    relevant = draw(st.booleans()) if gold is None else bool(gold)
    teacher = draw(st.none() | st.floats(-3, 3))
    return example(
        *sentences,
        gold=gold,
        relevant=relevant,
        teacher=teacher,
        title=draw(st.sampled_from(["", "Cats", "mat."])),
        group=draw(st.sampled_from("abc")),
        question=draw(SENTENCE),
    )


@given(st.lists(examples(), max_size=5), st.sampled_from([32, 64, 512]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_rows_and_labels_are_those_of_one_example_at_a_time(examples: list[Example], length: int, lexical: bool) -> None:
    rarity = RARITY if lexical else None
    found = iter(read(examples, length, rarity))
    for one in examples:
        together = [pair_of(other) for other in examples if other.group == one.group]
        pair = pair_of(one) if rarity is None else accompanied(together, rarity)[together.index(pair_of(one))]
        [windows] = cut(tokenizer(length), [pair])
        edges = [0, *accumulate(map(len, one.sentences))]
        for window, row in zip(windows, rows(windows, rarity), strict=True):
            ours = next(found)
            assert all(map(np.array_equal, ours.row, row))
            assert (ours.group, ours.teacher, ours.source) == (one.group, one.teacher, one.source)
            if one.gold is None:
                assert ours.gold is None
                assert ours.relevant == one.relevant
                continue
            assert ours.gold is not None
            assert ours.gold.tolist() == [float(at in one.gold) for at in range(len(one.sentences))]
            inside = window.starts[window.segments == PASSAGE]
            shown = any(edges[at] <= start < edges[at + 1] for at in one.gold for start in inside)
            assert ours.relevant == shown
    assert next(found, None) is None


def test_windows_without_a_gold_sentence_are_irrelevant() -> None:
    sentences = [f"Sentence number {n} is about something else. " for n in range(30)]
    found = read([example(*sentences, gold=(0,))])
    assert len(found) > 3
    assert [one.relevant for one in found] == [True] + [False] * (len(found) - 1)
    found = read([example(*sentences, gold=(29,))])
    assert [one.relevant for one in found] == [False] * (len(found) - 1) + [True]
    assert all(one.relevant for one in read([example(*sentences, gold=None, relevant=True)]))
    assert not any(one.relevant for one in read([example(*sentences)]))


def test_many_examples_are_read_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    several = [example("One cat. ", f"And {n} mats.", gold=(n % 2,), group=str(n)) for n in range(7)]
    whole = read(several)
    monkeypatch.setattr(rows_module, "_CHUNK", 3)
    portions = read(several)
    assert len(whole) == len(portions) == 7
    for ours, theirs in zip(whole, portions, strict=True):
        assert ours.group == theirs.group
        assert all(map(np.array_equal, ours.row, theirs.row))


def test_a_pair_is_what_a_document_would_be_read_as() -> None:
    pair = pair_of(example("Cats sleep. ", "日本 mats 😀.", title="Pets"))
    assert pair == Pair("Which cat?", "Cats sleep. 日本 mats 😀.", (Unit(0, 12), Unit(12, 22)), "Pets", "Pets")
    assert "".join(pair.passage[unit.start : unit.end] for unit in pair.units) == pair.passage
    # a passage that begins with its title shows it already
    assert pair_of(example("Pets: they sleep.", title="Pets")).title == ""


def test_training_reads_what_use_reads() -> None:
    """Units in use end before the white space between them, which no token stands for."""
    text = "Cats sleep on mats. They purr! Dogs do not."
    pair = pair_in_use("Which cat?", Document(page_content=text, metadata={"title": "Pets"}), "en")
    ours = pair_of(example("Cats sleep on mats. ", "They purr! ", "Dogs do not.", title="Pets"))
    assert (ours.question, ours.title, ours.passage) == (pair.question, pair.title, pair.passage)
    [[window], [its_window]] = cut(tokenizer(64), [ours, pair])
    [row], [its_row] = rows([window], RARITY), rows([its_window], RARITY)
    assert all(map(np.array_equal, row, its_row))
