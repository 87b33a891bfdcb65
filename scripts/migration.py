"""Write the first migration's statements from the models; `--check` only says whether they are fresh.

Until the first release every change of the models goes into 0001. Afterwards that file stays as it is, this script
goes, and each change is a migration of its own.
"""

from __future__ import annotations

import argparse
import sys
from itertools import groupby
from pathlib import Path
from typing import Final

from sqlalchemy import create_mock_engine
from sqlalchemy.schema import AddConstraint, CreateIndex, ExecutableDDLElement

from prebuilds.store import migrate
from prebuilds.store.schema import Base

TARGET: Final = Path(migrate.__file__).with_name("migrations") / "versions" / "0001_initial.sql"
HEADER: Final = "-- Written by scripts/migration.py from the models of prebuilds.store.schema.\n"


def statements() -> str:
    """Give all that `create_all` would send, the DDL that hangs on it included."""
    sent: list[tuple[bool, str]] = []

    def send(statement: ExecutableDDLElement, *_: object, **__: object) -> None:
        lines = str(statement.compile(dialect=engine.dialect)).strip().splitlines()
        text = "\n".join(line.rstrip().expandtabs(4) for line in lines) + ";\n"
        sent.append((isinstance(statement, (CreateIndex, AddConstraint)), text))

    engine = create_mock_engine("postgresql+psycopg://", send)
    Base.metadata.create_all(engine, checkfirst=False)
    written = [HEADER]
    # SQLAlchemy keeps indexes and circular foreign keys in sets.
    for unordered, run in groupby(sent, key=lambda each: each[0]):
        texts = [text for _, text in run]
        written += sorted(texts) if unordered else texts
    return "\n".join(written)


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail where the file is not fresh")
    check: bool = parser.parse_args().check
    fresh = statements()
    if TARGET.exists() and TARGET.read_text() == fresh:
        return 0
    if check:
        print(f"{TARGET} does not follow from the models: run scripts/migration.py")
        return 1
    TARGET.write_text(fresh)
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
