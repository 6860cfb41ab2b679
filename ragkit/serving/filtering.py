"""A caller's filter: small enough, within the grammar, and within what its key lets through."""

from __future__ import annotations

from ragkit.corpus.filters import Filter, both, compile_filter
from ragkit.errors import InputError
from ragkit.serving import limits
from ragkit.serving.errors import Problem
from ragkit.serving.keys import Key
from ragkit.serving.parts import is_unicode, parts


def allowed(key: Key, filter: Filter | None) -> Filter | None:
    """The key's own filter and the caller's, both of which a passage must pass.

    Raises a `Problem`, 422, naming `filter`. A key with a filter of its own may only name the fields that its record lists: what
    is refused would else tell whether somebody else's passages have a field.
    """
    if not filter:
        return key.filter
    _check_size(filter)
    try:
        fields = set(compile_filter(filter).fields)
    except InputError as error:
        raise Problem(422, str(error), "filter") from None
    if key.filter is not None and not fields <= set(key.filter_fields):
        names = ", ".join(key.filter_fields) or "no field at all"
        raise Problem(422, f"filter: this key may filter by {names}; leave the rest out", "filter")
    return both(key.filter, filter)


def _check_size(filter: Filter) -> None:
    for count, (part, level) in enumerate(parts(filter), 1):
        if level > limits.FILTER_DEPTH or count > limits.FILTER_PARTS:
            raise Problem(
                422,
                f"filter: may have {limits.FILTER_DEPTH} levels and {limits.FILTER_PARTS} keys and values; make it smaller",
                "filter",
            )
        if isinstance(part, str):
            _check_text(part)


def _check_text(text: str) -> None:
    if not is_unicode(text):
        raise Problem(422, "filter: has half of a surrogate pair in place of a character; send valid Unicode", "filter")
    if len(text) > limits.FILTER_CHARS:
        raise Problem(422, f"filter: a key or a value has more than {limits.FILTER_CHARS} characters; make it shorter", "filter")
