"""Care of a corpus: features, quality, repeats, near-duplicates, votes, and the command that tells or deletes."""

import json
import random
import sqlite3
import zlib
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from typer.testing import CliRunner

from ragkit import HybridRetriever, InputError, Store, bm25_and_dense
from ragkit.care.command import tidy
from ragkit.care.duplicates import near_duplicates, shingle_hashes
from ragkit.care.features import (
    Features,
    features,
    line_key,
    link_density,
    redundancy,
    repeated_share,
    symbol_share,
)
from ragkit.care.importance import Vote, importance
from ragkit.care.inspection import inspect
from ragkit.care.quality import WEIGHTS, quality, reasons
from ragkit.care.repeats import repeated_lines
from ragkit.care.votes import read_votes
from ragkit.store.passages import passages

PROSE = (
    "A brig is a sailing vessel with two square-rigged masts. During the age of sail, brigs were seen as fast and easy to turn, "
    "and were used as both naval warships and merchant vessels. They fell out of use with the arrival of the steamship, because "
    "they needed a relatively large crew for their small size and were difficult to sail into the wind."
)
MENU = "Home | About | Contact\nPrivacy policy\nTerms of use"

# -- features ---------------------------------------------------------------------------------------------------------


def test_nothing_speaks_against_prose() -> None:
    found = features(PROSE, set())
    assert found == Features(0, 0, 0, 0, 0, 0)
    assert quality(found) == 1
    assert reasons(found) == []


def test_each_feature_sees_what_it_is_for() -> None:
    menu = features(MENU, {line_key(line) for line in MENU.splitlines()})
    links = features("[One](https://a.org/1) [Two](https://a.org/2)\nhttps://b.org", set())
    again = features("The quick brown fox jumps over the lazy dog. " * 20, set())
    rule = features("=====|-----|=====", set())
    names = features(" ".join(f"name{n}" for n in range(40)), set())
    assert menu.repeated == 1
    assert links.links == 1
    assert again.redundancy > 0.5
    assert (rule.symbols, rule.brevity) == (1, 1)
    assert names.telegraphic == 1
    for found, name in ((menu, "repeated"), (links, "links"), (again, "redundancy"), (rule, "symbols"), (names, "telegraphic")):
        assert name in reasons(found)
        assert quality(found) < 0.9
    assert max(quality(found) for found in (menu, links, rule)) < 0.3


def test_shares_are_by_characters() -> None:
    assert repeated_share("## Home \n\nabcd ef gh", {"home"}) == pytest.approx(6 / 14)
    assert link_density("see [a b](x.md) or so") == pytest.approx(10 / 17)
    assert link_density("see [a](x_(y)) or so") == pytest.approx(10 / 17)
    # neither takes time that grows faster than the text
    assert link_density("[" * 50_000) == link_density("[a](" * 20_000) == 0
    assert symbol_share("ab--") == 0
    assert symbol_share("a---") == pytest.approx(0.5)
    text = "word " * 100
    assert redundancy(text) == pytest.approx(1 - len(zlib.compress(text.encode(), 9)) / 500 / 0.45)
    # a long text is no worse than its parts
    assert redundancy(text * 40) == pytest.approx(redundancy(text * 2))
    assert redundancy("word " * 30) == 0


@given(st.text(max_size=300), st.sampled_from(["english", "de", "japanese", "thai"]))
def test_features_and_quality_keep_within_bounds(text: str, language: str) -> None:
    found = features(text, {line_key(line) for line in text.splitlines()[:1]}, language)
    assert all(0 <= value <= 1 for value in found)
    assert 0 <= quality(found) <= 1


unit = st.floats(0, 1)


@given(st.tuples(unit, unit, unit, unit, unit, unit), st.integers(0, 5), unit)
def test_quality_falls_with_every_feature(values: tuple[float, ...], at: int, more: float) -> None:
    base = Features(*values)
    worse = base._replace(**{Features._fields[at]: max(values[at], more)})
    assert quality(worse) <= quality(base) + 1e-12
    assert quality(base) == pytest.approx(float(np.prod([1 - w * v for w, v in zip(WEIGHTS, values, strict=True)])))


def test_a_language_without_stop_words_or_spaces_is_not_blamed_for_it() -> None:
    text = "東京スカイツリーは二〇一二年に墨田区で開業した高さ六百三十四メートルの電波塔である。展望台からは関東平野を見渡せる。"
    assert features(text, set(), "japanese") == Features(0, 0, 0, 0, 0, 0)


# -- repeats ----------------------------------------------------------------------------------------------------------


