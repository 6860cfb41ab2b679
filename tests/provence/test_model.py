"""A Provence model over a fake network: what is read, how often, in which batches, and who shares it."""

from __future__ import annotations

import gc
import logging
import math
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ragkit import InputError, ProvenceModel
from ragkit.documents.model import Unit
from ragkit.encoders.folder import locate
from ragkit.errors import RagkitError
from ragkit.provence import model as model_module
from ragkit.provence.family import Family
from ragkit.provence.memo import Known, Memo
from ragkit.provence.pair import Judged, Logits, Pair


def pairs(count: int, words: int = 12) -> list[Pair]:
    """Different pairs of different lengths."""
    return [Pair(f"question {n % 3}", f"passage {n} " + "word " * (n * 7 % words), (), f"title {n % 2}") for n in range(count)]


def same(ours: Judged, theirs: Judged) -> bool:
    return math.isclose(ours.score, theirs.score) and all(map(np.array_equal, ours[1:], theirs[1:]))


def test_each_pair_is_read_once(make_provence: Any, make_network: Any) -> None:
    network = make_network()
    model = make_provence(network)
    asked = pairs(9)
    first = model.judge([*asked, *asked[::-1]])
    assert sorted(network.pairs) == sorted(asked)
    assert all(map(same, first[:9], first[9:][::-1]))
    second = model.judge([Pair(*pair) for pair in asked[3:]])
    assert all(map(same, second, first[3:9]))
    assert len(network.pairs) == 9
    # whatever the network may have looked at makes another pair
    pair = asked[0]
    changed = [
        pair._replace(question="?"),
        pair._replace(title=""),
        pair._replace(units=(Unit(0, 3),)),
        pair._replace(passage="p"),
    ]
    model.judge([*changed, pair])
    assert sorted(network.pairs[9:]) == sorted(changed)
    assert model.judge([]) == []


def test_answers_stand_in_the_order_of_the_questions(make_provence: Any) -> None:
    asked = pairs(40, 300)
    together = make_provence(max_length=64).judge(asked)
    alone = [make_provence(max_length=64).judge([pair])[0] for pair in asked]
    assert all(map(same, together, alone))
    assert len({len(judged.keep) for judged in together}) > 5


@pytest.mark.parametrize("budget", [1, 100, 700])
def test_batches_keep_to_their_budget(make_provence: Any, make_network: Any, budget: int) -> None:
    asked = pairs(30, 120)
    expected = make_provence(max_length=64).judge(asked)
    for own, call in ((budget, None), (8192, budget)):
        network = make_network()
        model = make_provence(network, max_length=64, batch_tokens=own)
        assert all(map(same, model.judge(asked, batch_tokens=call), expected))
        sizes = [len(batch) * max(len(window.ids) for window in batch) for batch in network.batches]
        assert all(size <= budget or len(batch) == 1 for size, batch in zip(sizes, network.batches, strict=True))
        assert budget == 1 or max(map(len, network.batches)) > 1
        # in one batch with its likes: a window is never shorter than the longest of a later batch
        lengths = [len(window.ids) for batch in network.batches for window in batch]
        assert lengths == sorted(lengths, reverse=True)


