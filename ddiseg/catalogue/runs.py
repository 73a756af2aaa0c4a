"""Rounds of the loop as they went, and the jobs that a server took on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from ddiseg.catalogue.database import Database
from ddiseg.catalogue.tables import Event, Job, JobKind, Round, now


class Rounds:
    """The rounds of a catalogue. Each method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, actor: str, settings: dict[str, Any]) -> int:
        """A round begins with these options; returns its number."""
        with self._database.write() as session:
            row = Round(actor=actor, steps=[], settings=settings)
            session.add(row)
            session.flush()
            return row.id

    def step(self, number: int, step: dict[str, Any]) -> None:
        """A step of a round is done: {"step": name, "said": one line, "seconds": float}."""
        with self._database.write() as session:
            row = session.get_one(Round, number)
            row.steps = [*row.steps, step]

    def end(self, number: int, outcome: str) -> None:
        """A round ends: "done" or "failed"."""
        with self._database.write() as session:
            row = session.get_one(Round, number)
            row.outcome, row.ended_at = outcome, now()
            detail = {"round": number, "outcome": outcome}
            session.add(Event(kind="round", actor=row.actor, detail=detail))

    def last_with_settings(self) -> Round | None:
        """The newest round that recorded its settings; None where there is none."""
        query = select(Round).where(Round.settings.is_not(None)).order_by(Round.id.desc())
        with self._database.read() as session:
            return session.scalars(query.limit(1)).first()

    def last(self, count: int) -> Sequence[Round]:
        """The last rounds, the newest first."""
        with self._database.read() as session:
            return session.scalars(select(Round).order_by(Round.id.desc()).limit(count)).all()


class Jobs:
    """What waits to be done, of each kind once. Each method is one transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def request(self, kind: JobKind) -> bool:
        """Ask for a job; False where one of its kind waits already, which will do for both.

        A request is kept once this returns.
        """
        waits = select(Job.id).where(Job.kind == kind.value, Job.started_at.is_(None)).limit(1)
        with self._database.read() as session:
            if session.scalars(waits).first() is not None:
                return False
        try:
            with self._database.write() as session:
                session.add(Job(kind=kind.value))
        except IntegrityError:  # another one asked in this moment
            return False
        return True

    def take(self) -> Job | None:
        """The job that waits longest, now begun; None where none waits."""
        with self._database.write() as session:
            waiting = select(Job).where(Job.started_at.is_(None)).order_by(Job.id).limit(1)
            job = session.scalars(waiting).first()
            if job is not None:
                job.started_at = now()
            return job

    def end(self, job_id: int, problem: str | None = None) -> None:
        with self._database.write() as session:
            job = session.get_one(Job, job_id)
            job.ended_at, job.problem = now(), problem

    def requeue(self) -> int:
        """Jobs that were begun and never ended wait again; returns how many there were.

        Only for who knows that nobody is at them.
        """
        with self._database.write() as session:
            begun = select(Job).where(Job.started_at.is_not(None), Job.ended_at.is_(None))
            broken_off = session.scalars(begun).all()
            for job in broken_off:
                session.delete(job)
            session.flush()
            waiting = set(session.scalars(select(Job.kind).where(Job.started_at.is_(None))))
            session.add_all(Job(kind=kind) for kind in {j.kind for j in broken_off} - waiting)
            return len(broken_off)

    def last(self, count: int) -> Sequence[Job]:
        """The last jobs, the newest first."""
        with self._database.read() as session:
            return session.scalars(select(Job).order_by(Job.id.desc()).limit(count)).all()

    def waiting(self) -> int:
        """How many jobs wait."""
        with self._database.read() as session:
            return len(session.scalars(select(Job.id).where(Job.started_at.is_(None))).all())
