"""Lines that many sources have: headers, footers, menus, licences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ragkit.care.features import line_key

_SOURCES, _SHARE = 3, 0.02
"""A line that fewer sources have, or a smaller share of them, may be a coincidence."""
_SHORTEST = 4
"""Characters of a line; shorter ones, such as brackets and markup, are found everywhere."""


def repeated_lines(texts: Iterable[tuple[str, str]]) -> set[str]:
    """The keys (`line_key`) of lines that at least 3 sources and 2 % of all sources have, given pairs of source and text."""
    having: defaultdict[str, set[str]] = defaultdict(set)
    sources = set()
    for source, text in texts:
        sources.add(source)
        for key in {line_key(line) for line in text.splitlines()}:
            if len(key) >= _SHORTEST:
                having[key].add(source)
    needed = max(_SOURCES, _SHARE * len(sources))
    return {key for key, its_sources in having.items() if len(its_sources) >= needed}
