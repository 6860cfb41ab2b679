"""The Provence pruner over a fake network: its rules written out, its budget, its titles, and what it shares with a reranker."""

from __future__ import annotations

import copy
import json
import logging
import math
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from pydantic import ValidationError

from ragkit import BM25Retriever, InputError, Pipeline, ProvencePruner, ProvenceReranker, provenance
from ragkit.chains.config import PipelineConfig, build_pipeline
from ragkit.documents.blocks import markdown_blocks, text_blocks
from ragkit.documents.model import Source, Unit
from ragkit.documents.provenance import Provenance, StageResult, with_provenance
from ragkit.documents.sentences import units, units_of
from ragkit.documents.split import split
from ragkit.documents.tokens import RegexTokenizer, count_tokens
from ragkit.provence.pair import Logits

WORDS = ["apple", "pear", "plum", "fig", "日本", "😀", "naïve", "x" * 30, "Dr.", "\u200b", "\ufeff"]
PIECES = [
    "The apple fell. Why? A pear did not.",
    "日本語の文。次の文！apple です。",
    "# Apple",
    "## Pear",
    "| apple | pear |\n|---|---|\n| plum | fig |",
    "```py\napple = 1\n```",
    "a\x00b\x0cc apple",
    "fig " * 30,
    "\ufeff",
    "\u200b.",
]
TEXTS = st.lists(
    st.tuples(
        st.sampled_from(PIECES) | st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join) | st.text(max_size=15),
        st.sampled_from(["\n", "\n\n", ". ", " ", "\r\n\r\n"]),
    ),
    max_size=6,
).map(lambda pieces: "".join(piece + gap for piece, gap in pieces))


@st.composite
def passages(draw: st.DrawFn) -> list[Document]:
    """Some documents of the user's own, with and without a title, and some that the splitter made."""
    made = []
    for n, text in enumerate(draw(st.lists(TEXTS, max_size=4))):
        parser = draw(st.sampled_from([None, markdown_blocks, text_blocks]))
        title = draw(st.sampled_from([{}, {"title": "Apple"}, {"title": "日本"}, {"title": None}]))
        if parser is None:
            made.append(Document(id=str(n), page_content=text, metadata=title))
        else:
            made += split(Source(f"/{n}", f"/{n}", text, parser(text), metadata=title), RegexTokenizer(), size=40)
    return made


def probability(text: str) -> float:
    return zlib.crc32(text.lower().encode()) % 101 / 100


def whole(document: Document) -> str:
    passage = provenance(document).passage
    return document.page_content if passage is None else passage


def kept_units(document: Document) -> list[Unit]:
    record = provenance(document)
    return [u for u in record.units or () if any(a <= u.start and u.end <= b for a, b in record.spans or ())]


def documents(*texts: str, **metadata: Any) -> list[Document]:
    return [Document(id=str(n), page_content=text, metadata=metadata) for n, text in enumerate(texts)]


def ids(found: list[Document]) -> list[Any]:
    return [document.id for document in found]


def contents(found: list[Document]) -> list[str]:
    return [document.page_content for document in found]


def worth(words: dict[str, float], otherwise: float = 0.0) -> Any:
    """A token's probability by the word it is."""
    return lambda text: words.get(text.lower(), otherwise)


