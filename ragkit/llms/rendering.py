"""Messages to the token ids that a local model reads: its chat template where it has one, else plain text.."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage

from ragkit.encoders.network import hushed
from ragkit.encoders.wordpieces import WordPieces
from ragkit.errors import InputError
from ragkit.llms.base import Prompt

_ROLES = {"system": "system", "human": "user", "ai": "assistant"}


class Rendered(NamedTuple):
    """A prompt as tokens."""

    ids: list[int]
    spaced: bool
    """Whether what follows begins with a space, as the next word of a text does."""


class Renderer(WordPieces):
    """The tokenizer of a model that writes text, with the conventions of its prompts."""

    def __init__(self, folder: Path, *, causal: bool) -> None:
        super().__init__(folder)
        self._causal = causal
        self._template = _template(folder)
        added = self._tokenizer.get_added_tokens_decoder().values()
        special = sorted((re.escape(token.content) for token in added if token.special and len(token.content) > 1), key=len)
        self._special = re.compile("|".join(reversed(special)) or r"(?!)")

    def prompt(self, messages: Prompt) -> Rendered:
        """The ids of a prompt. A last message of the assistant is the beginning of the answer, which goes on from there.

        Special tokens that are spelled out in messages of the system or the user (in a passage, say) stay mere text.
        Raises `InputError` for a message that is neither of the system, the user, nor the assistant.
        """
        turns = [{"role": _role(message), "content": self._content(message)} for message in messages]
        opened = bool(messages) and isinstance(messages[-1], AIMessage)
        if self._template is None:
            text = "\n\n".join(turn["content"] for turn in turns)
            ids = self.prefix + self.ids([text])[0] + ([] if self._causal else self.suffix)
            spaced = self._causal and not text[-1:].isspace()
        else:
            text = self._apply(turns, opened)
            ids, spaced = self.ids([text])[0], opened and not text[-1:].isspace()
        if not ids:
            raise InputError("llm: an empty prompt cannot be continued")
        return Rendered(ids, spaced)

    def continuation(self, text: str, prompt: Rendered) -> list[int]:
        """The ids of a text that follows a prompt. Raises `InputError` if there are none."""
        if prompt.spaced:
            # behind another word, as tokenizers differ in how they mark the beginning of one
            before, whole = self.ids(["a", f"a {text.lstrip()}"])
            ids = whole[len(before) :] if whole[: len(before)] == before else self.ids([f" {text.lstrip()}"])[0]
        else:
            ids = self.ids([text])[0]
        if not ids:
            raise InputError(f"llm: {text!r} has no tokens, so it has no probability")
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """What tokens spell, without special tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def _content(self, message: BaseMessage) -> str:
        text = str(message.text)
        return text if message.type == "ai" else self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _apply(self, turns: list[dict[str, str]], opened: bool) -> str:
        from jinja2.exceptions import TemplateError

        options = {"tokenize": False, "add_generation_prompt": not opened, "continue_final_message": opened}
        try:
            return str(self._template.apply_chat_template(turns, **options))
        except (TemplateError, ValueError):  # some templates know no system message
            try:
                return str(self._template.apply_chat_template(_without_system(turns), **options))
            except (TemplateError, ValueError) as error:
                reason = " ".join(str(error).split())[:200]
                raise InputError(f"llm: the model's chat template does not take these messages: {reason}") from error


def _template(folder: Path) -> Any:
    """What applies the chat template of a model folder, or None if it has none."""
    from transformers import AutoTokenizer

    with hushed():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return tokenizer if tokenizer.chat_template else None


def _role(message: BaseMessage) -> str:
    if message.type not in _ROLES:
        raise InputError(f"llm: a local model reads system, human and ai messages, not {message.type!r}")
    return _ROLES[message.type]


def _without_system(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """The system's text at the head of the first turn of the user."""
    system = [turn["content"] for turn in turns if turn["role"] == "system"]
    first, *rest = [turn for turn in turns if turn["role"] != "system"] or [{"role": "user", "content": ""}]
    return [{**first, "content": "\n\n".join([*system, first["content"]])}, *rest]
