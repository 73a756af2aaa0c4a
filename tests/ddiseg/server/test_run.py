from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import text

from ddiseg.catalogue import JobKind, leases
from ddiseg.catalogue.leases import ROUND, SERVE, LeaseHeldError, LeaseLostError
from ddiseg.catalogue.runs import BROKEN_OFF
from ddiseg.errors import DdisegError, InputError
from ddiseg.loop.options import RoundOptions
from ddiseg.model.backbones import Backbones
from ddiseg.server import run
from ddiseg.server.auth import Credentials, credentials_file
from ddiseg.server.run import rounds, serve
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.cli.conftest import Result, ddiseg
from tests.ddiseg.server.conftest import until
from tests.ddiseg.server.listening import listening
from tests.forks import FORKS
from tests.wording import Refusal

pytestmark = pytest.mark.process

__all__ = ["ddiseg"]  # a fixture

#: The command as a process, without the console script's path.
_RUN = "import sys; from ddiseg.cli.main import main; main()"


def test_server__from_start_to_sigterm(workspace: Workspace) -> None:
    with listening(_RUN, workspace.root, "--interval", "0") as (server, url):
        known = Credentials(**json.loads(credentials_file(workspace.root).read_text()))
        assert url.startswith("http://127.0.0.1:")
        until(lambda: _answers(url))
        auth = (known.user, known.password)
        assert requests.get(f"{url}/versions", timeout=10).status_code == 401
        setup = requests.post(f"{url}/setup", json={"project": "1.2"}, auth=auth, timeout=10)
        assert setup.json() == {"model_version": "ddiseg"}
        hook = f"{url}/webhook/{known.webhook_secret}"
        assert requests.post(hook, json={"action": "x"}, timeout=10).status_code == 200
        assert "server" not in setup.headers
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=20)
        assert server.returncode == -signal.SIGTERM
    with workspace.catalogue._database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM leases")) == 0, "it gave its lease back"
    for secret in (known.password, known.webhook_secret):
        assert secret not in out + err
    assert err == ""


@pytest.fixture
def folders(tmp_path: Path, shared_url: str) -> Iterator[tuple[Workspace, Workspace]]:
    """Two workspace folders on one catalogue."""
    made = [Workspace.create(tmp_path / name, shared_url) for name in "ab"]
    yield made[0], made[1]
    for workspace in made:
        workspace.catalogue.close()


def _serve_a_job(root: Path, begun: Any) -> None:
    """What a server does that is killed within a job, without the web around it."""
    catalogue = Workspace.open(root).catalogue
    with catalogue.leases.hold(SERVE) as lease:
        catalogue.jobs.take(lease.owner)
        begun.set()
        time.sleep(60)


@pytest.mark.process
def test_server__a_second_one_on_the_same_catalogue_takes_over_only_after_the_first(
    folders: tuple[Workspace, Workspace],
) -> None:
    first, second = folders
    first.catalogue.jobs.request(JobKind.REFRESH)
    begun = FORKS.Event()
    server = FORKS.Process(target=_serve_a_job, args=(first.root, begun))
    server.start()
    assert begun.wait(30)
    with pytest.raises(LeaseHeldError, match=f"process {server.pid} on ") as caught:
        _serve(second, 0)
    assert "\n" not in str(caught.value)
    (job,) = second.catalogue.jobs.last(5)
    assert (job.ended_at, job.problem) == (None, None), "it runs on"
    server.kill()
    server.join()
    with listening(_RUN, second.root, "--interval", "0") as (_server, _url):
        until(lambda: len(second.catalogue.jobs.last(5)) == 2)
        again, before = second.catalogue.jobs.last(5)
        assert (before.id, before.owner, before.problem) == (job.id, job.owner, BROKEN_OFF)
        until(lambda: second.catalogue.jobs.last(1)[0].ended_at is not None)
        assert again.id > job.id


@pytest.mark.process
def test_server__stops_when_another_one_took_over(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT", 0.05)

    def overtaken(_url: str) -> None:
        with workspace.catalogue._database.write() as session:
            session.execute(
                text("UPDATE leases SET owner = 'x', holder = 'process 7 on elsewhere'")
            )

    with pytest.raises(LeaseLostError, match="process 7 on elsewhere"):
        _serve(workspace, 0, ready=overtaken)


def test_server__begins_with_a_round(workspace: Workspace) -> None:
    """What was handed in while no server ran waits for no webhook."""
    with listening(_RUN, workspace.root) as (server, _url):
        until(lambda: len(workspace.catalogue.rounds.last(5)) == 1)
        until(lambda: workspace.catalogue.jobs.last(1)[0].ended_at is not None)
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=20)
    assert err.startswith("pull: failed in")
    assert "no Label Studio runs" in err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--interval", "-1"),
        ("--interval", "inf"),
        ("--interval", "nan"),
        ("--interval", "1e300"),
        ("--grace", "nan"),
        ("--grace", "inf"),
        ("--max-body-mb", "nan"),
        ("--max-body-mb", "inf"),
    ],
)
def test_command__times_and_sizes_are_finite(
    ddiseg: Callable[..., Result], workspace: Workspace, option: str, value: str
) -> None:
    result = ddiseg("--workspace", workspace.root, "serve", f"{option}={value}")
    assert result.status == 2
    assert f"Invalid value for '{option}'" in result.err


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=10).status_code == 200
    except requests.ConnectionError:
        return False


def _serve(
    workspace: Workspace,
    port: int,
    host: str = "127.0.0.1",
    ready: Callable[[str], None] = lambda _url: pytest.fail("it listens"),
) -> None:
    serve(
        workspace,
        host,
        port,
        RoundOptions(),
        "tester",
        every=0,
        max_body=1000,
        grace=1,
        ready=ready,
    )


def test_port_in_use__is_told(workspace: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port} can't be listened on"):
            _serve(workspace, port)


def test_host_of_another_machine__is_told(workspace: Workspace, refusal: Refusal) -> None:
    with refusal(InputError):
        _serve(workspace, 0, "192.0.2.1")


def test_rounds__without_a_labelling_server_fail_and_say_so(
    workspace: Workspace, refusal: Refusal
) -> None:
    do = rounds(workspace, RoundOptions(), "tester", Backbones(workspace))[JobKind.PULL]
    with refusal(DdisegError):
        do(lambda: False)
    assert workspace.catalogue.rounds.last(1)[0].outcome == "failed"


def test_rounds__beside_another_one_are_busy(workspace: Workspace) -> None:
    do = rounds(workspace, RoundOptions(), "tester", Backbones(workspace))[JobKind.REFRESH]
    with workspace.catalogue.leases.hold(ROUND), pytest.raises(LeaseHeldError):
        do(lambda: False)


@pytest.mark.parametrize(("kind", "must"), [(JobKind.PULL, False), (JobKind.REFRESH, True)])
def test_rounds__refresh_where_training_was_asked_for(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, kind: JobKind, must: bool
) -> None:
    asked: list[Mapping[str, Any]] = []

    def recorded(*_args: Any, **options: Any) -> list[Any]:
        asked.append(options)
        return []

    monkeypatch.setattr(run, "run_round", recorded)
    backbones = Backbones(workspace)
    rounds(workspace, RoundOptions(), "tester", backbones)[kind](lambda: False)
    assert asked == [{"must_refresh": must, "backbones": backbones}]


def test_command__in_no_workspace(ddiseg: Callable[..., Result], tmp_path: Path) -> None:
    result = ddiseg("--workspace", tmp_path / "none", "serve")
    assert result.status == 1
    assert "is no workspace" in result.err