def test_a_line_counts_once_per_source() -> None:
    texts = [("a", "Home page\nHome page\n}\nonly here"), ("a", "HOME  page"), ("b", "# Home page\n}"), ("c", "x\n}\nhome page:")]
    assert repeated_lines(texts) == {"home page"}
    assert repeated_lines(texts[:3]) == set()
    # 2 % of 400 sources are 8
    many = [(str(n), "rare line" if n < 7 else "wide line" if n < 20 else f"line {n}") for n in range(400)]
    assert repeated_lines(many) == {"wide line"}


# -- near-duplicates --------------------------------------------------------------------------------------------------


def shingles(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[at : at + 4]) for at in range(max(1, len(words) - 3))} if words else set()


def brute_force(texts: list[list[str]], threshold: float) -> list[list[int]]:
    """Connected components of all pairs that are similar enough."""
    groups = [{at} for at in range(len(texts))]
    for one, other in combinations(range(len(texts)), 2):
        a, b = shingles(texts[one]), shingles(texts[other])
        if a and b and len(a & b) / len(a | b) >= threshold:
            joined = next(g for g in groups if one in g) | next(g for g in groups if other in g)
            groups = [g for g in groups if not g & joined] + [joined]
    return sorted(sorted(group) for group in groups if len(group) > 1)


@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.95])
def test_groups_are_those_of_comparing_all_pairs(threshold: float) -> None:
    rng = random.Random(3)
    texts: list[list[str]] = [[], [], ["one"], ["one"], ["one", "two"]]
    for _ in range(12):
        words = [f"w{rng.randrange(60)}" for _ in range(rng.randrange(30, 90))]
        for edits in (0, 1, 2, 4, 8):
            copy = list(words)
            for _ in range(edits):
                copy[rng.randrange(len(copy))] = f"e{rng.randrange(1000)}"
            texts.append(copy)
    assert sorted(near_duplicates(texts, threshold)) == brute_force(texts, threshold)


def test_many_equal_texts_are_one_group() -> None:
    texts = [["the", "same", "old", "song"]] * 180 + [["another", "one", "of", "them"]]
    assert near_duplicates(texts) == [list(range(180))]


@given(st.lists(st.sampled_from("abc"), max_size=20))
def test_shingles_are_told_apart_by_their_words_in_order(words: list[str]) -> None:
    assert len(shingle_hashes(words)) == len(shingles(words))


def test_a_threshold_out_of_range_is_named() -> None:
    with pytest.raises(InputError, match="threshold"):
        near_duplicates([], 0.2)


# -- votes ------------------------------------------------------------------------------------------------------------


def test_worth_is_shrunk_towards_that_of_all() -> None:
    votes = [
        Vote("q1", "a", 1),
        Vote("q2", "a", 1),
        Vote("q1", "b", -1),
        Vote("q3", "c", 1),
        Vote("q3", "c", 1),
        Vote("q3", "c", -1),
    ]
    found = importance(votes, strength=2)
    # one value for each question and passage: a 1, 1; b -1; c 1/3
    overall = (1 + 1 - 1 + 1 / 3) / 4
    assert found["a"] == pytest.approx(((2 + 2 * overall) / 4, 1, 2))
    assert found["b"] == pytest.approx(((-1 + 2 * overall) / 3, -1, 1))
    assert found["c"] == pytest.approx(((1 / 3 + 2 * overall) / 3, 1 / 3, 1))
    assert list(found) == ["a", "c", "b"]
    assert importance([]) == {}
    assert importance(votes, strength=0)["b"].score == -1


def test_repeating_oneself_changes_nothing_and_more_questions_weigh_more() -> None:
    votes = [Vote("q", "a", -1), Vote("q1", "b", 1), Vote("q2", "b", 1)]
    assert importance(votes + votes[:1] * 9) == importance(votes)
    steady = importance([*(Vote(f"q{n}", "a", 1) for n in range(20)), Vote("q", "b", 1), Vote("q", "c", -1)])
    assert steady["a"].score > steady["b"].score > steady["c"].score


votes_of = st.lists(st.builds(Vote, st.sampled_from("qrs"), st.sampled_from("abcd"), st.sampled_from([1, -1])), max_size=20)


@given(votes_of, st.floats(0, 20))
def test_worth_lies_between_what_was_said_of_it_and_of_all(votes: list[Vote], strength: float) -> None:
    found = importance(votes, strength)
    for one in found.values():
        assert -1 - 1e-9 <= one.score <= 1 + 1e-9
    assert found == importance(list(reversed(votes)), strength)


