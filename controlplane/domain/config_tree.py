# Reading config trees: what is not there reads as the field's default.
from __future__ import annotations

from collections.abc import Mapping

from controlplane.domain.canonical import Json, JsonObject


def message(value: Json) -> JsonObject:
    return dict(value) if isinstance(value, Mapping) else {}


def messages(value: Json) -> list[JsonObject]:
    return [message(item) for item in value] if isinstance(value, list | tuple) else []


def text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def texts(value: Json) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def number(value: Json) -> int:
    """A whole number, written as number or text."""
    return int(value) if isinstance(value, int | str) else 0


def numbers(value: Json) -> list[int]:
    return [number(item) for item in value] if isinstance(value, list | tuple) else []


def parameter(config: JsonObject, key: str) -> str | None:
    """The string value of a model parameter; None when it is not set."""
    parameters = message(config.get("parameters"))
    return text(message(parameters[key]).get("string_value")) if key in parameters else None


def batched(config: JsonObject) -> bool:
    return number(config.get("max_batch_size")) > 0


def served_by(config: JsonObject) -> str:
    """The backend, also where the older `platform` names it; empty when the config leaves it to Triton."""
    return text(config.get("backend")) or _BACKENDS.get(text(config.get("platform")), "")


PLATFORMS: Mapping[str, str] = {
    "onnxruntime": "onnxruntime_onnx",
    "openvino": "openvino",
    "pytorch": "pytorch_libtorch",
    "tensorrt": "tensorrt_plan",
}
"""The platform that Triton reports for a backend, where it has one."""
_BACKENDS = {platform: backend for backend, platform in PLATFORMS.items()}
