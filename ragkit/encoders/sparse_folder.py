"""A learned sparse model as files: which of the known layouts it has, and what they say about its two sides. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ragkit.encoders.folder import longest_input
from ragkit.encoders.model_files import WEIGHTS, Module, read_chains, read_config, read_json, weight_files
from ragkit.errors import InputError

Head = Literal["mlm", "causal", "mlp", "idf", "binary"]
TermPooling = Literal["max", "sum"]
Activation = Literal["relu", "log1p_relu"]

IDF_FILES = ("idf.json", "query_token_weights.txt")
_USUAL_LENGTH = 512


@dataclass(frozen=True)
class Side:
    """How texts of one side, documents or queries, become weighted terms."""

    path: Path
    """Holds the tokenizer, and config.json and the weights where there is a network."""
    head: Head
    """What weighs terms. "mlm", "causal": the language model's logits over the vocabulary (SPLADE, Mistral-SPLADE). "mlp": an
    impact per input token (uniCOIL, DeepImpact). "idf": a table of weights. "binary": every input term has the weight 1."""
    max_length: int = _USUAL_LENGTH
    """Tokens in a window, special ones included; of no meaning to "idf" and "binary"."""
    longest: int | None = None
    """The most tokens the position embeddings allow; None if there is no limit."""
    prompt: str = ""
    pooling: TermPooling = "max"
    """Over the positions of a text."""
    activation: Activation = "relu"
    """What the language model's logits go through: log(1 + relu), or that in another log(1 + x)."""
    echo: bool = False
    """Whether the text is repeated, and only the repetition pooled."""
    whole_words: bool = False
    """Whether the impact of a word is that of its first piece (DeepImpact)."""
    literal: float = 0.0
    """Added to the weight of every term that occurs in the text."""
    terms: int | None = None
    """The most terms a text keeps."""
    table: Path | None = None
    """Where an "idf" side has its weights."""

    @property
    def has_network(self) -> bool:
        """Whether a transformer reads the text."""
        return self.head in ("mlm", "causal", "mlp")


def read_sides(root: Path) -> tuple[Side, Side]:
    """The document side and the query side of a model folder.

    Known are sentence-transformers SparseEncoder folders (a fill-mask or text-generation Transformer with SpladePooling,
    SparseStaticEmbedding, and a Router over both), and checkpoints without such files: language models (SPLADE; with an
    idf.json or query_token_weights.txt, OpenSearch's inference-free models), uniCOIL's tok_proj, and DeepImpact's
    impact_score_encoder. Raises `InputError` for anything else.
    """
    chains = read_chains(root)
    document, query = (_chained(root, chains.document), _chained(root, chains.query)) if chains else _plain(root)
    settings = read_json(root / "config_sentence_transformers.json") or {}
    if settings.get("similarity_fn_name") not in (None, "dot"):
        raise InputError(f"model: {root.name} compares by {settings['similarity_fn_name']}; supported are inner products (dot)")
    prompts, terms = settings.get("prompts") or {}, settings.get("max_active_dims")
    return (
        replace(document, prompt=prompts.get("document", prompts.get("passage", "")), terms=terms),
        replace(query, prompt=prompts.get("query", ""), terms=terms),
    )


def idf_side(document: Side, name: str) -> Side:
    """Queries by the idf table that lies beside the document side's model. Raises `InputError` if there is none."""
    table = _idf_file(document.path)
    if table is None:
        raise InputError(f"query: {name} has no table of weights for queries ({' or '.join(IDF_FILES)}); use another query side")
    return Side(document.path, "idf", table=table)


def _plain(root: Path) -> tuple[Side, Side]:
    """The sides of a folder without sentence-transformers files."""
    config = read_config(root)
    names = weight_files(root)
    if any(name.endswith("tok_proj.weight") for name in names):
        document = _network(root, "mlp", config)
        return document, replace(document, pooling="sum")
    if any("impact_score_encoder." in name for name in names):
        return _network(root, "mlp", config, whole_words=True), Side(root, "binary")
    architecture = ", ".join(config.get("architectures") or ["a network of unknown architecture"])
    if architecture.endswith("ForMaskedLM"):
        document = _network(root, "mlm", config)
        table = _idf_file(root)
        return document, document if table is None else Side(root, "idf", table=table)
    if architecture.endswith("ForCausalLM"):
        document = _network(root, "causal", config, echo=True)
        return document, document
    raise InputError(
        f"model: {root.name} is {architecture}, without a head that weighs terms; needed is a masked or causal language model "
        "(...ForMaskedLM, ...ForCausalLM), a tok_proj (uniCOIL), an impact_score_encoder (DeepImpact), or the modules.json of a "
        "sentence-transformers SparseEncoder"
    )


def _chained(root: Path, chain: Sequence[Module]) -> Side:
    """One side from its modules."""
    kinds = [module.kind for module in chain]
    first = chain[0].folder if chain else root
    if kinds == ["SparseStaticEmbedding"]:
        named = (read_json(first / "config.json") or {}).get("path")
        places = [first / Path(named).name, root / Path(named).name] if named else [first / WEIGHTS]
        table = next((place for place in places if place.is_file()), None)
        if table is None:
            raise InputError(f"model: the SparseStaticEmbedding in {first} lacks its weights ({places[0].name})")
        return Side(first, "idf", table=table)
    if len(kinds) == 2 and kinds[0] in ("Transformer", "MLMTransformer") and kinds[1] == "SpladePooling":
        settings = read_json(first / "sentence_bert_config.json") or {}
        task = settings.get("transformer_task", "fill-mask" if kinds[0] == "MLMTransformer" else "feature-extraction")
        heads: dict[str, Head] = {"fill-mask": "mlm", "text-generation": "causal"}
        if task not in heads:
            raise InputError(
                f"model: the transformer in {first} has the task {task!r}, which gives no logits over the vocabulary"
            )
        said = read_json(chain[1].folder / "config.json") or {}
        pooling, activation = said.get("pooling_strategy", "max"), said.get("activation_function", "relu")
        if pooling not in get_args(TermPooling) or activation not in get_args(Activation):
            raise InputError(f"model: {root.name} pools in a way that is not supported: {pooling} of {activation}")
        return _network(first, heads[task], read_config(first), pooling=pooling, activation=activation)
    raise InputError(
        f"model: {root.name} consists of {' + '.join(kinds) or 'nothing'}; supported are Transformer + SpladePooling and "
        "SparseStaticEmbedding"
    )


def _network(path: Path, head: Head, config: Mapping[str, Any], **settings: Any) -> Side:
    longest = longest_input(config)
    limits = [
        (read_json(path / "sentence_bert_config.json") or {}).get("max_seq_length"),
        (read_json(path / "tokenizer_config.json") or {}).get("model_max_length"),
    ]
    # tokenizers without a limit say so with an astronomically large number
    limit = next((x for x in limits if x and x < 1_000_000), _USUAL_LENGTH)
    return Side(path, head, min(limit, longest or limit), longest, **settings)


def _idf_file(folder: Path) -> Path | None:
    return next((folder / name for name in IDF_FILES if (folder / name).is_file()), None)
