"""`prebuilds tokens`: where no identity provider is, tokens are made with a key of one's own."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from prebuilds.cli.connection import EXIT_USAGE, fail
from prebuilds.domain.principals import Role
from prebuilds.sdk.keys import SigningKey
from prebuilds.sdk.tokens import issue_token

_ROLES: Final = {role.value: role for role in Role}

app = typer.Typer(help="Tokens of people, for who has the signing key.", no_args_is_help=True)


@app.command()
def issue(
    subject: Annotated[str, typer.Argument(help="Who it is, for ever.")],
    *,
    key: Annotated[Path, typer.Option(help="PEM or JWK file with the Ed25519 signing key.")],
    role: Annotated[
        list[str] | None, typer.Option(help="Role in an organization, such as default=member; may be repeated.")
    ] = None,
    operator: Annotated[bool, typer.Option("--operator", help="May do everything everywhere.")] = False,
    name: Annotated[str, typer.Option(help="What people call them; default: the subject.")] = "",
    hours: Annotated[float, typer.Option(min=0.01, max=24 * 365, help="How long it is valid.")] = 12,
    issuer: Annotated[
        str, typer.Option(envvar="PREBUILDS_TOKEN_ISSUER", help="Issuer of people's tokens, as the servers are set.")
    ] = "prebuilds",
    audience: Annotated[
        str, typer.Option(envvar="PREBUILDS_TOKEN_AUDIENCE", help="Audience of the tokens, as the servers are set.")
    ] = "prebuilds",
) -> None:
    """Print a token; whoever has it is that person until it expires.

    Servers believe it whose PREBUILDS_TOKEN_KEYS_FILE has the key's public
    half and whose PREBUILDS_TOKEN_ISSUER and PREBUILDS_TOKEN_AUDIENCE are
    the token's; its roles count where PREBUILDS_TOKEN_ISSUER_AUTHORITATIVE.
    """
    try:
        token = issue_token(
            SigningKey.read(key),
            issuer=issuer,
            audience=audience,
            subject=subject,
            name=name or None,
            organizations=_roles(role or []),
            operator=operator,
            lifetime=timedelta(hours=hours),
        )
    except (OSError, ValueError) as error:
        fail(str(error), EXIT_USAGE)
    sys.stdout.write(token + "\n")


def _roles(given: list[str]) -> dict[str, list[Role]]:
    roles: dict[str, list[Role]] = {}
    for each in given:
        organization, equals, role = each.partition("=")
        if not equals or role not in _ROLES:
            raise ValueError(f"{each!r} is not ORGANIZATION=ROLE, with a role of {', '.join(_ROLES)}")
        roles.setdefault(organization, []).append(_ROLES[role])
    return roles
