"""Turns the database URLs that people and hosting providers write into the one form our driver takes."""

from typing import TYPE_CHECKING

from stepgate.domain.errors import InvalidValue

if TYPE_CHECKING:
    from sqlalchemy import URL

FIELD = "DATABASE_URL"
DRIVER = "postgresql+asyncpg"
SCHEMES = frozenset({"postgres", "postgresql", DRIVER})
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
CERTIFICATE_VARIABLES = {
    "sslcert": "PGSSLCERT",
    "sslcrl": "PGSSLCRL",
    "sslkey": "PGSSLKEY",
    "sslrootcert": "PGSSLROOTCERT",
}
PASSED_ON = frozenset({"host", "port", "prepared_statement_cache_size", "target_session_attrs"})
EXAMPLE = "write it as postgresql://user:password@host:5432/database"


def normalise(text: str) -> str:
    """The URL as `postgresql+asyncpg://...`, libpq's `sslmode` translated to the driver's `ssl`.

    Raises InvalidValue for what is no PostgreSQL URL and for parameters the driver does not know; the message
    never repeats the URL, which holds a password.
    """
    # A command line that talks to a server reads settings too, and has no use for what takes half of its start.
    from sqlalchemy import make_url  # noqa: PLC0415
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError) as error:
        raise InvalidValue("not a database URL", field=FIELD, fix=EXAMPLE) from error
    if url.drivername not in SCHEMES:
        raise InvalidValue(f"{url.drivername}:// is not supported", field=FIELD, fix=EXAMPLE)
    if "@" in (url.host or ""):
        raise InvalidValue("there is more than one @ before the host", field=FIELD, fix="write %40 in the password")
    if url.port is not None and not 0 < url.port < 1 << 16:
        raise InvalidValue("the port is not in 1 to 65535", field=FIELD, fix=EXAMPLE)
    if not url.database:
        raise InvalidValue("the URL names no database", field=FIELD, fix=EXAMPLE)
    url = url.set(drivername=DRIVER, query=_translated(url))
    return url.render_as_string(hide_password=False)


def _translated(url: "URL") -> dict[str, str | tuple[str, ...]]:
    query: dict[str, str | tuple[str, ...]] = {}
    for name, value in url.query.items():
        if name in {"sslmode", "ssl"}:
            if value not in SSL_MODES:
                raise InvalidValue(
                    f"{name}={value} is not known", field=FIELD, fix=f"use one of {', '.join(SSL_MODES)}"
                )
            query["ssl"] = value
        elif name in CERTIFICATE_VARIABLES:
            variable = CERTIFICATE_VARIABLES[name]
            raise InvalidValue(
                f"{name} is not supported in the URL",
                field=FIELD,
                fix=f"set the environment variable {variable} to the file",
            )
        elif name in PASSED_ON:
            query[name] = value
        else:
            raise InvalidValue(f"the parameter {name} is not supported", field=FIELD, fix="remove it from the URL")
    return query


def place(text: str) -> str:
    """Host and port, or the folder of the socket and port: what a message may say, since it holds no password."""
    from sqlalchemy import make_url  # noqa: PLC0415 - as above

    url = make_url(normalise(text))
    _, arguments = url.get_dialect()().create_connect_args(url)
    return f"{arguments.get('host') or 'localhost'}:{arguments.get('port') or 5432}"
