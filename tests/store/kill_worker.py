"""Indexes a folder again and again in a child process, and kills it after the delay it is told. Run by test_kill.py.

Each line on stdin is "FOLDER DELAY"; the answer is "killed" or "finished". A child is forked from this process, which has
everything imported and no threads, so that a kill costs no start-up time.
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import faiss
from conftest import HashEncoder

from ragkit.store.indexer import index_paths
from ragkit.store.store import Store

faiss.omp_set_num_threads(1)
out = Path(sys.argv[1])
for line in sys.stdin:
    folder, delay = line.rsplit(maxsplit=1)
    child = os.fork()
    if not child:
        with Store.open(out, encoder=HashEncoder()) as store:
            # the same place must hold now one, now the other state
            live = out.parent / "live"
            live.unlink(missing_ok=True)
            live.symlink_to(folder)
            index_paths(store, [live], size=32)
        os._exit(0)
    deadline = time.monotonic() + float(delay)
    while time.monotonic() < deadline and not os.waitpid(child, os.WNOHANG)[0]:
        time.sleep(0.0005)
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print("killed", flush=True)
    except (ProcessLookupError, ChildProcessError):
        print("finished", flush=True)
