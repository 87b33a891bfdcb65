from __future__ import annotations

from typing import Any

import pytest
import typer

from prebuilds.cli.watching import are_full
from prebuilds.v1 import pool_pb2

BLOCKS = {
    kind: pool_pb2.PoolBlock(kind=kind)
    for kind in (
        pool_pb2.BLOCK_KIND_BACKING_OFF,
        pool_pb2.BLOCK_KIND_HARD_LIMITED,
        pool_pb2.BLOCK_KIND_VALIDATION_FAILED,
        pool_pb2.BLOCK_KIND_OVER_QUOTA,
        pool_pb2.BLOCK_KIND_PAUSED,
        pool_pb2.BLOCK_KIND_MAX_STARTING,
    )
}
PAUSED = pool_pb2.BLOCK_KIND_PAUSED
OVER_QUOTA = pool_pb2.BLOCK_KIND_OVER_QUOTA
BY_ITSELF = (pool_pb2.BLOCK_KIND_BACKING_OFF, pool_pb2.BLOCK_KIND_MAX_STARTING)
BY_SOMEBODY = tuple(BLOCKS.keys() - BY_ITSELF)


def pool(*blocks: pool_pb2.BlockKind.ValueType, active: bool = True, **counts: int) -> pool_pb2.Pool:
    """A pool that wants two."""
    return pool_pb2.Pool(
        name="small",
        template_name="python-dev",
        active=active,
        target=pool_pb2.PoolTarget(instances=2 if active else 0),
        counts=pool_pb2.PoolCounts(**counts),
        blocked_by=[BLOCKS[kind] for kind in blocks],
    )


@pytest.mark.parametrize("kind", BY_SOMEBODY)
def test_what_ends_by_somebodys_doing_is_not_waited_for(
    kind: pool_pb2.BlockKind.ValueType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        are_full([pool(actual=2, eligible=2), pool(kind, actual=1, eligible=1)])

    name = pool_pb2.BlockKind.Name(kind).removeprefix("BLOCK_KIND_").lower().replace("_", " ")
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err.startswith(f"error: python-dev/small: {name}")


@pytest.mark.parametrize("kind", BY_ITSELF)
def test_what_ends_by_itself_is_waited_for(kind: pool_pb2.BlockKind.ValueType) -> None:
    assert not are_full([pool(kind)])


@pytest.mark.parametrize(
    "others, is_full",
    [
        ([pool(PAUSED, actual=2, eligible=2)], True),
        ([pool(PAUSED, active=False, actual=1)], True),
        ([pool(PAUSED, actual=1, eligible=1, starting=1)], False),
        ([pool(OVER_QUOTA, expired=1, actual=1)], False),
        ([pool(OVER_QUOTA), pool(active=False, actual=1)], False),
        ([pool(OVER_QUOTA), pool(active=False, deleting=1)], False),
    ],
)
def test_a_block_that_keeps_nothing_away_ends_no_watch(others: list[pool_pb2.Pool], is_full: bool) -> None:
    assert are_full(others) is is_full


def test_a_paused_pool_that_drains_makes_no_room(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        are_full([pool(OVER_QUOTA), pool(PAUSED, active=False, actual=1)])

    assert "over quota" in capsys.readouterr().err


def test_nothing_active_is_full() -> None:
    nothing: list[Any] = []
    assert are_full(nothing)
