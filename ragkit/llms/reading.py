"""What a transformer of any kind does with prompts: scores texts that might follow, or writes what follows. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol

import torch

from ragkit.encoders.network import padded


class State(Protocol):
    """Prompts that were read, one row each, and what comes next."""

    logits: torch.Tensor
    """Of the token that follows, [rows, vocabulary]."""

    def select(self, rows: torch.Tensor) -> State:
        """A state of its own with these rows, each of which may occur more than once."""
        ...

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append tokens [rows, n]; the logits behind each of them, [rows, n, vocabulary]."""
        ...


class Reader(Protocol):
    """A loaded network."""

    network: Any
    longest: int | None
    """The most tokens that fit; None if there is no limit."""
    counts_answer: bool
    """Whether the answer's tokens take room beside the prompt's."""

    def start(self, prompts: Sequence[Sequence[int]]) -> State:
        """Read prompts of at least one token each, what they share only once."""
        ...


class _Place(NamedTuple):
    """Where a continuation belongs: its prompt, and its number there."""

    prompt: int
    number: int


def score(
    reader: Reader, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]
) -> list[list[float]]:
    """Log-probability of each prompt's own continuations: the sum over their tokens, each given all that is before it.

    A prompt is read once for all its continuations. Continuations have at least one token.
    """
    state = reader.start(prompts)
    first = padded([[tokens[0] for tokens in its] for its in continuations], state.logits.device)
    beginnings = torch.log_softmax(state.logits.float(), -1).gather(1, first).tolist()
    scores = [row[: len(its)] for row, its in zip(beginnings, continuations, strict=True)]
    places = [_Place(i, j) for i, its in enumerate(continuations) for j, tokens in enumerate(its) if len(tokens) > 1]
    for start in range(0, len(places), len(prompts)):
        part = places[start : start + len(prompts)]
        rows = [place.prompt for place in part]
        texts = [continuations[place.prompt][place.number] for place in part]
        # a state that is read on cannot be used again, but often nobody needs it again
        again = len(places) > len(prompts) or rows != list(range(len(prompts)))
        chosen = state.select(torch.tensor(rows, device=first.device)) if again else state
        logits = chosen.read(padded([tokens[:-1] for tokens in texts], first.device)).float()
        targets = padded([tokens[1:] for tokens in texts], first.device)
        found = logits.gather(2, targets[:, :, None])[:, :, 0] - logits.logsumexp(-1)
        real = padded([[1] * (len(tokens) - 1) for tokens in texts], first.device)
        for place, total in zip(part, (found * real).sum(1).tolist(), strict=True):
            scores[place.prompt][place.number] += total
    return scores


def write(
    reader: Reader,
    prompts: Sequence[Sequence[int]],
    limit: int,
    ends: Collection[int],
    stopped: Callable[[], bool],
) -> list[list[int]]:
    """The likeliest token after each prompt, and so on: up to and with one of `ends`, or `limit` tokens."""
    state = reader.start(prompts)
    written: list[list[int]] = [[] for _ in prompts]
    unfinished = set(range(len(prompts)))
    while True:
        tokens = state.logits.argmax(-1)
        for i, token in enumerate(tokens.tolist()):
            if i in unfinished:
                written[i].append(token)
                if token in ends or len(written[i]) == limit:
                    unfinished.remove(i)
        if not unfinished or stopped():
            return written
        state.read(tokens[:, None])
