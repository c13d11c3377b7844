"""Database URLs as people and hosting providers write them."""

import pytest

from stepgate.domain.errors import InvalidValue
from stepgate.storage.url import normalise


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_all_usual_schemes_are_one(scheme: str) -> None:
    assert normalise(f"{scheme}://u:p@db:5433/name") == "postgresql+asyncpg://u:p@db:5433/name"


def test_special_characters_of_a_password_stay_escaped() -> None:
    assert normalise("postgres://u:p%40ss%25%2F@db/name") == "postgresql+asyncpg://u:p%40ss%25%2F@db/name"


def test_sslmode_becomes_the_drivers_parameter() -> None:
    assert normalise("postgres://u@db/name?sslmode=verify-full") == "postgresql+asyncpg://u@db/name?ssl=verify-full"


def test_a_socket_folder_is_kept() -> None:
    assert normalise("postgresql://u@/name?host=/run/pg&port=5432") == (
        "postgresql+asyncpg://u@/name?host=%2Frun%2Fpg&port=5432"
    )


def test_white_space_around_the_url_is_ignored() -> None:
    assert normalise(" postgres://u@db/name\n") == "postgresql+asyncpg://u@db/name"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "not a database URL"),
        ("postgres://u@db:port/name", "not a database URL"),
        ("sqlite:///file.db", "sqlite:// is not supported"),
        ("postgresql+psycopg://u@db/name", "is not supported"),
        ("postgres://u:secret@db", "names no database"),
        ("postgres://u:sec@secret@db/name", "more than one @"),
        ("postgres://u:secret@db:0/name", "the port is not in"),
        ("postgres://u:secret@db:65536/name", "the port is not in"),
        ("postgres://u:secret@db/name?sslmode=maybe", "sslmode=maybe is not known"),
        ("postgres://u:secret@db/name?sslrootcert=/ca.pem", "sslrootcert is not supported"),
        ("postgres://u:secret@db/name?options=-cfoo", "the parameter options is not supported"),
    ],
)
def test_what_the_driver_cannot_do_is_refused_without_showing_the_password(url: str, said: str) -> None:
    with pytest.raises(InvalidValue, match=said) as caught:
        normalise(url)
    assert caught.value.field == "DATABASE_URL"
    assert caught.value.fix
    assert "secret" not in str(caught.value)
