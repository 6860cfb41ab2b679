"""Run files of TREC: rankings as everybody in the field exchanges them."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ragkit.errors import InputError

_COLUMNS = "question, Q0, document, rank, score, tag"


def write_run(path: str | Path, rankings: Mapping[str, Sequence[str]], tag: str) -> None:
    """Write rankings (question id to document ids, best first) as lines `question Q0 document rank score tag`.

    Whoever reads a run orders it by score, so scores count down to 1: those of different stages could not be compared. White
    space in the tag becomes `_`. Raises `InputError` for an id that white space would break apart.
    """
    lines, tag = [], "_".join(tag.split()) or "_"
    for question, ids in rankings.items():
        for rank, document in enumerate(ids, 1):
            score = len(ids) + 1 - rank
            lines.append(f"{check_id(question, 'question')} Q0 {check_id(document, 'document')} {rank} {score} {tag}\n")
    Path(path).write_text("".join(lines), "utf-8")


def read_run(path: str | Path) -> dict[str, list[str]]:
    """The rankings of a run file, plain or ending in .gz: question id to document ids, best first.

    As in trec_eval, the score decides, whatever the rank column says, and scores that are equal in single precision go by
    document id, descending. Raises `InputError`, naming file and line, for what is no run.
    """
    path = Path(path)
    scores: dict[str, dict[str, float]] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where, columns = f"run: {path}, line {number}", line.split()
        if len(columns) != 6:
            raise InputError(
                f"{where}: has {len(columns)} columns, not the 6 of a TREC run ({_COLUMNS}), separated by white space, "
                "so that no id can hold any"
            )
        question, _, document, _, score, _ = columns
        try:
            value = float(np.float32(score))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{where}: the score, column 5 of {_COLUMNS}, is {score!r}; it must be a finite number")
        if document in scores.setdefault(question, {}):
            raise InputError(f"{where}: question {question!r} has document {document!r} a second time")
        scores[question][document] = value
    if not scores:
        raise InputError(f"run: {path} holds no line of a run ({_COLUMNS})")
    return {
        question: [document for _, document in sorted(((score, document) for document, score in its.items()), reverse=True)]
        for question, its in scores.items()
    }


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise InputError(f"run: cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def check_id(value: str, what: str) -> str:
    """The id. Raises `InputError` for one that a run cannot hold; `what` says of what it is."""
    if not value or value.split() != [value]:
        raise InputError(f"run: the {what} id {value!r} is empty or has white space in it, which a TREC run cannot hold")
    return value
