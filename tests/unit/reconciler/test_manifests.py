"""Manifests as people and strangers write them: every problem is told, and no text fails in another way."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from prebuilds.chassis.patterns import matches
from prebuilds.domain.refusals import Reason, Refusal, Violation
from prebuilds.reconciler.manifest_yaml import read_yaml
from prebuilds.reconciler.rules.manifest import Manifest
from prebuilds.reconciler.rules.manifest_checks import check_manifest
from tests.support.reconciling import make_manifest


def problems(**changed: Any) -> dict[str, str]:
    """What is wrong with a good manifest that is changed, by field."""
    checked = check_manifest(make_manifest(**changed), matches)
    return {} if isinstance(checked, Manifest) else {wrong.field: wrong.description for wrong in checked}


def refusal_of(text: str | bytes) -> str:
    with pytest.raises(Refusal) as refused:
        read_yaml(text.encode() if isinstance(text, str) else text, "template.yaml")
    assert refused.value.reason is Reason.INVALID_MANIFEST
    refused.value.message.encode()
    return refused.value.message


def parameter(**changed: Any) -> dict[str, Any]:
    return {"parameters": [{"name": "size", **changed}]}


@pytest.mark.parametrize(
    "text",
    [
        "!!bool maybe",
        "!!timestamp foo",
        "!!int ''",
        "!!int '-'",
        "!!float ''",
        "!!python/name:os.system x",
        "a: !!binary x",
        "!x {a: 1}",
        "!!map {a: 1}",
        r'"\udfff"',
        r'{"\ud800": 1}',
        r'"a\0"',
        r'"\U00110000"',
        "a: 1\na: 2",
        "a: &x 1\nb: *x",
        "? [1, 2]\n: 3",
        "1: 2",
        "[" * 51 + "]" * 51,
        "- " * 5000,
        "--- a\n--- b",
        "name: [",
        b"\xff",
    ],
)
def test_what_is_no_plain_yaml_is_refused(text: str | bytes) -> None:
    refusal_of(text)


def test_scalars_are_those_of_the_core_schema() -> None:
    text = "[yes, 2024-01-01, 010, 0x10, 1:30, ~, null, true, FALSE, -7, 1.5, 1e3, '7', .inf, -, '', <<, =]"
    assert read_yaml(text.encode(), "x") == [
        *("yes", "2024-01-01", 10, "0x10", "1:30", None, None, True, False),
        *(-7, 1.5, 1000.0, "7", ".inf", "-", "", "<<", "="),
    ]
    assert read_yaml(b"", "x") is None


def test_an_empty_manifest_is_told_what_it_needs() -> None:
    said = Violation("template.yaml", "must be a mapping with name and backend")
    assert check_manifest(None, matches) == (said,)
    assert check_manifest("text", matches) == (said,)


@pytest.mark.parametrize(
    "changed, field, words",
    [
        (parameter(validation={"regex": "(a+"}), "parameters[0].validation.regex", "RE2"),
        (parameter(validation={"regex": r"(.)\1"}), "parameters[0].validation.regex", "RE2"),
        (parameter(validation={"regex": "a" * 1001}), "parameters[0].validation.regex", "1000"),
        (parameter(validation={"regex": "a\0"}), "parameters[0].validation.regex", "NUL"),
        (parameter(validation={"regex": "[a-z]+"}, default="1"), "parameters[0].default", "must match [a-z]+"),
        (parameter(type="number", validation={"regex": "1"}), "parameters[0].validation.regex", "text only"),
        (parameter(type="number", validation={"min": float("nan")}), "parameters[0].validation.min", "finite"),
        (parameter(type="number", validation={"max": float("inf")}), "parameters[0].validation.max", "finite"),
        (parameter(type="number", validation={"max": 1e300}), "parameters[0].validation.max", "less than"),
        (parameter(type="number", validation={"min": 2, "max": 1}), "parameters[0].validation.max", "below min"),
        (parameter(validation={"min": 2}), "parameters[0].validation", "numbers only"),
        (parameter(type="number", default="1e3"), "parameters[0].default", "decimal number"),
        (parameter(options=["a", "b", "a"]), "parameters[0].options[2]", "twice"),
        (parameter(options=[str(each) for each in range(501)]), "parameters[0].options", "at most 500"),
        (parameter(name=" size"), "parameters[0].name", "white space"),
        (parameter(name="a\nb"), "parameters[0].name", "control"),
        ({"parameters": [{"name": f"p{each}"} for each in range(201)]}, "parameters", "at most 200"),
        ({"presets": [{"name": f"p{each}"} for each in range(201)]}, "presets", "at most 200"),
        ({"agents": [f"a{each}" for each in range(21)]}, "agents", "at most 20"),
        ({"presets": [{"name": "0D5F4B8E-6d1d-4b67-9a8c-1f6a5f3f6f10"}]}, "presets[0].name", "UUID"),
        ({"presets": [{"name": "small\u200b"}]}, "presets[0].name", "control"),
        ({"presets": [{"name": "small "}]}, "presets[0].name", "white space"),
        ({"lifecycle": {"ttl": "31d"}}, "lifecycle.ttl", "must be at most 30d"),
        ({"lifecycle": {"ttl": "5s"}}, "lifecycle.ttl", "at least 1m"),
        ({"lifecycle": {"time_til_dormant": "999999999d"}}, "lifecycle.time_til_dormant", "at most"),
        ({"lifecycle": {"autostart": f"0 {'1' * 5000} * * *"}}, "lifecycle.autostart", "at most 200"),
        ({"lifecycle": {"autostart": "CRON_TZ=localtime 0 8 * * *"}}, "lifecycle.autostart", "IANA"),
        ({"process": []}, "process", "must be a mapping"),
    ],
)
def test_each_problem_has_its_words(changed: Mapping[str, Any], field: str, words: str) -> None:
    assert words in problems(**changed).get(field, "nothing")


def scheduled(timezone: str, *crons: str) -> dict[str, str]:
    schedule = [{"cron": cron, "instances": 1} for cron in crons]
    pool = {"instances": 1, "scheduling": {"timezone": timezone, "schedule": schedule}}
    return problems(presets=[{"name": "small", "prebuilds": pool}])


@pytest.mark.parametrize("zone", ["localtime", "posixrules", "right/UTC", "Mars/Olympus", ""])
def test_a_zone_is_one_of_iana(zone: str) -> None:
    assert set(scheduled(zone, "* 8 * * *")) == {"presets[0].prebuilds.scheduling.timezone"}


@pytest.mark.timeout(10)
def test_thousands_of_schedules_are_too_many() -> None:
    crons = [f"* {hour} {day} {month} *" for hour in range(24) for day in range(1, 8) for month in range(1, 13)]
    assert "at most 50" in scheduled("UTC", *crons)["presets[0].prebuilds.scheduling.schedule"]


@pytest.mark.timeout(10)
def test_a_long_cron_field_is_refused() -> None:
    assert "at most 200" in str(scheduled("UTC", "* " + "1," * 40_000 + "1 * * *"))


@pytest.mark.timeout(10)
def test_a_pattern_that_freezes_others_is_read() -> None:
    assert not problems(
        parameters=[{"name": "size", "default": "a" * 8000, "validation": {"regex": "(a+)+$"}}], presets=[]
    )


KEYS = st.sampled_from(
    [
        *("name", "backend", "parameters", "presets", "default", "options", "validation", "regex", "min", "max"),
        *("prebuilds", "instances", "scheduling", "timezone", "schedule", "cron", "lifecycle", "ttl", "autostart"),
        *("process", "env", "startup", "agents", "type", "mutable", "expiration_policy", "description"),
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.sampled_from(["process", "number", "(a", "* 8 * * *", "UTC", "8h", "1" * 300, "small"]),
)
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=30,
)
SCRAPS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *(
                    "!!bool ",
                    "!!int ",
                    "!!float ",
                    "!!timestamp ",
                    "!!binary ",
                    "!!set ",
                    "!!omap ",
                    "!!null ",
                    "!x ",
                    "!",
                ),
                *("{", "}", "[", "]", ": ", "- ", "? ", ", ", "\n", "  ", "'", '"', "|", ">", "&a ", "*a", "<<: ", "#"),
                *(r'"\udfff"', r'"\0"', r'"\x"', "---\n", "...\n", "%YAML 9.9\n", "%TAG ! x\n", "\t", "\ufeff", "\x85"),
                *("name", "a", "1", "-", "+.", "1_0", "0b1", ".nan", "1:2", "=", "~", "@", "`", "0o7", "9" * 5000),
            ]
        ),
        st.text(max_size=3),
    ),
    max_size=30,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(SCRAPS)
def test_no_text_fails_but_by_the_refusal(text: str) -> None:
    check_text(text.encode(errors="replace"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_fail_but_by_the_refusal(content: bytes) -> None:
    check_text(content)


@settings(max_examples=200, deadline=None)
@given(st.one_of(TREES, st.dictionaries(KEYS, TREES, max_size=6)))
def test_no_document_fails_but_by_its_violations(tree: object) -> None:
    check_text(yaml.safe_dump(tree, allow_unicode=True).encode(errors="replace"))
    check(tree)


def check_text(content: bytes) -> None:
    with suppress(Refusal):
        check(read_yaml(content, "template.yaml"))


def check(tree: object) -> None:
    checked = check_manifest(tree, matches)
    if isinstance(checked, Manifest):
        checked.model_dump_json()
    else:
        assert checked
        for wrong in checked:
            (wrong.field + wrong.description).encode()
