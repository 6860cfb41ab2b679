"""Which index to open and what pipeline to build over it, given what a command line and a pipeline's file say."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ragkit.chains.config import PipelineConfig, read_config
from ragkit.chains.default import default_config
from ragkit.errors import InputError


class Described(NamedTuple):
    """Where the index is, the encoder it was made with (None: the packaged one), and what the file says (None: no file)."""

    place: str | Path
    encoder: str | None
    file: PipelineConfig | None

    def pipeline(self, language: str | None) -> PipelineConfig:
        """The pipeline of the file, or else ragkit's default one for the language of the store."""
        return default_config(language) if self.file is None else self.file


def described(place: str | Path | None, config: str | Path | None, encoder: str | None) -> Described:
    """What is named by a caller counts before what a file names.

    Raises `InputError` for a file that describes no pipeline, or if neither names an index.
    """
    file = None if config is None else read_config(config)
    if file is not None:
        place, encoder = place or file.store, encoder or file.encoder
    if place is None:
        raise InputError("store is missing; name an index directory or the URL of a store, or one in the pipeline's file")
    return Described(place, encoder, file)
