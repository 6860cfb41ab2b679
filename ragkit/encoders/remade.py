"""Encoders that load weights are pickled as what they were made with."""

from __future__ import annotations

from functools import partial
from typing import Any, Self


class Remade:
    """Base of classes that are pickled as the arguments of their constructor: what was loaded stays behind.

    A deep copy is the object itself, for nothing changes it, and the weights are there once.
    """

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remembers the arguments."""
        made = super().__new__(cls)
        made._arguments = args, kwargs
        return made

    def __reduce__(self) -> Any:
        """Made again with the same arguments."""
        positional, named = self._arguments
        return partial(type(self), **named), positional

    def __deepcopy__(self, memo: Any) -> Self:
        """The object itself."""
        return self
