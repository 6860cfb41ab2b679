"""Load on `ragkit serve`, on loopback: throughput and latency with micro-batches and without, errors, and memory.

    python benchmarks/serving.py scifact                                  # writes benchmarks/results/serving.md
    python benchmarks/serving.py scifact --seconds 2 --clients 1 8 --memory-minutes 0.2 --dry        # prints only

The server is a process of its own, over an index that is shared with benchmarks/retrieval.py, with ragkit's default pipeline.
Callers are tasks of this process; each sends its next request when its last one is answered, so there are never more under way
than callers. Questions are the dataset's own. /v1/rerank is given the first `--documents` passages of BM25 for its question. What
a model has judged lately it remembers, so every request to rerank has a mark of its own at the end of its question. "One by one"
is a server whose batches have one question. Latencies are as a caller sees them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from retrieval import DATA, ROOT, open_store

from ragkit import BM25Retriever
from ragkit.evaluation.datasets import load_dataset
from ragkit.evaluation.tables import Table

RESULTS = ROOT / "benchmarks" / "results" / "serving.md"
SERVE = "import typer; from ragkit.serving.command import serve; app = typer.Typer(); app.command()(serve); app()"
MODES = {"batches": 64, "one by one": 1}
Bodies = Callable[[int], dict[str, Any]]
_numbers = itertools.count()  # no two requests of a run have the same


class Load(NamedTuple):
    """What came of some seconds of load."""

    per_second: float
    p50: float
    p99: float
    """Milliseconds."""
    statuses: Counter[str]


@contextmanager
def server(index: Path, *options: str) -> Iterator[tuple[str, int]]:
    """`ragkit serve` as a process: its address and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVE, str(index), "--port", str(port), *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "HF_HUB_OFFLINE": "1"}) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url) as client:
                while process.poll() is None:
                    try:
                        if client.get("/ready").status_code == 200:
                            break
                    except httpx.TransportError:
                        pass
                    time.sleep(0.2)
            yield url, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


async def load(url: str, path: str, bodies: Bodies, clients: int, seconds: float) -> Load:
    """Some callers for some seconds; requests under way at the end are waited for and count."""
    latencies: list[float] = []
    statuses: Counter[str] = Counter()
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    started = time.perf_counter()
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=300) as http:

        async def caller() -> None:
            while time.perf_counter() - started < seconds:
                body, sent = bodies(next(_numbers)), time.perf_counter()
                try:
                    status = str((await http.post(path, json=body)).status_code)
                except httpx.HTTPError as error:
                    status = type(error).__name__
                statuses[status] += 1
                if status == "200":
                    latencies.append(time.perf_counter() - sent)
                else:
                    await asyncio.sleep(0.05)

        await asyncio.gather(*(caller() for _ in range(clients)))
    elapsed = time.perf_counter() - started
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000 if latencies else (np.nan, np.nan)
    return Load(len(latencies) / elapsed, float(p50), float(p99), statuses)


