"""The one place that knows how the service opens a store and builds its pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragkit.chains.config import build_pipeline
from ragkit.chains.opening import described
from ragkit.encoders.base import Vectors
from ragkit.encoders.factory import as_encoder
from ragkit.engines.opening import open_store
from ragkit.serving.batcher import Batcher
from ragkit.serving.joined import JoinedEncoder, JoinedPipeline
from ragkit.store.base import BaseStore
from ragkit.store.text_index import DenseIndex

Work = Callable[[list[str]], Vectors]


def open_pipeline(
    place: str | Path | None, config: str | Path | None, encoder: str | None, batcher: Callable[[Work], Batcher[str, Any]]
) -> tuple[BaseStore, JoinedPipeline]:
    """A store, and the pipeline over it of a YAML file, or else ragkit's default one for the store's language.

    Dense encoders get a batcher each. Raises `InputError` or `StoreError` as `build_pipeline` and `open_store` do.
    """
    wanted = described(place, config, encoder)
    with open_store(wanted.place, encoder=wanted.encoder) as probe:
        kinds = {name: its["kind"] for name, its in probe.snapshot.settings.items()}
    encoders: dict[str, Any] = {
        name: JoinedEncoder(as_encoder(wanted.encoder), batcher) if kind == DenseIndex.kind else wanted.encoder
        for name, kind in kinds.items()
    }
    store = open_store(wanted.place, encoder=encoders)
    try:
        return store, build_pipeline(JoinedPipeline, wanted.pipeline(store.language), store)
    except BaseException:
        store.close()
        raise
