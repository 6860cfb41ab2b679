"""What tells statements that a passage bears out from those that it does not: shared words, ragkit's Provence model, or both?

    python benchmarks/claims.py

Statements are made of SQuAD's questions and answers, as a sentence and as the answer alone; false ones are the same with the
answer to another question. Others are those of MT-RAG's reference answers, against their own passages and other ones. The way to
ask the model, and where its word passes, was chosen on the articles of SQuAD's training split that the model was not trained on,
and on half of MT-RAG's conversations. Writes benchmarks/results/claims.md, in some minutes.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from abstention import _HELD_OUT, auroc, interval
from followups import half, rows
from langchain_core.documents import Document
from numpy.typing import NDArray
from retrieval import DATA, ROOT

from ragkit.chains.checked import PROBABLE, SUPPORTED
from ragkit.chains.claims import Claim, claims_of
from ragkit.chains.context import Citation, GroundedContext
from ragkit.chains.grounding import ground
from ragkit.chains.markers import MarkerStream
from ragkit.chains.support import sentence_scores
from ragkit.documents.model import Unit
from ragkit.documents.provenance import Provenance, passage_text, with_provenance
from ragkit.documents.sentences import units_of
from ragkit.documents.tokens import RegexTokenizer
from ragkit.encoders.lexical import Analyzer
from ragkit.evaluation.sentences import LabelledQuestion, load_sentences
from ragkit.provence.model import ProvenceModel
from ragkit.training.assemble import is_held_out

RESULTS = ROOT / "benchmarks" / "results" / "claims.md"
ANALYZER = Analyzer()
_ASKS = re.compile(
    r"\b(?:who|whom|whose|what|which|when|where|why|how(?: (?:many|much|long|old|far|often|large|tall|high))?)\b", re.I
)
KINDS = {
    "gold": "true, the answer's sentence is kept",
    "whole": "true, the whole passage is kept",
    "rest": "true, but only the other sentences are kept",
    "near": "the answer to another question on the passage, all of which is kept",
    "near-gold": "the same, only the first question's sentence is kept",
    "far": "an answer from another article, the whole passage is kept",
}
TRUE = ("gold", "whole", "own")
ANSWERS = {
    "own": "a statement of the answer, checked against the passages that it was written from",
    "other": "the same against those of another question",
}
SCORES = {
    "words": "shared words (the default)",
    "model": "model",
    "alone": "both, the model being asked the statement alone",
    "both": 'both (`support="model"`)',
}


class Case(NamedTuple):
    """One statement and what it is checked against."""

    kind: str
    claim: Claim
    context: GroundedContext


def kind_of(answer: str) -> str:
    """Answers of one kind can stand for each other."""
    if re.search(r"\b[12]\d{3}\b", answer):
        return "year"
    if re.search(r"\d", answer):
        return "number"
    return "name" if answer[:1].isupper() else "phrase"


def sentence(question: str, answer: str) -> str:
    """The question with the answer in the place of the word that asks."""
    body = question.strip().rstrip("? ")
    said, found = _ASKS.subn(lambda _: answer, body, count=1)
    return f"{said if found else f'{body} {answer}'}."


def case(kind: str, question: str, statement: str, sentences: Sequence[str]) -> Case | None:
    """None if the statement is not read as one."""
    units, at = [], 0
    for text in sentences:
        units.append(Unit(at, at + len(text)))
        at += len(text) + 1
    record = Provenance(units=tuple(units))
    document = with_provenance(Document(id="passage", page_content=" ".join(sentences)), record)
    context = ground(question, [document], RegexTokenizer())
    stream = MarkerStream(1)
    said = stream.feed(f"{statement} [1]") + stream.finish()
    claims = claims_of(said, stream.markers, context, ANALYZER)
    return Case(kind, claims[0], context) if len(claims) == 1 else None


def instead(question: LabelledQuestion, among: Sequence[LabelledQuestion]) -> list[str]:
    """Answers of others that are of the same kind, say something new, and share no word with any answer that is accepted."""
    accepted = [set(ANALYZER(answer)) for answer in question.record["answers"]]
    kind, asked = kind_of(question.record["answers"][0]), set(ANALYZER(question.text))
    return [
        answer
        for answer in (other.record["answers"][0] for other in among)
        if kind_of(answer) == kind
        and set(ANALYZER(answer)) - asked
        and not any(right.intersection(ANALYZER(answer)) for right in accepted)
    ]


def of_question(question: LabelledQuestion, near: Sequence[str], far: Sequence[str]) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Kind, answer and kept sentences of each statement."""
    passage = question.passages[0]
    text, answer = passage_text(passage.document), question.record["answers"][0]
    whole = [text[unit.start : unit.end] for unit in units_of(passage.document)]
    gold = [whole[at] for at in passage.gold]
    yield "gold", answer, gold
    yield "whole", answer, whole
    if rest := [sentence for at, sentence in enumerate(whole) if at not in passage.gold]:
        yield "rest", answer, rest
    if near:
        yield "near", near[0], whole
        yield "near-gold", near[0], gold
    if far:
        yield "far", far[0], whole


