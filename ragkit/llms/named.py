"""A chat model by its name, as LangChain's `init_chat_model` makes it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ragkit.errors import InputError, RagkitError

_HOMES = ("langchain.chat_models", "langchain_classic.chat_models")


def chat_model(name: str) -> Any:
    """The chat model "provider:name", such as "openai:gpt-4.1-mini". Keys are taken from the environment, as the provider does.

    Raises `InputError` for a name without a provider, or one that LangChain does not know, and `RagkitError` if a package or a
    key is missing.
    """
    provider, colon, model = name.partition(":")
    if not (provider and colon and model):
        raise InputError(f"--model: takes provider:name, such as openai:gpt-4.1-mini, not {name!r}")
    try:
        return _initialiser()(model, model_provider=provider)
    except ImportError as error:
        raise RagkitError(f"--model: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise InputError(f"--model: {' '.join(str(error).split())[:300]}") from None
    except Exception as error:  # every provider has errors of its own, for a missing key above all
        raise RagkitError(f"--model: {provider} cannot be used: {' '.join(str(error).split())[:300]}") from error


def _initialiser() -> Any:
    for home in _HOMES:
        try:
            return import_module(home).init_chat_model
        except ImportError:
            continue
    raise RagkitError("--model: needs LangChain and the package of the provider: pip install langchain langchain-openai")
