"""Sentence labels by a language model, the way Provence's training data was made: what its answer cites is worth keeping."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic_core import to_json

from ragkit.errors import InputError
from ragkit.prompting import load_prompt
from ragkit.quoting import plain
from ragkit.training.citations import numbered, parse_citations
from ragkit.training.examples import EXAMPLE, Example, read_examples

Model = Runnable[LanguageModelInput, AIMessage] | Runnable[LanguageModelInput, str]
"""A language model, or one with retries, fallbacks or limits around it."""
_LINE_START = b'{"id":'


class Label(NamedTuple):
    """What a model's answer says of one item."""

    id: str
    gold: tuple[int, ...] | None
    """Indices of the cited sentences, empty after "No answer"; None if the item is not labelled."""
    answer: str = ""
    """What the model wrote."""
    problem: str = ""
    """Why the item is not labelled."""
    failed: bool = False
    """Whether there was no answer, because the call raised an error."""


@dataclass
class LabelReport:
    """What a run of `label_file` did."""

    items: int
    """Items in the source."""
    known: int
    """Items that the target held already and that were not asked again."""
    calls: int = 0
    labelled: int = 0
    unclear: dict[str, str] = field(default_factory=dict)
    """Items that are in the target without a label, by id with the reason; asking again would give the same answer."""
    failures: dict[str, str] = field(default_factory=dict)
    """Items whose call failed, by id with the error; they are not in the target, and the next run asks again."""


def label(
    model: Model, items: Sequence[Example], *, prompt: str | Path = "label_sentences", config: RunnableConfig | None = None
) -> list[Label]:
    """A label for each item, in order, with one call per item; what is known of its gold is not shown.

    `prompt` is the name or path of a prompt with `passage` and `question`; `config` may limit `max_concurrency`. A call that
    fails is its item's problem alone, and is not repeated: retries belong to the model (`with_retry`). Raises `InputError` for
    a prompt that cannot be used.
    """
    return _ask(model, items, _template(prompt), config)


def label_file(
    source: str | Path,
    target: str | Path,
    model: Model,
    *,
    prompt: str | Path = "label_sentences",
    batch_size: int = 32,
    config: RunnableConfig | None = None,
    progress: Callable[[LabelReport], None] | None = None,
) -> LabelReport:
    """Label the examples of a JSONL file into another, from which `read_examples` reads them with their new gold.

    Each line also has the model's `answer` and, if the item is not labelled (gold is then null), the `problem`. The target
    grows by a batch at a time, safe on disk before the next is asked; a run that was cut off goes on where it stopped, and
    what the target holds is not asked again. `progress` sees the report after every batch. Raises `InputError` for files or a
    prompt that cannot be used.
    """
    template = _template(prompt)
    if batch_size < 1:
        raise InputError(f"batch_size must be positive, got {batch_size}")
    target = Path(target)
    if target.resolve() == Path(source).resolve():
        raise InputError(f"{target}: source and target are the same file; give the labels a file of their own")
    items = read_examples(source)
    known = _resume(target)
    for item in items:
        if item.id in known and (known[item.id].question, known[item.id].sentences) != (item.question, item.sentences):
            raise InputError(f"{target}: item {item.id!r} has another question or passage than in {source}; use a new target")
    left = [item for item in items if item.id not in known]
    report = LabelReport(len(items), len(items) - len(left))
    for start in range(0, len(left), batch_size):
        batch = left[start : start + batch_size]
        labels = _ask(model, batch, template, config)
        _append(target, b"".join(_line(*pair) for pair in zip(batch, labels, strict=True) if not pair[1].failed))
        _count(report, labels)
        if progress:
            progress(report)
    return report


def labelled(item: Example, label: Label) -> Example:
    """The item as the label says; one that is not labelled has unknown gold, and is as relevant as it was."""
    return replace(item, gold=label.gold, relevant=item.relevant if label.gold is None else bool(label.gold))


def _template(prompt: str | Path) -> ChatPromptTemplate:
    template = load_prompt(prompt)
    if set(template.input_variables) != {"passage", "question"}:
        raise InputError(f"prompt {prompt}: its variables must be passage and question, not {sorted(template.input_variables)}")
    return template


def _ask(model: Model, items: Sequence[Example], template: ChatPromptTemplate, config: RunnableConfig | None) -> list[Label]:
    prompts: list[LanguageModelInput] = [
        template.invoke({"passage": numbered(item.title, item.sentences), "question": plain(item.question)}) for item in items
    ]
    answers: Sequence[AIMessage | str | Exception]
    try:
        answers = model.batch(prompts, config, return_exceptions=True)
    except Exception as error:  # some models have a batch of their own that fails as a whole
        answers = [error] * len(items)
    messages = [AIMessage(answer) if isinstance(answer, str) else answer for answer in answers]
    return [_label(item, answer) for item, answer in zip(items, messages, strict=True)]


def _label(item: Example, answer: AIMessage | Exception) -> Label:
    if isinstance(answer, Exception):
        return Label(item.id, None, problem=_one_line(f"{type(answer).__name__}: {answer}"), failed=True)
    text = str(answer.text).encode("utf-8", "replace").decode()
    if _cut_off(answer.response_metadata):
        return Label(item.id, None, text, "the answer was cut off at the model's limit of tokens")
    gold, problem = parse_citations(text, len(item.sentences))
    return Label(item.id, gold, text, problem)


def _cut_off(metadata: dict[str, Any]) -> bool:
    reasons = (str(metadata.get(key)).lower() for key in ("finish_reason", "stop_reason", "done_reason"))
    return any(reason in ("length", "max_tokens") for reason in reasons)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _resume(target: Path) -> dict[str, Example]:
    """What the target holds already, after the end of a line that was never finished is cut off."""
    if target.suffix == ".gz":
        raise InputError(f"{target}: the target grows line by line and cannot be gzipped; drop .gz")
    try:
        with target.open("a+b") as file:
            file.seek(0)
            data = file.read()
            torn = data[data.rfind(b"\n") + 1 :]
            if torn[: len(_LINE_START)] != _LINE_START[: len(torn)]:
                raise InputError(f"{target}: its last line is none of a label file; use a new target")
            file.truncate(len(data) - len(torn))
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from None
    return {example.id: example for example in read_examples(target)}


def _append(target: Path, lines: bytes) -> None:
    with target.open("ab") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def _line(item: Example, label: Label) -> bytes:
    row = EXAMPLE.dump_python(labelled(item, label))
    return to_json({**row, "answer": label.answer, "problem": label.problem}) + b"\n"


def _count(report: LabelReport, labels: Sequence[Label]) -> None:
    report.calls += len(labels)
    report.labelled += sum(label.gold is not None for label in labels)
    report.unclear |= {label.id: label.problem for label in labels if label.gold is None and not label.failed}
    report.failures |= {label.id: label.problem for label in labels if label.failed}
