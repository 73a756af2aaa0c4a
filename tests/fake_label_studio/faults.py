"""What a server can do to its clients. `FakeLabelStudio.misbehave` plays these on command."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from tests.fake_label_studio.routing import HTML, Answer, error_answer

_PAGE = "<!doctype html><html><head><title>{title}</title></head><body>{title}</body></html>"


class Exchange(Protocol):
    """A request that is about to be answered."""

    @property
    def release(self) -> str:
        """The version that the server says it is."""

    def answer(self) -> Answer:
        """Do what the request asks, and say what would be sent back."""

    def send(self, answer: Answer) -> object: ...

    def send_part(self, answer: Answer) -> None:
        """Send the head of an answer and half of its body, and hang up."""

    def hang_up(self) -> object:
        """Close the connection."""

    def wait(self, seconds: float) -> None:
        """Do nothing for so long, or until the server stops."""


Fault = Callable[[Exchange], object]


def status(code: int, body: str | None = None, headers: dict[str, str] | None = None) -> Fault:
    """Refuse: the request is not done. Without a body, the real server's own words for `code`
    (502 and more: a proxy's page)."""

    def play(exchange: Exchange) -> None:
        phrase = HTTPStatus(code).phrase
        if body is not None:
            answer = Answer(code, body.encode(), headers=headers or {})
        elif code >= HTTPStatus.BAD_GATEWAY:
            page = _PAGE.format(title=f"{code} {phrase}")
            answer = Answer(code, page.encode(), HTML, headers or {})
        else:
            answer = error_answer(code, phrase, exchange.release, headers=headers)
        exchange.send(answer)

    return play


def html(code: int = 200) -> Fault:
    """A page where JSON was asked for, as a login page or a captive portal; nothing is done."""
    page = Answer(code, _PAGE.format(title="Sign in").encode(), HTML)
    return lambda exchange: exchange.send(page)


def cut() -> Fault:
    """Hang up without doing or answering anything."""
    return lambda exchange: exchange.hang_up()


def done_then_cut() -> Fault:
    """Do what was asked, and hang up before the answer: the client can't know."""
    return lambda exchange: (exchange.answer(), exchange.hang_up())


def slow(seconds: float) -> Fault:
    """Do what was asked, and answer only after so long."""

    def play(exchange: Exchange) -> None:
        answer = exchange.answer()
        exchange.wait(seconds)
        exchange.send(answer)

    return play


def garbage() -> Fault:
    """Do what was asked, and answer 200 with JSON that is none."""
    spoilt = Answer(200, b'{"id": 1, "tasks": [{{')
    return lambda exchange: (exchange.answer(), exchange.send(spoilt))


def truncated() -> Fault:
    """Do what was asked, announce the whole answer, send half of it, and hang up."""
    return lambda exchange: exchange.send_part(exchange.answer())


def meanwhile(happens: Callable[[], object]) -> Fault:
    """Let something happen first (a person submits, another client pushes); then answer well."""
    return lambda exchange: (happens(), exchange.send(exchange.answer()))
