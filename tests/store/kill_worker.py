"""Indexes a folder in a child process and kills it after the delay it is told, again and again. Run by test_kill.py.

Each line on stdin is "INDEX FOLDER DELAY"; the answer comes when the child is dead. A child is forked from this process, which
has everything imported and no threads, so that a kill costs no start-up time. A child that is done waits to be killed.
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import faiss
from conftest import HashEncoder

from ragkit.indexes.warmup import warm_up
from ragkit.store.indexer import index_paths
from ragkit.store.store import Store, bm25_and_dense

faiss.omp_set_num_threads(1)
warm_up()
for line in sys.stdin:
    out, folder, delay = line.split()
    child = os.fork()
    if not child:
        live = Path(out).parent / "live"
        live.unlink(missing_ok=True)
        live.symlink_to(folder)  # the same place must hold now one, now the other state
        known = (Path(out) / "manifest.json").exists()
        with Store.open(out, encoder=HashEncoder()) if known else Store.create(out, bm25_and_dense(HashEncoder())) as store:
            index_paths(store, [live], size=32)
        time.sleep(60)
        os._exit(1)
    time.sleep(float(delay))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("dead", flush=True)
