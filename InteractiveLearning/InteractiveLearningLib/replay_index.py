"""The index of the replay store: its tables and how the database is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, ForeignKey, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from InteractiveLearningLib.accepted import CaseInfo

BUSY_SECONDS = 60


class Table(DeclarativeBase):
    """Base of the rows."""


class SettingRow(Table):
    """A number kept with the store."""

    __tablename__ = "settings"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int]


class PatientRow(Table):
    """A patient by keyed hash, and the side drawn at the first case."""

    __tablename__ = "patients"
    key: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]


class CaseRow(Table):
    """An accepted case; image, labels and confidence name files by their hash."""

    __tablename__ = "cases"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    model: Mapped[str] = mapped_column(index=True)
    patient_key: Mapped[str] = mapped_column(ForeignKey("patients.key"), index=True)
    accepted_at: Mapped[str]
    image: Mapped[str]
    labels: Mapped[str]
    confidence: Mapped[str | None]
    details: Mapped[str]
    consent: Mapped[bool]
    patient: Mapped[PatientRow] = relationship()

    def info(self) -> CaseInfo:
        """The row as a value."""
        details = json.loads(self.details)
        return CaseInfo(
            self.id,
            self.model,
            self.patient_key,
            self.patient.role,
            self.accepted_at,
            tuple(details["label_names"]),
            tuple((axis, index) for axis, index in details["annotated"]),
            details["effort"],
            self.consent,
        )


def open_index(path: Path) -> Engine:
    """The database; transactions with the execution option `refseg_writing` hold the write lock from their start."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where begun says, not where the driver guesses
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Any) -> None:
        writing = connection.get_execution_options().get("refseg_writing")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine
