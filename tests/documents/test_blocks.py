"""Block structure and sentences on hand-made texts."""

from textwrap import dedent

import pytest

from ragkit.documents.blocks import markdown_blocks, rst_blocks, text_blocks
from ragkit.documents.model import Block
from ragkit.documents.sentences import units


def shown(text, parser):
    return [(block.kind, text[block.start : block.end]) for block in parser(text)]


def headings(text, parser):
    return [(block.level, block.title) for block in parser(text) if block.kind == "heading"]


def groups(text, parser):
    """Texts of the blocks, those of one group in one list."""
    found = {}
    for block in parser(text):
        found.setdefault(block.group, []).append(text[block.start : block.end])
    return list(found.values())


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_markdown_kinds(newline):
    text = dedent("""\
        \ufeff# Title

        Para one
        goes on.
        ```py
        # no heading
        ```
        | a | b |
        |---|---|
        | 1 | 2 |

        [x]: http://y

            code
        """).replace("\n", newline)
    assert [(kind, part.replace(newline, "\n")) for kind, part in shown(text, markdown_blocks)] == [
        ("heading", "# Title"),
        ("text", "Para one\ngoes on."),
        ("code", "```py\n# no heading\n```"),
        ("row", "| a | b |\n|---|---|"),
        ("row", "| 1 | 2 |"),
        ("text", "[x]: http://y"),
        ("code", "    code"),
    ]


def test_markdown_titles_are_plain():
    text = (
        "# The `x` *of* [y](http://z) &amp; <b>b</b> { #anchor }\n\nSetext **two**\n---\n\n## {ok} ##\n\n> # quoted\n\n- # item\n"
    )
    assert headings(text, markdown_blocks) == [(1, "The x of y & b"), (2, "Setext two"), (2, "{ok}")]


def test_markdown_lists_and_tables_are_groups():
    text = "intro\n\n- a\n  - b\n\n  more of a\n-\n  c\n\nnext\n\n|h|\n|-|\n|1|\n|2|\n\nlast"
    assert groups(text, markdown_blocks) == [
        ["intro"],
        ["- a", "- b", "more of a", "-\n  c"],
        ["next"],
        ["|h|\n|-|", "|1|", "|2|"],
        ["last"],
    ]


def test_front_matter_only_at_the_top():
    assert shown("---\ntitle: x\n---\n# A", markdown_blocks) == [("code", "---\ntitle: x\n---"), ("heading", "# A")]
    assert shown("---\nnever closed", markdown_blocks) == [("text", "---"), ("text", "never closed")]


def test_unclosed_fence_reaches_to_the_end_in_markdown_but_is_decoration_in_plain_text():
    assert shown("a\n\n~~~\nb\n\nc", markdown_blocks) == [("text", "a"), ("code", "~~~\nb\n\nc")]
    assert shown("a\n\n~~~\nb\n\nc", text_blocks) == [("text", "a"), ("text", "~~~\nb"), ("text", "c")]


def test_rst_sections_by_order_of_adornment():
    text = "=====\nTitle\n=====\n\nPart\n====\n\nSub\n---\n\n"
    text += "Part `two <x>`_ and :ref:`three <y>`\n=====================================\n\n``code``\n--------\n"
    assert headings(text, rst_blocks) == [(1, "Title"), (2, "Part"), (3, "Sub"), (2, "Part two and three"), (3, "code")]


def test_rst_literals_and_directives():
    text = dedent("""\
        Look::

            a = 1

            b = 2

        after

        .. code-block:: python
           :linenos:

           def f(): ...

        .. note:: Careful. Really.

           Second paragraph::

               literal

        >>> 1 + 1
        2
        """)
    assert shown(text, rst_blocks) == [
        ("text", "Look::"),
        ("code", "    a = 1\n\n    b = 2"),
        ("text", "after"),
        ("code", ".. code-block:: python\n   :linenos:\n\n   def f(): ..."),
        ("text", ".. note:: Careful. Really."),
        ("text", "Second paragraph::"),
        ("code", "       literal"),
        ("code", ">>> 1 + 1\n2"),
    ]


def test_rst_tables_by_row():
    grid = "+---+---+\n| a | b |\n+===+===+\n| 1 | 2 |\n|   | 3 |\n+---+---+"
    simple = "===  ===\nh    i\n===  ===\na    b\n     more\nc    d\n===  ==="
    assert groups(f"{grid}\n\n{simple}\n\nend", rst_blocks) == [
        ["+---+---+\n| a | b |\n+===+===+", "| 1 | 2 |\n|   | 3 |\n+---+---+"],
        ["===  ===\nh    i\n===  ===", "a    b\n     more", "c    d\n===  ==="],
        ["end"],
    ]


def test_plain_text():
    text = "# no heading\nof a para\n\n```\ncode\n\n```\na | b\n--|--\n1 | 2\nend of it"
    assert shown(text, text_blocks) == [
        ("text", "# no heading\nof a para"),
        ("code", "```\ncode\n\n```"),
        ("row", "a | b\n--|--"),
        ("row", "1 | 2"),
        ("text", "end of it"),
    ]


@pytest.mark.parametrize("parser", [markdown_blocks, rst_blocks, text_blocks])
@pytest.mark.parametrize("text", ["", " \n\t\r\n", "\ufeff", "\ufeff\n"])
def test_nothing_gives_no_blocks(parser, text):
    assert parser(text) == ()


def sentences(text, language="en"):
    return [text[unit.start : unit.end] for unit in units(text, [Block(0, len(text))], language)]


def test_sentences():
    assert sentences("One here. Two 😀 there!\r\nThree?") == ["One here.", "Two 😀 there!", "Three?"]
    assert sentences("これは。テストです！", "ja") == ["これは。", "テストです！"]
    assert sentences("Hello. World.", "no-such-language") == ["Hello.", "World."]


@pytest.mark.parametrize("marker", ["1. ", "- ", "12) ", "> * ", "a. ", "#. "])
def test_an_items_marker_belongs_to_its_first_sentence(marker):
    assert sentences(f"{marker}First one. Second one.") == [f"{marker}First one.", "Second one."]


def test_initial_before_wide_space():
    # sentencex panics on this text as it stands
    assert "".join(sentences("B\u3000. x")) in ("B\u3000. x", "B\u3000.x")


def test_a_splitter_that_fails_leaves_one_sentence(monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(language, text):
        raise PanicException

    monkeypatch.setattr("sentencex.get_sentence_boundaries", panic)
    assert sentences("One. Two.") == ["One. Two."]


def test_boundaries_that_are_off_are_repaired(monkeypatch):
    off = [{"start_index": 3, "end_index": 99}, {"start_index": 0, "end_index": 4}, {"start_index": 0, "end_index": -2}]
    monkeypatch.setattr("sentencex.get_sentence_boundaries", lambda language, text: off)
    assert sentences("One. Two.") == ["One.", "Two."]


def test_long_texts_are_cut_at_the_same_places():
    text = "A rather plain sentence. " * 2000
    assert sentences(text) == ["A rather plain sentence."] * 2000
