"""Prompts are files: YAML with `variables`, `system` (optional) and `user`, shipped with ragkit and replaceable by path."""

from __future__ import annotations

from pathlib import Path

import yaml
from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel, ConfigDict, ValidationError

from ragkit.errors import InputError


class _PromptFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    variables: list[str]
    system: str | None = None
    user: str


def load_prompt(name: str | Path) -> ChatPromptTemplate:
    """A shipped prompt by its name ("grounded_answer"), or any prompt file by its path.

    Raises `InputError`, naming the file, if it is missing or malformed, or if `variables` and the {placeholders} differ.
    """
    path = _path(name)
    try:
        file = _PromptFile.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        shipped = ", ".join(sorted(known.stem for known in shipped_prompts().glob("*.yaml")))
        raise InputError(f"prompt {path}: {error.strerror or error}; shipped prompts: {shipped}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"prompt {path} is not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "file"
        raise InputError(f"prompt {path}: {place}: {first['msg']}; a prompt has variables, system and user") from None
    messages = [("system", file.system)] if file.system else []
    try:
        template = ChatPromptTemplate.from_messages([*messages, ("user", file.user)])
    except ValueError as error:
        raise InputError(f"prompt {path}: {' '.join(str(error).split())}; write literal braces twice") from None
    used, declared = set(template.input_variables), set(file.variables)
    if used != declared:
        missing, unknown = sorted(declared - used), sorted(used - declared)
        raise InputError(f"prompt {path}: unused variables {missing}, undeclared placeholders {unknown}")
    return template


def _path(name: str | Path) -> Path:
    shipped = shipped_prompts() / f"{name}.yaml"
    return shipped if isinstance(name, str) and shipped.is_file() else Path(name)


def shipped_prompts() -> Path:
    """The folder of the prompts that come with ragkit: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "prompts"
    return installed if installed.is_dir() else package.parent / "prompts"
