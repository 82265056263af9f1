"""The tables of the database. Migrations in `migrations/` create the tables. A test compares them with this module."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    TypeDecorator,
    false,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Json = dict[str, Any]


class UtcDateTime(TypeDecorator[datetime]):
    """A column of aware datetimes in UTC, for databases with time zones (PostgreSQL) and without (SQLite)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base class of all tables: the column types and the names of constraints."""

    # Integers are 64 bits wide, because sizes in bytes and numbers of weights exceed 32 bits.
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UtcDateTime, Json: JSON, list[Any]: JSON, int: BigInteger}
    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "uq": "%(table_name)s_%(column_0_name)s_key",
        }
    )


class Owned:
    """A row of an owner: a team or a person, by name. The owner "" is the service itself. See `service.store.owners`."""

    owner: Mapped[str] = mapped_column(String(64), default="", server_default=text("''"))


class Installation(Base):
    """The only row has a random id of this database. Its blob store holds the same id; see `service.store.marking`.

    `oldest` is the migration of the oldest release that still works with the tables. It is null as long as no migration has
    taken away what an older release needs; see `service.store.migrate`.
    """

    __tablename__ = "installation"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    oldest: Mapped[str | None] = mapped_column(String(32))


class Checkpoint(Owned, Base):
    """An uploaded network: one state_dict of one file. `nern.state_dicts.Found` explains key, first, keys, notes and aliases.

    `choice` has the keys, notes, aliases and forms. In a row of release 0.1.0, it is null and the key is empty. A deleted
    checkpoint has no blobs, but its row stays, because jobs refer to it.
    """

    __tablename__ = "checkpoint"
    __table_args__ = (
        Index("checkpoint_owner", "owner", "id"),
        Index(
            "checkpoint_sha256_key",
            "owner",
            "sha256",
            "key",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    filename: Mapped[str]
    size: Mapped[int]
    format: Mapped[str]
    architecture: Mapped[str | None]
    candidates: Mapped[list[Any]]
    layers: Mapped[list[Any]]
    kept: Mapped[list[Any]]
    weights: Mapped[int]
    parameters: Mapped[int]
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    key: Mapped[str] = mapped_column(server_default=text("''"))
    first: Mapped[bool] = mapped_column(server_default=true())
    choice: Mapped[Json | None]
    ports: Mapped[Json | None]

    @property
    def inputs(self) -> list[Json] | None:
        """The inputs of the network: name, dtype and shape. None for a network that is not a graph."""
        return (self.ports or {}).get("inputs")

    @property
    def outputs(self) -> list[Json] | None:
        """The outputs of the network: name, dtype and shape. None for a network that is not a graph."""
        return (self.ports or {}).get("outputs")

    @property
    def keys(self) -> list[str]:
        """Where the other state_dicts of the file are."""
        return (self.choice or {}).get("keys", [])  # type: ignore[no-any-return]  # JSON is untyped

    @property
    def sequential(self) -> list[str] | None:
        """A description of a plain sequential network that fits the shapes of the tensors, or None."""
        return (self.choice or {}).get("sequential")

    @property
    def notes(self) -> list[str]:
        """What was chosen in the file and what was left out, in sentences."""
        return (self.choice or {}).get("notes", [])  # type: ignore[no-any-return]

    @property
    def aliases(self) -> dict[str, str]:
        """The names of tied tensors, each with the name of the tensor that it is the same as."""
        return (self.choice or {}).get("aliases", {})  # type: ignore[no-any-return]

    @property
    def forms(self) -> list[Json]:
        """The forms that weights are stored in, see `nern.forms.Form.to_json`. `layers` and `kept` have the weights."""
        return (self.choice or {}).get("forms", [])  # type: ignore[no-any-return]


class Graph(Base):
    """The graph of a checkpoint: a program (docs/graphs.md).

    If it came from an ONNX file, `skeleton` is that file without its tensors, and `initialisers` are the names of these.
    """

    __tablename__ = "graph"

    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoint.id"), primary_key=True)
    program: Mapped[Json]
    skeleton: Mapped[bytes | None] = mapped_column(LargeBinary)
    initialisers: Mapped[list[Any] | None]
    created_at: Mapped[datetime]


class Dataset(Owned, Base):
    """Uploaded images or other inputs. `identity` is a hash of everything that the dataset is made from. An owner has one
    dataset of an identity.

    `kind` is images or inputs. `inputs` has the name, dtype and shape of each array of images or inputs, `labels` the kind,
    dtype and shape of the labels. `images` counts the images, and `classes` is the largest label plus 1. What only images have
    is null for inputs. A deleted dataset has no blob, but its row stays.
    """

    __tablename__ = "dataset"
    __table_args__ = (
        Index("dataset_owner", "owner", "id"),
        Index(
            "dataset_identity",
            "owner",
            "identity",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    identity: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))
    name: Mapped[str]
    size: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16), server_default="images")
    inputs: Mapped[list[Any] | None]
    labels: Mapped[Json | None]
    class_names: Mapped[list[Any] | None]
    notes: Mapped[list[Any] | None]
    images: Mapped[int | None]
    height: Mapped[int | None]
    width: Mapped[int | None]
    channels: Mapped[int | None]
    classes: Mapped[int | None]
    mean: Mapped[list[Any] | None]
    std: Mapped[list[Any] | None]
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class Job(Owned, Base):
    """One training that a client asked for.

    A worker may write to the row only while owner and fence in the row are those of its lease; see docs/jobs.md.
    `attempt` counts the attempts, `fruitless` those since the training made progress that was stored. `faults` counts the
    workers in a row that have given the job back because something was wrong with their machine; until `not_before`, no worker
    claims the job. `worker` is where the latest attempt ran: `about` of a row of the table `worker`. `webhook` is the URL that
    is told of the end, and the secret that signs the messages. `request_id` is the id of the request that created the job, and
    `traceparent` names its span (W3C Trace Context). Both are null in rows of older releases.
    """

    __tablename__ = "job"
    __table_args__ = (
        Index("job_state", "state", "id"),
        Index("job_owner", "owner", "id"),
        Index("job_owner_state", "owner", "state", "id"),
        Index("job_idempotency_key", "owner", "idempotency_key", unique=True),
        Index(
            "job_queue",
            "priority",
            "owner",
            "id",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
        Index("job_turn", "owner", "claimed_at"),
        Index("job_checkpoint_id", "checkpoint_id", "id"),
        Index("job_dataset_id", "dataset_id"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoint.id"))
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("dataset.id"))
    noise: Mapped[str | None]
    architecture: Mapped[str | None]
    network: Mapped[Json | None]
    config: Mapped[Json]
    notes: Mapped[list[Any]]
    progress: Mapped[Json | None]
    metrics: Mapped[Json | None]
    error: Mapped[Json | None]
    predictor_id: Mapped[str | None] = mapped_column(String(36))
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    request_digest: Mapped[str | None] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(128))
    traceparent: Mapped[str | None] = mapped_column(String(55))

    priority: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    attempt: Mapped[int] = mapped_column(default=0)
    fruitless: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    faults: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    not_before: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(default=0)
    claimed_at: Mapped[datetime | None]
    worker: Mapped[Json | None]
    webhook: Mapped[Json | None]
    lease_owner: Mapped[str | None] = mapped_column(String(36))
    lease_expires_at: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    pause_requested: Mapped[bool] = mapped_column(default=False, server_default=false())

    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    estimated_finish_at: Mapped[datetime | None]


class Delivery(Base):
    """A message of a webhook: that a job has ended. `attempts` has the time, status and error of each attempt to send it.

    `state` is pending, delivered or failed. A pending message is sent at `due_at`; while a process sends it, `due_at` is when
    another process may take it.
    """

    __tablename__ = "delivery"
    __table_args__ = (Index("delivery_due", "state", "due_at"), Index("delivery_job_id", "job_id"))

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))
    payload: Mapped[Json]
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[list[Any]]
    due_at: Mapped[datetime]
    created_at: Mapped[datetime]


class Worker(Base):
    """A worker that was alive at `seen_at`. The job that it holds is the one whose lease has its id as the owner.

    `about` says where it runs: host, process id, device and release. `free_memory` is in bytes. `fault` is what is wrong with
    its machine; a worker with a fault claims no jobs. `ended` is how the process ended, if it was killed.
    """

    __tablename__ = "worker"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    about: Mapped[Json]
    free_memory: Mapped[int]
    fault: Mapped[str | None]
    ended: Mapped[str | None]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class JobEvent(Base):
    """An event of a job. The events of each job are numbered from 1 without gaps."""

    __tablename__ = "job_event"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    data: Mapped[Json]
    created_at: Mapped[datetime]


class JobSnapshot(Base):
    """A snapshot of a job's training, after `step` steps of the attempt under `fence`. Its bytes are a blob.

    `progress` and `metrics` are those of the job at that step. `progress` is null if nothing was reported before that step.
    """

    __tablename__ = "job_snapshot"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    fence: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int]
    progress: Mapped[Json | None]
    metrics: Mapped[Json]
    created_at: Mapped[datetime]


class Predictor(Owned, Base):
    """The result of a job: the metadata of an artefact. The bytes of the artefact are in `predictor_chunk`."""

    __tablename__ = "predictor"
    __table_args__ = (Index("predictor_owner", "owner", "id"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), unique=True)
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoint.id"))
    architecture: Mapped[str | None]
    config: Mapped[Json]
    layers: Mapped[list[Any]]
    report: Mapped[Json]
    size: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]


class PredictorChunk(Base):
    """One chunk of an artefact. All chunks but the last have the same length, so any range can be read without the rest."""

    __tablename__ = "predictor_chunk"

    predictor_id: Mapped[str] = mapped_column(ForeignKey("predictor.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class Upload(Owned, Base):
    """A resumable upload. Its bytes up to `offset` are stored: the blobs that the rows of `upload_part` name.

    `state` is one of `service.store.uploads`. `length` is None until the client has told it. `header` is the metadata as the
    client sent it, `parameters` what the service has read from it. Every request that goes on with an upload increases `fence`;
    what an earlier request writes after that is refused. One process at a time takes the file in: until `leased_until`.
    `resource` is the path of what the upload has become, and `problem` is why the file was refused.
    """

    __tablename__ = "upload"
    __table_args__ = (Index("upload_state", "state", "id"), Index("upload_expires_at", "expires_at"))

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    filename: Mapped[str]
    parameters: Mapped[Json]
    header: Mapped[str]
    length: Mapped[int | None]
    offset: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    fence: Mapped[int]
    leased_until: Mapped[datetime | None]
    attempts: Mapped[int]
    resource: Mapped[str | None]
    problem: Mapped[Json | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class UploadPart(Base):
    """A part of an upload: its bytes from offset `start` on. The parts of an upload follow each other without gaps."""

    __tablename__ = "upload_part"

    upload_id: Mapped[str] = mapped_column(ForeignKey("upload.id"), primary_key=True)
    start: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[int]
    blob: Mapped[str] = mapped_column(String(36))


class ApiKey(Base):
    """An API key of an owner. The key itself is not stored: `hash` is its SHA-256 hash, and `start` its first characters."""

    __tablename__ = "api_key"
    __table_args__ = (Index("api_key_owner", "owner", "id"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    scope: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(200))
    start: Mapped[str] = mapped_column(String(16))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Share(Base):
    """Another owner, or "*" for every owner, may read a checkpoint, dataset, job or predictor: the one of this id."""

    __tablename__ = "share"
    __table_args__ = (Index("share_reader", "reader", "object_id"),)

    object_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    reader: Mapped[str] = mapped_column(String(64), primary_key=True)
