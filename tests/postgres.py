"""A PostgreSQL server of its own for a test session, in a temporary folder, on a Unix socket.

`pytestmark = pytest.mark.both_databases` in a file runs its tests that use `catalogue` or `workspace`
on SQLite and, with the marker `postgres`, on PostgreSQL.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.database import _revisions
from ddiseg.catalogue.tables import Base

SQLITE, POSTGRESQL = "sqlite", "postgresql"

#: Where Debian, Fedora and Homebrew put the programs that start a server.
FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")

#: The role of the test server that needs a password, and its password; all others are trusted.
GUARDED, PASSWORD = "guarded", "s3cr3t-w0rd"


def binaries() -> Path:
    """Return the folder of PostgreSQL's programs; skips the test where it is not installed."""
    found = [folder for each in FOLDERS for folder in sorted(Path("/").glob(each[1:]))]
    on_path = shutil.which("initdb")
    if not (found or on_path):
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql")
    return found[-1] if found else Path(str(on_path)).parent


class Server:
    """A server in a folder of its own, on a Unix socket; `GUARDED` needs a password there."""

    def __init__(self, *settings: str) -> None:
        self._binaries = binaries()
        self._folder = Path(
            tempfile.mkdtemp(prefix="ddiseg-pg-")
        )  # a socket's path has 107 letters
        self._as_user: list[str] = []
        self._numbers = count(1)
        if os.getuid() == 0:  # the server refuses to run as root
            shutil.chown(self._folder, "postgres")
            self._as_user = ["runuser", "-u", "postgres", "--"]
        # As people's servers do, it sorts by a language: "b" before "C", and "a-b" after "aa".
        language = ("--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en")
        self._run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync", *language)
        rules = self._folder / "data" / "pg_hba.conf"
        rules.write_text(f"local all {GUARDED} scram-sha-256\n{rules.read_text()}")
        self._options = " ".join(
            [f"-k {self._folder} -c listen_addresses=", *(f"-c {each}" for each in settings)]
        )
        self.start()

    @property
    def url(self) -> str:
        """The URL of its database "postgres"."""
        return f"postgresql+psycopg://postgres@/postgres?host={self._folder}"

    def execute(self, *statements: str) -> None:
        """Execute statements as the administrator."""
        import psycopg

        with closing(
            psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True)
        ) as connection:
            for each in statements:
                connection.execute(each)

    def new_database(self, template: str | None = None) -> str:
        """Create a database, empty or as a copy of another one; returns its URL."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template or 'template0'}")
        return self.url.replace("/postgres?", f"/{name}?")

    def start(self) -> None:
        self._run("pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", self._options, "start")

    def restart(self) -> None:
        """Restart it as after a crash: all connections end, and what was not stored is gone."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")
        self.start()

    def remove(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        command = [
            *self._as_user,
            *(str(self._binaries / program), "-D", str(self._folder / "data")),
            *arguments,
        ]
        with open(self._folder / "output", "a") as output:
            subprocess.run(command, check=True, stdout=output, stderr=output, cwd=self._folder)


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    pytest.importorskip("psycopg")
    server = Server("fsync=off")
    yield server
    server.remove()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that the test may restart."""
    pytest.importorskip("psycopg")
    server = Server("fsync=off")
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgres_server(_server: Server) -> str:
    """Start a server; returns the URL of its database "postgres"."""
    return _server.url


@pytest.fixture(scope="session")
def new_database(_server: Server) -> Callable[[str | None], str]:
    """new_database("t"): create a database, empty or as a copy of the database "t"; its URL."""
    return _server.new_database


@pytest.fixture
def new_role(_server: Server) -> Callable[[int], str]:
    """new_role(3): create a role that may have so many connections; its name."""

    def create(connections: int) -> str:
        name = f"role_{connections}"
        _server.execute(
            f"DROP ROLE IF EXISTS {name}",
            f"CREATE ROLE {name} LOGIN CONNECTION LIMIT {connections}",
        )
        return name

    return create


@pytest.fixture(scope="session")
def _template(new_database: Callable[[str | None], str]) -> str:
    """The name of a database with an empty catalogue, made once."""
    url = new_database(None)
    Catalogue.create(url).close()
    return url.partition("@/")[2].partition("?")[0]


@pytest.fixture
def guarded_url(_server: Server) -> str:
    """The URL of an empty database whose owner needs `PASSWORD`, which is not in the URL."""
    url = _server.new_database()
    _server.execute(
        f"DO $$ BEGIN CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'; "
        "EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        f"ALTER DATABASE {make_url(url).database} OWNER TO {GUARDED}",
    )
    return url.replace("postgres@", f"{GUARDED}@")


@pytest.fixture
def postgres_url(new_database: Callable[[str | None], str], _template: str) -> str:
    """The URL of an empty catalogue on PostgreSQL."""
    return new_database(_template)


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a file marked `both_databases` on PostgreSQL, too; on SQLite their names stay."""
    if metafunc.definition.get_closest_marker("both_databases") is None:
        return
    if "database" in metafunc.fixturenames:
        on_postgres = pytest.param(POSTGRESQL, id=POSTGRESQL, marks=pytest.mark.postgres)
        both = [pytest.param(SQLITE, id=pytest.HIDDEN_PARAM), on_postgres]
        metafunc.parametrize("database", both, indirect=True)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """Where `catalogue` and `workspace` keep their rows: SQLITE or POSTGRESQL."""
    return str(getattr(request, "param", SQLITE))


@pytest.fixture(scope="session")
def _one_database(new_database: Callable[[str | None], str], _template: str) -> str:
    return new_database(_template)


@pytest.fixture
def emptied_url(_one_database: str) -> str:
    """The URL of an empty catalogue on PostgreSQL, the same database for one test after the other."""
    import psycopg

    statements = [
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "SET session_replication_role = replica",  # no order of the tables, as nothing is checked
        *(f"DELETE FROM {table}" for table in Base.metadata.tables),
        "SELECT setval(oid, 1, false) FROM pg_class WHERE relkind = 'S'",
        f"UPDATE alembic_version SET version_num = '{_revisions()[-1]}'",
    ]
    with closing(psycopg.connect(_one_database.replace("+psycopg", ""))) as connection, connection:
        connection.execute("; ".join(statements))
    return _one_database


@pytest.fixture(params=[SQLITE, pytest.param(POSTGRESQL, marks=pytest.mark.postgres)])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty catalogue that several processes may use, on each database in turn."""
    if request.param == POSTGRESQL:
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
