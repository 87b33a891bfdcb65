"""Every statement in a `.sql` file is one that the real schema understands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from prebuilds.store.sql import SqlFolder, installed_sql_files, numbered
from tests.support.postgres import TestServer

FILES = installed_sql_files()


@pytest.fixture(scope="module")
def connection(postgres: TestServer) -> Iterator[psycopg.Connection]:
    """One connection for all files: preparing changes nothing."""
    url = postgres.create_database()
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection
    postgres.drop_database(url)


def test_the_files_of_the_store_are_found() -> None:
    assert {"append", "lease", "remove"} <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}/{file.stem}" for file in FILES])
def test_a_statement_can_be_prepared(file: Path, connection: psycopg.Connection) -> None:
    statement = numbered(file.read_bytes())

    answer = connection.pgconn.prepare(b"", statement.text)

    assert answer.status == psycopg.pq.ExecStatus.COMMAND_OK, answer.error_message.decode()


@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}/{file.stem}" for file in FILES])
def test_a_file_begins_with_a_sentence(file: Path) -> None:
    first = file.read_text().splitlines()[0]

    assert first.startswith("-- ")
    assert first[3].isupper()


def test_a_parameter_has_one_number_wherever_it_stands() -> None:
    statement = numbered(b"SELECT %(a)s, %(b)s, %(a)s, 7 %% 2")

    assert statement.text == b"SELECT $1, $2, $1, 7 % 2"
    assert statement.parameters == ("a", "b")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(KeyError, match=r"no nothing\.sql in prebuilds\.store\.outbox"):
        SqlFolder("prebuilds.store.outbox")["nothing"]
