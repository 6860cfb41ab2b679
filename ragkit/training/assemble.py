"""The examples of a run: read, held out, sampled, and with hard negatives. The same for the same configuration and files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from ragkit.errors import InputError
from ragkit.training.config import Source
from ragkit.training.examples import Example, Passage, read_examples
from ragkit.training.negatives import mine_negatives
from ragkit.training.sources import (
    read_answer_strings,
    read_answers,
    read_composed,
    read_corpus,
    read_hotpot,
    read_rows,
    read_sentences,
    read_unanswerable,
)

_COPY = "#"


class Assembled(NamedTuple):
    """Examples to learn from, and examples held out."""

    train: list[Example]
    dev: list[Example]


def assemble(sources: Iterable[Source], data: Path, seed: int, report: Callable[[str], None]) -> Assembled:
    """`data` is the folder that paths are relative to; `report` gets a line per source.

    Raises `InputError` for bad data, and if nothing is left to train on.
    """
    train: list[Example] = []
    dev: list[Example] = []
    for source in sources:
        path = data / source.path
        examples = _read(source, path)
        held_out = [one for one in examples if source.dev and is_held_out(_unit(one, source.dev.by), source.dev.share)]
        ids = {one.id for one in held_out}
        rest = [one for one in examples if one.id not in ids]
        taken = [copy for one in rest for copy in _copies(one, _times(one.group, source.share, seed))]
        mined = _mined(source, path, rest, taken, seed)
        train += taken + mined
        dev += held_out
        report(f"{source.kind} {source.path}: {len(taken)} to train on, {len(mined)} mined, {len(held_out)} held out")
    held_out_texts = {one.passage for one in dev}
    kept = [one for one in train if one.passage not in held_out_texts]
    report(f"{len(kept)} to train on, {len(train) - len(kept)} left out as their passage is held out, {len(dev)} held out")
    if not kept:
        raise InputError("sources: nothing is left to train on; see their share and dev")
    return Assembled(kept, dev)


def _read(source: Source, path: Path) -> list[Example]:
    match source.kind:
        case "examples":
            return read_examples(path)
        case "rows":
            return read_rows(path)
        case "sentences":
            return read_sentences(path, source.split)
        case "unanswerable":
            return read_unanswerable(path, source.split)
        case "answers":
            return read_answers(path)
        case "composed":
            return read_composed(path)
        case "hotpot":
            return read_hotpot(path)


def _mined(source: Source, path: Path, rest: list[Example], taken: list[Example], seed: int) -> list[Example]:
    folder = source.kind == "sentences"
    pool = list(read_corpus(path).values()) if folder and source.negatives else None
    answers = read_answer_strings(path) if folder and source.negatives else None
    mined: dict[str, Example] = {}
    for at, settings in enumerate(source.negatives):
        chosen = [one for one in taken if _drawn(f"negatives {at} {seed} {one.group}", settings.share)]
        # the pool holds all passages, but a question is not given those it has
        found = mine_negatives(
            chosen,
            pool if pool is not None else _passages(rest),
            n=settings.n,
            skip=settings.skip,
            depth=settings.depth,
            answers=None if answers is None else {one.group: _of_original(one.group, answers) for one in chosen},
        )
        mined |= {one.id: one for one in found}
    return list(mined.values())


def _passages(examples: list[Example]) -> list[Passage]:
    return [Passage(one.title, one.sentences) for one in examples]


def _copies(example: Example, times: int) -> list[Example]:
    # as questions of their own, so that each time other passages may be drawn
    return [replace(example, group=f"{example.group}{_COPY}{at}") if at else example for at in range(times)]


def _unit(example: Example, by: str) -> str:
    return (example.title or example.passage) if by == "title" else example.group


def _times(name: str, share: float, seed: int) -> int:
    whole = int(share)
    return whole + _drawn(f"share {seed} {name}", share - whole)


def _of_original(group: str, answers: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The answers of a question, or of the one that it is a copy of."""
    return answers.get(group) or answers.get(group.rpartition(_COPY)[0]) or ()


def is_held_out(unit: str, share: float) -> bool:
    """Whether a question, by its id, or all that has this title is held out of every run that holds out that share."""
    return _drawn(f"0 {unit}", share)


def _drawn(name: str, share: float) -> bool:
    """True for `share` of all names, the same names on every run. Draws for different purposes need different names."""
    digest = blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64
