"""No secret reaches a log line, by whatever way."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from prebuilds.chassis.logs import LogFormat, LogLevel, clean_text, configure_logs

JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
SECRETS = [
    JWT,
    "pba_k1_00000000-0000-7000-8000-000000000001_c2lnbmF0dXJl",
    "pbd_0123456789abcdef_s3cretsecret",
    "hunter2",
]


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    before = (root.handlers, root.level, structlog.get_config())
    configure_logs("claims", level=LogLevel.INFO, log_format=LogFormat.JSON, stream=stream)
    yield stream
    root.handlers, root.level = before[0], before[1]
    structlog.configure(**before[2])


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_service_level_and_time(written: io.StringIO) -> None:
    structlog.get_logger("x").info("claimed", workspace_id="w")
    (line,) = lines(written)
    assert line["event"] == "claimed"
    assert line["service"] == "claims"
    assert line["level"] == "info"
    assert "timestamp" in line


def test_a_line_within_a_span_names_its_trace(written: io.StringIO) -> None:
    with TracerProvider().get_tracer("t").start_as_current_span("s") as span:
        structlog.get_logger("x").info("claimed")
    (line,) = lines(written)
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"


@pytest.mark.parametrize("name", ["token", "agent_token", "password", "Authorization", "client_secret", "database_url"])
def test_a_field_that_is_named_secret_is_not_written(written: io.StringIO, name: str) -> None:
    structlog.get_logger("x").info("said", **{name: "hunter2"})
    structlog.get_logger("x").info("said", nested={name: "hunter2"})
    assert "hunter2" not in written.getvalue()
    assert len(lines(written)) == 2


@pytest.mark.parametrize(
    "text",
    [f"call with Bearer {SECRETS[0]} failed", f"got {SECRETS[1]}", f"got {SECRETS[2]}", "postgresql://u:hunter2@db/x"],
)
def test_what_looks_like_a_secret_is_cut_from_texts_and_tracebacks(written: io.StringIO, text: str) -> None:
    structlog.get_logger("x").info(text, note=text, notes=[text])
    error = RuntimeError(text)
    structlog.get_logger("x").error("failed", exc_info=error)
    logging.getLogger("library").error("failed %s", text, exc_info=error)
    assert not any(secret in written.getvalue() for secret in SECRETS)
    assert "RuntimeError" in written.getvalue()


def test_libraries_write_the_same_lines(written: io.StringIO) -> None:
    logging.getLogger("library").warning("slow %s", "query")
    (line,) = lines(written)
    assert (line["event"], line["level"], line["service"]) == ("slow query", "warning", "claims")


def test_less_than_the_level_is_not_written(written: io.StringIO) -> None:
    structlog.get_logger("x").debug("noise")
    assert written.getvalue() == ""


def test_ordinary_text_stays_as_it_is() -> None:
    text = "preset small of https://host/path?x=1 has 3 prebuilds"
    assert clean_text(text) == text