@given(
    found=passages(),
    threshold=st.sampled_from([0.0, 0.4, 0.6, 1.0]),
    rounding=st.sampled_from(["mean", "vote", "released"]),
    max_length=st.sampled_from([16, 512]),
    titles=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_kept_text_is_verbatim_and_follows_the_rule(
    make_provence: Any, found: list[Document], threshold: float, rounding: Any, max_length: int, titles: bool
) -> None:
    model = make_provence(max_length=max_length)
    pruner = ProvencePruner(model=model, threshold=threshold, rounding=rounding, keep_title=titles, drop_empty=False)
    before = copy.deepcopy(found)
    pruned = pruner.compress_documents(found, "apple?")
    assert found == before
    assert ids(pruned) == ids(found)
    for rank, (old, new) in enumerate(zip(found, pruned, strict=True), 1):
        record, text = provenance(new), old.page_content
        assert (record.passage, record.units) == (text, units_of(old))
        assert new.page_content.split() == " ".join(text[start:end] for start, end in record.spans or ()).split()
        assert record.spans == tuple(sorted(record.spans or ()))
        assert record.stages[-1] == StageResult("prune", new.metadata["relevance_score"], rank)
        bar = 0.5 if rounding == "vote" else threshold
        passing = [u for u, score in zip(record.units or (), record.unit_scores or (), strict=True) if score > bar]
        kept = kept_units(new)
        assert set(passing) <= set(kept)
        assert titles or passing == kept
        assert all(unit.kind == "heading" or unit == (record.units or ())[0] for unit in kept if unit not in passing)
        json.dumps(new.metadata, allow_nan=False)


@given(found=passages(), title=st.booleans(), longest=st.sampled_from([16, 20]))
@settings(max_examples=60, deadline=None)
def test_windows_and_titles_change_no_score(make_provence: Any, found: list[Document], title: bool, longest: int) -> None:
    """The fake network judges each token by itself, so neither what stands before it nor where it is cut can matter."""
    if title:
        found = [
            Document(id=d.id, page_content=d.page_content, metadata={**d.metadata, "title": "A very long title"}) for d in found
        ]
    short, full = (
        ProvencePruner(model=make_provence(max_length=length), drop_empty=False).compress_documents(found, "pear")
        for length in (longest, 512)
    )
    for one, other in zip(short, full, strict=True):
        assert provenance(one).unit_scores == pytest.approx(provenance(other).unit_scores or ())
        assert one.page_content == other.page_content


@given(found=passages(), budget=st.integers(1, 60), least=st.integers(0, 2), titles=st.booleans(), reorder=st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_budget_is_never_exceeded(
    make_provence: Any, found: list[Document], budget: int, least: int, titles: bool, reorder: bool
) -> None:
    options: Any = {"threshold": 0.3, "min_sentences": least, "keep_title": titles, "drop_empty": False, "reorder": reorder}
    model = make_provence()
    everything = ProvencePruner(model=model, **options).compress_documents(found, "fig")
    within = ProvencePruner(model=model, max_tokens=budget, **options).compress_documents(found, "fig")
    assert sum(count_tokens(RegexTokenizer(), contents(within))) <= budget
    assert ids(within) == ids(everything)
    fits = sum(count_tokens(RegexTokenizer(), contents(everything))) <= budget
    for most, some in zip(everything, within, strict=True):
        assert set(kept_units(some)) <= set(kept_units(most))
        assert not fits or some.page_content == most.page_content
    # what was left out although it is better than something kept would not have fitted before it
    ranked = sorted(
        (
            (-score, n, unit)
            for n, document in enumerate(everything)
            for unit, score in zip(provenance(document).units or (), provenance(document).unit_scores or (), strict=True)
            if unit in kept_units(document) and (score > 0.3 or not titles)
        ),
        key=lambda entry: entry[:2],
    )
    spent = 0
    for _, n, unit in ranked:
        [cost] = count_tokens(RegexTokenizer(), [whole(everything[n])[unit.start : unit.end]])
        if spent + cost <= budget:
            spent += cost
        elif least == 0:
            assert unit not in kept_units(within[n])


def test_the_budget_goes_to_the_best_sentences_in_their_own_order(make_provence: Any, make_network: Any) -> None:
    # with a full stop that is worth nothing: 0.53, 0.07 and 0.75; 0.45, 0.5 and 0.05
    network = make_network(worth({"good": 0.9, "best": 1.0, "fair": 0.8, "bad": 0.1}))
    found = documents("Fair Fair. Bad Bad. Best Best Best.", "Good. Best. Bad.")
    pruner = ProvencePruner(model=make_provence(network), threshold=0.3)
    for budget, expected in (
        (None, ["Fair Fair. Best Best Best.", "Good. Best."]),
        (11, ["Fair Fair. Best Best Best.", "Good. Best."]),
        (10, ["Fair Fair. Best Best Best.", "Best."]),
        (8, ["Fair Fair. Best Best Best."]),
        # what does not fit is passed over
        (6, ["Best Best Best.", "Best."]),
        (3, ["Fair Fair."]),
        (2, ["Best."]),
    ):
        assert contents(pruner.model_copy(update={"max_tokens": budget}).compress_documents(found, "q")) == expected


def test_a_budget_too_small_for_anything(make_provence: Any, caplog: pytest.LogCaptureFixture) -> None:
    pruner = ProvencePruner(model=make_provence(), threshold=0, max_tokens=1, min_sentences=3)
    with caplog.at_level(logging.WARNING):
        assert pruner.compress_documents(documents("Two words.", "Three more words."), "q") == []
    assert caplog.messages == ["max_tokens=1 is too small for any sentence; nothing is kept"]


def test_what_stands_between_kept_neighbours_counts(make_provence: Any) -> None:
    """A byte order mark is no unit, but a token of the text that the units around it make."""
    found = documents("One fig.\n\n\ufeff\n\nTwo figs.")
    costs = [count_tokens(RegexTokenizer(), [text])[0] for text in ("One fig.", "Two figs.", found[0].page_content)]
    assert costs == [3, 3, 7]
    for budget, count in ((6, 1), (7, 2)):
        pruner = ProvencePruner(model=make_provence(), threshold=0, max_tokens=budget)
        [pruned] = pruner.compress_documents(found, "q")
        assert len(kept_units(pruned)) == count


@pytest.mark.parametrize("reorder", [False, True])
@pytest.mark.parametrize("top_k", [None, 1, 2, 9])
def test_order_and_number_of_documents(make_provence: Any, make_network: Any, top_k: int | None, reorder: bool) -> None:
    network = make_network(worth({"low": 0.2, "middle": 0.6, "high": 0.9}))
    found = documents("middle", "high", "low", "middle", "high")
    pruner = ProvencePruner(model=make_provence(network), threshold=0.0, top_k=top_k, reorder=reorder)
    best_first = ["1", "4", "0", "3", "2"][:top_k]
    pruned = pruner.compress_documents(found, "q")
    assert ids(pruned) == (best_first if reorder else sorted(best_first))
    assert [provenance(document).stages[-1].rank for document in pruned] == list(range(1, len(pruned) + 1))
    scores = {"low": 0.2, "middle": 0.6, "high": 0.9}
    assert [d.metadata["relevance_score"] for d in pruned] == pytest.approx([scores[whole(d)] * 8 - 4 for d in pruned])


def test_documents_of_which_nothing_is_kept(make_provence: Any, make_network: Any) -> None:
    network = make_network(worth({"high": 0.9}))
    found = documents("low", "high", "", "low low")
    pruner = ProvencePruner(model=make_provence(network))
    assert ids(pruner.compress_documents(found, "q")) == ["1"]
    everything = pruner.model_copy(update={"drop_empty": False}).compress_documents(found, "q")
    assert contents(everything) == ["", "high", "", ""]
    assert [document.metadata["relevance_score"] for document in everything] == pytest.approx([-4.0, 3.2, -4.0, -4.0])
    least = pruner.model_copy(update={"min_sentences": 1}).compress_documents(found, "q")
    assert contents(least) == ["low", "high", "low low"]
    # the best k are chosen before anything is dropped
    assert pruner.model_copy(update={"top_k": 1}).compress_documents(found[:1], "q") == []


def test_titles_stay_for_what_is_below_them(make_provence: Any, make_network: Any) -> None:
    text = "# Fruit\n\nBad. Good.\n\n## Pear\n\nBad.\n\n## Plum\n\nGood too."
    record = Provenance(units=units(text, markdown_blocks(text)))
    found = [with_provenance(Document(id="a", page_content=text), record)]
    network = make_network(worth({"good": 1.0, "too": 1.0}))
    model = make_provence(network, threshold=0.3)
    assert contents(ProvencePruner(model=model).compress_documents(found, "q")) == ["Good.\nGood too."]
    titled = ProvencePruner(model=model, keep_title=True)
    assert contents(titled.compress_documents(found, "q")) == ["# Fruit\nGood.\n## Plum\n\nGood too."]
    by_family = ProvencePruner(model=make_provence(network, threshold=0.3, keep_title=True))
    assert by_family.compress_documents(found, "q") == titled.compress_documents(found, "q")
    without = by_family.model_copy(update={"keep_title": False}).compress_documents(found, "q")
    assert contents(without) == ["Good.\nGood too."]
    # nothing to head
    strict = titled.model_copy(update={"threshold": 1.0})
    assert strict.compress_documents(found, "q") == []
    # with a budget, titles are paid from what the sentences leave
    for budget, expected in (
        (1, []),
        (2, ["Good."]),
        (4, ["Good too."]),
        (5, ["Good.\nGood too."]),
        (6, ["Good.\nGood too."]),
        (7, ["# Fruit\nGood.\nGood too."]),
        (9, ["# Fruit\nGood.\nGood too."]),
        (10, ["# Fruit\nGood.\n## Plum\n\nGood too."]),
    ):
        assert contents(titled.model_copy(update={"max_tokens": budget}).compress_documents(found, "q")) == expected


def test_a_title_too_long_for_the_rest_of_the_budget_is_passed_over(make_provence: Any, make_network: Any) -> None:
    text = "# A long name for fruit\n\nBad. Good.\n\n## Plum\n\nGood too."
    record = Provenance(units=units(text, markdown_blocks(text)))
    network = make_network(worth({"good": 1.0, "too": 1.0}))
    pruner = ProvencePruner(model=make_provence(network, threshold=0.3), keep_title=True, max_tokens=9)
    found = pruner.compress_documents([with_provenance(Document(id="a", page_content=text), record)], "q")
    assert contents(found) == ["Good.\n\n## Plum\n\nGood too."]


def test_a_first_sentence_that_is_the_title(make_provence: Any, make_network: Any) -> None:
    network = make_network(worth({"good": 1.0}))
    found = documents("Apple.\n\nGood. Bad.", title="Apple")
    pruner = ProvencePruner(model=make_provence(network, threshold=0.3), keep_title=True)
    assert contents(pruner.compress_documents(found, "q")) == ["Apple.\n\nGood."]
    assert [pair.title for pair in network.pairs] == [""]


def test_the_title_is_read_but_never_returned(make_provence: Any, make_network: Any) -> None:
    network = make_network(worth({"apple": 0.0}, otherwise=1.0))
    [pruned] = ProvencePruner(model=make_provence(network)).compress_documents(documents("It is red.", title="Apple"), "q")
    assert [pair.title for pair in network.pairs] == ["Apple"]
    assert pruned.page_content == "It is red."


def test_what_is_left_open_is_the_familys(make_provence: Any, make_network: Any) -> None:
    """3 of the 4 tokens, that is 0.75, with 0.6 and one with 0.0; their mean is 0.45."""
    network = make_network(worth({"a": 0.6, "b": 0.6, "c": 0.6}))
    for rounding, threshold, score, kept in (
        ("mean", 0.44, 0.45, True),
        ("mean", 0.46, 0.45, False),
        ("vote", 0.59, 0.75, True),
        ("vote", 0.61, 0.0, False),
        ("released", 0.59, 0.75, True),
        ("released", 0.61, 0.0, False),
    ):
        family: Any = {"rounding": rounding, "threshold": threshold}
        for pruner in (
            ProvencePruner(model=make_provence(network, **family), drop_empty=False),
            ProvencePruner(model=make_provence(network, rounding="mean", threshold=1.0), drop_empty=False, **family),
        ):
            [pruned] = pruner.compress_documents(documents("a b c ."), "q")
            assert provenance(pruned).unit_scores == pytest.approx((score,))
            assert bool(pruned.page_content) == kept


def test_what_the_model_fails_on_is_kept_whole(make_provence: Any, make_network: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(which: str) -> Any:
        def network(windows: Any) -> Logits:
            logits = make_network()(windows)
            for number, window in enumerate(windows):
                if "broken" in window.pair.passage:
                    target = logits.rank[number : number + 1] if which == "rank" else logits.keep[number][-2:]
                    target[:] = math.nan
            return logits

        network.accompany = list  # type: ignore[attr-defined]
        return network

    found = documents("One sound. Two sound.", "One broken. Two broken.", "Three sound.")
    for which in ("rank", "keep"):
        pruner = ProvencePruner(model=make_provence(broken(which)), threshold=1.0, drop_empty=False)
        [outcome] = pruner.outcomes([{"documents": found, "query": "q"}])
        assert contents(outcome.documents) == ["", "One broken. Two broken.", ""]
        assert outcome.usage == {"failures": 1}
        assert provenance(outcome.documents[1]).unit_scores == (0.0, 0.0)
        assert "relevance_score" not in outcome.documents[1].metadata
        assert outcome.documents[1].metadata.keys() == {"ragkit"}
        # a budget holds even then, and the order is the old one
        limited = pruner.model_copy(update={"max_tokens": 3, "top_k": 2, "reorder": True, "drop_empty": True})
        assert contents(limited.compress_documents(found, "q")) == ["One broken."]
    assert "kept 1 whole" in caplog.text


def test_pruning_again_only_takes_away(make_provence: Any, make_network: Any) -> None:
    network = make_network(worth({"good": 0.9, "fair": 0.6}))
    pruner = ProvencePruner(model=make_provence(network), threshold=0.2)
    first = pruner.compress_documents(documents("Good. Bad. Fair."), "q")
    assert contents(first) == ["Good. Fair."]
    second = pruner.model_copy(update={"threshold": 0.4}).compress_documents(first, "q")
    assert contents(second) == ["Good."]
    # the model has read the whole passage, so it need not read it again
    assert len(network.pairs) == 1
    third = pruner.model_copy(update={"threshold": 0.0, "min_sentences": 3}).compress_documents(second, "q")
    assert contents(third) == ["Good."]


def pipeline(model: Any, texts: list[str]) -> Pipeline:
    return BM25Retriever.from_texts(texts, k=8) >> ProvenceReranker(model=model, top_k=5) >> ProvencePruner(model=model)


TEXTS_ABOUT = [f"Passage {n} is about apples. Its number is {n}. Nothing else." for n in range(12)]


def test_reranker_and_pruner_cost_one_pass(make_provence: Any, make_network: Any) -> None:
    network = make_network()
    chain = pipeline(make_provence(network), TEXTS_ABOUT)
    chain.invoke("about apples")
    assert len(network.pairs) == len(set(network.pairs)) == 8
    chain.batch(["about apples", "number 3", "number 4"])
    assert len(network.pairs) == len(set(network.pairs))
    context = chain.ground("about apples")
    assert len(network.pairs) == len(set(network.pairs))
    assert [stage.stage for stage in context.trace][1:] == ["rerank", "prune"]


async def test_reranker_and_pruner_cost_one_pass_asynchronously(make_provence: Any, make_network: Any) -> None:
    network = make_network()
    chain = pipeline(make_provence(network), TEXTS_ABOUT)
    expected = pipeline(make_provence(), TEXTS_ABOUT).invoke("about apples")
    assert await chain.ainvoke("about apples") == expected
    assert len(network.pairs) == len(set(network.pairs)) == 8
    await chain.abatch(["about apples", "number 3", "number 4"])
    assert len(network.pairs) == len(set(network.pairs))


async def test_every_door_leads_to_the_same_result(make_provence: Any) -> None:
    pruner = ProvencePruner(model=make_provence(), top_k=2, reorder=True, max_tokens=20)
    inputs: list[Any] = [
        {"documents": documents(*PIECES[:count]), "query": query}
        for count, query in ((4, "apple"), (0, "pear"), (8, ""), (2, "fig"))
    ]
    expected = [pruner.compress_documents(**value) for value in inputs]
    assert any(expected)
    assert [await pruner.acompress_documents(**value) for value in inputs] == expected
    assert pruner.batch(inputs) == expected
    assert await pruner.abatch(inputs) == expected


def test_nothing_is_loaded_before_it_is_needed() -> None:
    pruner = ProvencePruner(model="no/such-model")
    assert pruner.compress_documents([], "q") == []


def test_from_a_configuration(make_encoder: Any) -> None:
    stages: Any = [{"type": "provence-reranker", "top_k": 3}, {"type": "provence", "threshold": 0.2, "rounding": "vote"}]
    settings: Any = {"retriever": {"type": "bm25"}, "stages": stages}
    store = BM25Retriever.from_texts(["text"]).store
    built = build_pipeline(Pipeline, PipelineConfig(**settings), store)
    reranker, pruner = built.stages
    assert isinstance(reranker, ProvenceReranker)
    assert isinstance(pruner, ProvencePruner)
    assert (reranker.top_k, pruner.threshold, pruner.rounding) == (3, 0.2, "vote")
    stages[1]["rounding"] = "up"
    with pytest.raises(InputError, match=r"stages\.1\.rounding: .*got 'up'"):
        build_pipeline(Pipeline, PipelineConfig(**settings), store)


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 1.5},
        {"threshold": -0.1},
        {"rounding": "up"},
        {"top_k": 0},
        {"max_tokens": 0},
        {"max_length": 15},
        {"batch_tokens": 0},
        {"min_sentences": -1},
        {"model": 3},
        {"treshold": 0.5},
    ],
)
def test_wrong_fields_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ProvencePruner(**wrong)


@pytest.mark.parametrize("field", [{"device": "cpu"}, {"max_length": 64}])
def test_a_loaded_model_is_set_up_already(make_provence: Any, field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(field))}: the model is loaded already"):
        ProvencePruner(model=make_provence(), **field)


def test_hundreds_of_passages_in_any_batches(make_provence: Any) -> None:
    found = documents(*(f"Number {n} is a plum. " * (n % 7) for n in range(200)))
    results = [
        ProvencePruner(model=make_provence(), batch_tokens=budget, drop_empty=False).compress_documents(found, "plum")
        for budget in (None, 64)
    ]
    assert results[0] == results[1]
    assert len(results[0]) == 200
    assert np.isfinite([score for document in results[0] for score in provenance(document).unit_scores or ()]).all()
