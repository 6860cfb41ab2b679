"""Only this machine reaches the server, unless somebody says otherwise."""

import sys

import pytest

from ragkit.errors import InputError, MissingExtraError
from ragkit.mcp_server.command import mcp

transports = pytest.importorskip("ragkit.mcp_server.transports", reason="needs the MCP SDK", exc_type=ImportError)
Address, check_reach = transports.Address, transports.check_reach


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("127.0.0.1:8000", "127.0.0.1", 8000, "127.0.0.1"),
        ("localhost:0", "localhost", 0, "localhost"),
        ("[::1]:99", "::1", 99, "[::1]"),
        ("127.9.9.9:1", "127.9.9.9", 1, "127.9.9.9"),
    ],
)
def test_loopback(text: str, host: str, port: int, shown: str) -> None:
    address = Address.parse(text)
    assert (*address, address.shown) == (host, port, shown)
    assert check_reach(address, expose=False) == address


@pytest.mark.parametrize("text", ["8000", ":8000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", "a:²"])
def test_no_address(text: str) -> None:
    with pytest.raises(InputError, match=r"^--http: takes HOST:PORT"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", "localhost.example.org:1"])
def test_other_addresses_only_if_somebody_says_so(text: str) -> None:
    address = Address.parse(text)
    with pytest.raises(InputError, match="--expose"):
        check_reach(address, expose=False)
    assert check_reach(address, expose=True) == address


def test_expose_without_http() -> None:
    with pytest.raises(InputError, match=r"^--expose: "):
        mcp("index", expose=True)


def test_without_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ragkit.mcp_server.protocol", None)
    with pytest.raises(MissingExtraError, match=r"ragkit\[mcp\]"):
        mcp("index")
