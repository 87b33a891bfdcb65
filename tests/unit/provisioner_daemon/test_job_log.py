from __future__ import annotations

from prebuilds.provisioner_daemon.job_log import LONGEST_LINE, JobLog


def test_lines_are_counted_and_kept_until_the_service_has_them() -> None:
    log = JobLog()
    log.write("one\ntwo")
    first = log.pending(1)
    log.confirm(first)

    assert [(line.sequence, line.text) for line in first] == [(1, "one")]
    assert [(line.sequence, line.text) for line in log.pending(10)] == [(2, "two")]


def test_a_line_holds_nothing_that_the_service_refuses() -> None:
    log = JobLog()
    log.write("a\0b")
    log.write("x" * (LONGEST_LINE + 1))

    strange, long = log.pending(10)

    assert strange.text == "a\N{REPLACEMENT CHARACTER}b"
    assert len(long.text) == LONGEST_LINE
