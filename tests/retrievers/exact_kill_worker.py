"""Replaces all passages of a store in a child process and kills it after the delay it is told. Run by test_exact.py.

Each line on stdin is "INDEX GENERATION COUNT DELAY"; the answer comes when the child is dead. A child is forked from this
process, which has everything imported and no threads. A child that is done waits to be killed.
"""

import os
import signal
import sys
import time

from langchain_core.documents import Document

from ragkit.store.store import Store

for line in sys.stdin:
    path, generation, count, delay = line.split()
    child = os.fork()
    if not child:
        texts = [f"passage {n} of {generation} tail{n % 7}" for n in range(int(count))]
        with Store.open(path) as store:
            store.upsert([Document(id=str(n), page_content=text) for n, text in enumerate(texts)])
        time.sleep(60)
        os._exit(1)
    time.sleep(float(delay))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("dead", flush=True)