def cases(split: str, count: int, short: bool) -> list[Case]:
    """Those of `count` questions."""
    dataset = load_sentences(DATA / "squad", split)
    questions = [question for question in dataset.questions if question.passages[0].gold]
    if split == "train":
        questions = [question for question in questions if is_held_out(str(question.record["title"]), _HELD_OUT)]
    beside: dict[str, list[LabelledQuestion]] = defaultdict(list)
    for question in questions:
        beside[passage_text(question.passages[0].document)].append(question)
    draw = random.Random(0)
    found = []
    for question in draw.sample(questions, min(count, len(questions))):
        its = beside[passage_text(question.passages[0].document)]
        strangers = [other for other in draw.sample(questions, 200) if other.record["title"] != question.record["title"]]
        near, far = (instead(question, draw.sample(among, len(among))) for among in (its, strangers))
        for kind, answer, kept in of_question(question, near, far):
            statement = f"{answer}." if short else sentence(question.text, answer)
            found.append(case(kind, question.text, statement, kept))
    return [one for one in found if one is not None]


def scores(made: Sequence[Case], model: ProvenceModel) -> dict[str, NDArray[np.float64]]:
    """Of each case, by `SCORES`."""
    passages = [one.context.passages for one in made]
    alone = sentence_scores(model, [one.claim.text for one in made], passages)
    beside = sentence_scores(model, [f"{one.context.question} {one.claim.text}" for one in made], passages)
    words = np.array([one.claim.support for one in made])

    def mean(of: Sequence[dict[Citation, float]]) -> NDArray[np.float64]:
        rows = [[its[citation] for citation in one.claim.evidence] for one, its in zip(made, of, strict=True)]
        return np.array([moved(float(np.mean(row))) if row else 0.0 for row in rows])

    return {
        "words": words,
        "model": mean(beside),
        "alone": np.minimum(words, mean(alone)),
        "both": np.minimum(words, mean(beside)),
    }


def moved(probability: float) -> float:
    """On a scale on which a statement passes from `SUPPORTED` on, which is .5."""
    yes, no = probability * (1 - PROBABLE), PROBABLE * (1 - probability)
    return yes / (yes + no)


def answers(part: str, count: int) -> list[Case]:
    """Statements of MT-RAG's reference answers, two of each of `count` tasks, with their own passages and with others'."""
    tasks = [
        task
        for task in rows("tasks.jsonl.gz")
        if half(task["_id"]) == part and task["answerability"][0] == "ANSWERABLE" and 0 < len(task["contexts"]) <= 3
    ]
    draw = random.Random(0)
    found = []
    for task in draw.sample(tasks, min(count, len(tasks))):
        talk = task["_id"].split("<::>")[0]
        strangers = [other for other in tasks if other["collection"] == task["collection"] and talk not in other["_id"]]
        question = [turn["text"] for turn in task["turns"] if turn["speaker"] == "user"][-1]
        own, other = (of_task(question, its) for its in (task, draw.choice(strangers)))
        stated = claims_of(task["target"].strip(), [], own, ANALYZER)
        for at in draw.sample(range(len(stated)), min(2, len(stated))):
            found.append(Case("own", stated[at], own))
            found.append(Case("other", claims_of(stated[at].text, [], other, ANALYZER)[0], other))
    return found


