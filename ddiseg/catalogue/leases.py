"""Leases: which process runs the rounds of a catalogue, and which one serves it.

A lease is a row that names its holder and ends by itself, so that processes of several machines and
workspace folders that share a catalogue exclude each other. Its times are those of one clock: on
PostgreSQL the database server's; on SQLite the machine's, since the processes that share an SQLite
file in WAL mode run on one machine.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Double, cast, delete, extract, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from ddiseg.catalogue.database import Database
from ddiseg.catalogue.tables import Lease
from ddiseg.errors import DdisegError, WorkspaceError
from ddiseg.processes import started

ROUND, SERVE = "round", "serve"

_WHAT = {ROUND: "round of the loop", SERVE: "'ddiseg serve'"}

#: Seconds after its last heartbeat at which a lease ends, and from one heartbeat to the next.
LENGTH, HEARTBEAT = 60.0, 15.0


class LeaseHeldError(WorkspaceError):
    """Another process holds the lease."""


class LeaseLostError(WorkspaceError):
    """This process held the lease, and another one has taken it."""


class HeldLease:
    """A lease of this process; `owner` is a new UUID each time that one is acquired."""

    def __init__(self, database: Database, name: str, length: float) -> None:
        self.name, self.owner = name, str(uuid.uuid4())
        self.on_lost: Callable[[], None] = lambda: None  #: called once, by the heartbeat's thread
        self._database, self._length = database, length
        self._released = threading.Event()

    def check(self) -> None:
        """Renew the lease; raises LeaseLostError where another process has taken it."""
        self._database.repeat(self._renew)

    def _renew(self) -> None:
        with self._database.write([]) as session:
            clock = _clock(session)
            mine = (Lease.name == self.name) & (Lease.owner == self.owner)
            times = {"heartbeat_at": clock, "expires_at": clock + self._length}
            renewed = session.execute(
                update(Lease)
                .where(mine)
                .values(times)
                .returning(Lease.name)
                .execution_options(synchronize_session=False)
            )
            if renewed.first() is None:
                raise lost(session, self.name)

    def release(self) -> None:
        """Give the lease back; does nothing where another process has taken it."""
        self._released.set()
        with self._database.write([]) as session:
            session.execute(delete(Lease).where(Lease.owner == self.owner))

    def _beat(self, heartbeat: float) -> None:
        while not self._released.wait(heartbeat):
            try:
                self.check()
            except LeaseLostError:
                if not self._released.is_set():
                    self.on_lost()
                return
            except DdisegError:  # locked or not reachable: tried again at the next heartbeat
                continue


class Leases:
    """The leases of a catalogue. Each method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def hold(
        self, name: str, *, length: float = LENGTH, heartbeat: float | None = None
    ) -> Iterator[HeldLease]:
        """Hold a lease, which a thread renews; the thread keeps no process alive.

        Raises LeaseHeldError where another process holds it and lives, as far as can be known.
        """
        held = HeldLease(self._database, name, length)
        self._acquire(held, length)
        thread = threading.Thread(
            target=held._beat, args=(heartbeat or HEARTBEAT,), name=f"lease {name}", daemon=True
        )
        thread.start()
        try:
            yield held
        finally:
            with suppress(DdisegError):  # then it ends with the process, or by itself
                held.release()
            thread.join()

    def holder(self, name: str) -> str | None:
        """Return who holds a lease, for people; None where it is free."""
        with self._database.read() as session:
            valid = (Lease.name == name) & (Lease.expires_at > _clock(session))
            row = session.scalars(select(Lease).where(valid)).first()
        return None if row is None or _has_ended(row) else _in_words(row)

    def _acquire(self, held: HeldLease, length: float) -> None:
        with self._database.write([]) as session:
            before = session.get(Lease, held.name)
            free = Lease.expires_at <= (clock := _clock(session))
            if before is not None and _has_ended(before):
                free = or_(free, Lease.owner == before.owner)
            values: dict[str, Any] = {
                "owner": held.owner,
                "holder": f"process {os.getpid()} on {socket.gethostname()}",
                "machine": _machine(),
                "pid": os.getpid(),
                "started": started(os.getpid()) if _machine() else None,
                "acquired_at": clock,
                "heartbeat_at": clock,
                "expires_at": clock + length,
            }
            insert = (postgresql if _dialect(session) == "postgresql" else sqlite).insert
            taken = session.execute(
                insert(Lease)
                .values(name=held.name, **values)
                .on_conflict_do_update(index_elements=[Lease.name], set_=values, where=free)
                .returning(Lease.owner)
            )
            if taken.first() is None:
                row = session.get_one(Lease, held.name)
                raise LeaseHeldError(
                    f"another {_WHAT[held.name]} runs on this catalogue ({_in_words(row)}): wait for "
                    f"it, or stop it; if that machine is down, try again in {length:.0f} s"
                )


def lost(session: Session, name: str) -> LeaseLostError:
    """Return the error of a holder that finds its lease taken, or ended and let go."""
    row = session.get(Lease, name)
    taken = f"{_in_words(row)} has taken over" if row else "another process had taken over"
    return LeaseLostError(
        f"this {_WHAT[name]} was not heard of for too long, and {taken}: what it finished is kept, "
        "the rest is done there"
    )


def _has_ended(row: Lease) -> bool:
    """Return whether the process that holds a lease is known to have ended: on this machine only.

    Where the system does not tell the start of a process, the lease ends when it expires.
    """
    if row.machine is None or row.machine != _machine() or started(os.getpid()) is None:
        return False
    return started(row.pid) != row.started


def _machine() -> str | None:
    """Where a process id means something: this boot and process namespace; None where unknown."""
    if sys.platform == "win32":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():  # macOS and the BSDs, which have no namespaces
        return f"{socket.gethostname()} {uuid.getnode()}"
    return f"{boot.read_text(encoding='ascii').strip()} {os.readlink('/proc/self/ns/pid')}"


def _in_words(row: Lease) -> str:
    return (
        f"{row.holder}, since {datetime.fromtimestamp(row.acquired_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    )


def _clock(session: Session) -> ColumnElement[float]:
    """The database's time as it runs the statement, in seconds since 1970."""
    if _dialect(session) == "postgresql":
        return cast(extract("epoch", func.clock_timestamp()), Double)
    return (func.julianday("now", type_=Double) - 2440587.5) * 86400.0


def _dialect(session: Session) -> str:
    return session.get_bind().dialect.name
