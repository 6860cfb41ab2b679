"""The URL of a store in PostgreSQL."""

from __future__ import annotations

from typing import NamedTuple, Self
from urllib.parse import unquote

from ragkit.errors import InputError

DEFAULT_SCHEMA = "ragkit"


class Address(NamedTuple):
    """Where a store is: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE?schema=NAME`, and what else libpq knows as parameters."""

    conninfo: str
    """What libpq takes, with the password if there is one."""
    schema: str
    """The PostgreSQL schema whose tables are the store; "ragkit" if the URL names none."""
    name: str
    """The URL without password and parameters, as messages show it."""
    password: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises `InputError` for a URL that libpq cannot read; it does not repeat what might be a password."""
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

        base, _, query = url.partition("?")
        parameters = query.split("&") if query else []
        schemas = [unquote(one.removeprefix("schema=")) for one in parameters if one.startswith("schema=")]
        rest = "&".join(one for one in parameters if not one.startswith("schema="))
        conninfo = f"{base}?{rest}" if rest else base
        try:
            parts = conninfo_to_dict(conninfo)
        except psycopg.Error:
            raise InputError(
                "store: this is no URL of a PostgreSQL server; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE?schema=NAME, "
                "with special characters as in %40"
            ) from None
        schema = schemas[-1] if schemas else DEFAULT_SCHEMA
        if not schema or "\0" in schema or len(schema.encode()) > 63 or schema.startswith("pg_"):
            raise InputError(f"store: {schema!r} is no name of a schema; use 1 to 63 letters, digits or underscores")
        user = f"{parts['user']}@" if parts.get("user") else ""
        port = f":{parts['port']}" if parts.get("port") else ""
        place = f"{user}{parts.get('host') or ''}{port}/{parts.get('dbname') or ''}"
        return cls(conninfo, schema, f"postgresql://{place}?schema={schema}", str(parts.get("password") or ""))
