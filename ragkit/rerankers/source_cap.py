"""No source may fill the context alone: passages beyond a number per source stand behind those of other sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from langchain_core.documents import Document
from pydantic import Field

from ragkit.documents.provenance import provenance
from ragkit.rerankers.behind import BehindReranker


class SourceCapReranker(BehindReranker):
    """Moves what a source has beyond its best `most` passages behind the others: `retriever >> SourceCapReranker(most=3)`.

    Whoever can write one document can write many passages that say the same in other words (Zou et al., "PoisonedRAG", 2024);
    with the cap, these can be at most `most` of the first k, as long as others were found. Where all passages are from one
    source, nothing changes.
    """

    most: int = Field(default=3, ge=1)
    """Passages of a source that keep their places."""
    field: str | None = None
    """The metadata field that names the source, such as a host, an author or a title. None: the file a passage was split from, or
    else `metadata["source"]`. A document without it is a source of its own."""

    @property
    def stage(self) -> str:
        """See `Reranker.stage`."""
        return "source-cap"

    def to_move(self, documents: Sequence[Document]) -> Mapping[int, str]:
        """See `BehindReranker.to_move`."""
        sources = [self._source(document) for document in documents]
        if len(set(sources)) == 1:
            return {}
        seen: Counter[str] = Counter()
        moved = {}
        for at, source in enumerate(sources):
            if source is not None:
                seen[source] += 1
                if seen[source] > self.most:
                    moved[at] = f"number {seen[source]} of {source}, of which {self.most} may stand in front"
        return moved

    def _source(self, document: Document) -> str | None:
        if self.field is not None:
            named = document.metadata.get(self.field)
        else:
            named = provenance(document).source or document.metadata.get("source")
        return str(named) if named not in (None, "") else None
