"""Rounds of the loop, and jobs of a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.exc import IntegrityError

from ddiseg.catalogue.database import Repository
from ddiseg.catalogue.leases import SERVE, lost
from ddiseg.catalogue.tables import Event, Job, JobKind, Lease, Round, now

#: The problem of a job that ends without having been done.
BROKEN_OFF = "the server that ran it stopped; it was requested anew"


class Rounds(Repository):
    """The rounds of a catalogue."""

    def begin(self, actor: str, settings: dict[str, Any]) -> int:
        """Store the start of a round and its options; returns its number."""
        with self._database.write() as session:
            row = Round(actor=actor, steps=[], settings=settings)
            session.add(row)
            session.flush()
            return row.id

    def step(self, number: int, step: dict[str, Any]) -> None:
        """Store a finished step of a round: {"step": name, "said": one line, "seconds": float}."""
        with self._database.write() as session:
            row = session.get_one(Round, number)
            row.steps = [*row.steps, step]

    def end(self, number: int, outcome: str) -> None:
        """Store the end of a round: "done" or "failed"."""
        with self._database.write() as session:
            row = session.get_one(Round, number)
            row.outcome, row.ended_at = outcome, now()
            detail = {"round": number, "outcome": outcome}
            session.add(Event(kind="round", actor=row.actor, detail=detail))

    def last_with_settings(self) -> Round | None:
        """Return the newest round with stored settings; None if there is none."""
        query = select(Round).where(Round.settings.is_not(None)).order_by(Round.id.desc())
        return self._first(query.limit(1))

    def last(self, count: int) -> Sequence[Round]:
        """Return the last rounds, newest first."""
        return self._all(select(Round).order_by(Round.id.desc()).limit(count))


class Jobs(Repository):
    """What waits to be done, of each kind once."""

    def request(self, kind: JobKind) -> bool:
        """Ask for a job; False where one of its kind waits already, which will do for both.

        A request is kept once this returns.
        """
        waits = select(Job.id).where(Job.kind == kind.value, Job.started_at.is_(None)).limit(1)
        if self._first(waits) is not None:
            return False
        try:
            with self._database.write() as session:
                session.add(Job(kind=kind.value))
        except IntegrityError:  # another one asked in this moment
            return False
        return True

    def take(self, owner: str) -> Job | None:
        """Begin the job that waits longest; returns None where none waits.

        Raises LeaseLostError where `owner` does not hold the lease of the server any more.
        """
        with self._database.write() as session:
            if session.scalar(select(Lease.owner).where(Lease.name == SERVE)) != owner:
                raise lost(session, SERVE)
            waiting = select(Job).where(Job.started_at.is_(None)).order_by(Job.id).limit(1)
            job = session.scalars(waiting).first()
            if job is not None:
                job.started_at, job.owner = now(), owner
            return job

    def end(self, job_id: int, problem: str | None = None) -> None:
        """End a job, unless a server that took over has ended it."""
        with self._database.write() as session:
            job = session.get_one(Job, job_id)
            if job.ended_at is None:
                job.ended_at, job.problem = now(), problem

    def put_back(self, job_id: int) -> None:
        """End a job that was broken off, and request it anew."""
        self._retry(Job.id == job_id)

    def take_over(self) -> int:
        """Put back the jobs of servers that hold no lease any more; returns how many there were."""
        return self._retry(Job.owner.is_(None) | Job.owner.not_in(select(Lease.owner)))

    def _retry(self, which: ColumnElement[bool]) -> int:
        with self._database.write() as session:
            begun = Job.started_at.is_not(None) & Job.ended_at.is_(None)
            broken_off = session.scalars(select(Job).where(begun, which)).all()
            for job in broken_off:
                job.ended_at, job.problem = now(), BROKEN_OFF
            waiting = set(session.scalars(select(Job.kind).where(Job.started_at.is_(None))))
            session.add_all(Job(kind=kind) for kind in {j.kind for j in broken_off} - waiting)
            return len(broken_off)

    def last(self, count: int) -> Sequence[Job]:
        """The last jobs, the newest first."""
        return self._all(select(Job).order_by(Job.id.desc()).limit(count))

    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._all(select(Job.id).where(Job.started_at.is_(None))))
