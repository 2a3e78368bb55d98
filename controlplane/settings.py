# Environment and TOML file become one frozen Settings.
"""Every setting is `TRITONCTL_SECTION__NAME` in the environment, or `name` under `[section]` of the file that
`TRITONCTL_SETTINGS` names (default `$TRITONCTL_HOME/settings.toml`). The environment wins."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from controlplane.errors import SettingsInvalid


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatabaseSettings(_Section):
    url: str | None = Field(default=None, description="SQLAlchemy URL; default: db.sqlite in the home directory")


class ArtifactSettings(_Section):
    url: str | None = Field(default=None, description="where artifacts are kept; default: artifacts/ in the home")
    max_bytes: int = Field(default=16 * 2**30, description="the largest artifact that may be registered, in bytes")


class ApiSettings(_Section):
    host: str = "127.0.0.1"
    port: int = Field(default=8900, ge=0, le=65535)


class WorkerSettings(_Section):
    lease_seconds: float = Field(default=30.0, gt=0, description="how long a silent worker keeps a deployment")
    poll_seconds: float = Field(default=0.03, gt=0, description="least pause between looks for work")
    parallel: int = Field(default=8, ge=1, le=64, description="deployments that one worker serves side by side")
    watch_seconds: float = Field(default=5.0, gt=0, description="pause between two watches of one deployment")
    probe_seconds: float = Field(default=30.0, gt=0, description="how long an instance may take to answer a probe")
    checkpoint_seconds: float = Field(default=60.0, gt=0, description="pause between two signed checkpoints")


class AuditSettings(_Section):
    key_file: str | None = Field(default=None, description="Ed25519 signing key; default: keys/audit.key in the home")
    checkpoint_dir: str | None = Field(default=None, description="default: keys/checkpoints in the home")
    origin: str = Field(default="triton-controlplane", description="the log's name in its checkpoints")


class InspectionSettings(_Section):
    seconds: float = Field(default=120.0, gt=0, description="wall clock of one validation")
    memory_bytes: int = Field(default=8 * 2**30, gt=0, description="memory of one validation")


class WebhookSettings(_Section):
    link_local: bool = Field(
        default=False, description="whether letters may go to link-local addresses and cloud metadata services"
    )


class SweepSettings(_Section):
    home: Path | None = Field(default=None, description="where the embedded bench lies; default: bench/ in the home")
    memory_bytes: int | None = Field(
        default=None, gt=0, description="what candidates on a bench may take together; default: half of the memory"
    )
    keep_awake: bool = Field(
        default=False,
        description="keep this host's processors from idling while its bench measures, as a virtual machine's cost time to wake",
    )
    benches: tuple[str, ...] = Field(
        default=(), description="addresses besides this host's own that sweeps may be measured on"
    )


class Settings(BaseSettings):
    """Read with `load_settings`. Frozen: nothing changes it after start."""

    model_config = SettingsConfigDict(
        env_prefix="TRITONCTL_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    home: Path = Field(default_factory=lambda: Path.home() / ".tritonctl")
    settings: Path | None = None
    token: str | None = Field(default=None, description="the command line's bearer token, instead of a context's")
    context: str | None = Field(default=None, description="the command line's context")
    tritonserver: Path | None = Field(
        default=None, description="a tritonserver binary, instead of the runtime environment"
    )
    secrets: dict[str, str] = Field(default_factory=dict, description="restricted-protocol keys of servers, by name")
    database: DatabaseSettings = DatabaseSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    api: ApiSettings = ApiSettings()
    worker: WorkerSettings = WorkerSettings()
    audit: AuditSettings = AuditSettings()
    inspection: InspectionSettings = InspectionSettings()
    webhooks: WebhookSettings = WebhookSettings()
    sweeps: SweepSettings = SweepSettings()

    @property
    def database_url(self) -> str:
        return self.database.url or f"sqlite:///{self.home / 'db.sqlite'}"

    @property
    def key_file(self) -> Path:
        return Path(self.audit.key_file) if self.audit.key_file else self.home / "keys" / "audit.key"

    @property
    def checkpoint_dir(self) -> Path:
        return Path(self.audit.checkpoint_dir) if self.audit.checkpoint_dir else self.home / "keys" / "checkpoints"

    @property
    def context_file(self) -> Path:
        return self.home / "context.toml"

    @property
    def runtime_dir(self) -> Path:
        return self.home / "runtime"

    @property
    def bench_home(self) -> Path:
        return self.sweeps.home or self.home / "bench"

    def server_home(self, name: str) -> Path:
        return self.home / "servers" / name

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the base class calls by keyword
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the base class calls by keyword
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        home = Path(os.environ.get("TRITONCTL_HOME", Path.home() / ".tritonctl"))
        file = Path(os.environ.get("TRITONCTL_SETTINGS", home / "settings.toml"))
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file))


def load_settings(**overrides: object) -> Settings:
    """Raises SettingsInvalid, naming the setting."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic validates what it is given
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsInvalid(f"setting {where!r}: {first['msg']}", hint="see the settings in README.md") from None
