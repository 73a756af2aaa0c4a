"""Who may ask, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.fake_label_studio import FakeLabelStudio
from tests.fake_label_studio.talk import Talk


def test_tokens__each_person_has_one(label_studio: FakeLabelStudio, annotator: int) -> None:
    talk = Talk(label_studio.url, label_studio.token_of(annotator))
    assert talk.ask("GET", "/api/current-user/whoami")["email"] == "annotator-1@example.org"


def test_tokens__health_and_version_are_open(label_studio: FakeLabelStudio) -> None:
    stranger = Talk(label_studio.url, "wrong")
    assert stranger.ask("GET", "/health") == {"status": "UP"}
    assert stranger.ask("GET", "/api/version")["release"] == "1.23.2"
    stranger.ask("GET", "/api/users/")
    assert stranger.status == 401


def test_personal_token__buys_access_until_it_expires(label_studio: FakeLabelStudio) -> None:
    talk = Talk(label_studio.url, "none")
    bearer = _bearer(talk, label_studio.pat)
    talk.ask("GET", "/api/users/", authorization=bearer)
    assert talk.status == 200
    talk.ask("GET", "/api/users/", authorization=f"Bearer {label_studio.pat}")
    assert talk.status == 401
    label_studio.expire_access_tokens()
    talk.ask("GET", "/api/users/", authorization=bearer)
    assert talk.status == 401
    talk.ask("GET", "/api/users/", authorization=_bearer(talk, label_studio.pat))
    assert talk.status == 200


def test_personal_token__access_ends_after_300_s_of_the_server_s_clock(
    label_studio: FakeLabelStudio,
) -> None:
    talk = Talk(label_studio.url, "none")
    label_studio.set_clock(datetime(2030, 1, 1, tzinfo=UTC))
    bearer = _bearer(talk, label_studio.pat)
    for seconds, answer in ((290, 200), (301, 401)):
        label_studio.set_clock(datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))
        talk.ask("GET", "/api/users/", authorization=bearer)
        assert talk.status == answer


def test_personal_token__revoked(label_studio: FakeLabelStudio) -> None:
    talk = Talk(label_studio.url, "none")
    label_studio.revoke_pat()
    talk.ask("POST", "/api/token/refresh/", {"refresh": label_studio.pat})
    assert talk.status == 401


def test_legacy_tokens__disabled(label_studio: FakeLabelStudio, talk: Talk) -> None:
    label_studio.disable_legacy_tokens()
    assert "legacy token" in talk.ask("GET", "/api/users/")["detail"]
    assert talk.status == 401


def _bearer(talk: Talk, personal: str) -> str:
    return f"Bearer {talk.ask('POST', '/api/token/refresh/', {'refresh': personal})['access']}"
