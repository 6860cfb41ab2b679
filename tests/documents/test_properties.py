"""What holds for every text: block parsers, sentences and the splitter on random documents and on real ones."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.documents.blocks import markdown_blocks, rst_blocks, text_blocks
from ragkit.documents.html import read_html
from ragkit.documents.loaders import find_files, load
from ragkit.documents.model import Source
from ragkit.documents.provenance import provenance
from ragkit.documents.sentences import units, units_of
from ragkit.documents.split import split
from ragkit.documents.tokens import RegexTokenizer

PARSERS = [markdown_blocks, rst_blocks, text_blocks]
PIECES = [
    *("# One", "## Two {#two}", "### `three`", "Title\n=====", "Sub\n---", "=====\nOver\n=====", "#", "~~~~~"),
    *(
        "A sentence. Another one! And a third?",
        "Dr. No B\u3000. said 'Hi. There.'",
        "日本語の文。次の文！",
        "e\u0301\u0301 😀👩‍👩‍👧 x",
    ),
    *("- item. More.", "  - nested", "1. first\n2. second", "> quoted\n> # not a section", "-\n  late"),
    *(
        "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 |",
        "+---+---+\n| a | b |\n+---+---+\n| c | d |\n+---+---+",
        "=== ===\na   b\n=== ===\nc   d\n=== ===",
    ),
    *("```py\nx = 1\n\ny = 2\n```", "~~~\nopen", "```", "    indented\n      code", "Text::\n\n    literal\n\n    more"),
    *(
        ".. code-block:: py\n\n   x = 1",
        ".. note:: Mind. This.\n   And that.",
        ".. _target:",
        "[ref]: http://x",
        "---\ntitle: T\n---",
    ),
    *(
        "<div>\nhtml\n</div>",
        "---",
        "x" * 90,
        "a\x00b\x0cc",
        "\x0c",
        "",
        " \t ",
        "\u2028sep\u2029",
        "word " * 60,
        "\x85",
        "\ufeff",
        "::",
    ),
]
DOCUMENTS = st.builds(
    lambda bom, pieces, newline, tail: (bom + "".join(p + gap for p, gap in pieces) + tail).replace("\n", newline),
    st.sampled_from(["", "", "\ufeff"]),
    st.lists(
        st.tuples(st.sampled_from(PIECES) | st.text(max_size=30), st.sampled_from(["\n", "\n\n", "\n\n\n", " "])), max_size=14
    ),
    st.sampled_from(["\n", "\n", "\r\n", "\r"]),
    st.sampled_from(["", "end", "\n"]),
)
WHITE = re.compile(r"[\s\ufeff]*")
TOKENIZER = RegexTokenizer()


def blank(text):
    return WHITE.fullmatch(text) is not None


def assert_partition(text, spans):
    """Sorted, apart from each other, and nothing but white space between them."""
    at = 0
    for start, end in spans:
        assert at <= start < end <= len(text)
        assert blank(text[at:start])
        at = end
    assert blank(text[at:])


def count(text):
    """Tokens; a byte order mark between blocks belongs to none of them."""
    return len(TOKENIZER.starts([text.replace("\ufeff", " ")])[0])


def assert_trimmed(text, start, end):
    assert not blank(text[start])
    assert not blank(text[end - 1])


def source_of(text, parser=markdown_blocks):
    return Source("/f.md", "/f.md", text, parser(text), title="T", metadata={"own": 1})


@pytest.mark.parametrize("parser", PARSERS)
@given(text=DOCUMENTS)
@settings(max_examples=150, deadline=None)
def test_blocks_hold_every_word_once(parser, text):
    blocks = parser(text)
    assert_partition(text, [block[:2] for block in blocks])
    groups = [block.group for block in blocks]
    assert groups == sorted(groups)
    for block in blocks:
        assert not blank(text[block.end - 1])
        assert (block.level > 0) == (block.kind == "heading")
        line_before = re.split(r"\r\n|\r|\n", text[: block.start])[-1]
        assert blank(line_before), "blocks begin where a line does"


@given(text=DOCUMENTS, language=st.sampled_from(["en", "ja", "de", "xx", ""]))
@settings(max_examples=150, deadline=None)
def test_units_hold_every_word_once(text, language):
    blocks = markdown_blocks(text)
    found = units(text, blocks, language)
    assert_partition(text, [unit[:2] for unit in found])
    for unit in found:
        assert_trimmed(text, unit.start, unit.end)
    for block in blocks:
        inside = [unit for unit in found if block.start <= unit.start < block.end]
        assert {unit.kind for unit in inside} == {block.kind}
        assert block.kind == "text" or len(inside) == 1


def check_passages(source, documents, size, overlap=0):
    text = source.text
    covered = 0
    ids = set()
    for document in documents:
        record = provenance(document)
        start, end = record.start, record.end
        assert document.page_content == text[start:end]
        assert document.metadata["source"] == record.source == source.name
        assert document.metadata.get("headings", []) == list(record.headings)
        assert count(document.page_content) <= size
        assert blank(text[covered:start])
        assert overlap or start >= covered
        assert end > covered
        covered = end
        assert_partition(document.page_content, [unit[:2] for unit in record.units])
        for unit in record.units:
            assert_trimmed(document.page_content, unit.start, unit.end)
        assert units_of(document) == record.units
        ids.add(document.id)
    assert blank(text[covered:])
    assert len(ids) == len(documents)


@pytest.mark.parametrize("parser", PARSERS)
@given(text=DOCUMENTS, size=st.integers(8, 60), share=st.floats(0, 0.49))
@settings(max_examples=150, deadline=None)
def test_passages_are_slices_within_size(parser, text, size, share):
    source = source_of(text, parser)
    plain = split(source, TOKENIZER, size=size)
    check_passages(source, plain, size)
    overlap = min(int(size * share), size // 2 - 1)
    check_passages(source, split(source, TOKENIZER, size=size, overlap=overlap), size, overlap)
    assert [document.id for document in plain] == [document.id for document in split(source, TOKENIZER, size=size)]
    for document in plain:
        record = provenance(document)
        for offset in {0, len(document.page_content) // 2, len(document.page_content)}:
            expected = 1 + text.encode("utf-8", "surrogatepass")[
                : len(text[: record.start + offset].encode("utf-8", "surrogatepass"))
            ].count(b"\n")
            assert record.line(offset, document.page_content) == expected


@given(
    pieces=st.lists(st.sampled_from(["A fine sentence {}.", "- item {}", "```\ncode {}\n```"]), min_size=2, max_size=12),
    at=st.integers(0, 11),
)
@settings(max_examples=60, deadline=None)
def test_ids_of_other_sections_survive_an_edit(pieces, at):
    at %= len(pieces)
    sections = [f"# S{number}\n\n{piece.format(number)}" for number, piece in enumerate(pieces)]
    before = split(source_of("\n\n".join(sections)), TOKENIZER, size=16)
    sections[at] = "# Changed\n\nsomething else entirely"
    after = split(source_of("\n\n".join(sections)), TOKENIZER, size=16)
    kept = {d.id for d in before if f"# S{at}\n" not in d.page_content and d.metadata["headings"][0] != f"S{at}"}
    assert kept
    assert kept <= {d.id for d in after}


@given(
    st.lists(
        st.sampled_from(
            [
                "<p>",
                "</p>",
                "<table>",
                "<tr>",
                "<td>",
                "</table>",
                "<ul><li>",
                "</ul>",
                "<pre>",
                "</pre>",
                "<nav>",
                "</nav>",
                "<br>",
                "<h1>",
                "</h1>",
                "<script>",
                "</script>",
                "<!--",
                "-->",
                "<![x",
                "<a href='",
                "&amp;",
                "&#xD800;",
                "&bogus",
                " a\n b ",
                "\ufeff",
                "😀",
                "<title>",
                "</title>",
                "<",
                ">",
            ]
        )
        | st.text(max_size=8)
    )
)
@settings(max_examples=300, deadline=None)
def test_any_html_gives_sound_blocks(pieces):
    page = read_html("".join(pieces))
    assert_partition(page.text, [block[:2] for block in page.blocks])
    offsets = [mark.offset for mark in page.lines]
    assert offsets == sorted(set(offsets))
    assert {block.start for block in page.blocks} <= set(offsets)
    numbers = [mark.number for mark in page.lines]
    assert numbers == sorted(numbers)
    assert all(1 <= number <= 1 + "".join(pieces).count("\n") for number in numbers)
    source = Source("/f.html", "/f.html", page.text, page.blocks, lines=page.lines)
    check_passages(source, split(source, TOKENIZER, size=8), 8)


@pytest.mark.parametrize("corpus", ["docs_fastapi", "docs_pypa", "docs_fastapi_ja"])
def test_real_documents(corpus, data):
    folder = data / corpus / "files"
    files = list(find_files([folder]))
    assert {str(path) for path in files} == {str(p) for p in folder.rglob("*") if p.suffix in (".md", ".rst")}
    for path in files:
        (source,), skipped = load(path)
        assert not skipped
        raw = path.read_bytes().decode()
        assert source.text == raw
        assert_partition(raw, [block[:2] for block in source.blocks])
        for size, overlap in ((200, 0), (64, 16)):
            documents = split(source, TOKENIZER, size=size, overlap=overlap)
            check_passages(source, documents, size, overlap)
        for document in documents:
            record = provenance(document)
            line = record.line(0, document.page_content)
            first = document.page_content.split("\n", 1)[0].rstrip("\r")
            assert first in raw.split("\n")[line - 1]


@pytest.mark.parametrize(
    "unit", ["# x\n", "a\n\n", "- a\n", "`", "|a|b|\n|-|-|\n", "[a]: b\n", "> ", "=== ===\n", "::\n\n a\n", "x", '("a. ']
)
def test_time_grows_with_length_only(unit):
    def seconds(length):
        text = unit * (length // len(unit))
        begun = time.process_time()
        for parser in PARSERS:
            split(source_of(text, parser), TOKENIZER)
        return time.process_time() - begun

    seconds(2_000)
    # eight times the text: 64 times the work if anything were quadratic
    assert seconds(64_000) < 24 * max(seconds(8_000), 0.02)
