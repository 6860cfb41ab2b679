"""Effectiveness measures, computed by ir-measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_core.documents import Document

from ragkit.errors import InputError, MissingExtraError


def evaluate(
    results: Mapping[str, Sequence[Document]],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Sequence[str] = ("nDCG@10", "R@100", "RR@10"),
) -> dict[str, float]:
    """Mean of each measure over all judged questions; a question without results counts as 0.

    Documents are taken in the order given, whatever their scores; a document that comes twice counts where it comes first.
    Raises `InputError` for a measure that ir-measures does not know.
    """
    try:
        import ir_measures
    except ImportError:
        raise MissingExtraError("evaluation", "eval") from None
    run = {
        query: {id_: -float(rank) for rank, id_ in enumerate(dict.fromkeys(str(document.id) for document in documents))}
        for query, documents in results.items()
    }
    try:
        wanted = {name: ir_measures.parse_measure(name) for name in measures}
    except (NameError, ValueError) as error:
        raise InputError(f"measures: {error}") from None
    values = ir_measures.calc_aggregate(list(wanted.values()), {query: dict(rels) for query, rels in qrels.items()}, run)
    return {name: float(values[measure]) for name, measure in wanted.items()}
