# What a generated config is asked to be, and what is handed back with it.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Signature
from controlplane.domain.config_paths import meet
from controlplane.domain.servers import HostFacts


class Aim(StrEnum):
    LATENCY = "latency"
    THROUGHPUT = "throughput"


class Kind(StrEnum):
    CPU = "cpu"
    GPU = "gpu"


class Accelerator(StrEnum):
    TENSORRT = "tensorrt"
    OPENVINO = "openvino"


@dataclass(frozen=True, slots=True)
class Queue:
    """How long and how many requests may wait. 0 is: no limit. `delay` keeps those past their timeout behind the others
    instead of refusing them; `clients_decide` lets a request bring a timeout of its own."""

    timeout_us: int = 0
    delay: bool = False
    clients_decide: bool = False
    max_size: int = 0


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What one execution of an instance takes from the server's resources, by name, and its turn (1 comes first)."""

    resources: Mapping[str, int]
    priority: int = 1


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """What is None or empty is chosen, and the choice explained. `embedded`: our own server runs it, not NVIDIA's.

    `golden_shapes` are the shapes of one golden input, batch dimension included, by input; warm-up needs them where the
    graph leaves inner dims open.
    """

    model: str
    signature: Signature
    host: HostFacts
    embedded: bool = False
    aim: Aim = Aim.LATENCY
    max_batch_size: int | None = None
    instances: int | None = None
    kind: Kind | None = None
    gpus: tuple[int, ...] = ()
    max_queue_delay_us: int | None = None
    preferred_batch_sizes: tuple[int, ...] = ()
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority_level: int | None = None
    queue: Queue | None = None
    rate_limit: RateLimit | None = None
    accelerator: Accelerator | None = None
    half_precision: bool = False
    cuda_graphs: bool = False
    response_cache: bool = False
    warmup: bool = False
    golden_shapes: Mapping[str, tuple[int, ...]] | None = None
    threads: int | None = None
    parallel_execution: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the field at `path` is what it is, in one sentence."""

    path: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Generated:
    """A complete config in the codec's normal form, without version policy, and a reason for each choice."""

    config: JsonObject
    reasons: tuple[Reason, ...]

    def edited(self, config: JsonObject, sets: Sequence[tuple[str, str]], unsets: Sequence[str]) -> Generated:
        """After `sets` and `unsets` made `config` of it: the reasons for what they changed give way to them."""
        touched = [*(path for path, _ in sets), *unsets]
        kept = [reason for reason in self.reasons if not any(meet(reason.path, path) for path in touched)]
        kept += [Reason(path, f"{value}, as set") for path, value in dict(sets).items() if path not in unsets]
        kept += [Reason(path, "left out, as unset") for path in dict.fromkeys(unsets)]
        return Generated(config, tuple(kept))
