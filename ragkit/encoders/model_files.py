"""What the files of a model folder say, whatever kind of model it is. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ragkit.errors import InputError, RagkitError

WEIGHTS = "model.safetensors"
_ROUTES = {"document": ("document", "doc", "passage", "context"), "query": ("query", "question")}


class Module(NamedTuple):
    """A part of a sentence-transformers model: its class, and the folder with its settings."""

    type: str
    folder: Path

    @property
    def kind(self) -> str:
        """The name of the class, without its package."""
        return self.type.rsplit(".", 1)[-1]


class Chains(NamedTuple):
    """The modules that documents go through, and those for queries."""

    document: list[Module]
    query: list[Module]


def read_json(path: Path) -> Any:
    """The content of a JSON file, None if there is no such file. Raises `RagkitError` for one that is damaged."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RagkitError(f"model: {path} is no JSON that can be read ({error})") from error


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a transformer, without entries that are null. Raises `InputError` if there is none."""
    config = read_json(folder / "config.json")
    if not config or not isinstance(config, dict):
        raise InputError(f"model: the folder {folder} holds no config.json")
    # null says no more than a missing entry
    return {key: value for key, value in config.items() if value is not None}


def hidden_size(config: Mapping[str, Any], folder: Path) -> int:
    """Numbers in a hidden state, by the config.json of this folder. Raises `InputError` if it does not say."""
    for key in ("hidden_size", "dim", "d_model", "n_embd"):
        if isinstance(config.get(key), int):
            return int(config[key])
    raise InputError(f"model: {folder / 'config.json'} does not say how long a vector is (hidden_size)")


def weight_files(folder: Path) -> dict[str, Path]:
    """The names of all tensors of a model folder, each with the safetensors file that holds it.

    Raises `InputError` if there is no such file: weights in other formats may run code when they are read.
    """
    from safetensors import SafetensorError, safe_open

    index = read_json(folder / f"{WEIGHTS}.index.json")
    names = [WEIGHTS] if (folder / WEIGHTS).is_file() else sorted(set((index or {}).get("weight_map", {}).values()))
    if not names:
        raise InputError(f"model: {folder} holds no {WEIGHTS}; weights in other formats must be converted to it first")
    found = {}
    for name in names:
        try:
            with safe_open(folder / name, "np") as file:
                found.update(dict.fromkeys(file.keys(), folder / name))
        except (OSError, SafetensorError) as error:
            raise RagkitError(f"model: {folder / name} cannot be read: {' '.join(str(error).split())[:200]}") from error
    return found


def read_chains(root: Path) -> Chains | None:
    """The modules of a sentence-transformers folder, with those behind a Router or Asym; None for other folders.

    Raises `InputError` for a router that has no plain routes for queries and documents, and for incomplete files.
    """
    modules = read_json(root / "modules.json")
    if not modules:
        return None
    chains = Chains([], [])
    for said in modules:
        if not {"type", "path"} <= said.keys():
            raise InputError(f"model: the modules.json of {root.name} has a module without type or path")
        module = Module(said["type"], root / said["path"])
        routes = _routes(root, module) if module.kind in ("Router", "Asym") else Chains([module], [module])
        chains.document.extend(routes.document)
        chains.query.extend(routes.query)
    return chains


def _routes(root: Path, router: Module) -> Chains:
    folder = router.folder
    said = read_json(folder / "router_config.json") or read_json(folder / "config.json") or {}
    structure, types = said.get("structure") or {}, said.get("types") or {}
    names = [next((name for name in _ROUTES[side] if name in structure), None) for side in Chains._fields]
    if None in names or (said.get("parameters") or {}).get("route_mappings"):
        raise InputError(f"model: the router of {root.name} has no plain routes for query and document")
    if unknown := {part for name in names for part in structure[name]} - types.keys():
        raise InputError(f"model: the router of {root.name} does not say what {min(unknown)} is")
    return Chains(*([Module(types[part], folder / part) for part in structure[name]] for name in names))
