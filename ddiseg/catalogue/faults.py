"""Errors of the database in one line that says what to do, and which of them a repetition cures."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from ddiseg.catalogue.url import shown
from ddiseg.errors import WorkspaceError


class ConnectionLostError(WorkspaceError):
    """The server ended the connection or the transaction; nothing of the transaction was stored."""


class UnknownOutcomeError(WorkspaceError):
    """The connection ended while a transaction was being stored: it was stored whole, or not at all."""


_AGAIN = "run the same command again"
_PASSWORD = "write the right password into ~/.pgpass, or into the environment or the file that ddiseg.toml names"

#: What a person does about a cause, by words in it; the first that fits.
_ADVICE = {
    "password authentication failed": _PASSWORD,
    "no password supplied": _PASSWORD,
    "locked": f"another ddiseg is writing; {_AGAIN}",
    "lock timeout": f"another ddiseg is writing, or one that was suspended: end it, then {_AGAIN}",
    "readonly": "make the folder writable",
    "unable to open": "check that the folder exists and is writable",
    "disk I/O": f"check the disk, then {_AGAIN}",
    "No space left": f"nothing of this step was stored; free some space on the server and {_AGAIN}",
    "full": f"nothing of this step was stored; free some space and {_AGAIN}",
    "does not exist": "create it on the server (createuser NAME; createdb --owner NAME DATABASE), or "
    "correct the URL",
    "permission denied": "let the administrator make this user the database's owner (ALTER DATABASE "
    "NAME OWNER TO USER)",
    "not permitted to log in": "let the administrator ALTER ROLE NAME LOGIN",
    "no encryption": "the server wants an encrypted connection: add ?sslmode=require to the URL, or let "
    "the administrator admit this machine in pg_hba.conf",
    "SSL off": "the server wants an encrypted connection: add ?sslmode=require to the URL, or let the "
    "administrator admit this machine in pg_hba.conf",
    "no pg_hba.conf entry": "let the administrator admit this user and machine in pg_hba.conf",
    "server does not support SSL": "turn on TLS at the server, or take sslmode out of the URL",
    "certificate": "name the server's certificate authority with ?sslrootcert=FILE in the URL",
    "too many clients": "",
    "too many connections": "",
    "connection slots": "",
    "read-only transaction": "this server is a standby: give the address of the primary, or several "
    "hosts with ?target_session_attrs=read-write",
    "failed to resolve host": "correct the host in the URL",
    "could not translate host name": "correct the host in the URL",
    "service file": "correct the service's name in the URL, or PGSERVICEFILE",
    "definition of service": "correct the service's name in the URL, or ~/.pg_service.conf",
    "invalid connection option": "correct the option in the URL",
}
_TOO_MANY = (
    "all connections of the server are in use: end programs that hold some, or raise "
    f"max_connections on the server, then {_AGAIN}"
)
_UNREACHABLE = f"check that the database runs and that the URL is right, then {_AGAIN}"

#: Words in a cause that passes by itself: the server restarts, or another one takes over.
_PASSING = (
    "Connection refused",
    "starting up",
    "shutting down",
    "recovery mode",
    "not yet accepting connections",
    "terminating connection",
    "server closed the connection",
    "connection is lost",
    "connection is closed",
    "Connection reset",
    "Connection timed out",
    "timeout expired",
    "No such file or directory",  # the socket of a server that restarts
    "Network is unreachable",
    "No route to host",
    "SSL SYSCALL error",
    "could not receive data",
    "could not send data",
)

#: SQLSTATE: serialisation failure, deadlock, terminated by the administrator, crash, idle for too long.
_ROLLED_BACK = ("40001", "40P01", "57P01", "57P02", "57P03", "25P03")


def explain(
    error: DBAPIError, url: URL, how_to_restore: Callable[[], str], *, storing: bool
) -> WorkspaceError | None:
    """Return an error of the database in our words; None for one that is a defect of the program.

    Args:
        storing: whether the transaction was being committed.
    """
    cause, place = _cause(error), f"catalogue {shown(url)}"
    state = getattr(error.orig, "sqlstate", None) or ""
    # sqlite3 raises DatabaseError itself, none of its subclasses, where the file is damaged.
    damaged = type(error.orig).__name__ == "DatabaseError"
    if url.get_backend_name() == "postgresql":
        lost = error.connection_invalidated or state.startswith("08")
        if lost and storing:
            return UnknownOutcomeError(
                f"{place}: {cause}; whether this step was stored is not known, but it was whole or not "
                f"at all: {_AGAIN}, which takes up what is missing"
            )
        if lost or state in _ROLLED_BACK or any(word in cause for word in _PASSING):
            return ConnectionLostError(f"{place}: {cause}; {_UNREACHABLE}")
        refused = state in ("42501", "25006")  # no permission, a standby
        if refused or (isinstance(error, OperationalError) and state not in ("42P01", "42703")):
            return WorkspaceError(f"{place}: {cause}; {_advice(cause)}")
        if isinstance(error, ProgrammingError) and "connection option" in cause:
            return WorkspaceError(f"{place}: {cause}; {_advice(cause)}")
        return None
    if any(sign in cause for sign in ("not a database", "malformed")):
        return WorkspaceError(f"{place}: {cause}; {how_to_restore()}")
    if error.connection_invalidated or damaged or isinstance(error, OperationalError):
        return WorkspaceError(f"{place}: {cause}; {_advice(cause)}")
    if "readonly" in cause:
        return WorkspaceError(f"{place} can't be written: {cause}")
    return None


def _cause(error: DBAPIError) -> str:
    """Return the line that says why: of several hosts that failed, the last one's."""
    lines = [line.strip() for line in str(error.orig).strip().splitlines() if line.strip()]
    failed = [line for line in lines if "failed: " in line]
    line = failed[-1].removeprefix("- ") if failed else (lines or [type(error.orig).__name__])[0]
    return line.rpartition("FATAL:")[2].strip() if "FATAL:" in line else line


def _advice(cause: str) -> str:
    for sign, advice in _ADVICE.items():
        if sign in cause:
            return advice or _TOO_MANY
    return _UNREACHABLE
