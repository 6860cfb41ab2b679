"""Keys: their file, their limits, and who is let in."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ragkit import InputError
from ragkit.serving.errors import Problem
from ragkit.serving.keys import Key, add_key, holder, read_keys
from ragkit.serving.quotas import Quotas
from tests.serving.conftest import Gate, client_of, until

pytest.importorskip("fastapi", reason="needs ragkit[serve]")
pytest.importorskip("prometheus_client", reason="needs ragkit[serve]")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_the_file_has_digests_only(path: Path) -> None:
    first, second = add_key(path, "a", filter={"tenant": "a"}), add_key(path, "b", requests_per_minute=5)
    text = path.read_text()
    assert first not in text
    assert second not in text
    assert json.loads(text)["keys"][0] == {
        "name": "a",
        "sha256": hashlib.sha256(first.encode()).hexdigest(),
        "filter": {"tenant": "a"},
    }
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    keys = read_keys(path)
    assert holder(keys, first.encode()) == keys[0]
    assert holder(keys, second.encode()) == keys[1]
    for wrong in (b"", first[:-1].encode(), first.upper().encode(), keys[0].sha256.encode()):
        assert holder(keys, wrong) is None
    assert len(first) > 43  # 32 random bytes
    with pytest.raises(InputError, match="has a key 'a' already"):
        add_key(path, "a")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must hold"),
        ('{"keys": [{"name": "a"}]}', "keys.0.sha256"),
        ('{"keys": [{"name": "a", "sha256": "x"}]}', "keys.0.sha256"),
        *[
            (json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "filter": filter}]}), "would let everything through")
            for filter in (
                {},
                {"tenant": {}},
                {"tenant": "a", "lang": {}},
                {"$and": []},
                {"$or": [{"tenant": "a"}, {}]},
                {"$not": {"$or": []}},
                {"tenant": {"$nin": []}},
            )
        ],
        (json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "filter": {"$x": 1}}]}), "unknown"),
        (json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "fliter": {"a": 1}}]}), "fliter"),
        (json.dumps({"keys": [{"name": "a", "sha256": n * 64} for n in "01"]}), "same name"),
        (json.dumps({"keys": [{"name": n, "sha256": "0" * 64} for n in "ab"]}), "same sha256"),
    ],
)
def test_a_file_that_is_wrong_is_refused(path: Path, data: str, message: str) -> None:
    path.write_text(data)
    with pytest.raises(InputError, match=message):
        read_keys(path)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*keys\.json"):
        read_keys(path)


def test_rates() -> None:
    now = 0.0
    quotas, key = Quotas(lambda: now), Key(name="a", sha256="0" * 64, requests_per_minute=6)

    def ask() -> int | None:
        """Seconds to wait; None if it may."""
        try:
            quotas.enter(key)
        except Problem as problem:
            return int(problem.headers["Retry-After"])
        quotas.leave(key)
        return None

    assert [ask() for _ in range(7)] == [None] * 6 + [10]
    now = 4.0
    assert ask() == 6
    now = 10.0
    assert [ask(), ask()] == [None, 10]
    now = 1e6
    assert [ask() for _ in range(7)] == [None] * 6 + [10]  # saved up for a minute at most
    quotas.enter(Key(name="b", sha256="1" * 64, requests_per_minute=6))


def test_requests_at_once() -> None:
    quotas, key = Quotas(), Key(name="a", sha256="0" * 64, concurrent=2)
    quotas.enter(key)
    quotas.enter(key)
    with pytest.raises(Problem, match="2 requests under way"):
        quotas.enter(key)
    quotas.leave(key)
    quotas.enter(key)


def test_who_is_let_in(make_service: Any, path: Path) -> None:
    key, watcher = add_key(path, "a"), add_key(path, "prometheus", metrics=True)
    with client_of(make_service(keys=path)) as client:

        def search(headers: dict[str, str]) -> httpx.Response:
            return client.post("/v1/search", json={"query": "boats"}, headers=headers)

        assert search(bearer(key)).status_code == 200
        assert search({"Authorization": f"bearer  {key}"}).status_code == 200
        for headers in ({}, bearer("wrong"), bearer(key[:-1]), {"Authorization": key}, {"Authorization": f"Basic {key}"}):
            refused = search(headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert set(refused.json()) == {"error"}
        # not even the body is looked at, nor whether there is such an endpoint
        assert client.post("/v1/search", content=b"{").status_code == 401
        assert client.get("/secret").status_code == 401
        for path_ in ("/health", "/ready", "/openapi.json"):
            assert client.get(path_).status_code == 200
        assert [client.get("/metrics", headers=bearer(one)).status_code for one in (key, watcher)] == [403, 200]
        assert client.get("/metrics").status_code == 401
        assert search(bearer(watcher)).status_code == 403
        described = client.get("/openapi.json").json()
        [(name, scheme)] = described["components"]["securitySchemes"].items()
        assert scheme["scheme"] == "bearer"
        needed = {path: operation.get("security") for path, ways in described["paths"].items() for operation in ways.values()}
        assert {path for path, schemes in needed.items() if not schemes} == {"/health", "/ready"}
        assert all(schemes == [{name: []}] for schemes in needed.values() if schemes)


def test_limits_of_a_key_are_its_own(make_service: Any, path: Path, gate: Gate) -> None:
    few, one = add_key(path, "few", requests_per_minute=2), add_key(path, "one", concurrent=1)
    with client_of(make_service(keys=path, gate=gate)) as client, ThreadPoolExecutor(1) as pool:
        statuses = [client.post("/v1/search", json={"query": "x"}, headers=bearer(few)).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        body = {"query": "blocked", "documents": ["x"]}
        blocked = pool.submit(client.post, "/v1/rerank", json=body, headers=bearer(one))
        assert gate.entered.wait(20)
        refused = client.post("/v1/search", json={"query": "x"}, headers=bearer(one))
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        gate.open.set()
        assert blocked.result().status_code == 200
        assert client.post("/v1/search", json={"query": "x"}, headers=bearer(one)).status_code == 200


def test_changes_of_the_file_count_at_once(make_service: Any, path: Path) -> None:
    from ragkit.serving.limits import Limits

    old = add_key(path, "old")
    service = make_service(keys=path, limits=Limits(refresh_s=0.01, drain_s=10))
    with client_of(service) as client:

        def status(key: str) -> int:
            return client.post("/v1/search", json={"query": "x"}, headers=bearer(key)).status_code

        new = add_key(path, "new")
        until(lambda: status(new) == 200)
        assert status(old) == 200
        kept = [entry for entry in json.loads(path.read_text())["keys"] if entry["name"] != "old"]
        path.write_text(json.dumps({"keys": kept}))
        until(lambda: status(old) == 401)
        # what cannot be read lets nobody in who was not, and nobody out who was
        path.write_text("{")
        seen = service._keys_seen
        assert seen is not None
        until(lambda: service.keys is not None)
        assert (status(new), status(old)) == (200, 401)
        path.unlink()
        assert (status(new), status(old)) == (200, 401)
