"""Load on `ragkit serve`, on loopback: throughput and latency with micro-batches and without, what overload is answered, memory.

    python benchmarks/serving.py scifact                 # 20 minutes; writes benchmarks/results/serving.md
    python benchmarks/serving.py scifact --seconds 2 --clients 1 8 --memory-minutes 0.2 --dry        # prints only

The server is a process of its own, over an index that is shared with benchmarks/retrieval.py, with ragkit's default pipeline but
for the `--dtype` of Provence. Callers are tasks of this process; each sends its next request when its last one is answered, so
there are never more under way than callers; one that is answered 429 waits as long as Retry-After says. Questions are the
dataset's own, each with a mark of its own at its end, as what a model has judged lately is remembered. /v1/rerank is given the
first `--documents` passages of BM25 for its question, or what `--chars` leaves of them. "One by one" is a server whose batches
have one question; the two run side by side and are asked in turn, so that a machine that is slower for a while is slower for
both. Latencies are those of answered requests, as a caller sees them. What remembers judgements has a bound; it is full before
memory is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from retrieval import DATA, ROOT, open_store

from ragkit import BM25Retriever
from ragkit.chains.default import default_config
from ragkit.evaluation.datasets import load_dataset
from ragkit.evaluation.tables import Table

RESULTS = ROOT / "benchmarks" / "results" / "serving.md"
SERVE = "import typer; from ragkit.serving.command import serve; app = typer.Typer(); app.command()(serve); app()"
MODES = {"batches": 64, "one by one": 1}
ROUNDS = 3
OVERLOADS = {"room for 8 in a queue": ["--queue", "8"], "5 s to the deadline": ["--timeout", "5"]}
JUDGEMENTS = 32_000  # of a word, as many as fill what a Provence model remembers, and some more
Bodies = Callable[[int], dict[str, Any]]
_numbers = itertools.count()  # no two requests of a run have the same


class Load(NamedTuple):
    """What came of some seconds of load."""

    latencies: list[float]
    """Seconds, of each request that was answered with 200."""
    seconds: float
    statuses: Counter[str]

    @classmethod
    def of(cls, parts: Sequence[Load]) -> Load:
        """Several, one after the other."""
        latencies = [latency for part in parts for latency in part.latencies]
        return cls(latencies, sum(part.seconds for part in parts), sum((part.statuses for part in parts), Counter[str]()))

    def cells(self) -> list[str]:
        """Answers per second, p50 and p99 in ms."""
        p50, p99 = np.percentile(self.latencies, [50, 99]) * 1000 if self.latencies else (np.nan, np.nan)
        return [f"{len(self.latencies) / self.seconds:.1f}", f"{p50:,.0f}", f"{p99:,.0f}"]

    def others(self) -> str:
        """All statuses but 200."""
        return ", ".join(f"{status}: {count:,}" for status, count in sorted(self.statuses.items()) if status != "200") or "none"


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
            while (left := started + seconds - time.perf_counter()) > 0:
                body, sent, pause = bodies(next(_numbers)), time.perf_counter(), 0.0
                try:
                    response = await http.post(path, json=body)
                    status, pause = str(response.status_code), float(response.headers.get("retry-after", 0))
                except httpx.HTTPError as error:
                    status, pause = type(error).__name__, 1.0
                statuses[status] += 1
                if status == "200":
                    latencies.append(time.perf_counter() - sent)
                elif pause > 0:
                    await asyncio.sleep(min(pause, left))

        await asyncio.gather(*(caller() for _ in range(clients)))
    return Load(latencies, time.perf_counter() - started, statuses)


def resident(process: int) -> float:
    """MiB of memory that a process holds, as Linux tells it."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def workloads(name: str, documents: int, chars: int) -> tuple[Path, dict[str, Bodies]]:
    """The index of a dataset, and what is asked: by path, the body of request number n."""
    dataset = load_dataset(DATA / name, "test")
    with open_store(dataset) as store:
        questions = [*dataset.queries.values()][:200]
        found = BM25Retriever(store=store, k=documents).batch(questions)
    texts = [[document.page_content[:chars] for document in its] for its in found]

    def search(n: int) -> dict[str, Any]:
        return {"query": f"{questions[n % len(questions)][:3000]} ({n})", "k": 10}

    def rerank(n: int) -> dict[str, Any]:
        at = n % len(questions)
        return {"query": f"{questions[at][:3000]} ({n})", "documents": texts[at], "return_documents": False}

    return ROOT / ".cache" / "benchmarks" / dataset.name, {"/v1/rerank": rerank, "/v1/search": search}


