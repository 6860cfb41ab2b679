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
    work: Callable[[list[Any], list[RunnableConfig]], Sequence[Any]],
    *,
    check: Callable[[Any], object] = lambda value: None,
    return_exceptions: bool = False,
) -> list[Any]:
    """What `work` returns for the inputs, given these and one config for each that carries its callbacks.

    What `check` raises for an input, and an exception among the results, belongs to this input alone; one that `work` raises
    belongs to all. Either is raised, or returned in its place with `return_exceptions`. `work` is not asked about what `check`
    refuses, and about nothing if it is to be raised.
    """
    configs = get_config_list(config, len(inputs)) if inputs else []
    runs: list[Any] = []
    try:
        for value, one in zip(inputs, configs, strict=True):
            manager = CallbackManager.configure(**_arguments(owner, one))
            runs.append(getattr(manager, f"on_{owner.kind}_start")(None, value, **_identity(owner, one)))
        refused = _refused(check, inputs, return_exceptions)
        asked = _accepted(refused, inputs, configs, runs)
        results = _merged(owner, refused, work(*asked) if asked[0] else [])
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
    work: Callable[[list[Any], list[RunnableConfig]], Awaitable[Sequence[Any]]],
    *,
    check: Callable[[Any], object] = lambda value: None,
    return_exceptions: bool = False,
) -> list[Any]:
    """Async form of `run_batch`."""
    configs = get_config_list(config, len(inputs)) if inputs else []
    runs: list[Any] = []
    try:
        for value, one in zip(inputs, configs, strict=True):
            manager = AsyncCallbackManager.configure(**_arguments(owner, one))
            runs.append(await getattr(manager, f"on_{owner.kind}_start")(None, value, **_identity(owner, one)))
        refused = _refused(check, inputs, return_exceptions)
        asked = _accepted(refused, inputs, configs, runs)
        results = _merged(owner, refused, await work(*asked) if asked[0] else [])
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


def _refused(check: Callable[[Any], object], inputs: Sequence[Any], return_exceptions: bool) -> list[Exception | None]:
    """Per input why it is refused, or None; the first reason is raised unless they are to be returned."""
    refused: list[Exception | None] = []
    for value in inputs:
        try:
            check(value)
            refused.append(None)
        except Exception as error:
            if not return_exceptions:
                raise
            refused.append(error)
    return refused


def _accepted(
    refused: Sequence[Exception | None], inputs: Sequence[Any], configs: Sequence[RunnableConfig], runs: Sequence[Any]
) -> tuple[list[Any], list[RunnableConfig]]:
    taken = [at for at, why in enumerate(refused) if why is None]
    return [inputs[at] for at in taken], [patch_config(configs[at], callbacks=runs[at].get_child()) for at in taken]


def _merged(owner: Owner, refused: Sequence[Exception | None], results: Sequence[Any]) -> list[Any]:
    asked = sum(why is None for why in refused)
    if len(results) != asked:
        raise RuntimeError(f"{owner.name} gave {len(results)} results for {asked} questions")
    answers = iter(results)
    return [next(answers) if why is None else why for why in refused]


def _end(owner: Owner, run: Any, result: Any) -> Any:
    if isinstance(result, BaseException):
        return getattr(run, f"on_{owner.kind}_error")(result)
    return getattr(run, f"on_{owner.kind}_end")(owner.shown(result))


def _settle(results: Sequence[Any], return_exceptions: bool) -> list[Any]:
    failed = next((result for result in results if isinstance(result, Exception)), None)
    if failed is not None and not return_exceptions:
        raise failed
    return list(results)
