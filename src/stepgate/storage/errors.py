"""The one place where the driver's errors become ours, so that nothing above storage knows the driver."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from stepgate.domain.errors import Conflict, DatabaseUnavailable, SchemaMismatch, StepgateError

_LOST = (
    OSError,
    TimeoutError,
    asyncio.IncompleteReadError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalClientError,
)
_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)
_OTHER_SCHEMA = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidSchemaNameError)
_AGAIN = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
)


def cause(error: BaseException) -> BaseException:
    """The driver's own error inside SQLAlchemy's."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, so that nothing is known of what was last sent over it."""
    error = cause(error)
    if isinstance(error, asyncpg.InterfaceError):
        return "clos" in str(error) or "not connected" in str(error)
    return isinstance(error, _LOST)


def is_transient(error: BaseException) -> bool:
    """Whether PostgreSQL rolled the statement back and asks for it again."""
    return isinstance(cause(error), _AGAIN)


def translate(error: BaseException, place: str) -> StepgateError | None:
    """What the error means to a user; None where it is not the database's. `place` is host and port."""
    error = cause(error)
    if isinstance(error, StepgateError):
        return error
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable("every connection to the database is busy", fix="send the request again later")
    if isinstance(error, _REFUSED) or is_lost(error):
        return DatabaseUnavailable(
            f"the database at {place} cannot be used: {_said(error)}",
            field="DATABASE_URL",
            fix="check that it runs and that DATABASE_URL names it",
        )
    if isinstance(error, _OTHER_SCHEMA):
        return SchemaMismatch(f"the database does not fit this version: {_said(error)}", fix="run: stepgate migrate")
    if is_transient(error):
        return Conflict("the database asked to try again", code="try_again", fix="send the request again")
    return None


def _said(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Raises the translation of what the block raises, where there is one."""
    try:
        yield
    except StepgateError:
        raise
    except (
        DBAPIError,
        PoolTimeout,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
    ) as error:
        found = translate(error, place)
        if found is None:
            raise
        raise found from error