def resident(process: int) -> float:
    """MiB of memory that a process holds, as Linux tells it."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def workloads(name: str, documents: int) -> tuple[Path, dict[str, Bodies]]:
    """The index of a dataset, and what is asked: by path, the body of request number n."""
    dataset = load_dataset(DATA / name, "test")
    with open_store(dataset) as store:
        questions = [*dataset.queries.values()][:200]
        found = BM25Retriever(store=store, k=documents).batch(questions)
    texts = [[document.page_content for document in its] for its in found]

    def search(n: int) -> dict[str, Any]:
        return {"query": questions[n % len(questions)], "k": 10}

    def rerank(n: int) -> dict[str, Any]:
        at = n % len(questions)
        return {"query": f"{questions[at][:3000]} ({n})", "documents": texts[at], "return_documents": False}

    return ROOT / ".cache" / "benchmarks" / dataset.name, {"/v1/rerank": rerank, "/v1/search": search}


def compared(index: Path, asked: dict[str, Bodies], clients: Sequence[int], seconds: float) -> Table:
    """Each endpoint, number of callers and way of batching; the ways take turns."""
    found: dict[tuple[str, int, str], Load] = {}
    for mode, size in MODES.items():
        with server(index, "--batch", str(size), "--timeout", "120") as (url, _):
            for path, bodies in asked.items():
                asyncio.run(load(url, path, bodies, 1, min(seconds, 2)))
                for count in clients:
                    found[path, count, mode] = asyncio.run(load(url, path, bodies, count, seconds))
                    print(path, count, mode, found[path, count, mode], flush=True)
    rows = [
        [path, str(count), mode, f"{its.per_second:.1f}", f"{its.p50:,.0f}", f"{its.p99:,.0f}", errors(its.statuses)]
        for path in asked
        for count in clients
        for mode in MODES
        for its in [found[path, count, mode]]
    ]
    header = ["endpoint", "callers", "model is asked", "answers/s", "p50 ms", "p99 ms", "errors"]
    return Table("Throughput and latency.", header, rows)


def overloaded(index: Path, asked: dict[str, Bodies], clients: int, seconds: float) -> Table:
    """More callers than the queue has room for: what is answered, and with what."""
    with server(index, "--queue", "8", "--timeout", "120") as (url, _):
        rows = []
        for path, bodies in asked.items():
            its = asyncio.run(load(url, path, bodies, clients, seconds))
            print(path, "overloaded", its, flush=True)
            counts = ", ".join(f"{status}: {count}" for status, count in sorted(its.statuses.items()))
            rows.append([path, str(clients), f"{its.per_second:.1f}", f"{its.p99:,.0f}", counts])
    return Table(
        "With room for 8 questions in a queue.", ["endpoint", "callers", "answers/s", "p99 ms", "answers by status"], rows
    )


def remembered(index: Path, asked: dict[str, Bodies], minutes: float, clients: int = 8) -> Table:
    """Resident memory under steady load on all endpoints, from the time when everything is loaded."""
    samples: list[tuple[float, float]] = []
    statuses: Counter[str] = Counter()
    with server(index, "--timeout", "120") as (url, process):
        for path, bodies in asked.items():
            asyncio.run(load(url, path, bodies, clients, 2))
        started, part = time.perf_counter(), max(1.0, minutes * 60 / 20)
        while time.perf_counter() - started < minutes * 60:
            samples.append(((time.perf_counter() - started) / 60, resident(process)))
            for path, bodies in asked.items():
                statuses += asyncio.run(load(url, path, bodies, clients, part / len(asked))).statuses
        samples.append(((time.perf_counter() - started) / 60, resident(process)))
    print("memory", samples, statuses, flush=True)
    rows = [[f"{at:.1f}", f"{size:,.0f}"] for at, size in samples]
    caption = f"Memory of the server, {clients} callers; {sum(statuses.values()):,} requests, errors: {errors(statuses)}."
    return Table(caption, ["minutes", "MiB"], rows)


def errors(statuses: Counter[str]) -> str:
    """All but 200, by status."""
    return ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()) if status != "200") or "none"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--documents", type=int, default=10, help="of a request to rerank")
    parser.add_argument("--memory-minutes", type=float, default=10.0)
    parser.add_argument("--dry", action="store_true", help="write no results")
    given = parser.parse_args(arguments)
    index, asked = workloads(given.dataset, given.documents)
    tables = [
        compared(index, asked, given.clients, given.seconds),
        overloaded(index, asked, max(given.clients), given.seconds),
        remembered(index, asked, given.memory_minutes),
    ]
    command = shlex.join(["python", "benchmarks/serving.py", *(sys.argv[1:] if arguments is None else arguments)])
    setting = (
        f"{given.dataset}, {given.documents} documents in a request to rerank, {given.seconds:g} s each, server and callers on "
        f"one machine with {os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}."
    )
    text = "\n\n".join(["# Serving", setting, *(table.markdown() for table in tables), f"`{command}`"]) + "\n"
    print(text)
    if not given.dry:
        RESULTS.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
