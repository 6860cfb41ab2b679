"""Prompt files: what is shipped works, what a user writes is checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate

from ragkit import InputError
from ragkit.prompting import load_prompt

SHIPPED = sorted((Path(__file__).parents[1] / "prompts").glob("*.yaml"))


def write(folder: Path, **fields: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(fields, allow_unicode=True), "utf-8")
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_prompt_loads_by_name_and_by_path(path: Path) -> None:
    prompt = load_prompt(path.stem)
    assert isinstance(prompt, ChatPromptTemplate)
    assert prompt == load_prompt(path) == load_prompt(str(path))
    declared = yaml.safe_load(path.read_text("utf-8"))["variables"]
    values = {name: f"<{name} {{braces}} 日本語>" for name in declared}
    shown = "".join(str(message.content) for message in prompt.format_messages(**values))
    for value in values.values():
        assert shown.count(value) == 1
    assert not re.search(r"[{}]", re.sub(r"<[^>]*>", "", shown))


def test_the_grounded_answer_prompt_takes_context_and_question() -> None:
    system, user = load_prompt("grounded_answer").format_messages(context="[1] a passage", question="Why?")
    assert (type(system), type(user)) == (SystemMessage, HumanMessage)
    assert "[1] a passage" in user.content
    assert user.content.rstrip().endswith("Why?")
    assert "a passage" not in system.content


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    text = 'Für „{question}“ — 回答は JSON: {{"n": 1}} 😀\n{context}\n'
    path = write(tmp_path, variables=["context", "question"], user=text)
    (message,) = load_prompt(path).format_messages(context="ctx {not a field}", question="なぜ？")
    assert message.content == 'Für „なぜ？“ — 回答は JSON: {"n": 1} 😀\nctx {not a field}\n'


def test_a_variable_may_be_in_the_system_message_and_come_twice(tmp_path: Path) -> None:
    path = write(tmp_path, variables=["a"], system="{a}", user="{a} {a}")
    assert [message.content for message in load_prompt(path).format_messages(a="x")] == ["x", "x x"]


def test_a_prompt_without_variables(tmp_path: Path) -> None:
    (message,) = load_prompt(write(tmp_path, variables=[], user="Say {{}}.")).format_messages()
    assert message.content == "Say {}."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("variables: [a, b]\nuser: '{a}'", r"unused variables \['b'\]"),
        ("variables: [a]\nuser: '{a} {b}'", r"undeclared placeholders \['b'\]"),
        ("variables: [a]\nsystem: '{c}'\nuser: '{a}'", r"undeclared placeholders \['c'\]"),
        ("variables: [a]\nuser: '{a} {}'", r"undeclared placeholders \[''\]"),
        ("variables: [a]\nuser: '{a}'\nassistant: hi", "assistant: .*a prompt has variables, system and user"),
        ("variables: [a]", "user: "),
        ("user: hi", "variables: "),
        ("variables: a\nuser: '{a}'", "variables: "),
        ("variables: []\nuser: 3", "user: "),
        ("variables: [a]\nuser: '{a'", "write literal braces twice"),
        ("variables: [a]\nuser: '{a} }'", "write literal braces twice"),
        ("variables: [a]\nuser: '{a.__class__}'", "write literal braces twice"),
        ("variables: [a]\nuser: '{a[0]} {0}'", "write literal braces twice"),
        ("variables: [a\nuser: hi", "is not valid YAML"),
        ("\tuser: hi", "is not valid YAML"),
        ("user: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("", "file: "),
        ("just text", "file: "),
        ("- a\n- b", "file: "),
        (b"user: \xff\xfe", "is not valid YAML"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=message) as error:
        load_prompt(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nothing_like_this", "nowhere/prompt.yaml"])
def test_a_missing_prompt_is_named_with_those_that_exist(name: str) -> None:
    with pytest.raises(InputError, match=rf"prompt {name}: No such file.*shipped prompts: .*grounded_answer"):
        load_prompt(name)


def test_a_folder_is_no_prompt(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"prompt {re.escape(str(tmp_path))}: "):
        load_prompt(tmp_path)
