"""Callback runs for work that is done on a whole batch: every question gets a run of its own, with its own children."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple

from langchain_core.callbacks.manager import AsyncCallbackManager, CallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list, patch_config

from ragkit.errors import InputError

Kind = Literal["retriever", "chain"]
Configs = RunnableConfig | list[RunnableConfig] | None


class Owner(NamedTuple):
    """Who runs: what callbacks show as its name, and the tags and metadata that belong to it alone."""

    kind: Kind
    name: str
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None
    inheritable_metadata: dict[str, Any] | None = None
    shown: Callable[[Any], Any] = lambda result: result
    """What callbacks are shown of a result."""


def run_batch(
    owner: Owner,
    inputs: Sequence[Any],
    config: Configs,
    work: Callable[[list[RunnableConfig]], Sequence[Any]],
    *,
    return_exceptions: bool = False,
) -> list[Any]:
    """What `work` returns for the inputs, given one config per input that carries that input's callbacks.

    An exception among the results belongs to its input alone; one that `work` raises belongs to all. Either is raised, or
    returned in its place with `return_exceptions`.
    """
    configs = get_config_list(config, len(inputs)) if inputs else []
    runs: list[Any] = []
    try:
        for value, one in zip(inputs, configs, strict=True):
            manager = CallbackManager.configure(**_arguments(owner, one))
            runs.append(getattr(manager, f"on_{owner.kind}_start")(None, value, **_identity(owner, one)))
        results = work([patch_config(one, callbacks=run.get_child()) for run, one in zip(runs, configs, strict=True)])
        _check_count(owner, results, inputs)
    except Exception as error:
        results = [error] * len(inputs)
    except BaseException as error:  # an interrupt; the runs must not stay open
        for run in runs:
            _end(owner, run, error)
        raise
    for run, result in zip(runs, results, strict=False):  # a callback that fails at the start leaves the rest unopened
        _end(owner, run, result)
    return _settle(results, return_exceptions)


async def arun_batch(
    owner: Owner,
    inputs: Sequence[Any],
    config: Configs,
    work: Callable[[list[RunnableConfig]], Awaitable[Sequence[Any]]],
    *,
    return_exceptions: bool = False,
) -> list[Any]:
    """Async form of `run_batch`."""
    configs = get_config_list(config, len(inputs)) if inputs else []
    runs: list[Any] = []
    try:
        for value, one in zip(inputs, configs, strict=True):
            manager = AsyncCallbackManager.configure(**_arguments(owner, one))
            runs.append(await getattr(manager, f"on_{owner.kind}_start")(None, value, **_identity(owner, one)))
        results = await work([patch_config(one, callbacks=run.get_child()) for run, one in zip(runs, configs, strict=True)])
        _check_count(owner, results, inputs)
    except Exception as error:
        results = [error] * len(inputs)
    except BaseException as error:  # a cancellation; the runs must not stay open
        for run in runs:
            await _end(owner, run, error)
        raise
    for run, result in zip(runs, results, strict=False):  # a callback that fails at the start leaves the rest unopened
        await _end(owner, run, result)
    return _settle(results, return_exceptions)


def no_more(kwargs: dict[str, Any], known: str) -> None:
    """Refuse arguments that nothing would look at."""
    if kwargs:
        raise InputError(f"unknown argument {next(iter(kwargs))!r}; {known}")


def _arguments(owner: Owner, config: RunnableConfig) -> dict[str, Any]:
    return {
        "inheritable_callbacks": config.get("callbacks"),
        "inheritable_tags": config.get("tags"),
        "local_tags": owner.tags,
        "inheritable_metadata": {**(config.get("metadata") or {}), **(owner.inheritable_metadata or {})},
        "local_metadata": owner.metadata,
    }


def _identity(owner: Owner, config: RunnableConfig) -> dict[str, Any]:
    return {"name": config.get("run_name") or owner.name, "run_id": config.get("run_id")}


def _check_count(owner: Owner, results: Sequence[Any], inputs: Sequence[Any]) -> None:
    if len(results) != len(inputs):
        raise RuntimeError(f"{owner.name} gave {len(results)} results for {len(inputs)} questions")


def _end(owner: Owner, run: Any, result: Any) -> Any:
    if isinstance(result, BaseException):
        return getattr(run, f"on_{owner.kind}_error")(result)
    return getattr(run, f"on_{owner.kind}_end")(owner.shown(result))


def _settle(results: Sequence[Any], return_exceptions: bool) -> list[Any]:
    failed = next((result for result in results if isinstance(result, Exception)), None)
    if failed is not None and not return_exceptions:
        raise failed
    return list(results)
