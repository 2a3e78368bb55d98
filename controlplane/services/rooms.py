# All use cases in one object, a room each: what the faces are given.
from __future__ import annotations

from dataclasses import dataclass

from controlplane.services.access import AccessService
from controlplane.services.audit import AuditService
from controlplane.services.blobs import BlobService
from controlplane.services.capsules import CapsuleService
from controlplane.services.catalog import CatalogService
from controlplane.services.changes import ChangeService
from controlplane.services.configs import ConfigService
from controlplane.services.environments import EnvironmentService
from controlplane.services.idempotency import IdempotencyService
from controlplane.services.installation import InstallationService
from controlplane.services.sweep_evidence import SweepEvidence
from controlplane.services.sweeps import SweepService
from controlplane.services.webhooks import WebhookService


@dataclass(frozen=True, slots=True)
class Services:
    """Safe for many threads: each holds no state but its parts."""

    access: AccessService
    audit: AuditService
    blobs: BlobService
    capsules: CapsuleService
    catalog: CatalogService
    changes: ChangeService
    configs: ConfigService
    environments: EnvironmentService
    evidence: SweepEvidence
    idempotency: IdempotencyService
    installation: InstallationService
    sweeps: SweepService
    webhooks: WebhookService
