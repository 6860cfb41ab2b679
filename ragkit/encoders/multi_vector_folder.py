"""A late-interaction model as files: which of the known layouts it has, and what they say. Imports no torch."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragkit.encoders.folder import longest_input
from ragkit.encoders.model_files import Chains, hidden_size, read_chains, read_config, read_json, weight_files
from ragkit.errors import InputError, RagkitError

ACTIVATIONS = ("Identity", "ReLU", "GELU", "Tanh", "SiLU")
"""What may follow a projection, by the name of the class in torch."""

_LINEAR = "linear.weight"
_TRANSFORMERS = ("Transformer",)
_SINGLE_VECTOR = ("Pooling", "Normalize")
_USUAL_LENGTH = 512


@dataclass(frozen=True)
class Projection:
    """A linear layer over every token's vector: `linear.weight`, with `linear.bias` if it is there, in a safetensors file."""

    file: Path
    activation: str = "Identity"
    residual: bool = False
    """Whether what goes in is added to what comes out, through `residual.weight` where the sizes differ."""


@dataclass(frozen=True)
class TokenModel:
    """How texts become one vector per token. Lengths are in tokens, all special ones included."""

    path: Path
    """Holds config.json, the tokenizer and the transformer's weights."""
    dimension: int
    document_length: int
    """The longest window of a document."""
    longest: int | None
    """The most tokens the position embeddings allow; None if there is no limit."""
    projections: tuple[Projection, ...] = ()
    query_length: int = 32
    """What shorter queries are filled up to, if they are expanded."""
    query_marker: str = ""
    """A token that is put behind the first one; "" for none."""
    document_marker: str = ""
    expand: bool = False
    """Whether queries are filled up with mask tokens, which get vectors of their own."""
    attend: bool = False
    """Whether the other tokens of a query see the mask tokens."""
    skip_words: tuple[str, ...] = tuple(string.punctuation)
    """Tokens of documents that get no vector."""
    query_prompt: str = ""
    document_prompt: str = ""


def read_token_model(root: Path) -> TokenModel:
    """Read the folder of a late-interaction model.

    Known are ColBERT's own checkpoints (a transformer with `linear.weight` beside it, settings in artifact.metadata), PyLate's
    (modules.json with a Transformer and Dense layers), and any other transformer, whose last hidden states are then taken as
    they are, without markers and expansion. Raises `InputError` for what cannot be reproduced.
    """
    chains = read_chains(root)
    if chains:
        return _modules(root, chains)
    config = read_config(root)
    files = weight_files(root)
    if _LINEAR not in files:
        return _transformer(root, config, hidden_size(config, root))
    return _stanford(root, config, files[_LINEAR])


def _stanford(root: Path, config: dict[str, Any], file: Path) -> TokenModel:
    """ColBERT v1 and v2 (Khattab and Zaharia 2020, arXiv:2004.12832; Santhanam et al. 2021, arXiv:2112.01488)."""
    said = {key: value for key, value in (read_json(root / "artifact.metadata") or {}).items() if value is not None}
    if said.get("similarity", "cosine") != "cosine":
        raise InputError(f"model: {root.name} compares by {said['similarity']}; supported is cosine")
    return _transformer(
        root,
        config,
        _width(Projection(file), hidden_size(config, root)),
        projections=(Projection(file),),
        document_length=said.get("doc_maxlen", 220),
        query_length=said.get("query_maxlen", 32),
        query_marker=said.get("query_token_id", "[unused0]"),
        document_marker=said.get("doc_token_id", "[unused1]"),
        expand=True,
        attend=said.get("attend_to_mask_tokens", False),
        skip_words=tuple(string.punctuation) if said.get("mask_punctuation", True) else (),
    )


def _modules(root: Path, chains: Chains) -> TokenModel:
    """PyLate's layout, and sentence-transformers folders with one vector per text, whose tokens are taken."""
    chain = chains.document
    kinds = [module.kind for module in chain]
    if chain != chains.query:
        raise InputError(f"model: {root.name} has different modules for queries and documents; supported is one model for both")
    if not kinds or kinds[0] not in _TRANSFORMERS or set(kinds[1:]) - {"Dense", *_SINGLE_VECTOR}:
        raise InputError(f"model: {root.name} consists of {' + '.join(kinds) or 'nothing'}; supported is Transformer + Dense")
    if "Dense" in kinds and set(kinds) & set(_SINGLE_VECTOR):
        raise InputError(f"model: {root.name} has a Dense layer over one vector for the whole text, not over its tokens")
    path = chain[0].folder
    if (read_json(path / "sentence_bert_config.json") or {}).get("do_lower_case"):
        raise InputError(f"model: {root.name} lower-cases texts before its tokenizer does (do_lower_case); that is not supported")
    config = read_config(path)
    projections = tuple(_dense(module.folder) for module in chain[1:] if module.kind == "Dense")
    width = hidden_size(config, path)
    for projection in projections:
        width = _width(projection, width)
    said = {
        key: value for key, value in (read_json(root / "config_sentence_transformers.json") or {}).items() if value is not None
    }
    prompts = said.get("prompts") or {}
    settings: dict[str, Any] = {
        "query_prompt": prompts.get("query", ""),
        "document_prompt": prompts.get("document", prompts.get("passage", "")),
    }
    if projections:
        settings |= {
            "projections": projections,
            "document_length": said.get("document_length", 180),
            "query_length": said.get("query_length", 32),
            "query_marker": said.get("query_prefix", "[Q] "),
            "document_marker": said.get("document_prefix", "[D] "),
            "expand": said.get("do_query_expansion", True),
            "attend": said.get("attend_to_expansion_tokens", False),
            "skip_words": tuple(said.get("skiplist_words", string.punctuation)),
        }
    return _transformer(path, config, width, **settings)


def _transformer(
    path: Path, config: dict[str, Any], dimension: int, document_length: int | None = None, **settings: Any
) -> TokenModel:
    longest = longest_input(config)
    limits = [
        document_length,
        (read_json(path / "sentence_bert_config.json") or {}).get("max_seq_length"),
        (read_json(path / "tokenizer_config.json") or {}).get("model_max_length"),
    ]
    # tokenizers without a limit say so with an astronomically large number
    limit = next((x for x in limits if x and x < 1_000_000), longest or _USUAL_LENGTH)
    return TokenModel(path, dimension, min(limit, longest or limit), longest, **settings)


def _dense(folder: Path) -> Projection:
    said = read_json(folder / "config.json") or {}
    activation = str(said.get("activation_function", "torch.nn.modules.linear.Identity"))
    name = activation.rsplit(".", 1)[-1]
    if not activation.startswith("torch.nn.") or name not in ACTIVATIONS:
        raise InputError(f"model: the layer in {folder} has the activation {activation}; supported are {', '.join(ACTIVATIONS)}")
    files = weight_files(folder)
    if _LINEAR not in files:
        raise InputError(f"model: the weights in {folder} lack {_LINEAR}")
    return Projection(files[_LINEAR], name, bool(said.get("use_residual", False)))


def _width(projection: Projection, width: int) -> int:
    """How many numbers a projection gives; it must take `width`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(projection.file, "np") as file:
            shape = file.get_slice(_LINEAR).get_shape()
    except (OSError, SafetensorError) as error:
        raise RagkitError(f"model: {projection.file} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if len(shape) != 2 or shape[1] != width:
        raise InputError(f"model: {_LINEAR} in {projection.file} has the shape {tuple(shape)}; it must take {width} numbers")
    return int(shape[0])
