"""The explain page: the way of one question, from the candidates of each stage to the prompt, on one self-contained page."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from string import Template
from typing import Any

from ragkit.chains.answer import extractive_answer
from ragkit.chains.context import Candidate, Citation, GroundedContext, GroundedPassage, Sentence, StageTrace
from ragkit.chains.flow import flow
from ragkit.chains.move_table import SHOWN, move_table
from ragkit.chains.moves import ways
from ragkit.chains.page import asset, page, position, score, source_link, text
from ragkit.prompting import load_prompt

_BLANK_LINES = re.compile(r"\s*\n\s*\n\s*")

_COUNTS = {
    "calls": "LLM calls",
    "prompt_tokens": "prompt tokens",
    "completion_tokens": "completion tokens",
    "cached": "cached answers",
    "rounds": "rounds",
    "failures": "failures",
    "stopped": "stopped by",
    "moved": "moved behind the others",
}
"""What is shown of a stage's usage, and how it is called."""


def explain_page(context: GroundedContext) -> str:
    """HTML for people: answer, stages, rank moves, passages with what was pruned of them, and the prompt.

    Nothing is loaded, and no text of a document can do anything: see `ragkit.chains.page`.
    """
    names = _short_names([*context.candidates, *context.passages])
    body = Template(asset("explain.html")).substitute(
        question=text(context.question),
        saving=_saving(context),
        facts=_facts(context),
        answer=_answer(context, names),
        way=_way(context, names) if context.trace else "",
        toggle=_toggle("passages", "All scores") if _scored(context.passages) else "",
        passages="".join(_passage(passage, context, names) for passage in context.passages) or _NOTHING,
        prompt=_prompt(context),
        kept=context.tokens_kept,
    )
    return page(f"{context.question} - ragkit explain", body, style=asset("explain.css"), script=asset("explain.js"))


_NOTHING = '<p class="soft">No passage is in the context.</p>'


def _facts(context: GroundedContext) -> str:
    sentences = sum(len(passage.sentences) for passage in context.passages)
    units = sentences + sum(len(passage.dropped) for passage in context.passages)
    calls = sum(_number(stage.usage.get("calls")) for stage in context.trace)
    tokens = sum(_number(stage.usage.get(name)) for stage in context.trace for name in ("prompt_tokens", "completion_tokens"))
    facts = {
        "Tokens": f"{context.tokens_retrieved} → {context.tokens_kept}",
        "Saved": f"{_saved(context):.0%}",
        "Passages": f"{len(context.passages)} of {len(context.candidates)}",
        "Sentences": f"{sentences} of {units}",
        "Time": _duration(_total(context.trace)),
    }
    if calls:
        facts["LLM calls"] = f"{calls} ({tokens} tokens)"
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())


def _saving(context: GroundedContext) -> str:
    """A bar of what was retrieved, with the part that was kept."""
    share = 100 * (1 - _saved(context)) if context.tokens_retrieved else 0
    return (
        '<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rest" width="100" height="1"/><rect class="part" width="{share:.1f}" height="1"/></svg>'
    )


def _saved(context: GroundedContext) -> float:
    return max(0.0, 1 - context.tokens_kept / context.tokens_retrieved) if context.tokens_retrieved else 0.0


def _answer(context: GroundedContext, names: Mapping[str, str]) -> str:
    answer = extractive_answer(context)
    if answer.abstained:
        return '<p class="soft">Nothing in these documents answers that, or no sentence fits the token budget.</p>'
    items = "".join(
        f'<li><p dir="auto">{text(citation.text)} <a class="n" href="#p{citation.n}" aria-label="passage {citation.n}">'
        f'[{citation.n}]</a></p><p class="where">{_where(citation, names)}</p></li>'
        for citation in answer.citations
    )
    return f'<ol class="answer">{items}</ol>'


def _way(context: GroundedContext, names: Mapping[str, str]) -> str:
    moves = ways(context)
    return Template(asset("way.html")).substitute(
        stages="".join(_stage(stage, _total(context.trace)) for stage in context.trace),
        flow=flow(moves[:SHOWN], context.trace),
        candidates=move_table(context, moves, names),
    )


