"""Indexes a folder on a cluster, to be killed while it does: ADDRESS INDEX FOLDER LOG SECONDS. Run by test_cluster.py."""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bulk_encoders import SlowEncoder

from ragkit.bulk import reading
from ragkit.bulk.cluster import RayCluster
from ragkit.bulk.index import bulk_index
from ragkit.encoders.kept import KeptEncoder
from ragkit.store import indexer
from ragkit.store.store import Store, bm25_and_dense

if __name__ == "__main__":
    address, out, folder, log, seconds = sys.argv[1:]
    indexer._BATCH, reading._FILES = 16, 4
    encoder = KeptEncoder(partial(SlowEncoder, Path(log), float(seconds)), f"{out}.parts")
    with RayCluster(address) as workers, Store.create(out, bm25_and_dense(encoder)) as store:
        bulk_index(store, [folder], workers, size=32)
