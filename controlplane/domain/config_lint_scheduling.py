# Lint, third room: batching, queues, priorities, sequences, cache.
from __future__ import annotations

from collections.abc import Iterator

from controlplane.domain.canonical import JsonObject
from controlplane.domain.config_findings import Finding, Subject, refused, regret
from controlplane.domain.config_tree import message, messages, number, numbers, text


def findings(subject: Subject) -> Iterator[Finding]:
    if "dynamic_batching" in subject.config:
        batching = subject.part("dynamic_batching")
        yield from _batching(subject, batching)
        yield from _priorities(batching)
        yield from _queue(
            batching, "dynamic_batching.default_queue_policy", message(batching.get("default_queue_policy"))
        )
        for level, policy in message(batching.get("priority_queue_policy")).items():
            yield from _queue(batching, f'dynamic_batching.priority_queue_policy["{level}"]', message(policy))
    if "sequence_batching" in subject.config:
        oldest = message(subject.part("sequence_batching").get("oldest"))
        yield from _preferred(subject, "sequence_batching.oldest.preferred_batch_size", oldest)
    yield from _cache(subject)
    yield from _unknown_to_the_embedded_server(subject)


def _batching(subject: Subject, batching: JsonObject) -> Iterator[Finding]:
    yield from _preferred(subject, "dynamic_batching.preferred_batch_size", batching)
    if subject.rows > 1:
        return
    rows = subject.rows
    if not {"default_queue_policy", "priority_queue_policy", "priority_levels"} & set(
        batching
    ):  # they act without a batch too
        yield regret(
            "batching.without_batch",
            "dynamic_batching",
            f"dynamic_batching joins nothing: max_batch_size is {rows}",
            "raise max_batch_size where the model can batch, or unset dynamic_batching",
        )
    if delay := number(batching.get("max_queue_delay_microseconds")):
        yield regret(
            "batching.delay_for_nothing",
            "dynamic_batching.max_queue_delay_microseconds",
            f"a queue delay of {delay} µs waits for company that max_batch_size {rows} does not let in",
            "unset dynamic_batching.max_queue_delay_microseconds",
        )


def _preferred(subject: Subject, path: str, batching: JsonObject) -> Iterator[Finding]:
    for size in numbers(batching.get("preferred_batch_size")):
        if size < 1:
            yield refused(
                "batching.preferred", path, f"the preferred batch size {size} is not positive", "use 1 or more"
            )
        elif size > subject.rows >= 0:
            yield refused(
                "batching.preferred",
                path,
                f"the preferred batch size {size} is over max_batch_size {subject.rows}",
                f"use at most {subject.rows}, or unset preferred_batch_size",
            )


def _priorities(batching: JsonObject) -> Iterator[Finding]:
    levels, default = number(batching.get("priority_levels")), number(batching.get("default_priority_level"))
    policies = message(batching.get("priority_queue_policy"))
    if levels == 0:
        for field, there in (("default_priority_level", default), ("priority_queue_policy", policies)):
            if there:
                yield regret(
                    "priority.without_levels",
                    f"dynamic_batching.{field}",
                    f"{field} says nothing: there are no priority_levels",
                    "set dynamic_batching.priority_levels",
                )
        return
    if not 1 <= default <= levels:
        yield refused(
            "priority.default",
            "dynamic_batching.default_priority_level",
            f"default_priority_level is {default}, the levels are 1 to {levels}",
            "set default_priority_level to one of them",
        )
    for level in policies:
        if not 1 <= number(level) <= levels:
            yield refused(
                "priority.level",
                f'dynamic_batching.priority_queue_policy["{level}"]',
                f"there is no level {level}, the levels are 1 to {levels}",
                "remove it or raise priority_levels",
            )
    if batching.get("preserve_ordering") is True and levels > 1:
        yield refused(
            "priority.ordering",
            "dynamic_batching.preserve_ordering",
            f"preserve_ordering does not go with {levels} priority levels",
            "unset one of the two",
        )


def _queue(batching: JsonObject, path: str, policy: JsonObject) -> Iterator[Finding]:
    timeout = number(policy.get("default_timeout_microseconds"))
    delay = number(batching.get("max_queue_delay_microseconds"))
    if (
        timeout == 0
        and text(policy.get("timeout_action")) == "DELAY"
        and policy.get("allow_timeout_override") is not True
    ):
        yield regret(
            "queue.no_timeout",
            f"{path}.timeout_action",
            "timeout_action DELAY never acts: there is no timeout",
            f"set {path}.default_timeout_microseconds",
        )
    if 0 < timeout <= delay:
        yield regret(
            "queue.timeout_in_delay",
            f"{path}.default_timeout_microseconds",
            f"requests time out after {timeout} µs while they may wait {delay} µs for company",
            "make the timeout much longer than max_queue_delay_microseconds",
        )


def _cache(subject: Subject) -> Iterator[Finding]:
    if subject.part("response_cache").get("enable") is not True:
        return
    yield regret(
        "cache.stale",
        "response_cache.enable",
        "after a reload of the same version the response cache gives the answers of the old one; "
        "and without --cache-config on the server it does nothing",
        "unset response_cache unless every new artifact gets a new version number",
    )
    if subject.part("model_transaction_policy").get("decoupled") is True:
        yield refused(
            "cache.decoupled", "response_cache.enable", "a decoupled model cannot be cached", "unset one of the two"
        )


def _unknown_to_the_embedded_server(subject: Subject) -> Iterator[Finding]:
    if not subject.embedded:
        return
    config = subject.config
    found: list[str] = [field for field in ("batch_input", "batch_output", "model_metrics") if field in config]
    if messages(subject.part("sequence_batching").get("state")):
        found.append("sequence_batching.state")
    if subject.backend == "onnxruntime" and subject.part("model_transaction_policy").get("decoupled") is True:
        found.append("model_transaction_policy.decoupled")
    if "max_inflight_requests" in subject.part("ensemble_scheduling"):
        found.append("ensemble_scheduling.max_inflight_requests")
    for path in found:
        yield refused(
            "embedded.unsupported",
            path,
            f"the embedded server does not support {path}",
            f"unset {path}, or deploy to NVIDIA's container",
        )
