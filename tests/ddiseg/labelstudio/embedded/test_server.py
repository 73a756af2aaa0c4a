"""The embedded server's life, with a stand-in for Label Studio that behaves or misbehaves."""

from __future__ import annotations

import json
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.errors import ServerError, WorkspaceError
from ddiseg.labelstudio.embedded import accounts, environment, server
from ddiseg.labelstudio.embedded.accounts import read_accounts
from ddiseg.labelstudio.embedded.process import Process
from ddiseg.labelstudio.folder import Folder
from tests.logs import logged
from tests.wording import Refusal

pytestmark = pytest.mark.process

FAKE = Path(__file__).with_name("fake_label_studio.py")


@dataclass(frozen=True)
class Installed:
    """An environment with the stand-in; `behave` says how it misbehaves from now on."""

    programs: Path

    def behave(self, behaviour: str) -> None:
        (self.programs / "behaviour").write_text(behaviour)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    monkeypatch.setenv("DDISEG_CACHE", str(tmp_path / "cache"))
    folder = environment.environment_folder()
    programs = folder / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    shutil.copy(FAKE, programs / "label-studio")
    environment._marker(folder).write_text(environment._pins_hash())
    monkeypatch.setattr(accounts, "SCRIPT", programs / "label-studio")
    monkeypatch.setattr(server, "FIRST_PORT", free_port())
    return Installed(programs)


