"""Settings: one frozen class per service, put together from the small ones here, read from flags and environment.

Priority: flag, then environment (`PREBUILDS_` + field), then file (`PREBUILDS_` + field + `_FILE`, secrets only).

The flags are made from the fields by a small argparse layer and not by pydantic-settings' own, for two reasons: a
secret must never be an argument of a process, where everybody sees it (there is `--database-url-file` instead), and
`--help` shall show unit, range and default of each field in the way people write them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar, cast

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from prebuilds.chassis.addresses import split_address
from prebuilds.chassis.logs import LogFormat, LogLevel

ENV_PREFIX: Final = "PREBUILDS_"
EXIT_BAD_SETTINGS: Final = 2

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.IGNORECASE)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE: Final = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)?", re.IGNORECASE)
_BYTES: Final = {"b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3}


def _read_duration(value: object) -> object:
    if isinstance(value, int | float):
        return timedelta(seconds=value)
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError("must be a number with a unit: 250ms, 10s, 5m, 2h, 1d")
    return timedelta(seconds=float(match[1]) * _SECONDS[(match[2] or "s").lower()])


def _read_size(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("must be a number of bytes, with a unit if you like: 65536, 512KiB, 5MiB")
    return int(match[1]) * _BYTES[(match[2] or "B").lower()]


def _check_address(value: str) -> str:
    split_address(value)
    return value


def _check_optional_address(value: str) -> str:
    return _check_address(value) if value else value


Duration = Annotated[timedelta, BeforeValidator(_read_duration), "DURATION"]
"""A length of time, written `250ms`, `10s`, `5m`, `2h` or `1d`; a bare number is seconds."""
ByteSize = Annotated[int, BeforeValidator(_read_size), "SIZE"]
"""A number of bytes, written `65536`, `512KiB` or `5MiB`."""
Address = Annotated[str, AfterValidator(_check_address), "HOST:PORT"]
"""Where something listens; port 0 lets the system choose."""
OptionalAddress = Annotated[str, AfterValidator(_check_optional_address), "HOST:PORT"]
"""As Address, or empty for off."""


class ProcessSettings(BaseSettings):
    """What every process has."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", env_ignore_empty=False)

    log_level: LogLevel = Field(default=LogLevel.INFO, description="Least severe level that is logged.")
    log_format: LogFormat = Field(default=LogFormat.JSON, description="json for machines, console for people.")
    addresses_file: Path | None = Field(
        default=None, description="File to write once ready: JSON with the addresses that were bound."
    )
    metrics_address: OptionalAddress = Field(
        default="127.0.0.1:0", description="Where Prometheus finds the metrics; port 0 = a free one, empty = off."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not used here
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - ours differ
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, files of secrets."""
        return init_settings, env_settings, _SecretFiles(settings_cls)


class ServerSettings(ProcessSettings):
    """A gRPC server."""

    listen: Address = Field(default="127.0.0.1:0", description="Where gRPC is served; port 0 = a free one.")
    tls_certificate_file: Path | None = Field(
        default=None, description="PEM certificate chain; with it gRPC is served by TLS."
    )
    tls_key_file: Path | None = Field(default=None, description="PEM private key of that certificate.")
    tls_client_ca_file: Path | None = Field(
        default=None, description="PEM authorities; with it callers need a certificate."
    )
    reflection: bool = Field(default=True, description="Whether the server describes its own API to tools.")
    max_message_size: ByteSize = Field(
        default=5 * 1024**2, ge=64 * 1024, le=256 * 1024**2, description="Largest request and answer, in bytes."
    )
    max_streams: int = Field(default=1000, ge=1, le=1_000_000, description="Most calls at once on one connection.")
    max_connection_age: Duration = Field(
        default=timedelta(minutes=30),
        ge=timedelta(seconds=10),
        le=timedelta(days=7),
        description="After this a connection is asked to come again, perhaps to another replica (10 % jitter).",
    )
    drain_grace: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(0),
        le=timedelta(minutes=10),
        description="How long running calls may go on after the process was asked to stop.",
    )

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file go together")
        if self.tls_client_ca_file is not None and self.tls_certificate_file is None:
            raise ValueError("tls_client_ca_file needs tls_certificate_file")
        return self


class DatabaseSettings(ProcessSettings):
    """Postgres."""

    database_url: SecretStr = Field(description="Postgres connection URL, postgresql://user:password@host/database.")
    database_pool_size: int = Field(default=10, ge=1, le=500, description="Most database connections of this process.")


class EventSettings(ProcessSettings):
    """NATS JetStream."""

    nats_url: SecretStr = Field(description="NATS servers, nats://host:port, several joined by commas.")
    nats_credentials_file: Path | None = Field(default=None, description="NATS credentials (.creds) of this service.")
    nats_replicas: int = Field(default=1, ge=1, le=5, description="Replicas of the streams, an odd number.")


class IdentitySettings(ProcessSettings):
    """Who may be believed to be whom."""

    token_issuer: str = Field(default="prebuilds", min_length=1, description="Issuer of people's tokens (claim iss).")
    token_audience: str = Field(
        default="prebuilds", min_length=1, description="Audience that people's tokens must name (aud)."
    )
    token_keys_file: Path | None = Field(
        default=None, description="JWKS with the issuer's public keys; read again when it changes."
    )
    token_keys_url: str | None = Field(
        default=None, pattern=r"^https?://", description="URL of the issuer's JWKS, in place of the file."
    )
    token_issuer_authoritative: bool = Field(
        default=False, description="Whether roles in the issuer's tokens replace the stored ones."
    )
    service_keys_file: Path | None = Field(
        default=None, description="JWKS with the public keys of this system's services."
    )
    service_signing_key_file: Path | None = Field(
        default=None, description="PEM private key with which this service signs its own tokens."
    )

    @model_validator(mode="after")
    def _one_source_of_keys(self) -> Self:
        if self.token_keys_file is not None and self.token_keys_url is not None:
            raise ValueError("token_keys_file and token_keys_url exclude each other")
        return self


class PeerSettings(ProcessSettings):
    """How this service calls the others; their addresses are fields of the services that need them."""

    peer_ca_file: Path | None = Field(
        default=None, description="PEM authorities of the other services; with it calls use TLS."
    )
    peer_certificate_file: Path | None = Field(
        default=None, description="PEM certificate shown to the other services (mTLS)."
    )
    peer_key_file: Path | None = Field(default=None, description="PEM private key of that certificate.")


class AgentTokenSettings(ProcessSettings):
    """Keys under which agents' tokens are made and checked."""

    agent_token_keys: Mapping[str, SecretStr] = Field(
        description='Keys of agents\' tokens by id, as JSON: {"k1": "secret"}; old ones stay while agents use them.'
    )
    agent_token_key_id: str = Field(
        default="k1", min_length=1, pattern=r"^[^_]+$", description="The key for new tokens."
    )

    def agent_keys(self) -> Mapping[str, bytes]:
        """The keys as `prebuilds.domain.agents` takes them."""
        return {key_id: secret.get_secret_value().encode() for key_id, secret in self.agent_token_keys.items()}

    @model_validator(mode="after")
    def _current_key_exists(self) -> Self:
        if self.agent_token_key_id not in self.agent_token_keys:
            raise ValueError("agent_token_key_id is not among agent_token_keys")
        return self


S = TypeVar("S", bound=ProcessSettings)


def load_settings(cls: type[S], argv: Sequence[str] | None = None, *, program: str | None = None) -> S:
    """Read the settings; `--help` ends the process with 0, anything wrong with 2 and one line for each problem."""
    parser = _parser(cls, program)
    flags = vars(parser.parse_args(argv))
    problems: list[str] = []
    given: dict[str, Any] = {}
    for name, value in flags.items():
        if name.endswith(_FILE_DEST):
            field = name.removesuffix(_FILE_DEST)
            try:
                given[field] = _decode(cls.model_fields[field], Path(value).read_text(encoding="utf-8").strip())
            except (OSError, ValueError) as error:
                problems.append(f"{_flag(field)}-file: {_plain(error)}")
        else:
            given[name] = value
    if not problems:
        try:
            return cls(**given)
        except ValidationError as error:
            problems.extend(_problems(error))
        except (SettingsError, OSError, ValueError) as error:
            problems.append(_plain(error.__cause__ or error) if isinstance(error, OSError) else _plain(error))
    for problem in problems:
        sys.stderr.write(f"{parser.prog}: {problem}\n")
    raise SystemExit(EXIT_BAD_SETTINGS)


_FILE_DEST: Final = "\0file"


def _parser(cls: type[ProcessSettings], program: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description=f"Every setting is a flag or an environment variable with the prefix {ENV_PREFIX}.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=36, width=120),
    )
    for name, field in sorted(cls.model_fields.items()):
        text = f"{_describe(name, field)}".replace("%", "%%")
        if _is_secret(field):
            parser.add_argument(f"{_flag(name)}-file", dest=name + _FILE_DEST, metavar="PATH", help=text)
        elif field.annotation is bool:
            parser.add_argument(_flag(name), action=argparse.BooleanOptionalAction, help=text)
        else:
            parser.add_argument(_flag(name), metavar=_metavar(field), help=text)
    return parser


def _describe(name: str, field: FieldInfo) -> str:
    bounds = [f"at least {_show(rule.ge)}" for rule in field.metadata if hasattr(rule, "ge")]
    bounds += [f"at most {_show(rule.le)}" for rule in field.metadata if hasattr(rule, "le")]
    default = "required" if field.is_required() else f"default: {_show(field.default) or 'none'}"
    env = f"env: {ENV_PREFIX}{name.upper()}"
    if _is_secret(field):
        env = f"file with the secret; {env} or {ENV_PREFIX}{name.upper()}_FILE"
    return f"{field.description} [{'; '.join([*bounds, default, env])}]"


def _show(value: object) -> str:
    match value:
        case None | "":
            return ""
        case timedelta():
            seconds = value.total_seconds()
            for unit in ("d", "h", "m", "s"):
                if seconds and seconds % _SECONDS[unit] == 0:
                    return f"{int(seconds // _SECONDS[unit])}{unit}"
            return f"{seconds * 1000:g}ms" if seconds else "0s"
        case _:
            return str(value)


def _metavar(field: FieldInfo) -> str:
    named = [note for note in field.metadata if isinstance(note, str)]
    if named:
        return named[0]
    kinds = typing.get_args(field.annotation) or (field.annotation,)
    if Path in kinds:
        return "PATH"
    if isinstance(field.annotation, type) and issubclass(field.annotation, LogLevel | LogFormat):
        return "|".join(field.annotation)
    return "N" if int in kinds else "TEXT"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _is_secret(field: FieldInfo) -> bool:
    annotation = field.annotation
    return annotation is SecretStr or SecretStr in typing.get_args(annotation)


def _decode(field: FieldInfo, text: str) -> object:
    if typing.get_origin(field.annotation) is Mapping:
        return cast("object", json.loads(text))
    return text


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        path = problem["loc"]
        where = f"{_flag(str(path[0]))} ({ENV_PREFIX}{str(path[0]).upper()}): " if path else ""
        yield where + problem["msg"].removeprefix("Value error, ")


def _plain(error: BaseException) -> str:
    return " ".join(str(error).split())


class _SecretFiles(PydanticBaseSettingsSource):
    """`PREBUILDS_<FIELD>_FILE` names a file that holds the secret."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"{ENV_PREFIX}{field_name.upper()}_FILE")
        if not path or not _is_secret(field):
            return None, field_name, False
        return _decode(field, Path(path).read_text(encoding="utf-8").strip()), field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}