def of_task(question: str, task: dict[str, Any]) -> GroundedContext:
    """The passages that a task's answer was written from."""
    documents = [Document(id=passage["id"], page_content=passage["text"]) for passage in task["contexts"]]
    return ground(question, documents, RegexTokenizer())


def table(made: Sequence[Case], found: dict[str, NDArray[np.float64]]) -> list[str]:
    """AUROC with its interval, and the share of each kind that passes."""
    kinds = np.array([one.kind for one in made])
    true = np.isin(kinds, TRUE)
    names = [name for name in (*KINDS, *ANSWERS) if name in kinds]
    lines = [f"| score | AUROC | 95 % interval | {' | '.join(names)} |", "|---|---:|---:|" + "---:|" * len(names)]
    for name, label in SCORES.items():
        passing = " | ".join(f"{(found[name][kinds == kind] >= SUPPORTED).mean():.0%}" for kind in names)
        lines.append(f"| {label} | {interval(true.tolist(), found[name].tolist())} | {passing} |")
    return lines


def pairs(made: Sequence[Case], found: dict[str, NDArray[np.float64]]) -> list[str]:
    """AUROC of one kind of truth against one kind of falsehood."""
    kinds = np.array([one.kind for one in made])
    against = {"gold": "rest", "whole": "near", "gold ": "near-gold", "whole ": "far"}
    heads = [f"{true.strip()} or {false}" for true, false in against.items()]
    lines = [f"| score | {' | '.join(heads)} |", "|---|" + "---:|" * len(against)]
    for name, label in SCORES.items():
        values = []
        for true, false in against.items():
            these = np.isin(kinds, (true.strip(), false))
            values.append(f"{auroc(kinds[these] == true.strip(), found[name][these]):.3f}")
        lines.append(f"| {label} | {' | '.join(values)} |")
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=80, help="of each split of SQuAD")
    parser.add_argument("--tasks", type=int, default=20, help="of each half of MT-RAG")
    parser.add_argument("--dtype", help="int8 is faster on a CPU")
    arguments = parser.parse_args()
    model = ProvenceModel.from_pretrained(dtype=arguments.dtype)
    chosen = f" --questions {arguments.questions} --tasks {arguments.tasks}" + (
        f" --dtype {arguments.dtype}" if arguments.dtype else ""
    )
    lines = [
        "# Statements and what bears them out",
        "",
        f"`python benchmarks/claims.py{chosen}`",
        "",
        "Statements made of SQuAD's questions and answers, true and false, each citing one passage:",
        "",
        *[f"- **{kind}**: {what}" for kind, what in KINDS.items()],
        "",
        "and sentences of MT-RAG's reference answers, which people have written freely, and mostly longer:",
        "",
        *[f"- **{kind}**: {what}" for kind, what in ANSWERS.items()],
        "",
        f"Columns after the interval: the share that passes, high for {', '.join(TRUE)} and low for the others if a score is "
        f"any good. A statement passes by words from {SUPPORTED} on, by ragkit's own model from {PROBABLE} on: the mean of what "
        "it gives the sentences that share the words. With both it must pass both; AUROC is then that of the lower one, on "
        "scales that pass from .5.",
    ]

    def add(made: Sequence[Case], title: str) -> None:
        found = scores(made, model)
        lines.extend(["", f"## {title}", "", f"{len(made)} statements.", "", *table(made, found)])
        if made[0].kind in KINDS:
            lines.extend(["", "AUROC by kind:", "", *pairs(made, found)])
        print(title, flush=True)

    for split, use in (("test", "reported"), ("train", "chosen by; articles that the model was not trained on")):
        add(cases(split, arguments.questions, short=False), f"SQuAD {split} ({use}), a sentence made of question and answer")
        add(cases(split, arguments.questions, short=True), f'SQuAD {split} ({use}), the answer alone ("In 1932.")')
    for part, use in (("test", "reported"), ("dev", "chosen by")):
        add(answers(part, arguments.tasks), f"MT-RAG, the half called {part} ({use})")
    RESULTS.write_text("\n".join([*lines, ""]), encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
