"""From a manifest to indexes that can search: which class serves which kind, and which encoder belongs to which index."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from ragkit.encoders.factory import EncoderLike, as_encoder
from ragkit.encoders.multi_vector_base import MultiVectorEncoderLike, as_multi_vector_encoder
from ragkit.encoders.sparse_base import SparseEncoderLike, as_sparse_encoder
from ragkit.errors import RagkitError, StaleSnapshotError, StoreError
from ragkit.store.manifest import Manifest, read_manifest
from ragkit.store.multi_vector_index import LateInteractionIndex
from ragkit.store.sparse_index import SparseIndex
from ragkit.store.text_index import KINDS, TextIndex

GENERATIONS = "generations"
_ADAPTERS: dict[str, Callable[[Any], Any]] = {
    SparseIndex.kind: as_sparse_encoder,
    LateInteractionIndex.kind: as_multi_vector_encoder,
}
# numpy parses the header of an .npy file as Python, and Python 3.11 can fail if two threads do so at once
_one_at_a_time = threading.Lock()

AnyEncoder = EncoderLike | SparseEncoderLike | MultiVectorEncoderLike
"""What may be given for the index of a store, depending on its kind."""


class Encoders:
    """The encoders of one store's indexes, each made when it is first needed, and once."""

    def __init__(self, encoder: AnyEncoder | Mapping[str, AnyEncoder] = None) -> None:
        """`encoder` serves every index that has one, or each the one that the mapping has under its name."""
        self.given = encoder
        self._encoders: dict[str, Any] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, indexes: Mapping[str, TextIndex]) -> Self:
        """Those of these indexes."""
        return cls({name: encoder for name, index in indexes.items() if (encoder := getattr(index, "encoder", None)) is not None})

    def encoder(self, name: str, kind: str) -> Any:
        """The encoder of the index of that name and kind: an `Encoder`, a `TermEncoder` or a `MultiVectorEncoder`."""
        with self._lock:
            if name not in self._encoders:
                given = self.given.get(name) if isinstance(self.given, Mapping) else self.given
                self._encoders[name] = _ADAPTERS.get(kind, as_encoder)(given)
            return self._encoders[name]


class Loader(Encoders):
    """Loads the indexes of a directory, for all generations with the same encoders."""

    def load(self, path: Path, manifest: Manifest, name: str, *, writable: bool = False) -> TextIndex:
        """The index of that name as the manifest's generation has it. Raises `StoreError` if its files cannot be read."""
        settings = manifest.indexes[name]
        home = path / GENERATIONS / str(manifest.generation) / name
        kind = KINDS.get(settings["kind"])
        if kind is None:
            raise StoreError(f"index {name!r} of {path} is of the unknown kind {settings['kind']!r}; use a newer ragkit")
        try:
            with _one_at_a_time:
                return kind.load(home, settings, lambda: self.encoder(name, settings["kind"]), writable=writable)
        except RagkitError:
            raise
        # RuntimeError is how faiss reports bad files
        except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
            if read_manifest(path).generation != manifest.generation:
                raise StaleSnapshotError(
                    f"generation {manifest.generation} of {path} has been replaced; open it again"
                ) from error
            raise StoreError(f"cannot load index {name!r} of {path}: {error}; index again") from error
