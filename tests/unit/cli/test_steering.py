from __future__ import annotations

import pytest

from prebuilds.cli.steering import told_of_retry
from prebuilds.v1 import pool_pb2

HARD_LIMITED = pool_pb2.BLOCK_KIND_HARD_LIMITED
PAUSED = pool_pb2.BLOCK_KIND_PAUSED
OVER_QUOTA = pool_pb2.BLOCK_KIND_OVER_QUOTA


@pytest.mark.parametrize(
    "kinds, counts, told",
    [
        ([], {}, "not retried: it is not hard limited"),
        ([HARD_LIMITED], {}, "one prebuild is tried"),
        ([HARD_LIMITED, OVER_QUOTA], {"starting": 1}, "one prebuild is tried"),
        ([HARD_LIMITED, OVER_QUOTA], {}, "one prebuild is tried as soon as the quota has room for it"),
        ([HARD_LIMITED, PAUSED], {}, "one prebuild is tried once it is resumed"),
        ([HARD_LIMITED], {"actual": 2}, "one prebuild is tried once more are wanted than there are"),
        ([HARD_LIMITED], {"actual": 2, "expired": 1}, "one prebuild is tried"),
    ],
)
def test_a_retry_says_what_comes_of_it(
    kinds: list[pool_pb2.BlockKind.ValueType], counts: dict[str, int], told: str
) -> None:
    pool = pool_pb2.Pool(
        target=pool_pb2.PoolTarget(instances=2),
        counts=pool_pb2.PoolCounts(**counts),
        blocked_by=[pool_pb2.PoolBlock(kind=kind) for kind in kinds],
    )
    assert told_of_retry(pool) == told
