"""Patterns against straight-line definitions, and the literals taken from regular expressions against `re` itself."""

import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.corpus.patterns import Pattern, required_literals
from ragkit.corpus.trigrams import fold
from ragkit.errors import InputError

ALPHABET = 'aAbßsSẞİiıIſKk\u0307é\u0301🙂\n\0"*(|. ΣσςX'
TEXTS = st.text(ALPHABET, max_size=30)


def leftmost(text: str, needle: str, key: object) -> list[tuple[int, int]]:
    """Spans whose key equals the needle's, from left to right, without overlap."""
    spans, at = [], 0
    while at < len(text):
        end = next((end for end in range(at + 1, len(text) + 1) if key(text[at:end]) == key(needle)), None)  # type: ignore[operator]
        if end is None:
            at += 1
        else:
            spans.append((at, end))
            at = end
    return spans


@given(TEXTS, st.text(ALPHABET, min_size=1, max_size=4))
def test_literal(text: str, needle: str) -> None:
    assert Pattern(needle).spans(text) == leftmost(text, needle, str)
    assert Pattern(needle, ignore_case=True).spans(text) == leftmost(text, needle, str.casefold)


def test_case_folds_to_whole_characters() -> None:
    assert Pattern("STRASSE", ignore_case=True).spans("die Straße, die STRASSE") == [(4, 10), (16, 23)]
    assert Pattern("s", ignore_case=True).spans("ßS") == [(1, 2)]
    assert Pattern("ss", ignore_case=True).spans("sßs") == [(1, 2)]
    assert Pattern("strasse").spans("Straße STRASSE") == []


def test_every_character_folds_to_something() -> None:
    assert all(char.casefold() for char in map(chr, range(sys.maxunicode + 1)))


def test_what_a_search_takes_for_the_same_has_the_same_fold() -> None:
    cased = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if {c.lower(), c.upper(), c.title(), c.casefold()} != {c})
    for char in cased:
        same = re.findall(re.escape(char), cased, re.IGNORECASE)
        assert char in same
        assert {fold(other) for other in same} == {fold(char)}, char


CHARACTERS = [
    ".",
    "[abc]",
    "[^]a]",
    "[]a]",
    r"\.",
    r"\\",
    r"\b",
    r"\d",
    r"\n",
    "é",
    "ß",
    "{",
    "}",
    "x{y}",
    "{,",
    "-",
    "#",
    " ",
    r"\x61",
]
GROUPS = ["(?i:AB)", "(?#c(|)", "(?=ab)", "(?!abc)", r"(?<=a)", "^", "$", "(a|bc)", "(?:abc|X)", r"([)]\))"]
ATOMS = st.text("abcX", min_size=1, max_size=5) | st.sampled_from(CHARACTERS) | st.sampled_from(GROUPS)
QUANTIFIERS = st.sampled_from(["", "", "", "", "*", "+", "?", "{2}", "{0,1}", "{,2}", "{1,}", "+?", "*?", "??"])
REGEXES = st.lists(st.tuples(ATOMS, QUANTIFIERS, st.sampled_from(["", "", "", "|"])), min_size=1, max_size=5).map(
    lambda parts: "".join(map("".join, parts)).rstrip("|")
)


def valid(regex: str) -> bool:
    try:
        re.compile(regex)
    except re.error:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(REGEXES.filter(valid).filter(bool), st.data(), st.booleans())
def test_every_match_contains_the_literals_of_an_alternative(regex: str, data: st.DataObject, ignore_case: bool) -> None:
    pattern = Pattern(regex, ignore_case, regex=True)
    texts = [data.draw(st.from_regex(regex)), data.draw(st.text("abcXAx{}é.\\\n d1", max_size=20))]
    for text in texts:
        flags = re.MULTILINE | (re.IGNORECASE if ignore_case else 0)
        expected = [m.span() for m in re.finditer(regex, text, flags) if m.group()]
        assert pattern.spans(text) == expected
        for start, end in expected:
            found = fold(text[start:end])
            assert any(all(fold(literal) in found for literal in literals) for literals in pattern.needs)


@pytest.mark.parametrize(
    ("regex", "needs"),
    [
        ("error 0x8007", (("error 0x8007",),)),
        (r"Err\.(\d+) at line", (("Err.", " at line"),)),
        ("foo|bar+baz", (("foo",), ("bar", "baz"))),
        ("colou?r", (("colo", "r"),)),
        ("ab{2,3}cd", (("a", "cd"),)),
        ("(foo|bar)", ((),)),
        ("(?x) a b c", ((),)),
        (r"\x41bc", ((),)),
        (r"(a)\1bc", ((),)),
        ("a{b}c", (("a{b}c",),)),
        (r"a\{2\}", (("a{2}",),)),
        ("abc|", (("abc",), ())),
        ("[[]abc", (("abc",),)),
        ("abc(?#d|)*e(?#f)g", (("ab", "eg"),)),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_required_literals(regex: str, needs: object) -> None:
    re.compile(regex)
    assert required_literals(regex) == needs


@pytest.mark.parametrize(
    ("text", "regex", "message"),
    [
        ("", False, "pattern: is empty"),
        ("", True, "pattern: is empty"),
        ("a(b", True, r"missing \), unterminated subpattern at position 1"),
        ("*a", True, "nothing to repeat at position 0"),
        ("a{2,1}", True, "position 2"),
        ("a{99999999999999999999}", True, "too large"),
    ],
)
def test_mistakes(text: str, regex: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pattern(text, regex=regex)


def test_lines_and_empty_matches() -> None:
    assert Pattern("^b.*$", regex=True).spans("a\nbc\nb") == [(2, 4), (5, 6)]
    assert Pattern("x*", regex=True).spans("axxb") == [(1, 3)]
