"""HTML pages to text, blocks and lines."""

import re
import time

import pytest

from ragkit.documents.html import read_html
from ragkit.documents.provenance import Provenance


def shown(markup):
    page = read_html(markup)
    return [(block.kind, page.text[block.start : block.end]) for block in page.blocks]


def test_a_page():
    markup = """<!doctype html><html><head><title>The &amp; title</title><style>p {}</style></head>
<body><nav><p>menu</p></nav><div role="navigation">more menu</div>
<h1>Head <code>x</code></h1>
<p>One
  two&nbsp;&lt;3&gt; <b>bold</b>.<br>Next
<ul><li>a <p>b</p></li><li>c<ul><li>d</ul></ul>
<pre>
  x = 1

y</pre>
<table><tr><th>h</th><th>i</th></tr><tr><td></td><td><p>2</p><p>3</p></td></tr></table>
<script>no()</script><footer>foot</footer>end</body></html>"""
    page = read_html(markup)
    assert page.title == "The & title"
    assert page.text == "Head x\n\nOne two <3> bold.\nNext\n\na\n\nb\n\nc\n\nd\n\n  x = 1\n\ny\n\nh | i\n| 2 3\n\nend"
    kinds = [block.kind for block in page.blocks]
    assert kinds == ["heading", "text", "text", "text", "text", "text", "code", "row", "row", "text"]
    assert (page.blocks[0].level, page.blocks[0].title) == (1, "Head x")
    groups = [block.group for block in page.blocks]
    assert groups[2] == groups[3] == groups[4] == groups[5]
    assert groups[7] == groups[8]
    assert len(set(groups)) == 6
    starts = {block.start for block in page.blocks}
    assert [mark.number for mark in page.lines if mark.offset in starts] == [3, 4, 6, 6, 6, 6, 8, 11, 11, 12]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "markup",
    [
        "<p>w1<br>w1<br/>w1 <b>w1</b><br>\nw2<br>w2 w2</p>",
        "<p>w1\nw2 <i>\nw3</i>w3\n\n<br>w5\n</p>\n<ul>\n<li>w8\nw9",
        "<h1>\nw2\nw3</h1> w3<hr>w3\nw4<nav>\n\n</nav>w6",
        "<pre>\n\n  w3\nw4<br>w4\n\n w6</pre>w6\n\ufeff\nw8",
    ],
)
def test_every_word_leads_to_its_line(markup, end):
    page = read_html(markup.replace("\n", end))
    record = Provenance(lines=page.lines)
    words = list(re.finditer(r"w(\d)", page.text))
    assert len(words) == len(re.findall(r"w\d", markup))
    assert [record.line(word.start(), page.text) for word in words] == [int(word[1]) for word in words]


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("<p>a<p>b</div></p>c", [("text", "a"), ("text", "b"), ("text", "c")]),
        ("<nav>gone<div>gone</nav>kept", [("text", "kept")]),
        ("<div><nav>gone</div>kept", [("text", "kept")]),
        ("a <!-- never closed <p>b", [("text", "a <!-- never closed"), ("text", "b")]),
        ("a <![endif]> b <![CDATA[x]]> c", [("text", "a b c")]),
        ("x < y and <b", [("text", "x < y and <b")]),
        ("&#xD800;&nosuch;", [("text", "\ufffd&nosuch;")]),
        ("<h2>a<h3>b</h3>", [("heading", "a"), ("heading", "b")]),
        ("<table><tr>odd<td>a<td>b<tr><th>c</table>", [("row", "odd | a | b"), ("row", "c")]),
        ("<td>loose</td><td>cells", [("text", "loose"), ("text", "cells")]),
        ("", []),
        ("<script>only", []),
    ],
)
def test_broken_markup(markup, expected):
    assert shown(markup) == expected


@pytest.mark.parametrize("piece", ["<a ", "<!--", "<p>", "</x>", "<![", "<tr><td>a", "<b", "<?", "<a href='"])
def test_hostile_markup_is_read_in_time(piece):
    begun = time.process_time()
    read_html(piece * (100_000 // len(piece)))
    assert time.process_time() - begun < 3
