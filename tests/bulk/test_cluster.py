"""Bulk work on a Ray cluster of three nodes: the loss of a node or of the driver changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bulk_encoders import SlowEncoder, break_down, calls, place, refuse
from bulk_pipelines import failing_pipeline

from ragkit import InputError, RagkitError
from ragkit.bulk.cluster import RayCluster
from ragkit.bulk.index import bulk_index
from ragkit.bulk.questions import retrieve_many
from ragkit.encoders.kept import KeptEncoder
from ragkit.store.indexer import index_paths
from ragkit.store.store import Store, bm25_and_dense

# the second: nodes give way to all other processes of a machine, and here to those that wait for them
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
pytest.importorskip("ray.data", reason="Ray is not installed")

MEMORY = 100 * 2**20  # of a node's objects


@pytest.fixture(scope="module")
def cluster(importable: None) -> Iterator[Any]:
    """Three nodes: the driver's, where nothing else is done, and two with a CPU each."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=MEMORY, include_dashboard=False)
    cluster.wait_for_nodes()
    with RayCluster(cluster.address):
        yield cluster
    cluster.shutdown()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@pytest.fixture
def expected(tmp_path: Path, make_folder: Callable[..., Path]) -> Iterator[Store]:
    with Store.create(tmp_path / "plain", bm25_and_dense(SlowEncoder())) as store:
        index_paths(store, [make_folder(tmp_path / "docs", 6)], size=32)
        yield store


class LosesANode:
    """A cluster that loses a node that has done some of the encoding, and was about to do more."""

    def __init__(self, cluster: Any, log: Path) -> None:
        self.cluster, self.workers, self.log, self.maps = cluster, RayCluster(cluster.address), log, 0

    def map(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        self.maps += 1
        for n, pair in enumerate(self.workers.map(work, items)):
            if self.maps == 2 and n == 1:
                self.cluster.remove_node(self.encoding_node())
            yield pair

    def encoding_node(self) -> Any:
        """The node whose raylet is the parent of a process that has encoded."""
        encoder = next(self.log.iterdir()).name
        parent = Path(f"/proc/{encoder}/stat").read_text().rpartition(")")[2].split()[1]
        [node] = [node for node in self.cluster.worker_nodes if str(node.all_processes["raylet"][0].process.pid) == parent]
        return node


def test_a_node_is_lost_half_way(cluster: Any, tmp_path: Path, log: Path, expected: Store, all_of: Any) -> None:
    workers = LosesANode(cluster, log)
    encoder = KeptEncoder(partial(SlowEncoder, log, 0.3), tmp_path / "parts")
    with Store.create(tmp_path / "index", bm25_and_dense(encoder)) as store:
        report = bulk_index(store, [tmp_path / "docs"], workers, size=32)
        assert workers.maps == 2
        assert len(cluster.worker_nodes) == 1
        assert {Path(s.path.split("#")[0]).name for s in report.skipped} == {
            "empty.md", "binary.txt", "broken.json", "gone.md", "records.jsonl",
        }  # fmt: skip
        assert all_of(store) == all_of(expected)
    # the lost node's work was done, or done again, by others
    assert len(list(log.iterdir())) > 1
    assert len(calls(log)) - len(set(calls(log))) <= 1


def test_the_driver_is_killed_half_way(cluster: Any, tmp_path: Path, log: Path, expected: Store, all_of: Any) -> None:
    out, parts = tmp_path / "index", tmp_path / "index.parts"
    arguments = [cluster.address, out, tmp_path / "docs", log, 0.5]
    driver = subprocess.Popen([sys.executable, str(Path(__file__).with_name("bulk_driver.py")), *map(str, arguments)])
    while len(list(parts.glob("*.npy"))) < 2:
        assert driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    encoder = KeptEncoder(partial(SlowEncoder, log), parts)
    with Store.open(out, encoder=encoder) as store:
        assert len(store) == 0
        unfinished = len(list(parts.glob("*.texts")))
        assert unfinished > 0
        bulk_index(store, [tmp_path / "docs"], RayCluster(cluster.address), size=32)
        assert all_of(store) == all_of(expected)
    # what was finished is not done again; what was being done then may be
    assert len(calls(log)) - len(set(calls(log))) <= 2


def test_questions(cluster: Any, expected: Store) -> None:
    make = partial(failing_pipeline, str(expected.path))
    questions = ["red fox", "FAIL here", *[f"moss file {n}" for n in range(9)]]
    local = make().batch(questions, return_exceptions=True)
    found = retrieve_many(make, questions, RayCluster(cluster.address), at_once=4)
    assert isinstance(found[1], RagkitError)
    assert isinstance(local[1], RagkitError)
    assert str(local[1]) in str(found[1])
    del found[1], local[1]
    assert found == local
    assert all(found)


def test_errors_arrive_as_they_are(cluster: Any) -> None:
    with pytest.raises(InputError, match=r"^texts: refused$"):
        list(RayCluster(cluster.address).map(refuse, ["x"]))
    with pytest.raises(RagkitError, match=r"^a worker failed: Odd: broke down at x$"):
        list(RayCluster(cluster.address).map(break_down, ["x"]))
    assert list(RayCluster(cluster.address).map(refuse, [])) == []


def test_a_worker_for_which_no_node_has_room(cluster: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    import ray

    here = RayCluster(cpus=99)
    monkeypatch.setattr(here, "_started", True)
    with pytest.raises(InputError, match=r"^cpus: no node of the cluster has 99 cores and 0 GPUs for a worker; ask for fewer$"):
        list(here.map(place, [1]))
    nodes = [{"Alive": True, "Resources": {"CPU": 0.0}}, {"Alive": False, "Resources": {"CPU": 9.0}}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert len(list(RayCluster(cluster.address).map(place, [1]))) == 1  # it came
    assert caplog.messages == ["no node of the cluster has 1 cores and 0 GPUs for a worker; waiting until there is one"]


def test_how_many_workers_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    nodes = [{"Alive": True, "Resources": resources} for resources in ({"CPU": 5.0, "GPU": 1.0}, {"CPU": 3.0}, {"memory": 1.0})]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert [RayCluster(cpus=cpus)._fitting() for cpus in (0.5, 1, 2, 5)] == [16, 8, 3, 1]
    assert [RayCluster(gpus=gpus)._fitting() for gpus in (1, 0.5)] == [1, 2]


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"cpus": 0}, {"gpus": -1}])
def test_what_a_worker_may_have(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="worker"):
        RayCluster(**wrong)