@pytest.fixture
def root(tmp_path: Path, installed: Installed) -> Iterator[Path]:
    """A workspace's folder, whose server is stopped in the end."""
    root = tmp_path / "w"
    root.mkdir()
    yield root
    server.down(root)


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind((server.HOST, 0))
        taken.listen()
        yield taken.getsockname()[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((server.HOST, 0))
        return int(probe.getsockname()[1])


def recorded_process(root: Path) -> Process:
    return Process(**json.loads(Folder(root).server.read_text())["process"])


def assert_nothing_runs(root: Path) -> None:
    """Neither by what is on record nor by what the program itself wrote down."""
    assert server.find_running(root) is None
    assert not Folder(root).server.exists()


def keeping(processes: list[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    """Note every process that is started from now on."""
    spawn = Process.spawn

    def noting(*args: Any) -> Process:
        processes.append(spawn(*args))
        return processes[-1]

    monkeypatch.setattr(Process, "spawn", noting)


def test_up__starts_and_is_found_running(root: Path) -> None:
    with logged() as lines:
        started = server.up(root)
    assert started.new
    assert started.url == f"http://127.0.0.1:{server.FIRST_PORT}"
    assert server.answers(started)
    assert lines == [
        f"starting Label Studio on port {started.port}, the first time takes a minute",
        "making the accounts",
    ]
    with logged() as lines:
        again = server.up(root)
    assert not again.new
    assert again.process == started.process
    assert server.find_running(root) == again
    assert lines == []


def test_up__listens_on_this_machine_only(root: Path) -> None:
    port = server.up(root).port
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", port))


def test_up__has_an_account_for_each_role_and_keeps_them(root: Path) -> None:
    server.up(root)
    people = read_accounts(root)
    assert {role: a.email for role, a in people.items()} == {
        "admin": "admin@ddiseg.local",
        "annotator": "annotator@ddiseg.local",
        "reviewer": "reviewer@ddiseg.local",
    }
    assert len({a.password for a in people.values()} | {a.token for a in people.values()}) == 6
    assert all(len(bytes.fromhex(a.token)) == 20 for a in people.values())
    made = json.loads((Folder(root).data / "accounts.json").read_text())
    assert [a["superuser"] for a in made] == [True, False, False]
    server.down(root)
    server.up(root)
    assert read_accounts(root) == people


def test_up__nobody_else_can_read_what_it_keeps(root: Path) -> None:
    server.up(root)
    folder = Folder(root)
    for path in (folder.path, folder.data, folder.media):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (folder.secrets, folder.server, folder.log, folder.data / "environment.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_up__only_what_is_meant_for_it_reaches_label_studio(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "DEBUG",
        "HOST",
        "PORT",
        "CI",
        "DATABASE_NAME",
        "LABEL_STUDIO_DEBUG",
        "HTTP_PROXY",
    ):
        monkeypatch.setenv(name, "1")
    running = server.up(root)
    given = json.loads((Folder(root).data / "environment.json").read_text())
    settings = {n.removeprefix("LABEL_STUDIO_") for n in given if n.startswith("LABEL_STUDIO_")}
    others = {n for n in given if not n.startswith("LABEL_STUDIO_")}
    assert "DEBUG" not in settings
    assert others <= {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONUNBUFFERED"}  # fmt: skip
    assert given["LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"] == str(Folder(root).media)
    assert given["LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK"] == "true"
    assert given["LABEL_STUDIO_COLLECT_ANALYTICS"] == "false"
    secrets = [s for a in read_accounts(root).values() for s in (a.password, a.token)]
    arguments = Path(f"/proc/{running.process.pid}/cmdline")
    seen = json.dumps(given) + (arguments.read_text() if arguments.exists() else "")
    assert not [secret for secret in secrets if secret in seen]


def test_up__asked_port_is_taken(root: Path, busy_port: int) -> None:
    with pytest.raises(WorkspaceError, match=rf"port {busy_port} is taken .* another --port"):
        server.up(root, busy_port)
    assert_nothing_runs(root)


def test_up__asked_port_is_used_and_kept_to(root: Path) -> None:
    port = free_port()
    assert server.up(root, port).port == port
    assert not server.up(root, port).new
    with pytest.raises(WorkspaceError, match=rf"runs on port {port} already: 'ddiseg label down'"):
        server.up(root, port + 1)
    server.down(root)
    assert server.up(root, port).new  # though connections to it have hardly been closed


def test_up__without_a_port_takes_the_next_free_one(
    root: Path, busy_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FIRST_PORT", busy_port)
    assert busy_port < server.up(root).port < busy_port + 100


def test_up__all_ports_are_taken(
    root: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.setattr(server, "_is_free", lambda _port: False)
    with refusal(WorkspaceError):
        server.up(root)


def test_up__port_taken_while_it_starts(
    root: Path, installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Label Studio moves on by itself then: welcome, unless a person asked for that port."""
    installed.behave("moves")
    started: list[Process] = []
    keeping(started, monkeypatch)
    asked = free_port()
    with pytest.raises(WorkspaceError, match=rf"another program took port {asked} while"):
        server.up(root, asked)
    assert not started[0].alive
    assert_nothing_runs(root)
    moved = server.up(root)
    assert moved.port != server.FIRST_PORT
    assert server.answers(moved)
    assert server.find_running(root) is not None
    assert server.up(root) == server.find_running(root)


@pytest.mark.parametrize(
    "behaviour",
    [
        "dies",
        "deaf",
        "no accounts",
        "forgets",
        "takes anyone",
    ],
)
def test_up__fails_in_one_line_and_leaves_nothing_running(
    root: Path,
    installed: Installed,
    monkeypatch: pytest.MonkeyPatch,
    behaviour: str,
    refusal: Refusal,
) -> None:
    started: list[Process] = []
    keeping(started, monkeypatch)
    installed.behave(behaviour)
    with monkeypatch.context() as hasty:
        if behaviour == "deaf":
            hasty.setattr(server, "PATIENCE", 1.0)
        with refusal(ServerError) as caught:
            server.up(root)
    assert "\n" not in str(caught.value)
    assert len(started) == 1
    assert not started[0].alive
    assert_nothing_runs(root)
    installed.behave("")
    assert server.up(root).new


def test_up__record_that_cannot_be_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Process] = []
    keeping(started, monkeypatch)

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server, "_record", full)
    with pytest.raises(OSError, match=r"No space left"):
        server.up(root)
    assert not started[0].alive


def test_up__two_at_once(root: Path) -> None:
    with ThreadPoolExecutor(2) as pool, logged() as lines:
        both = list(pool.map(lambda _: server.up(root), range(2)))
    assert sorted(running.new for running in both) == [False, True]
    assert both[0].process == both[1].process
    assert "another ddiseg command starts or stops Label Studio here: waiting for it" in lines


def test_up__stopped_by_a_person_leaves_nothing_running(
    root: Path, wording: SnapshotAssertion
) -> None:
    started: list[Process] = []

    def stop(line: str) -> None:
        if line == "making the accounts":
            started.append(recorded_process(root))
            assert started[0].alive
            raise KeyboardInterrupt

    with logged(stop) as lines, pytest.raises(KeyboardInterrupt):
        server.up(root)
    assert lines[-1] == wording
    assert not started[0].alive
    assert server.find_running(root) is None
    assert server.up(root).new


def test_up__one_that_another_command_started_is_left_alone(root: Path) -> None:
    """Its accounts are forgotten, so that this call has something to do, in which it is stopped."""
    running = server.up(root)
    (Folder(root).data / "accounts.json").unlink()

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with logged(stop), pytest.raises(KeyboardInterrupt):
        server.up(root)
    assert running.process.alive


def test_up__accounts_that_the_server_forgot_are_made_again(root: Path) -> None:
    running = server.up(root)
    made = Folder(root).data / "accounts.json"
    made.unlink()
    assert server.up(root).process == running.process
    assert made.exists()


def test_up__a_running_server_needs_no_log(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = server.up(root)
    Folder(root).log.write_text("")
    monkeypatch.setattr(server, "PATIENCE", 0.0)
    assert server.up(root).process == running.process


def test_up__where_secrets_were_lost_new_ones_are_made(root: Path) -> None:
    server.up(root)
    before = read_accounts(root)
    Folder(root).secrets.unlink()
    server.up(root)
    assert read_accounts(root)["admin"].token != before["admin"].token


def test_up__workspace_of_a_team(root: Path, refusal: Refusal) -> None:
    Folder(root).make()
    Folder(root).team.write_text('{"url": "https://label.example.org"}')
    with refusal(WorkspaceError):
        server.up(root)
    assert_nothing_runs(root)


def test_down__stops_and_keeps_everything(root: Path) -> None:
    running = server.up(root)
    kept = (Folder(root).data / "accounts.json").read_text()
    assert server.down(root)
    assert not running.process.alive
    assert_nothing_runs(root)
    assert not server.down(root)
    again = server.up(root)
    assert again.new
    assert (Folder(root).data / "accounts.json").read_text() == kept


def test_down__where_nothing_was_started_makes_nothing(root: Path) -> None:
    assert not server.down(root)
    assert list(root.iterdir()) == []


def test_down__never_touches_a_stranger_with_the_same_number(root: Path) -> None:
    """After a restart of the machine the number in server.json may be anyone's."""
    ours = server.up(root)
    content = json.loads(Folder(root).server.read_text())
    content["process"]["started"] = "an earlier boot"
    Folder(root).server.write_text(json.dumps(content))
    assert server.find_running(root) is None
    assert not server.down(root)
    assert ours.process.alive
    assert not Folder(root).server.exists()
    ours.process.stop()


def test_up__after_the_server_was_killed(root: Path) -> None:
    killed = server.up(root)
    killed.process.stop()
    assert server.find_running(root) is None
    again = server.up(root)
    assert again.new
    assert again.process != killed.process


@pytest.mark.parametrize(
    "content", ["", "no json", "[]", "{}", '{"process": 3}', '{"process": {"pid": 1}}']
)
def test_server_json__damaged(root: Path, content: str, refusal: Refusal) -> None:
    Folder(root).make()
    Folder(root).server.write_text(content)
    for call in (server.find_running, server.up, server.down):
        with refusal(WorkspaceError):
            call(root)
    Folder(root).server.unlink()


@pytest.mark.parametrize("content", ["{", '{"admin": {}}', '{"admin": 1, "annotator": 2}'])
def test_secrets__damaged(root: Path, content: str, refusal: Refusal) -> None:
    Folder(root).make()
    Folder(root).secrets.write_text(content)
    with refusal(WorkspaceError):
        server.up(root)
    assert_nothing_runs(root)


def test_secrets__never_shown_by_accident(root: Path) -> None:
    server.up(root)
    admin = read_accounts(root)["admin"]
    assert admin.token not in repr(admin)
    assert admin.password not in repr(admin)


def test_secrets__missing(root: Path, refusal: Refusal) -> None:
    with refusal(WorkspaceError):
        read_accounts(root)


def test_logs__last_lines_and_the_log_before(
    root: Path, installed: Installed, refusal: Refusal
) -> None:
    with refusal(WorkspaceError):
        server.logs(root, 5)
    first = server.up(root)
    server.down(root)
    installed.behave("moves")
    second = server.up(root)
    assert "\n".join(server.logs(root, 100)).count("Starting development server") == 1
    assert f":{second.port}/" in server.logs(root, 100)[0]
    assert len(server.logs(root, 2)) == 2
    assert server.logs(root, 2) == server.logs(root, 100)[-2:]
    assert f":{first.port}/" in Folder(root).log.with_name("server.log.1").read_text()


@pytest.fixture
def impostor() -> Iterator[Callable[[bytes], int]]:
    """impostor(answer): a port on which something answers these bytes to everything."""
    with ThreadPoolExecutor() as pool, socket.socket() as listening:
        listening.bind((server.HOST, 0))
        listening.listen()

        def serve(answer: bytes) -> int:
            def run() -> None:
                while True:
                    try:
                        peer, _ = listening.accept()
                    except OSError:
                        return
                    with peer:
                        peer.recv(65536)
                        peer.sendall(answer)

            pool.submit(run)
            return int(listening.getsockname()[1])

        yield serve
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 mail.example.org ESMTP\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
    ],
)
def test_get__something_else_on_the_port(impostor: Callable[[bytes], int], answer: bytes) -> None:
    assert server._get(impostor(answer), "/health", "token") is None
