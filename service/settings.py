"""The settings, which are read from environment variables `NERN_*`."""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.webhooks.addresses import parse_networks

MIB, GIB = 2**20, 2**30

PREFIX = "NERN_"

# Variables of the scripts and the tests, and those that Kubernetes sets for a Service whose name begins with nern-.
NO_SETTINGS = re.compile(
    rf"^{PREFIX}(PYTHON|TEST_.*|.+_SERVICE_(HOST|PORT(_.*)?)|.+_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$"
)


class LogSettings(BaseSettings):
    """How a process writes its log. It is known before the other settings, which may be wrong."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    log_format: Literal["text", "json"] = Field(
        "text",
        description="The form of the [log](logs.md) of every process: `text` for people, or `json`, one object a line, for "
        "what collects logs",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="The least level that is logged: `debug`, `info`, `warning` or `error`. Libraries log nothing below `info`",
    )


class Settings(LogSettings):
    """All settings. The defaults run the embedded service: an SQLite database, a folder of blobs and a local worker.

    The descriptions are Markdown. `service.reference` writes them into docs/settings.md.
    """

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. On an address that is not loopback, the service starts only with API keys",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on. `0` picks a free port, which is printed")
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="`scope:key` or `scope@owner:key`, several separated by commas. A key has 16 characters or more. Scopes: "
        "`read`, `write` (also uploads and jobs), `admin` (also deletion). Clients send `Authorization: Bearer KEY`",
    )
    data_dir: Path = Field(
        Path("nern-data"),
        description="Folder of the embedded database, the blobs, uploads in progress (`staging`) and the worker's log "
        "(`logs/worker.log`)",
    )
    database_url: str | None = Field(
        None,
        description="`postgresql://…`. None: an SQLite file in the data folder, which `nern serve` migrates when it starts",
    )
    broker_url: str | None = Field(
        None,
        description="`redis://…`, through which the API wakes Celery workers. None: `nern serve` runs a local worker",
    )
    blob_url: str | None = Field(
        None,
        description="`file:///…` or `s3://bucket/prefix` (credentials from `AWS_*`). None: `blobs` in the data folder",
    )
    max_upload_bytes: int = Field(
        4 * GIB,
        gt=0,
        description="The largest file that is accepted, and the most that a dataset may take unpacked",
    )
    upload_expiry_hours: float = Field(
        24,
        gt=0,
        description="Hours for which a resumable upload is kept after its latest byte, and its outcome after its end",
    )
    max_body_bytes: int = Field(8 * MIB, gt=0, description="The largest JSON body that is accepted")
    max_connections: int = Field(
        4096,
        gt=0,
        description="Connections of clients to an API process. Beyond that, those are closed that have waited for a request "
        "for the longest",
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65534,
        description="Port for Prometheus, on the same address as the API. The local worker has the next port. 0: none",
    )
    owner_requests_per_minute: int = Field(
        0,
        ge=0,
        description="Requests that an owner may send in a minute, all of them at once if it likes. More are answered 429. "
        "Replicas count together in Redis, if there is one. 0: any number",
    )
    owner_waiting_jobs: int = Field(0, ge=0, description="Jobs of an owner that may wait. More are answered 429. 0: any number")
    owner_running_jobs: int = Field(
        0, ge=0, description="Jobs of an owner that run at the same time; the others wait. 0: any number"
    )
    owner_stored_bytes: int = Field(
        0,
        ge=0,
        description="Bytes of checkpoints, datasets, predictors and resumable uploads that an owner may have stored. More are "
        "answered 413. 0: any number",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where workers train: `cpu`, `cuda`, `cuda:1` (the second of several GPUs), or `auto`: a GPU if there is "
        "one",
    )
    threads: int = Field(0, ge=0, description="Processor threads of a training. 0: one for each core")
    inspect_seconds: int = Field(120, gt=0, description="Time limit for the inspection of one uploaded file")
    inspectors: int = Field(
        2,
        ge=0,
        description="Processes of the API that wait for an uploaded file. Each takes 300 MB of memory. With 0, a process is "
        "started when a file comes, and its start takes two seconds",
    )
    lease_seconds: float = Field(
        30,
        gt=0,
        description="How long a worker that has gone silent keeps its job, and an API process that has gone silent the file "
        "that it inspects",
    )
    max_attempts: int = Field(
        3,
        gt=0,
        description="A job fails after so many attempts in a row without progress that was stored, whose workers went silent. "
        "Also how often an API process inspects the file of a resumable upload without being asked",
    )
    snapshot_seconds: float = Field(
        10,
        ge=0,
        description="How many seconds of work a job loses at most when its worker dies: the time between two snapshots of a "
        "training. It is longer where snapshots would take more than 2% of the time",
    )
    webhook_networks: str = Field(
        "",
        description="Networks that [webhooks](jobs.md#webhooks) may be sent to besides public addresses: a comma-separated "
        "list such as `10.0.0.0/8`",
    )
    keep_events_days: float = Field(
        30, ge=0, description="Days after the end of a job for which its events are kept. 0: for ever"
    )
    keep_jobs_days: float = Field(
        90,
        ge=0,
        description="Days for which failed and cancelled jobs are kept, and those whose predictor was deleted. 0: for ever",
    )
    keep_snapshots_days: float = Field(
        7,
        ge=0,
        description="Days for which failed and cancelled jobs keep their snapshots, for a `retry` from there. 0: for ever",
    )
    poll_seconds: float = Field(0.5, gt=0, description="How often idle workers look for jobs, and event streams for events")
    sweep_seconds: float = Field(
        5,
        gt=0,
        description="How often the API looks for jobs of silent workers, and for resumable uploads that have expired or wait "
        "for their inspection",
    )

    @classmethod
    def load(cls) -> "Settings":
        """The settings of this process. Raises ValueError for a variable `NERN_*` that is no setting, and for a wrong value."""
        if wrong := unknown(os.environ):
            raise ValueError("; ".join(wrong))
        return cls()

    @field_validator("webhook_networks")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        parse_networks(text)
        return text

    @property
    def database(self) -> str:
        """The URL of the database."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'nern.sqlite3'}"

    @property
    def blobs(self) -> str:
        """The URL of the blob store."""
        return self.blob_url or (self.data_dir.resolve() / "blobs").as_uri()

    @property
    def staging(self) -> Path:
        """The folder of uploads in progress. A file is removed from this folder when it has been inspected and stored."""
        return self.data_dir.resolve() / "staging"


def unknown(names: Iterable[str]) -> list[str]:
    """A sentence about each name that begins like a setting and is none."""
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    found = []
    for name in sorted(names):
        if name.startswith(PREFIX) and name not in known and not NO_SETTINGS.match(name):
            near = get_close_matches(name, known, n=1)
            found.append(f"{name} is no setting" + (f"; did you mean {near[0]}?" if near else ""))
    return found
