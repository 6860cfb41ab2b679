"""A model by its name: a chat model as LangChain's `init_chat_model` makes it, or one to run locally."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from ragkit.errors import InputError, RagkitError
from ragkit.llms.base import LLM

_HOMES = ("langchain.chat_models", "langchain_classic.chat_models")

_PROVIDER = re.compile(r"[A-Za-z][\w-]+:")  # more than the letter of a drive


def named_llm(name: str | Path, max_concurrency: int | None = 16) -> LLM:
    """The chat model "provider:name", or else the model in a folder or of a hub name, which hold no colon, to run locally.

    A folder that is there wins. Raises what `chat_model` raises; a local model is looked for when it is first used.
    """
    if isinstance(name, str) and _PROVIDER.match(name) and not Path(name).is_dir():
        from ragkit.llms.chat import ChatLLM

        return ChatLLM(chat_model(name, "llm"), max_concurrency)
    from ragkit.llms.local import LocalLLM

    return LocalLLM(name)


def chat_model(name: str, field: str = "--model") -> Any:
    """The chat model "provider:name", such as "openai:gpt-4.1-mini". Keys are taken from the environment, as the provider does.

    Raises `InputError` for a name without a provider, or one that LangChain does not know, and `RagkitError` if a package or a
    key is missing; their text begins with `field`.
    """
    provider, colon, model = name.partition(":")
    if not (provider and colon and model):
        raise InputError(f"{field}: takes provider:name, such as openai:gpt-4.1-mini, not {name!r}")
    try:
        return _initialiser(field)(model, model_provider=provider)
    except ImportError as error:
        raise RagkitError(f"{field}: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise InputError(f"{field}: {' '.join(str(error).split())[:300]}") from None
    except Exception as error:  # every provider has errors of its own, for a missing key above all
        raise RagkitError(f"{field}: {provider} cannot be used: {' '.join(str(error).split())[:300]}") from error


def _initialiser(field: str) -> Any:
    for home in _HOMES:
        try:
            return import_module(home).init_chat_model
        except ImportError:
            continue
    raise RagkitError(f"{field}: needs LangChain and the package of the provider: pip install langchain langchain-openai")
