"""Compose's databases: each service has a role that reaches its own database only."""

import os
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

SCRIPT = Path(__file__).resolve().parents[4] / "infra/docker/databases.sh"


def test_no_database_role_sees_the_database_of_another(postgres_url, monkeypatch):
    if shutil.which("psql") is None:
        pytest.skip("no psql on this machine")
    base = postgres_url.rpartition("/")[0].partition("@")[2]
    host, _, port = base.partition(":")
    names = ("segvigen", "prefect", "label_studio")
    env = {**os.environ, "POSTGRES_USER": "me", "PGHOST": host, "PGPORT": port}
    for name, variable in zip(names, ("PIPELINE", "PREFECT", "LABEL_STUDIO"), strict=True):
        env[f"{variable}_DATABASE_PASSWORD"] = f"it's {name}"  # the quote must not end the text
    done = subprocess.run(["sh", SCRIPT], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    try:
        for role in names:
            for database in (*names, "postgres"):
                where = {"host": host, "port": port, "user": role, "dbname": database}
                if role == database:
                    with psycopg.connect(**where) as connection:
                        connection.execute("create table mine (a int)")
                    continue
                with pytest.raises(psycopg.OperationalError, match="CONNECT privilege"):
                    psycopg.connect(**where)
            with psycopg.connect(postgres_url) as connection:
                query = "select rolsuper or rolcreatedb or rolcreaterole from pg_roles"
                assert connection.execute(f"{query} where rolname = %s", [role]).fetchone() == (
                    False,
                )
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            # The server ends with the tests, and its roles and databases with it.
            connection.execute("grant connect on database postgres to public")
