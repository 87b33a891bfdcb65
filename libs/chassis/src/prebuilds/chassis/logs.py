"""Logs: one structured line per event on standard error, with trace ids, from our code and from libraries alike.

Two guards keep secrets out: a field whose name says that it is secret is not written, and texts (messages and
tracebacks of libraries too) are cleaned of whatever looks like a token or a password in a URL.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from enum import StrEnum
from typing import Final, TextIO, cast

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED: Final = "[redacted]"

_SECRET_NAME = re.compile(r"token|secret|password|authorization|credential|private_key|dsn|database_url", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"pb[ad]_[A-Za-z0-9_\-]{8,}"  # agents' and daemons' tokens
    r"|eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*"  # JWTs
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"  # user and password in a URL
    r"|(?<=password=)\S+"
)
_HARMLESS_NAMES: Final = frozenset({"token_issuer", "token_audience", "key_id"})


class LogLevel(StrEnum):
    """The least severe level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """`json` for machines, `console` for people."""

    JSON = "json"
    CONSOLE = "console"


def configure_logs(service: str, *, level: LogLevel, log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging for the whole process."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _name_service(service),
        add_trace_ids,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(default=str)
        if log_format is LogFormat.JSON
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def add_trace_ids(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Name the trace and span that the line belongs to."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace secret fields, and what looks secret in the texts of the others."""
    for name, value in event.items():
        event[name] = _clean(name, value)
    return event


def clean_text(text: str) -> str:
    """The text without tokens and passwords."""
    return _SECRET_TEXT.sub(REDACTED, text)


def _clean(name: str, value: object) -> object:
    if name not in _HARMLESS_NAMES and _SECRET_NAME.search(name) and value is not None:
        return REDACTED
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {key: _clean(str(key), item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_clean("", item) for item in cast("list[object]", value)]
    if isinstance(value, bool | int | float) or value is None:
        return value
    return clean_text(str(value))


def _name_service(service: str) -> Processor:
    def name_service(_logger: WrappedLogger, _method: str, event: MutableMapping[str, object]) -> Mapping[str, object]:
        event["service"] = service
        return event

    return cast("Processor", name_service)
