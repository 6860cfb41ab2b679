"""What importing and installing ragkit means."""

import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import ragkit

ROOT = Path(__file__).parents[1]
HEAVY = ["torch", "transformers", "faiss", "numba", "langchain_core", "pydantic", "numpy"]


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    assert loaded_after("import ragkit") == set()


def test_torch_is_loaded_only_by_encoding() -> None:
    loaded = loaded_after("from ragkit import BM25Retriever, Pipeline; BM25Retriever.from_texts(['a b']).invoke('a')")
    assert not loaded & {"torch", "transformers", "faiss"}


@pytest.mark.parametrize("name", ragkit.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(ragkit, name).__doc__
    assert name in dir(ragkit)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = ragkit.Nonsense


def test_every_extra_is_known_to_errors() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        line.split('"')[-2]
        for path in (ROOT / "ragkit").rglob("*.py")
        for line in path.read_text().splitlines()
        if "MissingExtraError(" in line and '"' in line
    }
    assert named <= set(extras)


def test_wheel_carries_prompts_and_typing(tmp_path: Path) -> None:
    pytest.importorskip("build")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    subprocess.run(command, check=True, capture_output=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    assert {"ragkit/prompts/grounded_answer.yaml", "ragkit/py.typed", "ragkit/cli.py"} <= names
    assert not any(name.startswith(("tests/", "examples/", "benchmarks/")) for name in names)