def test_votes_are_read_from_lines_and_from_a_table(tmp_path: Path) -> None:
    expected = [Vote("q", "a", 1), Vote("r", "b", -1)]
    lines, table = tmp_path / "votes.jsonl", tmp_path / "votes.db"
    lines.write_text("".join(json.dumps({"question": q, "passage": p, "vote": v, "at": 7}) + "\n" for q, p, v in expected))
    with sqlite3.connect(table) as connection:
        connection.execute("CREATE TABLE feedback (question TEXT, passage TEXT, vote INTEGER)")
        connection.executemany("INSERT INTO feedback VALUES (?, ?, ?)", expected)
    connection.close()
    assert read_votes(lines) == read_votes(table) == expected


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: None, "--feedback: cannot read"),
        (lambda path: path.write_text('{"question": "q", "passage": "a"}\n'), "question, passage and vote"),
        (lambda path: path.write_text('{"question": "q", "passage": "a", "vote": 2}\n'), "record 1: .* 1 or -1"),
        (lambda path: path.write_text('{"question": "q", "passage": "a", "vote": true}\n'), "1 or -1"),
        (lambda path: path.write_text("nonsense\n"), "--feedback: .* line 1"),
        (lambda path: path.write_bytes(b'{"question": "\xff"}\n'), "--feedback: cannot read"),
        (lambda path: _empty_database(path), "table feedback"),
    ],
)
def test_a_log_that_cannot_be_used_is_named(write: Callable[[Path], Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path)
    with pytest.raises(InputError, match=said) as error:
        read_votes(path)
    assert str(path) in str(error.value)
    with pytest.raises(InputError, match="value"):
        importance([Vote("q", "a", 3)])
    with pytest.raises(InputError, match="strength"):
        importance([], -1)


def _empty_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (a)")
    connection.commit()
    connection.close()


# -- the whole --------------------------------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, encoder: Any) -> Path:
    path = tmp_path / "index"
    texts = {f"page{n} menu": MENU for n in range(3)}
    texts |= {"page0 prose": PROSE, "page1 prose": PROSE.replace("small size", "modest size"), "page2 rule": "==== ---- ===="}
    texts["page2 tea"] = (
        "Green tea and black tea both come from the leaves of one plant, which grows best on hills in the shade of trees."
    )
    with Store.create(path, bm25_and_dense(encoder)) as store:
        store.upsert([Document(id=id_, page_content=text, metadata={"source": id_.split()[0]}) for id_, text in texts.items()])
    return path


def test_boilerplate_fragments_and_all_but_one_of_the_same_could_go(index: Path, encoder: Any) -> None:
    with Store.open(index, encoder=encoder) as store:
        found = inspect(passages(store))
        assert {one.passage.id for one in found.poor} == {"page0 menu", "page1 menu", "page2 menu", "page2 rule"}
        assert {group.kept.id: [one.id for one in group.others] for group in found.twins} == {
            "page0 menu": ["page1 menu", "page2 menu"],
            # of the same quality: the longer one
            "page1 prose": ["page0 prose"],
        }
        assert sorted(found.doomed) == ["page0 menu", "page0 prose", "page1 menu", "page2 menu", "page2 rule"]
        assert not inspect(passages(store), lowest=0).poor
        with pytest.raises(InputError, match="lowest"):
            inspect([], lowest=2)


def run(*arguments: Any) -> Any:
    app = typer.Typer()
    app.command()(tidy)
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_tidy_tells_and_deletes_only_when_asked(
    index: Path, tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "votes.jsonl"
    log.write_text('{"question": "q", "passage": "page2 tea", "vote": 1}\n{"question": "q", "passage": "gone", "vote": -1}\n')
    opened = Store.open
    monkeypatch.setattr(Store, "open", lambda path, **_: opened(path, encoder=encoder))
    text = run(index, "--feedback", log)
    for part in (
        "4 passages of low quality",
        "3 passages nearly the same",
        "repeated",
        "could go; --delete",
        "gone (no longer there)",
    ):
        assert part in text
    told = json.loads(run(index, "--json", "--feedback", log))
    assert (told["passages"], told["deleted"], len(told["doomed"])) == (7, 0, 5)
    assert [one["id"] for one in told["feedback"]] == ["page2 tea", "gone"]
    with Store.open(index) as store:
        assert len(store) == 7
    assert json.loads(run(index, "--delete", "--json"))["deleted"] == 5
    with Store.open(index) as store:
        assert {document.id for document in HybridRetriever(store=store).invoke("a brig and tea")} == {"page1 prose", "page2 tea"}
    assert json.loads(run(index, "--delete", "--json"))["deleted"] == 0
