"""The languages that ragkit has lexical rules for, and their stop words."""

from __future__ import annotations

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
