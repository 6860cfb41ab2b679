"""Groups of files as parts: read by workers, and found again by later runs."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ragkit.documents.provenance import content_id
from ragkit.documents.split import SplitSettings
from ragkit.encoders.base import Encoder
from ragkit.encoders.kept import write_whole
from ragkit.errors import RagkitError
from ragkit.store.reading import Known, Reading, Unreadable, digest, file_content, read_content

_FILES, _BYTES = 64, 4 * 2**20  # of a group; a larger file goes alone


def groups(files: Sequence[Known]) -> Iterator[list[Known]]:
    """The files in order, so many together that a group is some megabytes."""
    group, size = list[Known](), 0
    for known in files:
        try:
            its_size = os.stat(known.file).st_size
        except OSError:
            its_size = 0
        if group and (len(group) == _FILES or size + its_size > _BYTES):
            yield group
            group, size = [], 0
        group.append(known)
        size += its_size
    if group:
        yield group


@dataclass(frozen=True)
class ReadFiles:
    """Loads and splits a group of files into a part: a file that is named by all that it depends on, contents included.

    What is there already is not made again, though the files are read to know it.
    """

    encoder: Encoder
    """Counts the tokens; can be pickled."""
    settings: SplitSettings
    folder: Path

    def __call__(self, group: Sequence[Known]) -> str:
        """The name of the part."""
        contents = [file_content(known.file) for known in group]
        marks = [
            [known, *content] if isinstance(content, Unreadable) else [known, digest(content, self.settings)]
            for known, content in zip(group, contents, strict=True)
        ]
        version = importlib.metadata.version("ragkit")
        name = content_id(version, asdict(self.settings), dict(self.encoder.fingerprint), marks)
        part = self.folder / f"{name}.part"
        if not part.is_file():
            readings = [
                read_content(content, known, self.settings, self.encoder.tokenizer).to_json()
                for known, content in zip(group, contents, strict=True)
            ]
            write_whole(part, lambda file: file.write(json.dumps(readings).encode()))
        return name


def read_part(folder: Path, name: str) -> list[Reading]:
    """The readings in a part. Raises `RagkitError` if it is damaged."""
    part = folder / f"{name}.part"
    try:
        return [Reading.from_json(data) for data in json.loads(part.read_bytes())]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RagkitError(f"{part} cannot be read ({error}); delete it and run again") from None
