from __future__ import annotations

import pytest

from prebuilds.store.connections import check_url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user@host/database",
        "postgresql://user:password@one:5432,two:5433/database?sslmode=require",
        "postgresql://user@[::1]:5432/database",
        "postgresql://user@/database?host=%2Frun%2Fpostgresql",
        "host=/run/postgresql dbname=database",
    ],
)
def test_what_the_driver_can_read_is_a_url(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "postgresql://",
        "database",
        "mysql://user:hunter2@host/database",
        "postgresql://user:hunter2@[host/database",
        "postgresql://user:hunter2/more@host/database",
    ],
)
def test_anything_else_is_refused_without_a_word_of_it(url: str) -> None:
    with pytest.raises(ValueError, match="must be a Postgres connection URL") as refused:
        check_url(url)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None
