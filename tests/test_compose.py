"""compose.yaml: what it must not forget, and its services started natively with its own variables.

No container runs here. The commands, variables and secrets of ddiseg's services are read from the file,
and only addresses and folders are replaced.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddiseg.cli.common import run as cli_run
from ddiseg.cli.main import cli
from ddiseg.labelstudio.embedded.environment import VERSION
from tests.fake_label_studio import FakeLabelStudio, label_studio
from tests.object_store import KEY, SECRET, ObjectStore
from tests.postgres import _server, new_database, postgres_server

__all__ = ["_server", "label_studio", "new_database", "postgres_server"]

ROOT = Path(__file__).parents[1]
SERVICES = ("postgres", "minio", "label-studio", "ddiseg")
ONCE = ("bucket", "workspace")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return content


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    assert set(compose["services"]) == {*SERVICES, *ONCE}
    found: dict[str, Any] = compose["services"]
    return found


def test_images_are_pinned(services: dict[str, Any]) -> None:
    for name, service in services.items():
        tag = service["image"].partition(":")[2]
        assert re.search(r"\d", tag), f"{name}: {service['image']}"
    assert services["label-studio"]["image"].endswith(f":{VERSION}")
    from ddiseg import __version__

    assert services["ddiseg"]["image"] == services["workspace"]["image"] == f"ddiseg:{__version__}"
    base = re.findall(r"^FROM (.*)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert all(re.search(r":\d+\.\d+\.\d+", image) for image in base)


def test_services_restart_and_say_whether_they_are_well(services: dict[str, Any]) -> None:
    for name in SERVICES:
        assert services[name]["restart"] == "unless-stopped"
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
    for name in ONCE:
        assert services[name]["restart"] == "no"
    waited_for = {
        (target, how["condition"]) for s in services.values() for target, how in s.get("depends_on", {}).items()
    }  # fmt: skip
    assert waited_for == {
        ("postgres", "service_healthy"),
        ("minio", "service_healthy"),
        ("label-studio", "service_healthy"),
        ("bucket", "service_completed_successfully"),
        ("workspace", "service_completed_successfully"),
    }


def test_only_label_studio_and_ddiseg_are_published_on_loopback(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"label-studio", "ddiseg"}
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)


def test_volumes_are_named(compose: dict[str, Any], services: dict[str, Any]) -> None:
    used = [volume.split(":")[0] for s in services.values() for volume in s.get("volumes", ())]
    assert {name for name in used if not name.startswith("./deploy")} == set(compose["volumes"])
    for path in (name for name in used if name.startswith("./deploy")):
        assert (ROOT / path).exists()


def test_secrets_are_files_and_none_is_in_a_variable(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    declared = set(compose["secrets"])
    given = {name for service in services.values() for name in service.get("secrets", ())}
    assert given == declared
    for service in services.values():
        text = yaml.safe_dump(service)
        read = set(re.findall(r"/run/secrets/(\w+)", text))
        assert read <= set(service.get("secrets", ())), "a secret that it was not given"
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY", variable) and "ENABLE" not in variable:
                assert variable.endswith("_FILE"), f"{variable}={value}"
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text()
    assert "!deploy" not in (ROOT / ".dockerignore").read_text()


def test_make_secrets(compose: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    script = ["sh", str(ROOT / "deploy" / "make_secrets.sh"), str(folder)]
    subprocess.run(script, check=True, capture_output=True)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(made) == {Path(secret["file"]).name for secret in compose["secrets"].values()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert made["ddiseg_database_password"] in made["ddiseg_catalogue"]
    assert made["ddiseg_s3_password"] in made["ddiseg_s3"]
    passwords = [
        text
        for name, text in made.items()
        if name.endswith(("password", "token", "_key")) and len(text) > 6
    ]
    assert len(set(passwords)) == len(passwords) == 8
    (folder / "label_studio_token").unlink()
    subprocess.run(script, check=True, capture_output=True)
    again = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name in made if made[name] != again[name]} == {"label_studio_token"}


@pytest.mark.process
def test_databases_script(postgres_server: str, tmp_path: Path) -> None:
    import psycopg

    for name in ("ddiseg", "label_studio"):
        (tmp_path / f"{name}_database_password").write_text('it\'s "secret" $x\\')
    socket_folder = postgres_server.rpartition("host=")[2]
    subprocess.run(
        ["sh", str(ROOT / "deploy" / "databases.sh")],
        check=True,
        env={**os.environ, "SECRETS": str(tmp_path), "POSTGRES_USER": "postgres", "PGHOST": socket_folder},
    )  # fmt: skip
    with psycopg.connect(f"host={socket_folder} user=ddiseg dbname=ddiseg") as connection:
        connection.execute("CREATE TABLE t (i int)")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(f"host={socket_folder} user=label_studio dbname=ddiseg")
    with psycopg.connect(postgres_server.replace("+psycopg", ""), autocommit=True) as connection:
        for name in ("ddiseg", "label_studio"):
            connection.execute(f"DROP DATABASE {name}")
            connection.execute(f"DROP ROLE {name}")


@pytest.mark.process
def test_services_run_natively(
    services: dict[str, Any],
    new_database: Callable[[str | None], str],
    object_store: ObjectStore,
    label_studio: FakeLabelStudio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`workspace`, then `ddiseg`, as the file has them: the workspace is made, connected and served."""
    secrets = {
        "ddiseg_catalogue": new_database(None),
        "ddiseg_s3": f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n",
        "label_studio_token": label_studio.token,
    }
    for name, text in secrets.items():
        (tmp_path / name).write_text(text + "\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    replaced = {
        "/run/secrets": str(tmp_path),
        "/workspace": str(tmp_path / "w"),
        "http://minio:9000": object_store.endpoint,
        "s3://ddiseg/": f"s3://{object_store.bucket}/",
        "0.0.0.0": "127.0.0.1",
        "9090": str(port),
    }

    def native(text: str) -> str:
        for theirs, ours in replaced.items():
            text = text.replace(theirs, ours)
        return text

    for variable in [name for name in os.environ if name.startswith(("AWS_", "DDISEG_"))]:
        monkeypatch.delenv(variable)
    for variable, value in services["ddiseg"]["environment"].items():
        monkeypatch.setenv(variable, native(value))
    assert services["workspace"]["environment"] == services["ddiseg"]["environment"]

    def run(*words: str) -> str:
        assert cli_run(cli, [native(word) for word in words]) == 0
        return capsys.readouterr().out

    assert "made" in run(*services["workspace"]["command"])
    assert "unchanged" in run(*services["workspace"]["command"])
    settings = (tmp_path / "w" / "ddiseg.toml").read_text()
    assert f"file:{tmp_path}/ddiseg_catalogue" in settings
    assert f"s3://{object_store.bucket}/store" in settings
    assert "connected to" in run("label", "connect", label_studio.url)
    ddiseg = str(Path(sys.executable).with_name("ddiseg"))
    command = [ddiseg, *map(native, services["ddiseg"]["command"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        try:
            _, _, code = services["ddiseg"]["healthcheck"]["test"][1:]
            assert server.stdout
            assert b"listening" in server.stdout.readline()
            exec(native(code))  # the health check, which raises where it fails
            assert "connected" in run("label", "backend", f"http://127.0.0.1:{port}")
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=60)
    assert server.returncode in (0, -signal.SIGTERM)
