"""The explain page: read by a parser, and by people in a headless Chromium."""

import base64
import hashlib
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from ragkit.chains.context import GroundedContext, Ranked, StageTrace
from ragkit.chains.grounding import ground
from ragkit.chains.moves import Step, fate, ways
from ragkit.chains.page import source_link, text
from ragkit.documents.model import Kind, Mark, Unit
from ragkit.documents.provenance import Provenance, StageResult, with_provenance
from ragkit.documents.tokens import RegexTokenizer

EVIL = (
    "<script>window.hit = 1</script></script><img src=x onerror='window.hit = 1'> ]]> <!-- $title ${body} \u202egnp.exe\u202c "
    'NUL\x00 ESC\x1b[2J "\' onmouseover="window.hit = 1" <a href="javascript:window.hit = 1">x</a> </pre></details></table>'
    "</style><style>*{display:none}</style> <meta http-equiv=refresh content='0;url=http://example.org'> " + "long" * 200 + "."
)


KINDS: list[Kind] = ["text", "row", "heading", "code"]


def document(id: str, sentences: list[str], keep: list[bool], scores: tuple[float, ...] | None, **record: Any) -> Document:
    """A pruned document, its sentences one per paragraph."""
    passage, units = "\n\n".join(sentences), []
    for sentence in sentences:
        start = units[-1].end + 2 if units else 0
        units.append(Unit(start, start + len(sentence), KINDS[len(units)]))
    spans = tuple((unit.start, unit.end) for unit, its_keep in zip(units, keep, strict=True) if its_keep)
    shown = Document(id=id, page_content="\n".join(passage[a:b] for a, b in spans), metadata={"relevance_score": 0.75})
    if all(keep):
        shown, spans = Document(id=id, page_content=passage, metadata=shown.metadata), ((0, len(passage)),)
    places = {"source": f"/notes/{id}.md", "start": 5, "end": 5 + len(passage), "lines": (Mark(0, 3),), **record}
    whole = Provenance(**places, passage=passage, spans=spans, units=tuple(units), unit_scores=scores)
    return with_provenance(shown, whole)


def grounded(*, evil: bool = False) -> GroundedContext:
    """Retrieval of a, b, c and d; a reranker that turns them round; a pruner that is given three and drops one of them."""
    other = EVIL if evil else "Ferries cross the strait."
    a = document("a", ["Otters swim well.", other], [True, False], (0.91, 0.07), headings=("Animals", "Otters"))
    b = document("b", ["Seals swim too."], [True], (0.66,), stages=(StageResult("bm25", 3.5, 2), StageResult("dense", 0.5, 1)))
    c, d = (Document(id=id, page_content=f"Boats of {id} float. {other}") for id in "cd")
    names = ["hybrid", "rerank", "prune"]
    usage: dict[str, Any] = {"calls": 4, "prompt_tokens": 310, "completion_tokens": 12}
    if evil:
        evil_place = {"source": f"javascript:window.hit=1//{EVIL}", "headings": (EVIL,)}
        b = document(
            EVIL, [EVIL, "Seals swim too."], [True, True], (0.66, 0.6), stages=(StageResult(EVIL, 1.0, 1),), **evil_place
        )
        names, usage = [EVIL, f"rerank {EVIL}", "prune"], {"calls": 4, "stopped": EVIL}
    trace = (
        StageTrace(names[0], 0.02, 90, tuple(Ranked(str(x.id), s) for x, s in ((d, 1.0), (c, 0.8), (b, 0.5), (a, 0.3)))),
        StageTrace(names[1], 1.3, 4, tuple(Ranked(str(x.id), s) for x, s in ((a, 0.9), (b, 0.7), (c, 0.2), (d, 0.1))), usage),
        StageTrace(names[2], 0.004, 3, tuple(Ranked(str(x.id), s) for x, s in ((a, 0.9), (b, 0.7)))),
    )
    question = f"What swims? {EVIL}" if evil else "What swims?"
    return ground(question, [a, b], RegexTokenizer(), whole=[a, b, c], seen=[d, c, b, a], trace=trace)


