# Configs: generated, checked, compared, and as they are deployed.
from __future__ import annotations

from clients.control import types
from controlplane.api import wire
from controlplane.api.security import Caller, Rooms
from controlplane.domain.catalog import Signature
from controlplane.domain.config_intent import Accelerator, Aim, GenerateRequest, Kind, Queue, RateLimit
from controlplane.domain.servers import HostFacts
from controlplane.errors import InvalidInput
from controlplane.services.configs import Comparison


def generate_config(model: str, number: str, body: types.Intent, caller: Caller, rooms: Rooms) -> types.GeneratedConfig:
    """A complete config for a version (`latest` for the highest), with the reason for each choice."""
    if number != "latest" and not number.isdecimal():
        raise InvalidInput(f"there is no version {number!r}", hint="use a number, or latest")
    made = rooms.configs.generate(
        caller,
        model,
        None if number == "latest" else int(number),
        lambda signature, host: _request(model, body, signature, host),
        environment=body.environment,
        sets=body.sets,
        unsets=body.unsets,
    )
    return types.GeneratedConfig(
        dict(made.generated.config),
        made.text,
        tuple(wire.of(types.Choice, reason) for reason in made.generated.reasons),
        tuple(wire.of(types.Finding, finding) for finding in made.findings),
        made.hardware,
    )


def parse_config(body: types.ConfigText, rooms: Rooms) -> types.Config:
    """A config.pbtxt as a tree, and as text in its one normal form."""
    config = rooms.configs.parse(body.text)
    return types.Config(dict(config), rooms.configs.render(config))


def lint_config(body: types.ConfigText, caller: Caller, rooms: Rooms) -> types.LintReport:
    found = rooms.configs.lint(caller, body.text, model=body.model, version=body.version, environment=body.environment)
    return types.LintReport(tuple(wire.of(types.Finding, finding) for finding in found.findings), found.hardware)


def diff_configs(body: types.ConfigPair, caller: Caller, rooms: Rooms) -> types.ConfigDiff:
    return _diff(rooms.configs.compare(caller, body.before, body.after))


def diff_revisions(*, env: str, model: str, number: int, base: int, caller: Caller, rooms: Rooms) -> types.ConfigDiff:
    """From revision `base` to this one."""
    return _diff(rooms.configs.compare_revisions(caller, env, model, base, number))


def show_deployed_config(env: str, model: str, caller: Caller, rooms: Rooms) -> types.Config:
    config = rooms.configs.deployed(caller, env, model)
    return types.Config(dict(config), rooms.configs.render(config))


def _diff(found: Comparison) -> types.ConfigDiff:
    differences = tuple(types.Difference(item.path, item.old, item.new) for item in found.differences)
    return types.ConfigDiff(differences, found.reload_class.value)


def _request(model: str, body: types.Intent, signature: Signature, host: HostFacts) -> GenerateRequest:
    queued = body.queue_timeout_us or body.queue_size or body.queue_delay
    return GenerateRequest(
        model=model,
        signature=signature,
        host=host,
        aim=wire.member(Aim, body.aim, "aim"),
        max_batch_size=body.max_batch_size,
        instances=body.instances,
        kind=None if body.kind is None else wire.member(Kind, body.kind, "kind"),
        gpus=body.gpus,
        max_queue_delay_us=body.max_queue_delay_us,
        preferred_batch_sizes=body.preferred_batch_sizes,
        preserve_ordering=body.preserve_ordering,
        priority_levels=body.priority_levels,
        default_priority_level=body.default_priority_level,
        queue=Queue(body.queue_timeout_us, delay=body.queue_delay, max_size=body.queue_size) if queued else None,
        rate_limit=RateLimit(body.resources) if body.resources else None,
        accelerator=None if body.accelerator is None else wire.member(Accelerator, body.accelerator, "accelerator"),
        half_precision=body.half_precision,
        cuda_graphs=body.cuda_graphs,
        response_cache=body.response_cache,
        warmup=body.warmup,
        threads=body.threads,
        parallel_execution=body.parallel_execution,
    )
