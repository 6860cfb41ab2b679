"""A model's own tokenizer, from its tokenizer.json: where tokens start and what their ids are. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragkit.errors import RagkitError

if TYPE_CHECKING:
    import tokenizers


_SURROGATES = re.compile("[\ud800-\udfff]")
_UNKNOWN = 100  # a longer "word" (base64, say) is one unknown token to many models; counted as one token it would cost nothing


class WordPieces:
    """The tokenizer of a model folder, without truncation and padding. Implements `documents.tokens.Tokenizer`."""

    def __init__(self, folder: Path, *, lowercase: bool = False, eos: str | None = None) -> None:
        """`lowercase` lower-cases texts first, whatever the file says. `eos` is a token that every text ends in.

        Raises `RagkitError`, naming the folder, if there is no tokenizer that can be read, or none that knows `eos`.
        """
        self._tokenizer = read_tokenizer(folder)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if lowercase:
            from tokenizers.normalizers import Lowercase
            from tokenizers.normalizers import Sequence as Normalizers

            own = self._tokenizer.normalizer
            self._tokenizer.normalizer = Normalizers([Lowercase(), *([] if own is None else [own])])
        probe = self._tokenizer.encode("a")
        special = np.asarray(probe.special_tokens_mask, dtype=bool)
        body = np.flatnonzero(~special)
        first, last = (body[0], body[-1] + 1) if len(body) else (len(special), len(special))
        self.prefix: list[int] = probe.ids[:first]
        """Ids of the special tokens that go before a text."""
        self.suffix: list[int] = probe.ids[last:]
        """Ids of the special tokens that go after a text."""
        if eos is not None:
            last_id = self._tokenizer.token_to_id(eos)
            if last_id is None:
                raise RagkitError(f"model: the tokenizer in {folder} has no token {eos!r}, which texts are to end in")
            if self.suffix[-1:] != [last_id]:
                self.suffix.append(last_id)

    def starts(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Character offset of the start of each token, for each text; special tokens are left out."""
        encodings = self._tokenizer.encode_batch([*map(encodable, texts)], add_special_tokens=False)
        return [
            np.fromiter((at for start, end in e.offsets for at in range(start, max(end, start + 1), _UNKNOWN)), np.int64)
            for e in encodings
        ]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return [e.ids for e in self._tokenizer.encode_batch_fast([*map(encodable, texts)], add_special_tokens=False)]

    def split_prompt(self, texts: Sequence[str], prompt: str) -> list[tuple[list[int], list[int]]]:
        """Token ids of each text behind a prompt: those that are the prompt's, and the rest.

        The prompt's last token may have merged with the text's first; then it belongs to the rest.
        """
        own = self.ids([prompt])[0] if prompt else []
        split = []
        for ids in self.ids([prompt + text for text in texts]):
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(own, ids, strict=False)))
            split.append((ids[:shared], ids[shared:]))
        return split


def encodable(text: str) -> str:
    """Lone surrogates, which no tokenizer takes, become replacement characters; every character keeps its place."""
    return _SURROGATES.sub("\ufffd", text)


def read_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a model folder, with whatever truncation and padding its file sets.

    Raises `RagkitError`, naming the folder, if there is none that can be read.
    """
    file = folder / "tokenizer.json"
    try:
        if file.is_file():
            from tokenizers import Tokenizer

            return Tokenizer.from_file(str(file))
        from transformers import AutoTokenizer

        backend: tokenizers.Tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False).backend_tokenizer
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise RagkitError(f"model: the tokenizer in {folder} cannot be read: {' '.join(str(error).split())[:200]}") from error
    return backend
