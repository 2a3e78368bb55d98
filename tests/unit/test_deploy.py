# What deploy/ promises and no machine here can run: the compose file parses, names files that exist, gives Triton its flags.
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.cli.app import app
from controlplane.triton.runtime.launch import ADMIN_KEY, RESTRICTED
from controlplane.wiring import ADMIN_KEY_NAME
from tests.unit.test_docs import unknown_parts

DEPLOY = Path(__file__).parents[2] / "deploy"
ROOT = DEPLOY.parent


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    parsed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert isinstance(parsed, dict)
    return parsed


def test_triton_is_started_with_the_flags_that_the_design_rests_on(compose: dict[str, Any]) -> None:
    key = "${TRITON_ADMIN_KEY:?set it in .env}"

    assert compose["services"]["triton"]["command"] == [
        "tritonserver",
        "--model-repository=/srv/triton/models",
        "--model-control-mode=explicit",
        "--load-model=*",
        "--exit-on-error=false",
        "--strict-readiness=false",
        f"--grpc-restricted-protocol={RESTRICTED}:{ADMIN_KEY}={key}",
        f"--http-restricted-api={RESTRICTED}:{ADMIN_KEY}={key}",
    ]


def test_the_worker_sends_the_key_under_the_name_that_triton_asks_for() -> None:
    assert ADMIN_KEY_NAME == ADMIN_KEY


def test_worker_and_triton_see_the_repository_at_the_same_path_and_only_the_worker_may_write(
    compose: dict[str, Any],
) -> None:
    services = compose["services"]

    assert "repository:/srv/triton" in services["worker"]["volumes"]
    assert services["triton"]["volumes"] == ["repository:/srv/triton:ro"]


def test_staging_lies_on_the_volume_of_the_repository(compose: dict[str, Any]) -> None:
    """`<repository>/../.tritonctl-models/staging` is where versions are made before they are renamed in."""
    mounted = {volume.split(":")[1] for volume in compose["services"]["worker"]["volumes"]}

    assert str(Path("/srv/triton/models").parent) in mounted


def test_every_volume_that_is_mounted_is_declared(compose: dict[str, Any]) -> None:
    mounted = {volume.split(":")[0] for service in compose["services"].values() for volume in service["volumes"]}

    assert mounted == set(compose["volumes"])


def test_files_that_are_referred_to_exist(compose: dict[str, Any]) -> None:
    build = compose["services"]["api"]["build"]
    copied = re.findall(r"^COPY (?!--from|\. )(\S+) ", (DEPLOY / "Containerfile").read_text(), re.MULTILINE)

    assert ((DEPLOY / build["context"]).resolve() / build["dockerfile"]).is_file()
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert copied == ["requirements/server.txt"]


@pytest.mark.parametrize("service", ["migrate", "api", "worker"])
def test_our_containers_run_commands_that_exist(compose: dict[str, Any], service: str) -> None:
    command = compose["services"][service]["command"]

    assert unknown_parts(" ".join(["tritonctl", *command])) == []
    assert command[0] in app.list_commands(None)  # type: ignore[arg-type]  # the root group does not look at it


def test_commands_in_the_runbook_that_run_in_a_container_exist() -> None:
    runbook = (DEPLOY / "README.md").read_text()
    lines = re.findall(r"^docker compose run --rm(?: -T)?(?: --no-deps)? (?:api|worker) (.+)$", runbook, re.MULTILINE)

    assert len(lines) >= 3
    assert {line: unknown for line in lines if (unknown := unknown_parts(f"tritonctl {line}"))} == {}


def test_every_variable_that_must_be_set_stands_in_the_example(compose: dict[str, Any]) -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text()))
    given = set(re.findall(r"^(\w+)=", (DEPLOY / ".env.example").read_text(), re.MULTILINE))

    assert asked == given


def test_every_image_is_pinned_to_a_tag(compose: dict[str, Any]) -> None:
    images = {service["image"] for service in compose["services"].values()}
    bases = re.findall(r"^FROM (\S+)", (DEPLOY / "Containerfile").read_text(), re.MULTILINE)

    assert [image for image in [*images, *bases] if not re.search(r":[^/]+$", image) or image.endswith("latest")] == []
