"""The languages that ragkit has lexical rules for, and their stop words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from ragkit.errors import InputError

LANGUAGES = {
    "ar": "arabic",
    "bg": "bulgarian",
    "ca": "catalan",
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "eo": "esperanto",
    "es": "spanish",
    "et": "estonian",
    "eu": "basque",
    "fa": "persian",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "gu": "gujarati",
    "he": "hebrew",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "ja": "japanese",
    "ko": "korean",
    "lt": "lithuanian",
    "ms": "malaysian",
    "ne": "nepali",
    "nl": "dutch",
    "no": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sk": "slovak",
    "sr": "serbian",
    "st": "sesotho",
    "sv": "swedish",
    "ta": "tamil",
    "th": "thai",
    "tr": "turkish",
    "uk": "ukrainian",
    "vi": "vietnamese",
    "yi": "yiddish",
    "zh": "chinese",
}
"""ISO 639-1 code to English name."""

# Lucene's list, and what the apostrophe leaves of "it's" and "don't"; longer lists hold words like "computer" and "system"
_ENGLISH = """a an and are as at be but by for if in into is it no not of on or s such t that the their then there these they
this to was will with"""

# Indexed as character bigrams, or written syllable by syllable: what is listed as a word is mostly part of another here
_NO_LIST = {"chinese", "japanese", "korean", "thai", "vietnamese"}
_WORD = re.compile(r"[^\W\d_]+")
# a tenth to a half of a text are stop words of its own language, and a third of that are another's that is like it
_ENOUGH_WORDS, _LEAST_SHARE, _TIMES = 200, 0.1, 1.5


def language_name(language: str) -> str:
    """The English name of a language given by name or ISO 639-1 code. Raises `InputError` for one that is not known."""
    if not isinstance(language, str):
        raise InputError(f"language: must be a name or an ISO 639-1 code, not {language!r}")
    name = LANGUAGES.get(language.lower(), language.lower())
    if name not in LANGUAGES.values():
        choices = ", ".join(f"{name} ({code})" for code, name in LANGUAGES.items())
        raise InputError(f"language: {language!r} is not known; choose one of {choices}")
    return name


def iso_code(language: str) -> str:
    """The ISO 639-1 code of a language given by name or code. Raises `InputError` for one that is not known."""
    name = language_name(language)
    return next(code for code, known in LANGUAGES.items() if known == name)


def stop_words(language: str) -> Collection[str]:
    """Words of a language too common to search for; none where no list is known."""
    if language == "english":
        return _ENGLISH.split()
    import stop_words as lists

    if language in _NO_LIST or language not in lists.AVAILABLE_LANGUAGES:
        return ()
    words: list[str] = lists.get_stop_words(language)
    return words


def other_language(text: str, language: str) -> str | None:
    """The language, by name, that a text seems to be in rather than in this one: that of most of its stop words.

    None for a text of less than 200 words, where no language stands out, and for a language of which no list is known.
    """
    import stop_words as lists

    counts = Counter(word.casefold() for word in _WORD.findall(text))
    known = sorted((set(LANGUAGES.values()) - _NO_LIST | {"vietnamese"}).intersection(lists.AVAILABLE_LANGUAGES))
    if counts.total() < _ENOUGH_WORDS or language not in known:
        return None
    # the list that `stop_words` has for English is shorter than the others
    shares = {name: sum(counts[word] for word in set(lists.get_stop_words(name))) / counts.total() for name in known}
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] >= max(_LEAST_SHARE, _TIMES * shares[language]) else None
