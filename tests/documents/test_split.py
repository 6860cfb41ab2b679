"""The splitter's rules on hand-made sources."""

import numpy as np
import pytest

from ragkit.documents.blocks import markdown_blocks
from ragkit.documents.model import Mark, Source
from ragkit.documents.provenance import provenance
from ragkit.documents.split import split
from ragkit.errors import InputError


class Words:
    """One token per word: easy to count by hand."""

    def starts(self, texts):
        return [
            np.array([i for i, c in enumerate(t) if not c.isspace() and (i == 0 or t[i - 1].isspace())], np.int64) for t in texts
        ]


def cut(text, size=8, **options):
    source = Source("s", "s", text, markdown_blocks(text))
    return split(source, Words(), size=size, **options)


def texts(*args, **options):
    return [document.page_content for document in cut(*args, **options)]


def words(count, name="w"):
    return " ".join(f"{name}{i}" for i in range(count))


@pytest.mark.parametrize(
    ("options", "field"), [({"size": 7}, "size"), ({"size": 20, "overlap": 10}, "overlap"), ({"overlap": -1}, "overlap")]
)
def test_bad_arguments(options, field):
    with pytest.raises(InputError, match=field):
        cut("text", **options)


def test_heading_stays_with_what_follows():
    table = "| a | b |\n|---|---|\n| 1 | 2 |"
    found = texts(f"{words(5)}\n\n# H\n\n## I\n\n{table}\n", size=12)
    assert found == [words(5), "# H\n\n## I\n\n| a | b |\n|---|---|", "| 1 | 2 |"]


def test_trailing_headings_are_a_passage():
    assert texts(f"# A\n\n{words(5)}\n\n# B\n\n## C") == [f"# A\n\n{words(5)}", "# B\n\n## C"]


def test_heading_paths_include_the_own_section():
    paths = [
        d.metadata["headings"]
        for d in cut(f"# A\n\n{words(6)}\n\n## B\n\n{words(6)}\n\n### C\n\n{words(6)}\n\n## D\n\n{words(6)}")
    ]
    assert paths == [["A"], ["A", "B"], ["A", "B", "C"], ["A", "D"]]


def test_groups_stay_whole_if_they_fit():
    table = "|h|\n|-|\n|1|\n|2|\n|3|"
    assert texts(f"{words(6)}\n\n{table}") == [words(6), table]


def test_large_blocks_are_cut_by_sentences_lines_and_words():
    assert texts("One two three four. Five six seven. Eight nine ten.") == [
        "One two three four. Five six seven.",
        "Eight nine ten.",
    ]
    code = "```\n" + "\n".join(f"  a{i} b{i} c{i}" for i in range(4)) + "\n```"
    found = texts(code)
    assert found == ["```\n  a0 b0 c0\n  a1 b1 c1", "  a2 b2 c2\n  a3 b3 c3\n```"]
    assert [[unit.kind for unit in provenance(d).units] for d in cut(code)] == [["code"], ["code"]]
    assert texts(words(20)) == [" ".join(words(20).split()[i : i + 8]) for i in (0, 8, 16)]


def test_many_tokens_at_one_character_still_make_progress():
    class Crowded:
        def starts(self, texts):
            return [np.repeat(np.arange(len(text)), 20) for text in texts]

    source = Source("s", "s", "abcd", markdown_blocks("abcd"))
    assert [d.page_content for d in split(source, Crowded(), size=8)] == list("abcd")


def test_short_section_joins_its_subsection_only():
    body = words(10)
    assert texts(f"# A\n\nshort\n\n## B\n\n{body}\n\n# C\n\nshort\n\n# D\n\n{body}", size=20) == [
        f"# A\n\nshort\n\n## B\n\n{body}",
        "# C\n\nshort",
        f"# D\n\n{body}",
    ]


def test_headings_stand_above_the_whole_passage():
    body = words(10)
    found = cut(f"# A\n\nshort\n\n## B\n\n{body}\n\n### C\n\n{body}\n\n## D\n\ntiny\n\n### E\n\n#### F\n\n{body}", size=20)
    assert [(d.page_content.split("\n")[0], d.metadata["headings"]) for d in found] == [
        ("# A", ["A"]),
        ("### C", ["A", "B", "C"]),
        ("## D", ["A", "D"]),
    ]


def test_overlap_repeats_whole_units_of_the_same_section():
    found = texts("# H\n\nAnn ate it. Bob ran off. Cat sat up. Dog lay down.\n\n# I\n\nEve did so.", size=9, overlap=3)
    assert found == ["# H\n\nAnn ate it. Bob ran off.", "Bob ran off. Cat sat up. Dog lay down.", "# I\n\nEve did so."]


def test_metadata_of_the_source_is_kept():
    source = Source(
        "s", "s", "# A\n\ntext", markdown_blocks("# A\n\ntext"), title="T", metadata={"title": "own", "source": "x", "n": [1]}
    )
    (document,) = split(source, Words())
    assert {k: v for k, v in document.metadata.items() if k != "ragkit"} == {
        "title": "own",
        "headings": ["A"],
        "source": "x",
        "n": [1],
    }
    assert source.metadata == {"title": "own", "source": "x", "n": [1]}
    (bare,) = cut("text")
    assert bare.metadata.keys() == {"source", "ragkit"}


def test_identical_passages_have_ids_by_occurrence():
    before = cut("# A\n\nsame\n\n# A\n\nsame")
    after = cut("# New\n\nfirst\n\n# A\n\nsame\n\n# A\n\nsame")
    assert len({d.id for d in before}) == 2
    assert [d.id for d in after[1:]] == [d.id for d in before]


def test_marks_are_counted_from_the_passage():
    text = f"{words(8, 'a')}\n\n{words(8, 'b')}\n\n{words(8, 'c')}"
    second, third = text.index("b0"), text.index("c0")
    pages = (Mark(0, 1), Mark(second + 3, 2))
    source = Source("s", "s", text, markdown_blocks(text), lines=(Mark(0, 10), Mark(third, 40)), pages=pages)
    a, b, c = map(provenance, split(source, Words(), size=8))
    assert [record.line(0, "") for record in (a, b, c)] == [10, 12, 40]
    assert [(record.page(0), record.page(5)) for record in (a, b, c)] == [(1, 1), (1, 2), (2, 2)]


def test_nothing_gives_nothing():
    assert cut("") == cut(" \n") == []