def compared(index: Path, options: Sequence[str], asked: dict[str, Bodies], clients: Sequence[int], seconds: float) -> Table:
    """Each endpoint, number of callers and way of batching."""
    rows = []
    with ExitStack() as servers:
        urls = {mode: servers.enter_context(server(index, *options, "--batch", str(size)))[0] for mode, size in MODES.items()}
        for path, bodies in asked.items():
            for url in urls.values():
                asyncio.run(load(url, path, bodies, 4, 2))
            for count in clients:
                parts: dict[str, list[Load]] = {mode: [] for mode in MODES}
                for turn in range(ROUNDS):
                    for mode in [*MODES][:: -1 if turn % 2 else 1]:
                        parts[mode].append(asyncio.run(load(urls[mode], path, bodies, count, seconds / ROUNDS)))
                for mode in MODES:
                    its = Load.of(parts[mode])
                    rows.append([path, str(count), mode, *its.cells(), its.others()])
                    print(*rows[-1], flush=True)
    header = ["endpoint", "callers", "model is asked", "answers/s", "p50 ms", "p99 ms", "other statuses"]
    return Table("Throughput and latency.", header, rows)


def overloaded(index: Path, options: Sequence[str], asked: dict[str, Bodies], clients: int, seconds: float) -> Table:
    """More callers than there is room or time for."""
    rows = []
    for what, its_options in OVERLOADS.items():
        with server(index, *options, *its_options) as (url, _):
            for path, bodies in asked.items():
                its = asyncio.run(load(url, path, bodies, clients, seconds))
                rows.append([path, str(clients), what, *its.cells(), its.others()])
                print(*rows[-1], flush=True)
    header = ["endpoint", "callers", "limit", "answers/s", "p50 ms", "p99 ms", "other statuses"]
    return Table("More than there is room or time for, from a cold start.", header, rows)


def remembered(index: Path, options: Sequence[str], asked: dict[str, Bodies], minutes: float, clients: int = 8) -> Table:
    """Resident memory under steady load on all endpoints in turn, from the time when everything is loaded and full."""
    loads: list[Load] = []
    with server(index, *options, "--timeout", "120") as (url, process):
        fill(url)
        for path, bodies in asked.items():
            asyncio.run(load(url, path, bodies, clients, min(30.0, minutes * 6)))
        with sampled(process) as samples:
            started, part = time.perf_counter(), minutes * 60 / 40
            while time.perf_counter() - started < minutes * 60:
                loads += [asyncio.run(load(url, path, bodies, clients, part / len(asked))) for path, bodies in asked.items()]
    *_, third, last = np.array_split(samples, 4)
    its = Load.of(loads)
    caption = (
        f"Memory of the server, {clients} callers; {sum(its.statuses.values()):,} requests, other statuses: {its.others()}. "
        f"From the third quarter of the time to the last the mean changed by {last.mean() - third.mean():+.0f} MiB, the lowest "
        f"by {last.min() - third.min():+.0f}, the highest by {last.max() - third.max():+.0f}."
    )
    print(caption, flush=True)
    rows = [
        [
            f"{minutes * part / 20:.1f} to {minutes * (part + 1) / 20:.1f}",
            *(f"{of(some):,.0f}" for of in (np.min, np.mean, np.max)),
        ]
        for part, some in enumerate(np.array_split(samples, 20))
    ]
    return Table(caption, ["minutes", "lowest MiB", "mean", "highest"], rows)


@contextmanager
def sampled(process: int) -> Iterator[list[float]]:
    """The resident memory of a process, in MiB, every quarter of a second."""
    sizes: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            sizes.append(resident(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield sizes
    finally:
        over.set()
        watcher.join()


def fill(url: str) -> None:
    """Fill what the Provence model remembers."""
    with httpx.Client(base_url=url, timeout=300) as http:
        for first in range(0, JUDGEMENTS, 1000):
            body = {"query": "?", "documents": [str(first + n) for n in range(1000)], "return_documents": False}
            http.post("/v1/rerank", json=body).raise_for_status()


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--documents", type=int, default=10, help="of a request to rerank")
    parser.add_argument("--chars", type=int, default=500, help="of each of them at most")
    parser.add_argument("--dtype", default="int8", help="of Provence")
    parser.add_argument("--memory-minutes", type=float, default=10.0)
    parser.add_argument("--dry", action="store_true", help="write no results")
    given = parser.parse_args(arguments)
    index, asked = workloads(given.dataset, given.documents, given.chars)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "pipeline.yaml"
        pipeline = default_config("en").model_dump()
        for stage in pipeline["stages"]:
            if stage["type"].startswith("provence"):
                stage["dtype"] = given.dtype
        config.write_text(json.dumps(pipeline), "utf-8")
        options = ["--config", str(config)]
        tables = [
            compared(index, options, asked, given.clients, given.seconds),
            overloaded(index, options, asked, max(given.clients), given.seconds),
            remembered(index, options, asked, given.memory_minutes),
        ]
    command = shlex.join(["python", "benchmarks/serving.py", *(sys.argv[1:] if arguments is None else arguments)])
    setting = (
        f"{given.dataset}; {given.documents} documents of at most {given.chars} characters in a request to rerank; Provence in "
        f"{given.dtype}; {given.seconds:g} s each; 30 s to the deadline where no other is named; server and callers on one "
        f"machine with {os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}."
    )
    text = "\n\n".join(["# Serving", setting, *(table.markdown() for table in tables), f"`{command}`"]) + "\n"
    print(text)
    if not given.dry:
        RESULTS.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