def test_many_pairs_are_tokenized_in_portions(make_provence: Any, make_network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = pairs(20)
    whole = make_provence().judge(asked)
    monkeypatch.setattr(model_module, "_CHUNK", 7)
    network = make_network()
    assert all(map(same, make_provence(network).judge(asked), whole))
    assert len(network.batches) == 3


def test_the_family_says_what_a_score_is(make_provence: Any) -> None:
    asked = pairs(5)
    raw = [judged.score for judged in make_provence(activation="raw").judge(asked)]
    sigmoid = [judged.score for judged in make_provence(activation="sigmoid").judge(asked)]
    assert sigmoid == pytest.approx([1 / (1 + math.exp(-score)) for score in raw])


@pytest.mark.parametrize(("logit", "score"), [(-1e9, 0.0), (-800.0, 0.0), (0.0, 0.5), (800.0, 1.0), (-math.inf, 0.0)])
def test_extreme_logits(make_provence: Any, make_network: Any, logit: float, score: float) -> None:
    class Network(type(make_network())):  # type: ignore[misc]
        def __call__(self, windows: Any) -> Logits:
            return super().__call__(windows)._replace(rank=np.full(len(windows), logit))

    network = Network()
    assert make_provence(network, activation="sigmoid").judge(pairs(1))[0].score == score


def test_the_family_says_what_becomes_of_a_question(make_provence: Any, make_network: Any) -> None:
    for normalize, read in ((True, "what is the us"), (False, "What is  the U.S.?")):
        network = make_network()
        model = make_provence(network, normalize_question=normalize)
        model.judge([Pair("What is  the U.S.?", "A country. Really?", ())] * 2)
        assert [(pair.question, pair.passage) for pair in network.pairs] == [(read, "A country. Really?")]


def test_what_is_not_a_number_is_handed_on(make_provence: Any, make_network: Any) -> None:
    class Network(type(make_network())):  # type: ignore[misc]
        def __call__(self, windows: Any) -> Logits:
            logits = super().__call__(windows)
            for number, window in enumerate(windows):
                if "passage 1 " in window.pair.passage:
                    logits.rank[number] = math.nan
                    logits.keep[number][:] = math.nan
            return logits

    for activation in ("raw", "sigmoid"):
        found = make_provence(Network(), activation=activation).judge(pairs(3))
        assert [math.isnan(judged.score) for judged in found] == [False, True, False]
        assert [bool(np.isnan(judged.keep).any()) for judged in found] == [False, True, False]


def test_odd_pairs(make_provence: Any, make_network: Any, caplog: pytest.LogCaptureFixture) -> None:
    huge = "never ending words " * 3000
    odd = [
        Pair("", "", ()),
        Pair("q", "", (), "t"),
        Pair("", "text", ()),
        Pair("why " * 400, "text", ()),
        Pair("q", huge, (), "t"),
    ]
    network = make_network()
    with caplog.at_level(logging.WARNING):
        found = make_provence(network).judge(odd)
    assert [judged.starts.tolist() for judged in found[:4]] == [[], [], [0], [0]]
    assert [len(judged.keep) for judged in found] == [0, 0, 1, 1, 9000]
    assert max(len(window.ids) for batch in network.batches for window in batch) == 512
    assert caplog.messages == ["question of 400 tokens cut to 254 for reranking"]


def test_two_hundred_passages(make_provence: Any, make_network: Any) -> None:
    network = make_network()
    found = make_provence(network, batch_tokens=2000).judge([Pair("which", f"number {n} of many", ()) for n in range(200)])
    assert len(found) == len(network.pairs) == 200
    assert all(judged.ends[-1] == len(f"number {n} of many") for n, judged in enumerate(found))


def test_what_is_remembered_cannot_be_changed(make_provence: Any) -> None:
    model = make_provence()
    [judged] = model.judge(pairs(1))
    for array in judged[1:]:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_threads_may_share_a_model(make_provence: Any) -> None:
    asked = pairs(60, 200)
    expected = make_provence(max_length=64).judge(asked)
    model = make_provence(max_length=64)
    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(lambda n: model.judge(asked[n:] + asked[:n]), range(60)):
            assert sorted(judged.score for judged in found) == sorted(judged.score for judged in expected)
        for n, found in enumerate(threads.map(lambda n: model.judge(asked[n : n + 9]), range(60))):
            assert all(map(same, found, expected[n : n + 9]))


def verdict(tokens: int, beside: Sequence[Pair] | None = None) -> Known:
    judged = Judged(0.0, np.zeros(tokens, np.float32), np.zeros(tokens, np.int64), np.zeros(tokens, np.int64))
    return Known(judged, None if beside is None else frozenset(map(hash, beside)))


def test_a_memo_knows_what_was_judged_beside_at_least_as_many() -> None:
    first, second, third = (Pair("q", text, ()) for text in "abc")
    memo = Memo()
    memo.add(first, verdict(1, [first, second]))
    memo.add(second, verdict(2))
    for beside, known in (([first], True), ([first, second], True), ([first, third], False), ([first, second, third], False)):
        found = memo.find([first, second, third], frozenset(map(hash, beside)))
        # to a network that looks at each passage by itself, the others make no difference
        assert set(found) == ({first, second} if known else {second})
    # judged again beside others, it is known beside those; beside fewer, it stays known beside more
    memo.add(first, verdict(3, [first, third]))
    memo.add(first, verdict(4, [first]))
    assert memo.find([first], frozenset(map(hash, [first, third])))[first].keep.shape == (3,)
    assert memo.find([first], frozenset(map(hash, [first, second]))) == {}


def test_a_memo_forgets_what_was_not_asked_for_the_longest_time() -> None:
    a, b, c, d = pairs(4)
    memo = Memo(3 * (100 + 64))

    def known(*asked: Pair) -> set[Pair]:
        return set(memo.find(asked, frozenset()))

    for pair in (a, b, c):
        memo.add(pair, verdict(100))
    assert known(a) == {a}
    memo.add(d, verdict(100))
    assert known(a, b, c, d) == {a, c, d}
    # the same pair again takes no room
    memo.add(a, verdict(100))
    memo.add(c, verdict(100))
    assert known(a, b, c, d) == {a, c, d}
    memo.add(b, verdict(200))
    assert known(a, b, c, d) == {d, b}
    # what is larger than the memo is not remembered, and leaves it usable
    memo.add(a, verdict(5000))
    assert known(a, b, c, d) == set()
    memo.add(c, verdict(400))
    assert known(c) == {c}


def test_what_a_memo_forgets_is_read_again(make_provence: Any, make_network: Any) -> None:
    network = make_network()
    model = make_provence(network)
    model._memo = Memo(0)
    asked = pairs(3)
    assert all(map(same, model.judge(asked), model.judge(asked)))
    assert len(network.pairs) == 6


@pytest.fixture
def checkpoints(make_network: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """Stands in for loading weights; holds what was asked for."""
    asked: list[tuple[Any, ...]] = []

    def load_checkpoint(folder: Path, device: str, dtype: str | None) -> Any:
        asked.append((folder, device, dtype))
        return make_network(), Family("fake", "raw", "mean", 0.5, False, False, 256, None)

    stand_in = SimpleNamespace(load_checkpoint=load_checkpoint)
    monkeypatch.setitem(sys.modules, "ragkit.provence.checkpoints", stand_in)
    monkeypatch.setattr(model_module, "_shared", weakref.WeakValueDictionary())
    model_module._latest.clear()
    yield asked
    model_module._latest.clear()


def test_equal_arguments_give_the_same_instance(checkpoints: list[Any]) -> None:
    folder = locate(None)
    model = ProvenceModel.from_pretrained(folder, device="cpu")
    assert ProvenceModel.from_pretrained(str(folder), device="cpu") is model
    assert ProvenceModel.from_pretrained(folder / ".." / folder.name, device="cpu") is model
    assert checkpoints == [(folder.resolve(), "cpu", None)]
    others = [
        ProvenceModel.from_pretrained(folder, device="cpu", **changes)
        for changes in ({"dtype": "bfloat16"}, {"max_length": 64}, {"batch_tokens": 100})
    ]
    assert len({id(other) for other in (model, *others)}) == 4
    assert [dtype for _, _, dtype in checkpoints] == [None, "bfloat16", None, None]


def test_no_device_is_the_best_one(checkpoints: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.encoders.network.best_device", lambda: "cpu")
    model = ProvenceModel.from_pretrained(locate(None))
    assert ProvenceModel.from_pretrained(locate(None), device="cpu") is model


def test_threads_load_a_model_once(checkpoints: list[Any]) -> None:
    barrier = threading.Barrier(6)

    def load(_: int) -> ProvenceModel:
        barrier.wait()
        return ProvenceModel.from_pretrained(locate(None), device="cpu")

    with ThreadPoolExecutor(6) as threads:
        assert len(set(map(id, list(threads.map(load, range(6)))))) == 1
    assert len(checkpoints) == 1


def test_the_two_models_used_last_stay_loaded(checkpoints: list[Any]) -> None:
    def use(length: int) -> None:
        ProvenceModel.from_pretrained(locate(None), device="cpu", max_length=length)
        gc.collect()

    for length in (64, 65, 64, 65):
        use(length)
    assert len(checkpoints) == 2
    for length in (66, 67, 64):
        use(length)
    assert len(checkpoints) == 5


def test_windows_are_as_long_as_asked(checkpoints: list[Any]) -> None:
    passage = "word " * 600
    for length in (None, 16, 256):
        model = ProvenceModel.from_pretrained(locate(None), device="cpu", max_length=length)
        model.judge([Pair("which", passage, ())])
        network: Any = model._network
        assert max(len(window.ids) for batch in network.batches for window in batch) == (length or 256)


def test_what_cannot_be_is_named(checkpoints: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = locate(None)
    for arguments, message in (
        ({"max_length": 15}, "max_length: must be at least 16, not 15"),
        ({"max_length": 257}, "max_length: fake takes at most 256 tokens, not 257"),
        ({"batch_tokens": 0}, "batch_tokens: must be at least 1, not 0"),
    ):
        with pytest.raises(InputError, match=message):
            ProvenceModel.from_pretrained(folder, device="cpu", **arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="missing is neither an existing folder nor"):
        ProvenceModel.from_pretrained(tmp_path / "missing", device="cpu")
    with pytest.raises(RagkitError, match="model: ragkit-tests/no-such-model is not in the local cache"):
        ProvenceModel.from_pretrained("ragkit-tests/no-such-model", device="cpu")
    monkeypatch.setattr(model_module, "SHIPPED", tmp_path / "shipped")
    with pytest.raises(RagkitError, match="model: ragkit's own is missing"):
        ProvenceModel.from_pretrained(device="cpu")


def test_none_is_ragkits_own(checkpoints: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_module.SHIPPED.parts[-3:] == ("ragkit", "models", "provence-minilm")
    monkeypatch.setattr(model_module, "SHIPPED", locate(None))
    ProvenceModel.from_pretrained(device="cpu")
    assert checkpoints == [(locate(None).resolve(), "cpu", None)]


def test_others_of_a_question_are_looked_at_where_the_network_asks_for_them(make_provence: Any, make_network: Any) -> None:
    """A network to which each pair is different beside others reads it again, unless it has seen it beside them and more."""

    class Network(type(make_network())):  # type: ignore[misc]
        def accompany(self, pairs: Any) -> list[Pair]:
            return [pair._replace(company=frozenset(pairs)) for pair in pairs]

    network = Network()
    model = make_provence(network)
    one, two, three = (Pair("q", f"passage {n}", ()) for n in range(3))
    other = Pair("another q", "passage 1", ())
    for asked, read in (
        ([one, two, other], {one, two, other}),
        ([two], set()),
        ([two, one, two], set()),
        ([one, three], {one, three}),
        ([one, two], {one}),  # beside the third, it was read anew
        ([other], set()),
    ):
        network.batches.clear()
        model.judge(asked)
        assert {pair._replace(company=None) for pair in network.pairs} == read


def test_what_was_found_for_the_same_question_elsewhere_is_no_company(make_provence: Any, make_network: Any) -> None:
    """Two searches in one batch may be of two tenants."""

    class Network(type(make_network())):  # type: ignore[misc]
        def accompany(self, pairs: Any) -> list[Pair]:
            return [pair._replace(company=frozenset(pairs)) for pair in pairs]

    network = Network()
    one, two, three = (Pair("q", f"passage {n}", ()) for n in range(3))
    make_provence(network).judge_groups([[one, two], [], [one, three], [three]])
    seen = {(pair._replace(company=None), pair.company) for pair in network.pairs}
    first, second, third = frozenset([one, two]), frozenset([one, three]), frozenset([three])
    assert seen == {(one, first), (two, first), (one, second), (three, second), (three, third)}
