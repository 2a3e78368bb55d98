# Which secrets a server's admin key may name.
from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from controlplane.domain.environments import ServerSpec
from controlplane.errors import SettingsInvalid
from controlplane.settings import load_settings
from controlplane.wiring import Connections


def connect(home: Path, admin_key: str) -> None:
    """Opens no connection: the first call would."""
    spec = ServerSpec(
        name="one",
        environment="prod",
        address="127.0.0.1:1",
        metrics_url=None,
        repository=str(home / "models"),
        admin_key=admin_key,
        log_file=None,
        home=None,
        tls_ca=None,
        tls_certificate=None,
        tls_key=None,
        created_at=datetime.now(UTC),
    )
    Connections(load_settings(home=home, secrets={"triton": "from the settings"}))(spec)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With files that hold secrets."""
    home = tmp_path / "home"
    (home / "keys").mkdir(parents=True)
    for path in (home / "keys/server-one.key", home / "keys/audit.key", home / "db.sqlite", tmp_path / "server-x.key"):
        path.write_text("secret\n")
    (home / "keys/server-link.key").symlink_to(home / "keys/audit.key")
    return home


@pytest.mark.parametrize("name", ["triton", "{home}/keys/server-one.key"])
def test_an_admin_key_is_a_secret_of_the_settings_or_a_server_key_of_the_home(home: Path, name: str) -> None:
    connect(home, name.format(home=home))


@pytest.mark.parametrize(
    "name",
    [
        "{home}/keys/audit.key",
        "{home}/keys/server-link.key",
        "{home}/keys/server-missing.key",
        "{home}/keys/../db.sqlite",
        "{home}/../server-x.key",
        "/etc/hostname",
        "unknown",
    ],
)
def test_no_other_file_is_read_for_an_admin_key(home: Path, name: str) -> None:
    with pytest.raises(SettingsInvalid, match="there is no secret"):
        connect(home, name.format(home=home))