class Tags(HTMLParser):
    """Every element with its attributes, and all text outside style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"style": [], "script": []}
        self.text = ""
        self._current = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute of {tag} is given twice"
        self.tags.append((tag, dict(attrs)))
        self._current = tag

    def handle_data(self, data: str) -> None:
        if self._current in self.inside:
            self.inside[self._current].append(data)
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._current = ""

    def all(self, attribute: str) -> list[str]:
        return [attributes[attribute] or "" for _, attributes in self.tags if attribute in attributes]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "evil"])
def page(request: pytest.FixtureRequest) -> str:
    return grounded(evil=request.param).to_html()


def test_only_elements_of_the_page_itself(page: str) -> None:
    parsed, expected = Tags(page), Tags(grounded().to_html())
    assert {tag for tag, _ in parsed.tags} == {tag for tag, _ in expected.tags}
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on") or name == "style"]
    assert all(re.match(r"#|data:,$", address) for address in parsed.all("href"))
    assert not parsed.all("src")
    for tag in ("style", "script", "h1", "main"):
        assert sum(name == tag for name, _ in parsed.tags) == 1


def test_policy_names_the_digests_of_style_and_script(page: str) -> None:
    parsed = Tags(page)
    [policy] = [attributes["content"] for _, attributes in parsed.tags if "http-equiv" in attributes]
    rules = dict(rule.strip().split(" ", 1) for rule in (policy or "").split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for kind in ("style", "script"):
        digest = hashlib.sha256("".join(parsed.inside[kind]).encode()).digest()
        assert rules[f"{kind}-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"


def test_what_a_reader_of_the_page_needs_is_there() -> None:
    shown = Tags(grounded().to_html()).text
    assert all(word in shown for word in ("What swims?", "Ferries cross the strait.", "Boats of d float.", "Animals › Otters"))
    assert all(
        word in shown for word in ("bm25 2", "dense 1", "310", "prompt tokens", "1.3 s", "4 ms", "kept 0.910", "dropped 0.070")
    )
    assert "a.md:3" in shown  # from the folder that all share
    assert "Answer the question from the numbered passages alone." in shown
    assert shown.count("Otters swim well.") >= 3  # answer, passage, prompt


def test_names_and_references_within_the_page_fit(page: str) -> None:
    parsed = Tags(page)
    ids = parsed.all("id")
    assert len(ids) == len(set(ids))
    targets = [address[1:] for address in parsed.all("href") if address.startswith("#")]
    assert {*targets, *parsed.all("aria-controls"), *parsed.all("aria-labelledby")} <= set(ids)
    assert parsed.tags[0] == ("html", {"lang": "en"})
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch("h[1-6]", tag)]
    assert all(below <= above + 1 for above, below in pairwise(levels))


def test_a_context_without_anything_is_a_page_too() -> None:
    assert "Nothing in these documents" in ground("q", [], RegexTokenizer()).to_html()
    nothing = ground("q", [], RegexTokenizer(), trace=[StageTrace("bm25", 0.0, 0, ())]).to_html()
    assert "Nothing was found." in nothing
    alone = ground("q", [Document(id="x", page_content="One. Two.")], RegexTokenizer()).to_html()
    assert "Candidates" not in Tags(alone).text  # nothing is known of the way
    assert "2 of 2 sentences kept" in Tags(alone).text
    assert "button" not in {tag for tag, _ in Tags(alone).tags}  # there are no scores to show


@given(st.text())
def test_text_is_shown_as_it_is_but_for_what_cannot_be_seen(value: str) -> None:
    shown = text(value)
    shown.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f<>\"']", shown)
    if value.isprintable():
        parsed = Tags(f"<p>{shown}</p>")
        assert parsed.text == value
        assert len(parsed.tags) == 1


def test_signs_of_control_characters() -> None:
    assert text("a\x00b\x1bc\x7fd\x85") == "a␀b␛c␡d[U+0085]"
    assert text("\u202egnp.exe\u2066") == "[U+202E]gnp.exe[U+2066]"
    assert text("one\r\ntwo\rthree\tfour") == "one\ntwo\nthree\tfour"
    assert text("\ud800 \uffff \U000e0041") == "\ufffd [U+FFFF] [U+E0041]"
    assert text("👩\u200d🔬 می\u200cروم") == "👩\u200d🔬 می\u200cروم"


@pytest.mark.parametrize("name", ["plain.md", "with space & 100%.md", "ümläut#1?.md", '"><script>.md', "\u202egnp.md"])
def test_links_lead_to_the_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text("x")
    [(_, attributes)] = Tags(source_link(str(file), 7, label="here")).tags
    parts = urlsplit(attributes["href"] or "")
    assert (parts.scheme, parts.netloc, parts.fragment) == ("file", "", "page=7")
    assert url2pathname(parts.path) == str(file)
    [(_, record)] = Tags(source_link(f"{file}#record", label="here")).tags
    assert url2pathname(urlsplit(record["href"] or "").path) == str(file)


@pytest.mark.parametrize(
    "source", ["javascript:alert(1)", "/no/such/file.md", "relative.md", "", "\0", "/\0", "data:text/html,x"]
)
def test_what_is_no_file_is_no_link(source: str) -> None:
    assert source_link(source, label="<here>") == "&lt;here&gt;"


def test_moves_and_what_became_of_each() -> None:
    context = grounded()
    moves = ways(context)
    assert [(way.id, way.n) for way in moves] == [("a", 1), ("b", 2), ("c", None), ("d", None)]
    assert moves[0].steps == (Step(4, 0.3, None), Step(1, 0.9, 3), Step(1, 0.9, 0))
    assert moves[3].steps == (Step(1, 1.0, None), Step(4, 0.1, -3), Step(None))
    assert [fate(way, context.trace) for way in moves] == [
        "passage 1",
        "passage 2",
        "dropped by prune",
        "cut: 3 went on to prune",
    ]


@given(st.lists(st.lists(st.integers(0, 9)).map(lambda ids: [str(id) for id in ids]), min_size=1, max_size=4))
def test_moves_are_differences_of_ranks(rankings: list[list[str]]) -> None:
    trace = tuple(StageTrace(str(n), 0.0, 10, tuple(Ranked(id, None) for id in ids)) for n, ids in enumerate(rankings))
    moves = ways(GroundedContext("q", (), 0, 0, trace))
    assert {way.id for way in moves} == {id for ids in rankings for id in ids}
    for way in moves:
        assert isinstance(fate(way, trace), str)
        ranks = [ids.index(way.id) + 1 if way.id in ids else None for ids in rankings]
        assert [step.rank for step in way.steps] == ranks
        for before, after, step in zip(ranks, ranks[1:], way.steps[1:], strict=False):
            assert step.moved == (None if before is None or after is None else before - after)
    assert [way.id for way in moves][: len(set(rankings[-1]))] == list(dict.fromkeys(rankings[-1]))


def test_candidates_and_dropped_sentences_make_up_the_whole() -> None:
    context = grounded()
    assert [candidate.id for candidate in context.candidates] == ["d", "c", "b", "a"]
    known = {candidate.id: candidate for candidate in context.candidates}
    assert known["a"].text == "Otters swim well.\n\nFerries cross the strait."
    assert (known["a"].start, known["a"].line, known["d"].line) == (5, 3, None)
    first = context.passages[0]
    for sentence in (*first.sentences, *first.dropped):
        start, end = sentence.citation.start - known["a"].start, sentence.citation.end - known["a"].start
        assert known["a"].text[start:end] == sentence.citation.text
    assert [sentence.score for sentence in first.dropped] == [0.07]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for found in map(shutil.which, names) if found), None)
    if path is None:
        pytest.skip(f"needs one of {', '.join(names)}")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class View:
    """A page in the browser, with all that it complained of and asked for."""

    def __init__(self, browser: Any, folder: Path, context: GroundedContext, **settings: Any) -> None:
        file = folder / "page.html"
        file.write_text(context.to_html(), "utf-8")
        self.page = browser.new_page(**settings)
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.asked_first = [file.as_uri()]

    def check_quiet(self) -> None:
        assert self.problems == []
        assert [url for url in self.requests if not url.startswith("data:,")] == self.asked_first


PHONE = {"viewport": {"width": 360, "height": 740}}


def test_scores_appear_by_mouse_and_by_keyboard(browser: Any, tmp_path: Path) -> None:
    view = View(browser, tmp_path, grounded())
    page = view.page
    sentence, score = page.locator("#p1 .s").first, page.locator("#p1 .s .p").first
    assert not score.is_visible()
    sentence.click()
    assert (sentence.get_attribute("aria-expanded"), score.is_visible()) == ("true", True)
    assert score.inner_text() == "kept 0.910"
    for key in ("Enter", "Space"):
        before = score.is_visible()
        sentence.focus()
        page.keyboard.press(key)
        assert score.is_visible() != before
    assert score.is_visible()
    of_passage = page.locator("#p1 button.toggle")
    of_passage.focus()
    page.keyboard.press("Enter")
    assert [part.is_visible() for part in page.locator("#p1 .s .p").all()] == [True, True]
    assert of_passage.get_attribute("aria-expanded") == "true"
    page.locator("button[aria-controls=passages]").click()
    assert all(part.is_visible() for part in page.locator("article .p").all())
    assert set(page.locator(".s").evaluate_all("all => all.map((s) => getComputedStyle(s).display)")) == {"inline"}
    page.locator("button[aria-controls=passages]").click()
    assert not any(part.is_visible() for part in page.locator("article .p").all())
    assert of_passage.get_attribute("aria-expanded") == "false"
    view.check_quiet()
    page.close()


def test_every_part_is_reached_with_the_tab_key_and_shows_it(browser: Any, tmp_path: Path) -> None:
    view = View(browser, tmp_path, grounded())
    focusable = view.page.locator("a[href], button, summary, .s[role], pre:visible").count()
    reached = []
    for _ in range(focusable):
        view.page.keyboard.press("Tab")
        reached.append(
            view.page.evaluate("[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]")
        )
    assert reached[0][0] == "A"  # the link that skips the header
    assert {"A", "BUTTON", "SUMMARY", "SPAN"} <= {tag for tag, _ in reached}
    assert "none" not in {outline for _, outline in reached}
    view.page.close()


def test_documents_can_do_nothing(browser: Any, tmp_path: Path) -> None:
    view = View(browser, tmp_path, grounded(evil=True), **PHONE)
    page = view.page
    page.locator("button[aria-controls=passages]").click()
    for summary in page.locator("summary").all():
        summary.click()
    page.locator("article .s").nth(1).hover()
    assert page.evaluate("window.hit") is None
    assert page.evaluate("document.querySelectorAll('style, script').length") == 2
    shown = page.locator("#p1").inner_text()
    assert all(word in shown for word in ("<script>window.hit = 1</script>", "]]>", "[U+202E]gnp.exe", "NUL␀", "${body}"))
    assert page.locator("footer").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("location.protocol") == "file:"
    view.check_quiet()
    page.close()


def test_injected_code_would_not_run(browser: Any, tmp_path: Path) -> None:
    """The policy holds even for markup that would get past the escaping."""
    view = View(browser, tmp_path, grounded())
    view.page.evaluate(
        "for (const code of ['<img src=x onerror=\"window.hit=1\">', '<iframe srcdoc=\"<script>top.hit=1</script>\"></iframe>'])"
        "document.body.insertAdjacentHTML('beforeend', code);"
        "const s = document.createElement('script'); s.textContent = 'window.hit=1'; document.body.append(s)"
    )
    view.page.wait_for_timeout(50)
    assert view.page.evaluate("window.hit") is None
    assert any("Content Security Policy" in problem for problem in view.problems)
    view.page.close()


def test_a_phone_shows_all_of_it(browser: Any, tmp_path: Path) -> None:
    view = View(browser, tmp_path, grounded(), **PHONE)
    for summary in view.page.locator("summary").all():
        summary.click()
    assert view.page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [360, 360]
    outside = view.page.evaluate(
        "[...document.querySelectorAll('main *, header *')].filter(e => e.checkVisibility() && !e.closest('thead, .flow'))"
        ".filter(e => e.getBoundingClientRect().right > 360.5).map(e => e.outerHTML)"
    )
    assert outside == []
    for text_of in ("rerank", "▲3", "Boats of c float."):
        assert view.page.get_by_text(text_of).first.is_visible()
    view.check_quiet()
    view.page.close()


# foreground and background of everything that is written, as the reader sees them
COLOURS = """() => {
  const clear = "rgba(0, 0, 0, 0)";
  const behind = (e) => { for (; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor; if (colour !== clear) return colour; } };
  const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.body.querySelectorAll(":not(script)")].filter((e) => own(e) && e.checkVisibility()).map((e) => {
    const style = getComputedStyle(e), circle = e instanceof SVGElement && e.parentElement.querySelector("circle");
    const over = circle && e.tagName === "text" && e.parentElement.tagName === "g" ? getComputedStyle(circle).fill : behind(e);
    return [e.textContent.slice(0, 40), e instanceof SVGElement ? style.fill : style.color, over];
  });
}"""


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_in_light_and_dark(browser: Any, tmp_path: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        view = View(browser, tmp_path, grounded(), color_scheme=scheme)
        view.page.locator("button[aria-controls=passages]").click()
        for summary in view.page.locator("summary").all():
            summary.click()
        colours = view.page.evaluate(COLOURS)
        assert len(colours) > 50
        assert [item for item in colours if contrast(*item[1:]) < 4.5] == []
        seen[scheme] = colours
        view.check_quiet()
        view.page.close()
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert all(light[1:] != dark[1:] for light, dark in zip(seen["light"], seen["dark"], strict=True))
