"""Windows against the tokenizer's own view of the whole text, and merging against one token and one character at a time."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from ragkit.encoders.folder import locate
from ragkit.encoders.pairs import PairTokenizer
from ragkit.encoders.wordpieces import read_tokenizer
from ragkit.provence.pair import PASSAGE, QUESTION, SPECIAL, TITLE, Judged, Pair, Window
from ragkit.provence.windows import cut, merge, normalized

WORDS = [
    "apple",
    "Straße",
    "naïve",
    "日本語",
    "मैं",
    "e\u0301",
    "😀",
    "👩‍👩‍👧",
    "\u200b",
    "\x07",
    "½",
    "x" * 40,
    "Dr.",
    "a b",
    "[SEP]",
    "Å",
    "ﬁg",
]
TEXT = st.lists(st.sampled_from(WORDS) | st.text(max_size=4), max_size=60).map(" ".join)
SHORT = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
LONGEST = 1_000_000
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
BERT = ["[CLS]", "[SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"]
ROBERTA = ["<s>", "</s>", "<s> $A </s> </s> $B </s>"]


def bytes_apart(trimmed: bool) -> Tokenizer:
    """Every byte a token, so that an emoji has four; white space is a token of its own, or an empty one."""
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*BYTES, "<s>", "</s>"])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return finished(tokenizer, ROBERTA, processors.ByteLevel(trim_offsets=trimmed))


def across_words() -> Tokenizer:
    """No word boundaries: a token may hold the end of the title, the space, and the beginning of the passage."""
    vocabulary = {token: i for i, token in enumerate(["?", "[CLS]", "[SEP]", *"aple b", "e ", "e a", " b", "b a", "le"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("e", " "), ("e ", "a"), ("l", "e"), (" ", "b")], unk_token="?"))
    return finished(tokenizer, BERT)


def metaspace() -> Tokenizer:
    """As SentencePiece does: the space before a word belongs to its token, and decomposed characters share their offsets."""
    pieces = [("<unk>", 0.0), ("▁", -2.0), ("▁a", -2.0), ("pp", -3.0), *((char, -4.0) for char in "abcdefgilopqrtuxе日本語⁄12")]
    tokenizer = Tokenizer(models.Unigram([*pieces, ("<s>", 0.0), ("</s>", 0.0)], 0, False))
    tokenizer.normalizer = normalizers.NFKD()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return finished(tokenizer, ROBERTA)


def finished(tokenizer: Tokenizer, template: Sequence[str], *first: Any) -> Tokenizer:
    *specials, pair = template
    ids = [(token, tokenizer.token_to_id(token)) for token in specials]
    single = pair.split(" $B")[0]
    last = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    tokenizer.post_processor = processors.Sequence([*first, last])
    return tokenizer


KINDS: dict[str, Any] = {
    "minilm": None,
    "bytes": lambda: bytes_apart(False),
    "trimmed bytes": lambda: bytes_apart(True),
    "metaspace": metaspace,
    "across words": across_words,
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("tokenizers")

    @cache
    def folder(kind: str) -> Path:
        if KINDS[kind] is None:
            return locate(None)
        path = root / kind
        path.mkdir()
        KINDS[kind]().save(str(path / "tokenizer.json"))
        return path

    @cache
    def make(kind: str, length: int) -> tuple[PairTokenizer, Any]:
        straight = read_tokenizer(folder(kind))
        straight.no_truncation()
        straight.no_padding()
        return PairTokenizer(folder(kind), length), straight

    return make


def pair(question: str, passage: str, title: str = "") -> Pair:
    return Pair(question, passage, (), title)


def judged(tokenizer: PairTokenizer, network: Any, its_pair: Pair) -> Judged:
    [windows] = cut(tokenizer, [its_pair])
    logits = network(windows)
    return merge(windows, logits.rank, logits.keep, tokenizer.overlap)


@pytest.mark.parametrize("kind", KINDS)
@given(question=SHORT, passage=TEXT, title=st.just("") | SHORT, length=st.sampled_from([16, 24, 60]))
@settings(max_examples=60, deadline=None)
def test_windows_hold_everything_and_fit(
    tokenizers: Any, kind: str, question: str, passage: str, title: str, length: int
) -> None:
    tokenizer, straight = tokenizers(kind, length)
    [windows] = cut(tokenizer, [pair(question, passage, title)])
    read = windows[0].pair
    text = f"{title} {passage}" if title else passage
    assert (read.passage, read.title) == (passage, title)
    assert question.startswith(read.question)
    asked, told = (straight.encode(part, add_special_tokens=False).ids for part in (read.question, text))
    whole = straight.encode(read.question, text).ids
    covered: list[int] = []
    segments: list[int] = []
    for number, window in enumerate(windows):
        assert window.pair == read
        assert len(window.ids) <= length
        assert len({len(array) for array in window[1:]}) == 1
        assert window.ids[window.segments == QUESTION].tolist() == asked
        body = window.ids[window.segments >= TITLE].tolist()
        around = window.ids[window.segments == SPECIAL].tolist()
        assert len(around) + len(asked) + len(told) == len(whole)
        # neighbours share the overlap, and all but the last are full
        if number:
            assert covered[len(covered) - tokenizer.overlap :] == body[: tokenizer.overlap]
        if number + 1 < len(windows):
            assert len(window.ids) == length
        new = slice(tokenizer.overlap if number else 0, None)
        covered += body[new]
        segments += window.segments[window.segments >= TITLE].tolist()[new]
    assert covered == told
    assert segments == sorted(segments)


@pytest.mark.parametrize("kind", KINDS)
@given(question=SHORT, passage=TEXT, title=st.just("") | SHORT)
@settings(max_examples=60, deadline=None)
def test_windows_change_no_judgement(
    tokenizers: Any, make_network: Any, kind: str, question: str, passage: str, title: str
) -> None:
    """For a network that looks at nothing but the token, it makes no difference how the passage is cut."""
    whole = judged(tokenizers(kind, LONGEST)[0], make_network(), pair(question, passage, title))
    for length in (16, 24, 60):
        tokenizer, _ = tokenizers(kind, length)
        # where the question is cut, its tokens may be other ones, but they are no part of the judgement
        parts = judged(tokenizer, make_network(), pair(question, passage, title))
        assert parts.score == whole.score
        for one, other in zip(parts[1:], whole[1:], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
@given(passage=TEXT, title=st.just("") | SHORT, length=st.sampled_from([16, LONGEST]))
@settings(max_examples=60, deadline=None)
def test_every_character_has_at_most_one_token(
    tokenizers: Any, make_network: Any, kind: str, passage: str, title: str, length: int
) -> None:
    tokenizer, straight = tokenizers(kind, length)
    verdict = judged(tokenizer, make_network(), pair("apple", passage, title))
    text, shift = (f"{title} {passage}", len(title) + 1) if title else (passage, 0)
    seen = {
        at - shift
        for start, end in straight.encode(text, add_special_tokens=False).offsets
        for at in range(start, end)
        if at >= shift
    }
    covered = [at for start, end in zip(verdict.starts, verdict.ends, strict=True) for at in range(start, end)]
    assert covered == sorted(seen)
    assert (np.diff(verdict.starts) >= 0).all()
    assert verdict.keep.dtype == np.float32
    assert len(verdict.keep) == len(verdict.starts) == len(verdict.ends)


@given(counts=st.tuples(st.integers(0, 120), st.integers(0, 5)), length=st.integers(16, 50))
@settings(max_examples=60, deadline=None)
def test_the_window_with_the_most_context_decides(tokenizers: Any, counts: tuple[int, int], length: int) -> None:
    """Each word is one token and stands once, so that a window can be searched for it."""
    tokenizer, _ = tokenizers("minilm", length)
    letters = "bcdfghjklmnpqrstvwxz"
    words = [a + "e" + b for a in letters for b in letters][: counts[0] * 3]
    its_pair = pair("why", " ".join(words), " ".join(["top"] * counts[1]))
    [windows] = cut(tokenizer, [its_pair])
    context: dict[tuple[int, int], tuple[float, int]] = {}
    for number, window in enumerate(windows):
        places = [at for at, kind in enumerate(window.segments) if kind >= TITLE]
        for order, at in enumerate(places):
            before = order if number else np.inf
            after = len(places) - 1 - order if number + 1 < len(windows) else np.inf
            if window.segments[at] == PASSAGE:
                key = (window.starts[at], window.ends[at])
                context[key] = max(context.get(key, (-1.0, 0)), (min(before, after), -number))
    keep = [np.full(len(window.ids), number, np.float32) for number, window in enumerate(windows)]
    verdict = merge(windows, np.zeros(len(windows)), keep, tokenizer.overlap)
    expected = {key: -number for key, (_, number) in context.items()}
    assert dict(zip(zip(verdict.starts, verdict.ends, strict=True), verdict.keep, strict=True)) == expected


def test_offsets_lead_to_the_words() -> None:
    tokenizer = PairTokenizer(locate(None), 16)
    words = [f"{letter}at" for letter in "bcfhmprsv"] * 4
    [windows] = cut(tokenizer, [pair("which cat", " ".join(words), "old mat")])
    vocabulary = read_tokenizer(locate(None))
    for number, window in enumerate(windows):
        sides = {QUESTION: "which cat", TITLE: "old mat", PASSAGE: " ".join(words)}
        for token, kind, start, end in zip(window.ids, window.segments, window.starts, window.ends, strict=True):
            shown = vocabulary.id_to_token(int(token)).removeprefix("##")
            if kind == SPECIAL:
                assert (start, end, shown[0]) == (0, 0, "[")
            else:
                assert sides[kind][start:end] == shown
        assert (TITLE in window.segments) == (number == 0)
        assert window.types.tolist() == [
            0 if at <= np.flatnonzero(window.segments == SPECIAL)[1] else 1 for at in range(len(window.ids))
        ]


def test_a_token_across_the_border_is_the_passages(tokenizers: Any) -> None:
    tokenizer, straight = tokenizers("across words", 60)
    assert straight.encode("apple apple", add_special_tokens=False).tokens == ["a", "p", "p", "l", "e a", "p", "p", "le"]
    [[window]] = cut(tokenizer, [pair("", "apple", "apple")])
    passage = window.segments == PASSAGE
    spans = list(zip(window.starts[passage].tolist(), window.ends[passage].tolist(), strict=True))
    assert spans == [(0, 1), (1, 2), (2, 3), (3, 5)]
    title = window.segments == TITLE
    assert window.ends[title].tolist() == [1, 2, 3, 4]


def test_segment_ids_of_a_template_without_any_are_zero(tokenizers: Any) -> None:
    tokenizer, _ = tokenizers("bytes", 20)
    [windows] = cut(tokenizer, [pair("abc", "one two three four")])
    assert len(windows) > 1
    assert not any(window.types.any() for window in windows)


def test_only_a_question_that_crowds_the_passage_out_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = PairTokenizer(locate(None), 43, "reranking and pruning")
    long, fits = " ".join(["why"] * 30), " ".join(["who"] * 20)
    with caplog.at_level(logging.WARNING):
        first, second, third = cut(tokenizer, [pair(long, "a passage"), pair(fits, "a passage"), pair(long, "word " * 99)])
    # three of the tokens are special
    assert [windows[0].pair.question for windows in (first, second)] == [" ".join(["why"] * 20), fits]
    assert (third[0].segments == PASSAGE).sum() == 20
    assert caplog.messages == ["question of 30 tokens cut to 20 for reranking and pruning"]


@pytest.mark.parametrize("kind", KINDS)
def test_empty_texts_have_a_window(tokenizers: Any, make_network: Any, kind: str) -> None:
    tokenizer, _ = tokenizers(kind, 20)
    for its_pair in (pair("", ""), pair("apple", ""), pair("", "", "apple"), pair("", " ", "")):
        verdict = judged(tokenizer, make_network(), its_pair)
        assert np.isfinite(verdict.score)
        assert its_pair.passage or not len(verdict.keep)


def test_lone_surrogates_keep_their_place(tokenizers: Any, make_network: Any) -> None:
    tokenizer, _ = tokenizers("minilm", 20)
    odd, plain = (judged(tokenizer, make_network(lambda _: 0.5), pair(f"q{c}", f"a {c} b c", f"t{c}")) for c in "\ud800\ufffd")
    np.testing.assert_array_equal(odd.starts, plain.starts)
    assert odd.ends[-1] == 7


def test_the_best_window_scores_the_passage() -> None:
    window = Window(pair("q", "ab"), *(np.array([0, 1, 2]) for _ in range(2)), np.array([0, 1, 3]), *(np.zeros(3, int),) * 2)
    keep = [np.zeros(3, np.float32)] * 3
    assert merge([window] * 3, np.array([-3.0, 2.0, 1.0]), keep, 0).score == 2.0
    assert np.isnan(merge([window] * 3, np.array([3.0, np.nan, 4.0]), keep, 0).score)
    broken = [keep[0], np.full(3, np.nan, np.float32), keep[0]]
    np.testing.assert_array_equal(merge([window] * 3, np.zeros(3), broken, 0).keep, [0, np.nan, 0])


@given(st.text(max_size=20) | SHORT)
def test_normalized_questions(question: str) -> None:
    found = normalized(question)
    assert not re.search(r"[!-/:-@\[-`{-~]", found)
    assert found == found.strip()
    assert "  " not in found
    letters = [char for char in question if char.isalpha()]
    assert [char for char in found if char.isalpha()] == [c for char in letters for c in char.lower() if c.isalpha()] or any(
        char.lower() != question.lower() for char in letters
    )


def test_a_normalized_question() -> None:
    assert normalized("  What's the U.S. GDP\n(2020)?  Ärger ¿no?") == "whats the us gdp 2020 ärger ¿no"
