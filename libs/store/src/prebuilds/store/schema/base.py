"""The base of all models: naming of constraints, and the column types that every table shares."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, TypeVar
from uuid import UUID

from sqlalchemy import DateTime, Enum, Interval, MetaData, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

E = TypeVar("E", bound=StrEnum)

Json = dict[str, Any]
"""A jsonb object; its shape is the business of whoever writes it."""

NewId = Annotated[UUID, mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))]
CreatedAt = Annotated[datetime, mapped_column(server_default=text("now()"))]


class Base(DeclarativeBase):
    """Base of every table."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy as a plain class attribute
        UUID: Uuid(),
        datetime: DateTime(timezone=True),
        timedelta: Interval(),
        str: Text(),
        Json: JSONB(),
        list[str]: ARRAY(Text()),
        list[UUID]: ARRAY(Uuid()),
    }


def spelled(words: type[E]) -> Enum:
    """Text that holds the values of a StrEnum, kept to them by a CHECK."""

    def values(members: type[E]) -> Iterable[str]:
        return [member.value for member in members]

    return Enum(
        words, native_enum=False, create_constraint=True, length=32, values_callable=values, name=words.__name__.lower()
    )
