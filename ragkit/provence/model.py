"""A Provence model: pairs in, judgements out; windows, batches, the memo, and one instance per checkpoint."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

import numpy as np

from ragkit.encoders.batches import run_batches
from ragkit.encoders.folder import locate
from ragkit.encoders.pairs import PairTokenizer
from ragkit.errors import InputError, RagkitError
from ragkit.provence.family import Family
from ragkit.provence.memo import Known, Memo
from ragkit.provence.pair import Judged, Logits, Network, Pair
from ragkit.provence.windows import cut, merge, normalized

SHIPPED = Path(__file__).parents[1] / "models" / "provence-minilm"
"""ragkit's own model."""
_CHUNK = 1024  # pairs read at a time
_SHORTEST = 16

_shared: WeakValueDictionary[tuple[Path, str, str | None, int | None, int], ProvenceModel] = WeakValueDictionary()
# so that stages made one after the other, as in a sweep of thresholds, do not each load the weights
_latest: deque[ProvenceModel] = deque(maxlen=2)
_loading = Lock()


class ProvenceModel:
    """Scores passages for questions and says of every token whether it is worth keeping, in one forward pass.

    A passage longer than the model's window is read in overlapping windows; nothing is cut off. What was judged lately is
    remembered, so a pair that comes again, as behind a reranker, costs nothing. ragkit's own model looks at a passage in the
    light of the others that it is given for the question. May be used from several threads.
    """

    def __init__(
        self, network: Network, family: Family, tokenizer: PairTokenizer, *, batch_tokens: int = 8192, device: str = "cpu"
    ) -> None:
        """`tokenizer` makes the windows that `network` reads on `device`; `from_pretrained` puts them together."""
        if batch_tokens < 1:
            raise InputError(f"batch_tokens: must be at least 1, not {batch_tokens}")
        self.family = family
        self._network = network
        self._tokenizer = tokenizer
        self._batch_tokens = batch_tokens
        self._device = device
        self._memo = Memo()

    def __repr__(self) -> str:
        return f"ProvenceModel({self.family.name!r})"

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        device: str | None = None,
        dtype: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
    ) -> ProvenceModel:
        """The model in a folder or of a hub name; None is ragkit's own.

        `device` None is a GPU where there is one; `dtype` is "float32", "bfloat16" or "float16", None the second on a GPU and the
        first elsewhere; ragkit's own model is in float32 everywhere, and on an x86 CPU also takes "int8", which is faster and
        changes a judgement here and there. `max_length` counts the tokens of a window, special ones included; None is what the
        model was trained on, and more is refused. `batch_tokens` is the most tokens, padding included, that go through the
        model at once; None is 2048 on a CPU, whose caches hold no more, and 8192 elsewhere. Equal arguments give the same
        instance while it is in use: reranker and pruner share weights and memo. Raises `InputError` or `RagkitError` for what
        cannot be loaded.
        """
        from ragkit.encoders.network import best_device

        folder = _folder(model).resolve()
        device = device or best_device()
        if batch_tokens is None:
            batch_tokens = 2048 if device.startswith("cpu") else 8192
        with _loading:
            key = (folder, device, dtype, max_length, batch_tokens)
            found = _shared.get(key)
            if found is None:
                found = _shared[key] = cls._load(folder, device, dtype, max_length, batch_tokens)
            _latest.append(found)
            return found

    @classmethod
    def _load(cls, folder: Path, device: str, dtype: str | None, max_length: int | None, batch_tokens: int) -> ProvenceModel:
        from ragkit.provence.checkpoints import load_checkpoint

        if max_length is not None and max_length < _SHORTEST:
            raise InputError(f"max_length: must be at least {_SHORTEST}, not {max_length}")
        network, family = load_checkpoint(folder, device, dtype)
        if max_length is not None and max_length > family.max_length:
            raise InputError(f"max_length: {family.name} takes at most {family.max_length} tokens, not {max_length}")
        tokenizer = PairTokenizer(folder, max_length or family.max_length, "reranking and pruning")
        return cls(network, family, tokenizer, batch_tokens=batch_tokens, device=device)

    def judge(self, pairs: Sequence[Pair], *, batch_tokens: int | None = None) -> list[Judged]:
        """A judgement of each pair; those that have the same question were found together. See `judge_groups`."""
        groups: dict[str, list[int]] = defaultdict(list)
        for at, pair in enumerate(pairs):
            groups[pair.question].append(at)
        judged = self.judge_groups([[pairs[at] for at in places] for places in groups.values()], batch_tokens=batch_tokens)
        found = dict(zip(chain(*groups.values()), chain(*judged), strict=True))
        return [found[at] for at in range(len(pairs))]

    def judge_groups(self, groups: Sequence[Sequence[Pair]], *, batch_tokens: int | None = None) -> list[list[Judged]]:
        """A judgement of each pair of each group, with the activation of the model's family applied to the score.

        The pairs of a group have one question, and their passages were found together. `batch_tokens` overrides the model's own
        for this call. Scores that are not numbers are handed on as they are.
        """
        beside = [frozenset(map(hash, group)) for group in groups]
        judged = [self._memo.find(group, its_own) for group, its_own in zip(groups, beside, strict=True)]
        waiting: list[tuple[int, Pair, Pair]] = []
        for at, group in enumerate(groups):
            distinct = list(dict.fromkeys(group))
            if len(judged[at]) < len(distinct):
                accompanied = zip(distinct, self._network.accompany(distinct), strict=True)
                waiting += [(at, pair, known) for pair, known in accompanied if pair not in judged[at]]
            # chunks bound memory, and are large enough to find neighbours of equal length
            while len(waiting) >= _CHUNK or (waiting and at == len(groups) - 1):
                chunk, waiting = waiting[:_CHUNK], waiting[_CHUNK:]
                found = self._read([known for _, _, known in chunk], batch_tokens or self._batch_tokens)
                for (of, pair, known), verdict in zip(chunk, found, strict=True):
                    judged[of][pair] = verdict
                    self._memo.add(pair, Known(verdict, beside[of] if known.company else None))
        return [[its_own[pair] for pair in group] for group, its_own in zip(groups, judged, strict=True)]

    def forget(self) -> None:
        """Judge everything anew from now on, for whoever measures what that costs."""
        self._memo = Memo()

    def _read(self, pairs: Sequence[Pair], batch_tokens: int) -> list[Judged]:
        """`judge_groups`, without the memo; each pair has its company already."""
        if self.family.normalize_question:
            pairs = [pair._replace(question=normalized(pair.question)) for pair in pairs]
        per_pair = cut(self._tokenizer, pairs)
        windows = [window for its_windows in per_pair for window in its_windows]
        rank = np.zeros(len(windows))
        keep = [np.empty(0, np.float32)] * len(windows)
        lengths = [len(window.ids) for window in windows]

        def read(batch: list[int]) -> Logits:
            return self._network([windows[i] for i in batch])

        for batch, logits in run_batches(read, lengths, batch_tokens, self._device):
            rank[batch] = logits.rank
            for i, its_keep in zip(batch, logits.keep, strict=True):
                keep[i] = its_keep
        judged, end = [], 0
        for its_windows in per_pair:
            start, end = end, end + len(its_windows)
            judged.append(self._finished(merge(its_windows, rank[start:end], keep[start:end], self._tokenizer.overlap)))
        return judged

    def _finished(self, judged: Judged) -> Judged:
        for array in judged[1:]:
            array.setflags(write=False)  # everybody who asks again gets the same arrays
        return judged._replace(score=_sigmoid(judged.score) if self.family.activation == "sigmoid" else judged.score)


def _sigmoid(logit: float) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.exp(-np.logaddexp(0, -logit)))


def _folder(model: str | Path | None) -> Path:
    if model is not None:
        return locate(model)
    if not (SHIPPED / "config.json").is_file():
        raise RagkitError(f"model: ragkit's own is missing at {SHIPPED}; install ragkit again or pass the path of a model")
    return SHIPPED