def _stage(stage: StageTrace, total: float) -> str:
    share = 100 * stage.seconds / total if total else 0
    spent = "".join(
        f"<span><b>{text(str(stage.usage[name]))}</b> {label}</span>" for name, label in _COUNTS.items() if stage.usage.get(name)
    )
    return (
        f'<li class="card"><div class="row"><h3>{text(stage.stage)}</h3><span class="soft">{stage.entered} → {stage.left}</span>'
        f'<span class="time">{_duration(stage.seconds)}</span></div>'
        '<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="rest" width="100" height="1"/><rect class="clock" width="{share:.1f}" height="1"/></svg>'
        + (f'<p class="spent soft">{spent}</p>' if spent else "")
        + "</li>"
    )


def _passage(passage: GroundedPassage, context: GroundedContext, names: Mapping[str, str]) -> str:
    whole = next((candidate for candidate in context.candidates if candidate.id == passage.id), None)
    first = whole or passage.sentences[0].citation
    headings = " › ".join(passage.headings)
    kept, units = len(passage.sentences), len(passage.sentences) + len(passage.dropped)
    rated = "" if passage.score is None else f" · score {score(passage.score)}"
    toggle = _toggle(f"t{passage.n}", "Scores") if _scored([passage]) else ""
    return (
        f'<article class="card" id="p{passage.n}" tabindex="-1" aria-labelledby="h{passage.n}"><header><div>'
        f'<h3 id="h{passage.n}"><span class="n">[{passage.n}]</span> {_where(first, names)}</h3>'
        + (f'<p class="soft" dir="auto">{text(headings)}</p>' if headings else "")
        + f'<p class="soft">{kept} of {units} sentences kept{rated}</p></div>{toggle}</header>'
        f'<div class="text" id="t{passage.n}" dir="auto">{_marked(passage, whole)}</div></article>'
    )


def _marked(passage: GroundedPassage, whole: Candidate | None) -> str:
    """The passage, unit by unit, with the white space between them as in the source."""
    units = sorted(
        [*((sentence, True) for sentence in passage.sentences), *((sentence, False) for sentence in passage.dropped)],
        key=lambda item: item[0].citation.start,
    )
    pieces, at = [], units[0][0].citation.start
    for sentence, kept in units:
        start = sentence.citation.start
        gap = whole.text[at - whole.start : start - whole.start] if whole is not None and start > at else ""
        pieces += [text(_BLANK_LINES.sub("\n\n", gap)), _unit(sentence, kept)]
        at = sentence.citation.end
    return "".join(pieces)


def _unit(sentence: Sentence, kept: bool) -> str:
    state = "kept" if kept else "dropped"
    classes = f"s {state} kind-{sentence.kind}"
    shown = text(sentence.citation.text)
    if sentence.score is None:
        return f'<span class="{classes}">{shown}</span>'
    return (
        f'<span class="{classes}" role="button" tabindex="0" aria-expanded="false">{shown}'
        f'<span class="p">{state} {score(sentence.score)}</span></span>'
    )


def _prompt(context: GroundedContext) -> str:
    messages = load_prompt("grounded_answer").format_messages(context=context.text, question=context.question)
    return "".join(
        f'<h3>{text(message.type)}</h3><pre tabindex="0" dir="auto">{text(str(message.content))}</pre>' for message in messages
    )


def _toggle(controls: str, label: str) -> str:
    return f'<button type="button" class="toggle" aria-expanded="false" aria-controls="{controls}">{label}</button>'


def _where(place: Citation | Candidate, names: Mapping[str, str]) -> str:
    return source_link(place.source, place.page, label=f"{names[place.source]}{position(place.line, place.page)}")


def _short_names(places: Iterable[Candidate | GroundedPassage]) -> dict[str, str]:
    """Sources as short as still tells them apart: paths from the folder that all of them share."""
    sources = {place.source for place in places}
    folders = {os.path.dirname(source) for source in sources if os.path.isabs(source)}
    common = os.path.commonpath(folders) if folders else ""
    return {source: os.path.relpath(source, common) if os.path.isabs(source) else source for source in sources}


def _scored(passages: Iterable[GroundedPassage]) -> bool:
    return any(sentence.score is not None for passage in passages for sentence in (*passage.sentences, *passage.dropped))


def _total(trace: Sequence[StageTrace]) -> float:
    return sum(stage.seconds for stage in trace)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"
