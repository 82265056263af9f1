"""Everything that can be set, as environment variables `NERN_*`."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

GIB = 2**30


class Settings(BaseSettings):
    """Defaults run the embedded service: SQLite, a folder and a local worker."""

    model_config = SettingsConfigDict(env_prefix="NERN_", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one, which is printed")
    api_keys: SecretStr = Field(
        SecretStr(""), description="Comma list of scope:key, scopes read, write, admin; needed unless the host is loopback"
    )
    data_dir: Path = Field(Path("nern-data"), description="The embedded database, blobs and logs")
    database_url: str | None = Field(None, description="SQLAlchemy URL; none: an SQLite file in the data directory")
    broker_url: str | None = Field(None, description="Redis URL that wakes Celery workers; none: a local worker polls")
    blob_url: str | None = Field(None, description="Where uploads go, as file:///… or s3://…; none: the data directory")
    max_upload_bytes: int = Field(4 * GIB, gt=0, description="The largest file that is accepted")
    max_body_bytes: int = Field(8 * 2**20, gt=0, description="The largest JSON body that is accepted")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where workers train: cpu, cuda, cuda:N; auto: a GPU if there is one",
    )
    threads: int = Field(0, ge=0, description="Processor threads of a training; 0: all cores")
    inspect_seconds: int = Field(120, gt=0, description="Time limit for reading one uploaded file")
    inspectors: int = Field(
        2, ge=0, description="Processes that wait for an upload, 300 MB each; 0: one is started when a file comes"
    )
    lease_seconds: float = Field(30, gt=0, description="How long a silent worker keeps its job")
    max_attempts: int = Field(3, gt=0, description="How often a job is started before it fails")
    poll_seconds: float = Field(0.5, gt=0, description="How often workers look for jobs and event streams for events")
    sweep_seconds: float = Field(5, gt=0, description="How often lost jobs are looked for")

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'nern.sqlite3'}"

    @property
    def blobs(self) -> str:
        """The blob store's URL."""
        return self.blob_url or (self.data_dir.resolve() / "blobs").as_uri()

    @property
    def staging(self) -> Path:
        """Where uploads lie until they have been inspected."""
        return self.data_dir.resolve() / "staging"
