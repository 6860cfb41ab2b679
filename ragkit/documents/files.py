"""Which files of a folder are read: known formats, nothing hidden, nothing ignored."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ragkit.errors import InputError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

T = TypeVar("T")

SUFFIXES = (
    *(".txt", ".text", ".md", ".markdown", ".rst", ".html", ".htm", ".pdf"),
    *(".json", ".jsonl", ".ndjson", ".jsonl.gz"),
)
IGNORE_FILES = (".gitignore", ".ragkitignore")


def find_files(
    paths: Iterable[str | Path], exclude: Iterable[str] = (), left_out: Callable[[str], object] | None = None
) -> Iterator[Path]:
    """Absolute paths of the files to read, in a fixed order, each real file once.

    Folders are searched for files with one of `SUFFIXES`; hidden ones are left out, as is what `.gitignore` and
    `.ragkitignore` files inside the folder name. `exclude` takes patterns in the same style and applies to everything. A file
    named itself is taken whatever its suffix. What cannot be opened is listed too, so that loading it tells why. `left_out` is
    told of every file that is in a folder for all to see, but of no known type. Raises `InputError` for a path that does not
    exist, or a pattern that is none.
    """
    from pathspec import GitIgnoreSpec

    exclude = several(exclude, "exclude")
    for pattern in exclude:
        if not _has_meaning(pattern):
            raise InputError(f"exclude: {pattern!r} is no pattern; write it as in a .gitignore file")
    excluded = GitIgnoreSpec.from_lines(exclude)
    seen: set[str] = set()
    paths = check_paths(paths)
    for path in paths:
        top = os.path.abspath(path)
        if os.path.isdir(top):
            found = _walk(top, [(top, excluded)], seen, left_out or (lambda path: None))
        else:
            found = iter(() if excluded.match_file(os.path.basename(path)) else (top,))
        for file in found:
            real = os.path.realpath(file)
            if real not in seen:
                seen.add(real)
                yield Path(file)


def several(values: Iterable[T], field: str) -> list[T]:
    """The values as a list. Raises `InputError` for a single string or path: every character of it would count as one."""
    if isinstance(values, str | os.PathLike):
        raise InputError(f"{field}: must be a list, not one {type(values).__name__}; give [{str(values)!r}]")
    return list(values)


def check_paths(paths: Iterable[str | Path]) -> list[str]:
    """The paths as strings. Raises `InputError` for one that does not exist."""
    names = [os.fspath(path) for path in several(paths, "paths")]
    for name in names:
        if not os.path.lexists(name):
            raise InputError(f"there is no file or folder {name or repr(name)}")
    return names


def _walk(
    folder: str, rules: list[tuple[str, GitIgnoreSpec]], seen: set[str], left_out: Callable[[str], object]
) -> Iterator[str]:
    """Files below `folder`. `rules` holds ignore patterns, the weightiest last: inner folders, then the caller's."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        seen.discard(real)  # so that it is listed
        yield folder
        return
    rules = [*rules[:-1], (folder, _ignore_file(folder)), rules[-1]]
    for entry in entries:
        is_folder = os.path.isdir(entry.path)  # that of the entry raises for a link to itself
        if entry.name.startswith(".") or _ignored(entry.path, is_folder, rules):
            continue
        if is_folder:
            yield from _walk(entry.path, rules, seen, left_out)
        elif not entry.name.lower().endswith(SUFFIXES):
            if os.path.isfile(entry.path):
                left_out(entry.path)
        elif os.path.isfile(entry.path) or not os.path.exists(entry.path):
            yield entry.path


def _ignore_file(folder: str) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    lines: list[str] = []
    for name in IGNORE_FILES:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.R_OK):
            with open(path, encoding="utf-8-sig", errors="replace") as file:
                lines.extend(filter(_has_meaning, file.read().splitlines()))
    return GitIgnoreSpec.from_lines(lines)


def _has_meaning(pattern: str) -> bool:
    """Whether it can be read as a line of `.gitignore`; git takes one that cannot, such as `!`, to match nothing."""
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([pattern])
    except (ValueError, re.error):
        return False
    return True


def _ignored(path: str, is_folder: bool, rules: list[tuple[str, GitIgnoreSpec]]) -> bool:
    for folder, spec in reversed(rules):
        verdict = spec.check_file(os.path.relpath(path, folder) + ("/" if is_folder else "")).include
        if verdict is not None:
            return verdict
    return False
