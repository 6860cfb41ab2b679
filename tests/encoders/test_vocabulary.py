"""The vocabulary against a plain dict: whatever is added, saved and loaded, with honest hashes and with colliding ones."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.encoders import vocabulary as module
from ragkit.encoders.vocabulary import Vocabulary, hash_terms
from ragkit.errors import InputError

# any code point at all, lone surrogates included
tokens = st.text(st.characters(exclude_categories=()), max_size=4) | st.sampled_from(["", "a", "b", "\ud800", "\udc00", "京"])
documents = st.lists(st.lists(tokens, max_size=6), max_size=5)
steps = st.lists(st.tuples(st.sampled_from(["add", "lookup", "save", "load", "move"]), documents), max_size=12)


def all_alike(offsets: Any, blob: Any) -> Any:
    return np.zeros(len(offsets) - 1, np.uint64)


def by_length(offsets: Any, blob: Any) -> Any:
    return np.diff(offsets).astype(np.uint64)


@pytest.mark.parametrize("hashes", [hash_terms, all_alike, by_length])
@pytest.mark.parametrize("seen", [0, 2, 1000])
@given(steps)
@settings(max_examples=25, deadline=None)
def test_it_is_a_dict(hashes: Any, seen: int, walk: list[tuple[str, list[list[str]]]]) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "hash_terms", hashes)
        patch.setattr(module, "_SEEN", seen)
        vocabulary, plain, home = Vocabulary(), dict[str, int](), list[Path]()
        for action, lists in walk:
            if action == "add":
                starts, ids = vocabulary.add_all(lists)
                expected = [plain.setdefault(token, len(plain)) for its in lists for token in its]
                assert ids.tolist() == expected
            elif action == "lookup":
                starts, ids = vocabulary.lookup_all(lists)
                assert ids.tolist() == [plain.get(token, -1) for its in lists for token in its]
            else:
                home.append(Path(name) / str(len(home)))
                home[-1].mkdir()
                vocabulary.save(home[-1])
                if action != "save":
                    vocabulary = Vocabulary.load(home[-1])
                if action == "move":  # what was saved is mapped still, but its files are gone
                    shutil.rmtree(home[-1])
                continue
            assert starts.tolist() == np.cumsum([0, *map(len, lists)]).tolist()
            assert (starts.dtype, ids.dtype) == (np.int64, np.int32)
            assert len(vocabulary) == len(plain)
        everything = list(plain)
        assert vocabulary.terms(range(len(plain))) == everything
        assert vocabulary.terms(np.arange(len(plain))[::-1]) == everything[::-1]
        assert vocabulary.lookup(["never seen", *everything]).tolist() == list(range(len(plain)))


def test_ids_are_numbered_as_they_come() -> None:
    vocabulary = Vocabulary(["b", "a", "b"])
    assert vocabulary.add(["c", "a", "d", "c"]).tolist() == [2, 1, 3, 2]
    assert vocabulary.lookup(["x", "d", "d", "b"]).tolist() == [3, 3, 0]
    assert vocabulary.terms([3, 0, 3]) == ["d", "b", "d"]
    assert vocabulary.terms([]) == []
    for wrong in ([4], [-1], [0, 99]):
        with pytest.raises(InputError, match="ids: must be from 0 to 3"):
            vocabulary.terms(wrong)


def generations(root: Path, batches: list[list[str]]) -> list[Path]:
    """Each batch added to what was loaded from the generation before."""
    vocabulary, homes = Vocabulary(), list[Path]()
    for n, batch in enumerate(batches):
        vocabulary.add(batch)
        homes.append(root / str(n))
        homes[-1].mkdir()
        vocabulary.save(homes[-1])
        vocabulary = Vocabulary.load(homes[-1])
    return homes


def test_only_new_terms_are_written(tmp_path: Path) -> None:
    old, new, same = generations(tmp_path, [[f"t{n}" for n in range(1000)], ["new", "t1"], []])
    assert all((old / file.name).stat().st_ino == file.stat().st_ino for file in new.glob("terms-0-1000.*"))
    assert sorted(file.name for file in new.glob("*.npy")) == sorted(file.name for file in same.glob("*.npy"))
    assert all((new / file.name).stat().st_ino == file.stat().st_ino for file in same.glob("*.npy"))
    written = sum(file.stat().st_size for file in new.iterdir() if file.stat().st_nlink == 1)
    assert written < 1000
    assert not any(file.suffix == ".pkl" or b"pickle" in file.read_bytes() for file in new.iterdir())


def test_chunks_stay_few_and_little_is_written_twice(tmp_path: Path) -> None:
    batches = [[f"{n}-{m}" for m in range(1 + n % 7)] for n in range(80)]
    homes = generations(tmp_path, batches)
    total = sum(map(len, batches))
    assert max(len(list(home.glob("*.ids.npy"))) for home in homes) <= 1 + np.log2(total)
    fresh = [file for n, home in enumerate(homes) for file in home.glob("*.ids.npy") if not (homes[n - 1] / file.name).exists()]
    assert sum(len(np.load(file)) for file in fresh) <= total * (1 + np.log2(total))
    last = Vocabulary.load(homes[-1])
    assert last.terms(range(total)) == [term for batch in batches for term in batch]


@pytest.mark.parametrize("gone", [False, True])
def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool) -> None:
    [home] = generations(tmp_path, [["a", "", "京"]])
    vocabulary = Vocabulary.load(home)

    def refuse(*args: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    if gone:
        shutil.rmtree(home)
    (tmp_path / "copy").mkdir()
    vocabulary.save(tmp_path / "copy")
    assert Vocabulary.load(tmp_path / "copy").terms([2, 1, 0]) == ["京", "", "a"]
    assert {file.stat().st_nlink for file in (tmp_path / "copy").iterdir()} == {1}


def test_a_save_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = Vocabulary(["a"])
    (tmp_path / "ok").mkdir()
    vocabulary.save(tmp_path / "ok")
    vocabulary.add(["b"])
    with pytest.raises(FileNotFoundError):
        vocabulary.save(tmp_path / "missing")
    assert vocabulary.terms([0, 1]) == ["a", "b"]
    (tmp_path / "again").mkdir()
    vocabulary.save(tmp_path / "again")
    assert Vocabulary.load(tmp_path / "again").lookup(["b", "a"]).tolist() == [1, 0]


def test_damage_is_noticed(tmp_path: Path) -> None:
    [home] = generations(tmp_path, [["a", "b"]])
    contents = (home / "vocabulary.json").read_text()
    (home / "vocabulary.json").write_text(contents.replace("0", "1"))
    for file in home.glob("terms-0-2.*"):
        file.rename(home / file.name.replace("0-2", "1-3"))
    with pytest.raises(ValueError, match="do not follow"):
        Vocabulary.load(home)
    np.save(home / "terms-1-3.ids.npy", np.zeros(1, np.int32))
    with pytest.raises(ValueError, match="has not 2 terms"):
        Vocabulary.load(home)


def test_very_long_terms(tmp_path: Path) -> None:
    terms = ["x" * 1_000_000, "x" * 1_000_000 + "y", "x" * 999_999 + "y", "京" * 300_000]
    [home] = generations(tmp_path, [terms])
    loaded = Vocabulary.load(home)
    assert loaded.lookup(["x" * 999_999, *terms]).tolist() == [0, 1, 2, 3]
    assert loaded.terms([3]) == terms[3:]


@given(st.lists(tokens, unique=True, max_size=20))
def test_a_hash_depends_on_its_term_alone(terms: list[str]) -> None:
    encoded = [term.encode("utf-8", "surrogatepass") for term in terms]

    def hashes(parts: list[bytes]) -> list[int]:
        found: list[int] = hash_terms(np.cumsum([0, *map(len, parts)]), np.frombuffer(b"".join(parts), np.uint8)).tolist()
        return found

    assert hashes(encoded) == [hashes([term])[0] for term in encoded]
    assert len(set(hashes(encoded))) == len(terms)


def test_hashes_spread() -> None:
    terms = [f"{a}{b}".encode() for a in ("", "x", "word", "\0") for b in range(20_000)]
    hashes = hash_terms(np.cumsum([0, *map(len, terms)]), np.frombuffer(b"".join(terms), np.uint8))
    assert len(np.unique(hashes)) == len(terms)
    for byte in hashes.view(np.uint8).reshape(-1, 8).T:
        counts = np.bincount(byte, minlength=256)
        assert 0.6 < counts.min() / counts.mean() <= counts.max() / counts.mean() < 1.4


def test_lookups_beside_a_writer(tmp_path: Path) -> None:
    vocabulary = Vocabulary(f"t{n}" for n in range(500))

    def look(seed: int) -> bool:
        rng = random.Random(seed)
        for _ in range(60):
            wanted = [rng.randrange(500) for _ in range(5)]
            if vocabulary.lookup([f"t{n}" for n in wanted]).tolist() != wanted:
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(look, seed) for seed in range(8)]
        for n in range(10):
            vocabulary.add([f"new {n} {m}" for m in range(50)])
            (tmp_path / str(n)).mkdir()
            vocabulary.save(tmp_path / str(n))
        assert all(answer.result() for answer in answers)
