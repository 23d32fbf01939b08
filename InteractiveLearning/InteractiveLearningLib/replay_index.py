"""The index of the replay store: its tables, how the database is opened, and what differs between the two databases.

SQLite in the store's own folder, or PostgreSQL for a site. Both give a writer one lock that is held from the start of
its transaction and that falls when its process dies: BEGIN IMMEDIATE, and an advisory lock of the transaction.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from RefSegLib.durable import write_durably
from RefSegLib.errors import BadInput, RefSegError
from sqlalchemy import Engine, ForeignKey, create_engine, event, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from InteractiveLearningLib.accepted import CaseInfo

BUSY_SECONDS = 60
SETTING = "REFSEG_DATABASE"
SCHEMA = 2  # 2: the site of a case, cases that are gone
ADVISORY_LOCK = 0x526566536567  # "RefSeg"


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
    site: Mapped[str] = mapped_column(server_default="")
    patient: Mapped[PatientRow] = relationship()

    def info(self) -> CaseInfo:
        """The row as a value."""
        details = json.loads(self.details)
        names = tuple(details["label_names"])
        return CaseInfo(
            self.id,
            self.model,
            self.patient_key,
            self.patient.role,
            self.accepted_at,
            names,
            tuple((axis, index) for axis, index in details["annotated"]),
            details["effort"],
            self.consent,
            self.site,
            tuple(details.get("structures", names)),  # cases of before did not say which were there
        )

    def arrays(self) -> set[str]:
        """Names of the files of this case."""
        return {name for name in (self.image, self.labels, self.confidence) if name}


class PastRow(Table):
    """A case that was retired or gave way to others: for naming the versions that had learnt from a patient."""

    __tablename__ = "past_cases"
    id: Mapped[str] = mapped_column(primary_key=True)
    patient_key: Mapped[str] = mapped_column(ForeignKey("patients.key"), index=True)


def open_index(file: Path, database: str | None = None) -> Engine:
    """The database; transactions with the execution option `refseg_writing` hold the write lock from their start.

    database: a URL postgresql://user:password@host/name; without one that of the environment's REFSEG_DATABASE;
        without that, SQLite in `file`. Raises BadInput for a URL that is none, RefSegError without a driver for it.
    """
    database = database or os.environ.get(SETTING)
    return _postgresql(database) if database else _sqlite(file)


def upgrade_index(db: Session) -> None:
    """Create what tables and columns are missing. Raises RefSegError if the index is newer than this program."""
    connection = db.connection()
    Table.metadata.create_all(connection)
    schema = db.get(SettingRow, "schema") or SettingRow(name="schema", value=SCHEMA)
    if schema.value > SCHEMA:
        raise RefSegError("The index of the replay store was written by a newer RefSeg. Update this one.")
    if "site" not in {column["name"] for column in inspect(connection).get_columns("cases")}:
        db.execute(text("ALTER TABLE cases ADD COLUMN site VARCHAR NOT NULL DEFAULT ''"))
    if connection.dialect.name == "sqlite":
        db.execute(text(f"PRAGMA user_version = {SCHEMA}"))  # where programs of schema 1 look
    schema.value = SCHEMA
    db.add(schema)


def belong_together(db: Session, folder: Path, *, empty: bool) -> None:
    """Give the index an id and its folder the same.

    Raises RefSegError for an index that is not the one of the folder's arrays: it would take them for leftovers and
    sweep them. empty: there are no arrays.
    """
    file = folder / "index.id"
    here = file.read_text() if file.exists() else None
    known = db.get(SettingRow, "index")
    before = known is None and db.get(SettingRow, "validation_patients") is not None  # of before there was an id
    if known is None:
        known = SettingRow(name="index", value=secrets.randbits(31))
        db.add(known)
    unused = empty and db.scalar(select(CaseRow.id).limit(1)) is None
    if not (here == str(known.value) or before or unused):
        raise RefSegError(
            f"The index of the replay store ({db.get_bind().url.render_as_string()}) is not the one of the arrays in "
            f"{folder}. Check {SETTING} and where the store is. To move a store to another database, export it, move "
            f"the folder {folder} away, set {SETTING} and import what was exported."
        )
    if here != str(known.value):
        write_durably(file, str(known.value).encode())


@contextmanager
def said_plainly(folder: Path) -> Iterator[None]:
    """Turn what the disk and the database of the store in `folder` say into a sentence."""
    try:
        yield
    except (DBAPIError, sqlite3.DatabaseError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        kept = "nothing was changed"
        if getattr(error, "connection_invalidated", False):  # it may have gone while it said that it was done
            kept = "and whether the last change was kept shows when the database answers again"
        raise RefSegError(f"The replay store in {folder} could not be written, {kept}: {cause}.") from error


def overwrite_deleted(engine: Engine) -> None:
    """Rewrite the tables, so that no deleted row stays in the files of the database.

    PostgreSQL keeps them in its write-ahead log until it reuses that. Raises RefSegError if it could not be done.
    """
    try:
        if engine.dialect.name == "sqlite":
            with closing(engine.raw_connection()) as raw:
                raw.cursor().execute("VACUUM")
                busy, *_ = raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise RefSegError("somebody else is reading the store")
        else:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM (FULL) cases, past_cases, patients")
    except (DBAPIError, sqlite3.Error, RefSegError) as error:
        cause = getattr(error, "orig", None) or error
        raise RefSegError(
            f"What was deleted is gone from the replay store, but not yet overwritten on the disk: {cause}. "
            "Do it again to finish."
        ) from error


def _sqlite(file: Path) -> Engine:
    engine = create_engine(f"sqlite:///{file}", connect_args={"timeout": BUSY_SECONDS})

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


def _postgresql(database: str) -> Engine:
    try:
        url = make_url(database)
    except ArgumentError:
        url = None  # not shown: whatever it is may hold a password
    if url is None or url.get_backend_name() not in ("postgresql", "postgres"):
        raise BadInput(
            f"{SETTING} must look like postgresql://user:password@host/name. "
            "Without it, the index is an SQLite file in the store's own folder."
        )
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, isolation_level="READ COMMITTED"
        )
    except ImportError as error:
        raise RefSegError(
            f"{SETTING} names a PostgreSQL database, but psycopg is not installed: pip install 'refseg[site]'."
        ) from error

    @event.listens_for(engine, "begin")
    def begun(connection: Any) -> None:
        if connection.get_execution_options().get("refseg_writing"):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'")
            connection.exec_driver_sql("SET LOCAL synchronous_commit = on")  # on the disk when told so
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")

    return engine
