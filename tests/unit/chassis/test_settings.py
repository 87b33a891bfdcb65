"""Settings: every field is explained, nothing secret is shown, and what is wrong is said in a line."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from prebuilds.chassis.settings import (
    AgentTokenSettings,
    DatabaseSettings,
    Duration,
    EventSettings,
    IdentitySettings,
    PeerSettings,
    ServerSettings,
    load_settings,
)


class EverythingSettings(
    ServerSettings, DatabaseSettings, EventSettings, IdentitySettings, PeerSettings, AgentTokenSettings
):
    """All of it."""


class TwoSettings(ServerSettings, DatabaseSettings):
    """A server with a database."""

    wait: Duration = timedelta(seconds=1)


URL = "postgresql://prebuilds:hunter2@db/prebuilds"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os  # noqa: PLC0415

    for name in list(os.environ):
        if name.startswith("PREBUILDS_"):
            monkeypatch.delenv(name)


def problems(capsys: pytest.CaptureFixture[str], argv: list[str], cls: type[ServerSettings] = TwoSettings) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        load_settings(cls, argv, program="p")
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text.strip().splitlines()


def test_help_lists_every_field_with_description_default_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load_settings(EverythingSettings, ["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in EverythingSettings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text or f"--no-{name.replace('_', '-')}" in text
        assert f"PREBUILDS_{name.upper()}" in text
        assert field.description, name
        assert field.description in text
    assert text.count("default: ") + text.count("required") == len(EverythingSettings.model_fields)


def test_help_tells_units_and_ranges(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_settings(TwoSettings, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--drain-grace DURATION" in text
    assert "at least 0s; at most 10m; default: 10s" in text
    assert "--listen HOST:PORT" in text


def test_flags_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREBUILDS_DATABASE_URL", URL)
    monkeypatch.setenv("PREBUILDS_LISTEN", "127.0.0.1:7001")
    monkeypatch.setenv("PREBUILDS_DRAIN_GRACE", "250ms")
    monkeypatch.setenv("PREBUILDS_MAX_MESSAGE_SIZE", "1MiB")
    settings = load_settings(TwoSettings, ["--listen", "127.0.0.1:7002", "--no-reflection", "--wait=2m"])
    assert settings.listen == "127.0.0.1:7002"
    assert settings.reflection is False
    assert settings.drain_grace == timedelta(milliseconds=250)
    assert settings.max_message_size == 1024 * 1024
    assert settings.wait == timedelta(minutes=2)
    assert settings.database_url.get_secret_value() == URL


def test_a_secret_can_come_from_a_file_named_by_variable_or_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "url"
    file.write_text(URL + "\n")
    assert load_settings(TwoSettings, ["--database-url-file", str(file)]).database_url.get_secret_value() == URL
    monkeypatch.setenv("PREBUILDS_DATABASE_URL_FILE", str(file))
    assert load_settings(TwoSettings, []).database_url.get_secret_value() == URL


def test_keys_of_agents_tokens_are_json_from_file_or_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text('{"k1": "s1", "k2": "s2"}')
    settings = load_settings(AgentTokenSettings, ["--agent-token-keys-file", str(file), "--agent-token-key-id", "k2"])
    assert settings.agent_keys() == {"k1": b"s1", "k2": b"s2"}
    monkeypatch.setenv("PREBUILDS_AGENT_TOKEN_KEYS", '{"k1": "s3"}')
    assert load_settings(AgentTokenSettings, []).agent_keys() == {"k1": b"s3"}


def test_a_secret_is_no_flag_and_shown_nowhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREBUILDS_DATABASE_URL", URL)
    assert "hunter2" not in repr(load_settings(TwoSettings, []))
    lines = problems(capsys, ["--database-url", URL])
    assert "unrecognized arguments" in lines[-1]
    with pytest.raises(SystemExit):
        load_settings(TwoSettings, ["--help"])
    assert "hunter2" not in capsys.readouterr().out


def test_every_problem_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = problems(capsys, ["--listen", "nonsense", "--max-streams", "0", "--drain-grace", "soon"])
    assert len(lines) == 4
    assert [line.split()[1] for line in lines] == sorted(
        ["--listen", "--max-streams", "--drain-grace", "--database-url"], key=[line.split()[1] for line in lines].index
    )
    assert all(line.startswith("p: ") for line in lines)


@pytest.mark.parametrize(
    "argv",
    [
        ["--no-such-flag"],
        ["--database-url-file", "/does/not/exist"],
        ["--tls-key-file", "/only/one/of/two"],
        ["--listen", "localhost"],
        ["--listen", "localhost:70000"],
        ["--listen", "::1:80"],
        ["--max-message-size", "1KiB"],
        ["--log-level", "loud"],
    ],
)
def test_a_bad_setting_ends_with_2_and_no_traceback(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREBUILDS_DATABASE_URL", URL)
    lines = problems(capsys, argv)
    assert "hunter2" not in "".join(lines)


def test_an_unreadable_secret_file_of_the_environment_is_a_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREBUILDS_DATABASE_URL_FILE", "/does/not/exist")
    assert problems(capsys, []) != []


def test_malformed_json_in_the_environment_is_a_problem_without_its_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREBUILDS_AGENT_TOKEN_KEYS", "{hunter2")
    lines = problems(capsys, [], EverythingSettings)
    assert "hunter2" not in "".join(lines)
