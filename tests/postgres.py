"""A PostgreSQL server of its own for a test session, in a temporary folder, on a Unix socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from ddiseg.catalogue import Catalogue

#: Where Debian, Fedora and Homebrew put the programs that start a server.
FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")

#: The role of the test server that needs a password, and its password; all others are trusted.
GUARDED, PASSWORD = "guarded", "s3cr3t-w0rd"


def _binaries() -> Path:
    found = [folder for each in FOLDERS for folder in sorted(Path("/").glob(each[1:]))]
    on_path = shutil.which("initdb")
    if not (found or on_path):
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql")
    return found[-1] if found else Path(str(on_path)).parent


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Start a server; yields the URL of its database "postgres"."""
    pytest.importorskip("psycopg")
    binaries = _binaries()
    folder = Path(tempfile.mkdtemp(prefix="ddiseg-pg-"))  # short: a socket's path has 107 letters
    as_user: list[str] = []
    if os.getuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]

    def run(program: str, *arguments: str) -> None:
        command = [*as_user, str(binaries / program), "-D", str(folder / "data"), *arguments]
        with open(folder / "output", "a") as output:
            subprocess.run(command, check=True, stdout=output, stderr=output, cwd=folder)

    try:
        run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")
        rules = folder / "data" / "pg_hba.conf"
        rules.write_text(f"local all {GUARDED} scram-sha-256\n{rules.read_text()}")
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def new_database(postgres_server: str) -> Callable[[str | None], str]:
    """new_database("t"): create a database, empty or as a copy of the database "t"; its URL."""
    import psycopg

    numbers = count(1)

    def create(template: str | None = None) -> str:
        name = f"test_{next(numbers)}"
        with closing(
            psycopg.connect(postgres_server.replace("+psycopg", ""), autocommit=True)
        ) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template or 'template0'}")
        return postgres_server.replace("/postgres?", f"/{name}?")

    return create


@pytest.fixture(scope="session")
def _template(new_database: Callable[[str | None], str]) -> str:
    """The name of a database with an empty catalogue, made once."""
    url = new_database(None)
    Catalogue.create(url).close()
    return url.partition("@/")[2].partition("?")[0]


@pytest.fixture
def guarded_url(new_database: Callable[[str | None], str], postgres_server: str) -> str:
    """The URL of an empty database whose owner needs `PASSWORD`, which is not in the URL."""
    import psycopg

    url = new_database(None)
    name = url.partition("@/")[2].partition("?")[0]
    with closing(
        psycopg.connect(postgres_server.replace("+psycopg", ""), autocommit=True)
    ) as connection:
        connection.execute(
            f"DO $$ BEGIN CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'; "
            "EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
        connection.execute(f"ALTER DATABASE {name} OWNER TO {GUARDED}")
    return url.replace("postgres@", f"{GUARDED}@")


@pytest.fixture
def postgres_url(new_database: Callable[[str | None], str], _template: str) -> str:
    """The URL of an empty catalogue on PostgreSQL."""
    return new_database(_template)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.process)])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty catalogue that several processes may use, on each database in turn."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    empty: Path = request.getfixturevalue("empty_catalogue")
    shutil.copy(empty, tmp_path / "shared.sqlite")
    return f"sqlite:///{tmp_path / 'shared.sqlite'}"


@pytest.fixture
def shared(shared_url: str) -> Iterator[Catalogue]:
    """The catalogue of `shared_url`."""
    opened = Catalogue.open(shared_url)
    yield opened
    opened.close()
