# Use cases of configs: generating, checking, comparing, and what is deployed.
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from controlplane.domain.access import Permission, Principal
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Signature
from controlplane.domain.config_diff import FieldChange, Impact, ReloadClass, content_diff, diff, impact
from controlplane.domain.config_findings import Finding
from controlplane.domain.config_intent import Generated, GenerateRequest
from controlplane.domain.config_lint import lint, refuse
from controlplane.domain.config_paths import meet
from controlplane.domain.environments import NOTHING, RevisionContent
from controlplane.domain.servers import HostFacts
from controlplane.errors import InvalidInput, NotFound
from controlplane.services.access import AccessService
from controlplane.services.deployments import base_content
from controlplane.services.hardware import Hardware, of_host, of_server
from controlplane.services.planning import edited, existing_servers
from controlplane.services.ports import ConfigCodec, GoldenReader
from controlplane.storage.unit_of_work import Storage, UnitOfWork


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two configs or revisions differ, and what going from one to the other costs."""

    differences: tuple[FieldChange, ...]
    reload_class: ReloadClass


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """A generated config with its reasons, as text, and what its user may still regret."""

    generated: Generated
    text: str
    findings: tuple[Finding, ...]
    hardware: str


@dataclass(frozen=True, slots=True)
class Linted:
    """What lint found, and the hardware that it took the config to be for, in words."""

    findings: tuple[Finding, ...]
    hardware: str


class ConfigService:
    def __init__(
        self,
        storage: Storage,
        access: AccessService,
        codec: ConfigCodec,
        *,
        generate: Callable[[GenerateRequest], Generated],
        golden: GoldenReader,
        host: HostFacts,
    ) -> None:
        self._storage = storage
        self._access = access
        self._codec = codec
        self._generate = generate
        self._golden = golden
        self._host = host

    def parse(self, text: str) -> JsonObject:
        """config.pbtxt as a tree. Raises ConfigInvalid."""
        return self._codec.parse(text)

    def render(self, config: JsonObject) -> str:
        return self._codec.render(config)

    def lint(
        self, principal: Principal, text: str, *, model: str | None, version: int | None, environment: str | None = None
    ) -> Linted:
        """For a registered version (of `model`, by default its highest), or by itself; for the server of `environment`, or
        one on this host. Raises ConfigInvalid for text that is no config at all."""
        self._access.require(principal, Permission.CATALOG_READ)
        config = self.parse(text)
        hardware = self._hardware(principal, environment)
        signatures: dict[int, Signature] = {}
        if model is not None:
            with self._storage.read() as unit:
                number = version if version is not None else highest(unit, model)
                signature = unit.catalog.version(model, number).inspection.signature
            signatures = {number: signature} if signature else {}
        name = config.get("name")
        found = lint(
            config,
            model=model or (name if isinstance(name, str) else ""),
            signatures=signatures,
            host=hardware.host,
            embedded=hardware.embedded,
        )
        return Linted(found, hardware.words)

    def generate(
        self,
        principal: Principal,
        model: str,
        version: int | None,
        wish: Callable[[Signature, HostFacts], GenerateRequest],
        *,
        environment: str | None = None,
        sets: Sequence[tuple[str, str]] = (),
        unsets: Sequence[str] = (),
    ) -> GeneratedText:
        """For a version, None for the highest, on the server of `environment`, or one on this host; `wish` says what for.
        Raises InvalidInput where the wish does not fit the graph or the hardware, and for an opaque version, which has a
        config of its own."""
        self._access.require(principal, Permission.CATALOG_READ)
        with self._storage.read() as unit:
            found = unit.catalog.version(model, version if version is not None else highest(unit, model))
        signature, golden = found.inspection.signature, found.inspection.golden
        if signature is None:
            raise InvalidInput(
                f"version {found.number} of {model!r} is opaque: nothing is known to generate from",
                hint=f"its own config stands in: tritonctl model show {model} --version {found.number} -o json",
            )
        hardware = self._hardware(principal, environment)
        request = replace(wish(signature, hardware.host or self._host), embedded=hardware.embedded)
        if request.warmup and golden is not None:
            inputs = self._golden(golden)[0].inputs
            request = replace(request, golden_shapes={name: array.shape for name, array in inputs.items()})
        made = self._generate(request)
        config = edited(self._codec, made.config, sets, unsets)
        findings = lint(
            config,
            model=model,
            signatures={found.number: signature},
            host=hardware.host,
            embedded=hardware.embedded,
        )
        refuse(findings)
        # Whoever took a field out does not want to be told to put it in.
        findings = tuple(found for found in findings if not (found.path and any(meet(found.path, p) for p in unsets)))
        return GeneratedText(
            made.edited(config, sets, unsets), self._codec.render(config), findings, hardware.generating
        )

    def _hardware(self, principal: Principal, environment: str | None) -> Hardware:
        if environment is None:
            return of_host(self._host)
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            return of_server(existing_servers(unit, environment), self._host)

    def compare(self, principal: Principal, before: str, after: str) -> Comparison:
        """Two config.pbtxt."""
        self._access.require(principal, Permission.CATALOG_READ)
        old, new = self.parse(before), self.parse(after)
        found = impact(RevisionContent((), old), RevisionContent((), new), {})
        return Comparison(diff(old, new), found.reload_class)

    def compare_revisions(
        self, principal: Principal, environment: str, model: str, before: int, after: int
    ) -> Comparison:
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            unit.environments.get(environment)
            old, new = (_content(unit, environment, model, number) for number in (before, after))
            interfaces = {
                version.number: version.inspection.signature.interface()
                for version in unit.catalog.versions(model)
                if version.inspection.signature is not None
            }
        found: Impact = impact(old, new, interfaces)
        return Comparison(content_diff(old, new), found.reload_class)

    def deployed(self, principal: Principal, environment: str, model: str) -> JsonObject:
        """The config of the current revision. Raises NotFound when nothing is deployed."""
        self._access.require(principal, Permission.ENVIRONMENT_READ)
        with self._storage.read() as unit:
            unit.environments.get(environment)
            deployment = unit.environments.deployment(environment, model)
            content = NOTHING if deployment is None else base_content(unit, deployment)
        if content.config is None:
            raise NotFound(
                f"{model!r} is not deployed in {environment!r}", hint=f"tritonctl deployment list -e {environment}"
            )
        return content.config


def highest(unit: UnitOfWork, model: str) -> int:
    unit.catalog.model(model)
    number = unit.catalog.highest_number(model)
    if number == 0:
        raise NotFound(f"{model!r} has no version", hint=f"tritonctl model register {model} FILE")
    return number


def _content(unit: UnitOfWork, environment: str, model: str, number: int) -> RevisionContent:
    return NOTHING if number == 0 else unit.environments.revision(environment, model, number).content
