"""What cannot be meant is refused before any server is asked, in one line."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from prebuilds.cli.app import app

NOWHERE = {"PREBUILDS_RECONCILER": "127.0.0.1:1", "PREBUILDS_CLAIMS": "127.0.0.1:1", "PREBUILDS_TOKEN": "t"}
ONE_POOL = "error: --version goes with a single pool: say TEMPLATE/PRESET\n"


@pytest.mark.parametrize(
    "words, variables, said",
    [
        ("pools list", {"PREBUILDS_RECONCILER": "foo"}, "error: the address of the reconciler is wrong: "),
        ("pools list", {"PREBUILDS_CLAIMS": "foo:bar"}, "error: the address of the claims is wrong: "),
        ("pools list", {"PREBUILDS_TOKEN": "\u00e4"}, "error: the token is none"),
        ("pools list", {"PREBUILDS_TOKEN": "a\nb"}, "error: the token is none"),
        ("pools pause --deployment -V v1", {}, ONE_POOL),
        ("pools pause --template t -V v1", {}, ONE_POOL),
        ("pools resume --template t -V v1", {}, ONE_POOL),
        ("pools reconcile -V v1", {}, ONE_POOL),
        ("pools reconcile --everywhere -V v1", {}, ONE_POOL),
        ("workspaces create t -p size=small -p a=b -p size=large", {}, "error: given more than once: size\n"),
        ("workspaces create t -p size=small -p size=small", {}, "error: given more than once: size\n"),
    ],
)
def test_what_cannot_be_meant_is_told_in_a_line(words: str, variables: dict[str, str], said: str) -> None:
    done = CliRunner().invoke(app, words.split(), env={**NOWHERE, **variables})

    assert done.exit_code == 2
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout
