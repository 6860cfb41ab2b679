"""The pictures in docs/, of a real page: `python docs/screenshots.py [INDEX]`.

Without an index of examples/corpus, one is made in memory. Needs playwright and a Chromium.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from ragkit import GroundedContext, Pipeline, Store, bm25_and_dense, index_paths
from ragkit.chains.config import build_pipeline
from ragkit.chains.default import default_config

DOCS = Path(__file__).parent
FIRST = "How do I declare a path parameter?"
QUESTION = "How can I allow requests from another origin?"
WIDTH = 1040
MARGIN = 15


def main() -> None:
    """Ask, and take the pictures."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "explain.html"
        page.write_text(_context(sys.argv[1] if sys.argv[1:] else None).to_html(), "utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        _take(browser, page, "explain.png", "light", "header.top", ".drawing")
        _take(browser, page, "explain-passages.png", "dark", "section:has(> .row)", "#p3")
        browser.close()


def _context(index: str | None) -> GroundedContext:
    store = Store.memory(bm25_and_dense()) if index is None else Store.open(index)
    if index is None:
        index_paths(store, [DOCS.parent / "examples" / "corpus"])
    pipeline = build_pipeline(Pipeline, default_config(store.language), store)
    pipeline.ground(FIRST)  # loads the models, so that the times shown are those of the question
    return pipeline.ground(QUESTION)


def _take(browser: Browser, page: Path, name: str, scheme: str, first: str, last: str) -> None:
    """A picture of the page from the element `first` to the end of `last`, into docs/."""
    view = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme=scheme)
    view.goto(page.as_uri())
    view.locator("#p2 .toggle").click()
    view.mouse.move(0, 0)
    # all in view, so that the place of an element is its place in the picture
    view.set_viewport_size({"width": WIDTH, "height": view.evaluate("document.documentElement.scrollHeight")})
    view.evaluate("document.activeElement.blur()")
    top, end = view.locator(first).bounding_box(), view.locator(last).bounding_box()
    if top is None or end is None:
        raise SystemExit(f"{name}: the page has no {first} or no {last}")
    start = max(0, top["y"] - MARGIN)
    clip = {"x": 0, "y": start, "width": WIDTH, "height": end["y"] + end["height"] + MARGIN - start}
    view.screenshot(path=DOCS / name, clip=clip)
    view.close()


if __name__ == "__main__":
    main()
