"""The errors that a person can fix: one base for the protocol, for fedd and for ddiseg."""

from __future__ import annotations


class UserError(Exception):
    """Base of every error that the command lines show as one line: what is wrong, what to do."""


class ProtocolError(UserError, ValueError):
    """A protocol that breaks its own rules, or a name that it does not know."""


class BusyError(UserError):
    """A lock that another process holds."""
