# People, graphs and what the store holds: material for the tests of registering.
from __future__ import annotations

from onnx import parser

from controlplane.domain.access import Principal, PrincipalKind, Role
from controlplane.domain.audit import AuditEntry
from controlplane.domain.canonical import JsonObject
from controlplane.domain.catalog import Version
from controlplane.storage.unit_of_work import Storage
from tests.store.clock import NOON

ALICE = Principal(1, "alice", PrincipalKind.PERSON, frozenset({Role.OPERATOR}), NOON)
ADMIN = Principal(2, "ada", PrincipalKind.PERSON, frozenset({Role.ADMIN}), NOON)
VIEWER = Principal(3, "vera", PrincipalKind.PERSON, frozenset({Role.VIEWER}), NOON)
PLAN: JsonObject = {"backend": "tensorrt"}


def graph(operator: str = "Relu") -> bytes:
    body = f"agraph (float[n, 3] x) => (float[n, 3] y) {{ y = {operator}(x) }}"
    return bytes(parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {body}').SerializeToString())


def entries(storage: Storage) -> list[AuditEntry]:
    with storage.read() as unit:
        return list(reversed(unit.audit.entries()))


def needed(version: Version) -> set[str]:
    golden = version.inspection.golden
    return {entry.sha256 for entry in version.manifest.files} | ({golden.blob} if golden else set())
