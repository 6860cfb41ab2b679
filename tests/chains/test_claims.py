"""Statements of an answer, their citations, and what bears them out."""

import pytest
from langchain_core.documents import Document

from ragkit.chains.claims import Claim, claims_of, false_quotes
from ragkit.chains.context import GroundedContext
from ragkit.chains.grounding import ground
from ragkit.chains.markers import MarkerStream
from ragkit.documents.tokens import RegexTokenizer
from ragkit.encoders.lexical import Analyzer


def context(*texts: str, question: str = "When was the bridge built?") -> GroundedContext:
    return ground(question, [Document(id=str(n), page_content=text) for n, text in enumerate(texts, 1)], RegexTokenizer())


BRIDGE = context(
    "The bridge was built in 1932. It cost 1,250 pounds and is painted red.", "Ada Smith designed it. She was born in Leeds."
)


def claims(answer: str, of: GroundedContext = BRIDGE, language: str = "english") -> list[Claim]:
    stream = MarkerStream(len(of.passages))
    text = stream.feed(answer) + stream.finish()
    found = claims_of(text, stream.markers, of, Analyzer(language))
    for claim in found:
        assert all(f"[{n}]" in text[claim.start : claim.end] for n in claim.cited)
    return found


@pytest.mark.parametrize(
    ("answer", "cited"),
    [
        ("It was built in 1932 [1]. Ada Smith designed it [2].", [(1,), (2,)]),
        ("It was built in 1932. [1] Ada Smith designed it. [2]", [(1,), (2,)]),
        ("[1] It was built in 1932.\n[2] Ada Smith designed it.", [(1,), (2,)]),
        ("- [1] It was built in 1932.\n- [2] Ada Smith designed it.", [(1,), (2,)]),
        ("- It was built in 1932 [1]\n- Ada Smith designed it [2]", [(1,), (2,)]),
        ("According to [1], it was built in 1932. It cost a lot.", [(1,), ()]),
        ("It was built in 1932 [1][2].", [(1, 2)]),
        ("This is known:\n\nIt was built in 1932 [1]. Who knows more?", [(1,)]),
        ("[1]", []),
        ("", []),
    ],
)
def test_markers_belong_to_their_sentence(answer: str, cited: list[tuple[int, ...]]) -> None:
    assert [claim.cited for claim in claims(answer)] == cited


@pytest.mark.parametrize(
    ("answer", "supported", "evidence"),
    [
        ("The bridge was built in 1932 [1].", True, ["The bridge was built in 1932."]),
        ("It cost 1250 pounds [1].", True, ["It cost 1,250 pounds and is painted red."]),
        ("Ada Smith from Leeds designed it [2].", True, ["Ada Smith designed it.", "She was born in Leeds."]),
        ("The bridge was built in 1933 [1].", False, []),  # the one number that matters is another
        ("Ada Smith designed it [1].", False, []),  # true, but not said there
        ("Ada Smith designed it.", True, ["Ada Smith designed it."]),  # cites nothing: all passages count
        ("It is guarded by purple dragons [1].", False, []),
    ],
)
def test_support_comes_from_what_is_cited(answer: str, supported: bool, evidence: list[str]) -> None:
    [claim] = claims(answer)
    assert (claim.support >= 0.5) == supported
    if supported:
        assert [citation.text for citation in claim.evidence] == evidence


def test_what_the_question_says_supports_nothing() -> None:
    [claim] = claims("The bridge was built by Romans [1].")
    assert claim.support == 0


def test_languages_without_spaces() -> None:
    of = context("橋は一九三二年に作られた。赤い色である。", question="橋はいつ作られたか")
    first, second = claims("橋は一九三二年に作られた[1]。犬は青い家に住む[1]。", of, "japanese")
    assert first.support >= 0.5 > second.support


def test_quotations_are_checked_word_by_word() -> None:
    passages = BRIDGE.passages
    true = [
        'It says "the bridge was built in 1932".',
        "It says “It cost 1,250 pounds ... painted red.”",
        "It says «She was\nborn in Leeds».",
        'A "red bridge" is short.',
    ]
    assert not any(false_quotes(text, passages) for text in true)
    assert false_quotes('It says "the bridge was built in 1933".', passages) == ["the bridge was built in 1933"]
    assert false_quotes("It says „is painted red … It cost 1,250“.", passages) == ["is painted red … It cost 1,250"]


def test_a_context_without_passages_supports_nothing() -> None:
    [claim] = claims("The moon is made of cheese.", context())
    assert (claim.support, claim.evidence) == (0, ())
