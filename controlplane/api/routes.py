# Every route with the permission that it takes: the table that a test walks with every role.
from __future__ import annotations

from controlplane.api import access, audit, blobs, catalog, changes, configs, environments, webhooks
from controlplane.api.openapi import Route
from controlplane.api.sweep_routes import SWEEPS
from controlplane.domain.access import Permission
from controlplane.errors import (
    AlreadyExists,
    ArtifactInvalid,
    ChangeBlocked,
    ConfigInvalid,
    ConfigPathInvalid,
    Conflict,
    CursorInvalid,
    ModelInvalid,
    NameInvalid,
    NotFound,
    PolicyInvalid,
    PreconditionFailed,
    TransitionIllegal,
    VersionImmutable,
)

_PRINCIPAL = "/v1/principals/{name}"
_ENVIRONMENT = "/v1/environments/{env}"
_SERVER = "/v1/environments/{env}/servers/{name}"
_DEPLOYMENT = "/v1/environments/{env}/deployments/{model}"
_CHANGE = "/v1/changes/{change}"
_PROPOSING = (NotFound, Conflict, ConfigInvalid, ConfigPathInvalid, NameInvalid)
_MOVING = (NotFound, TransitionIllegal)

_ACCESS = (
    Route("GET", "/v1/whoami", Permission.ACCESS_MANAGE, access.whoami, own=True),
    Route("GET", "/v1/principals", Permission.ACCESS_MANAGE, access.list_principals),
    Route(
        "POST",
        "/v1/principals",
        Permission.ACCESS_MANAGE,
        access.create_principal,
        status=201,
        creates=True,
        errors=(AlreadyExists, NameInvalid),
    ),
    Route("GET", _PRINCIPAL, Permission.ACCESS_MANAGE, access.show_principal, own=True, errors=(NotFound,)),
    Route(
        "PUT", f"{_PRINCIPAL}/disabled", Permission.ACCESS_MANAGE, access.disable_principal, errors=(NotFound, Conflict)
    ),
    Route("DELETE", f"{_PRINCIPAL}/disabled", Permission.ACCESS_MANAGE, access.enable_principal, errors=(NotFound,)),
    Route("PUT", f"{_PRINCIPAL}/roles/{{role}}", Permission.ACCESS_MANAGE, access.grant_role, errors=(NotFound,)),
    Route(
        "DELETE",
        f"{_PRINCIPAL}/roles/{{role}}",
        Permission.ACCESS_MANAGE,
        access.revoke_role,
        errors=(NotFound, Conflict),
    ),
    Route("GET", "/v1/tokens", Permission.ACCESS_MANAGE, access.list_tokens, own=True),
    Route(
        "POST",
        "/v1/tokens",
        Permission.ACCESS_MANAGE,
        access.create_token,
        status=201,
        creates=True,
        errors=(NotFound, Conflict),
    ),
    Route("DELETE", "/v1/tokens/{number}", Permission.ACCESS_MANAGE, access.revoke_token, own=True, errors=(NotFound,)),
)

_BLOBS = (
    Route("HEAD", "/v1/blobs/{sha256}", Permission.MODEL_REGISTER, blobs.find_blob, errors=(NotFound,)),
    Route(
        "PUT", "/v1/blobs/{sha256}", Permission.MODEL_REGISTER, blobs.upload_blob, errors=(Conflict, ArtifactInvalid)
    ),
)

_MODEL = "/v1/models/{model}"
_CATALOG = (
    Route("POST", "/v1/prunings", Permission.CATALOG_PRUNE, catalog.prune),
    Route("GET", "/v1/models", Permission.CATALOG_READ, catalog.list_models, errors=(CursorInvalid,)),
    Route("GET", _MODEL, Permission.CATALOG_READ, catalog.show_model, errors=(NotFound,)),
    Route(
        "GET", f"{_MODEL}/versions", Permission.CATALOG_READ, catalog.list_versions, errors=(NotFound, CursorInvalid)
    ),
    Route(
        "POST",
        f"{_MODEL}/versions",
        Permission.MODEL_REGISTER,
        catalog.register_version,
        status=201,
        creates=True,
        errors=(NotFound, VersionImmutable, ArtifactInvalid, ModelInvalid, NameInvalid, ConfigInvalid),
    ),
    Route("GET", f"{_MODEL}/versions/{{number}}", Permission.CATALOG_READ, catalog.show_version, errors=(NotFound,)),
    Route("GET", f"{_MODEL}/objectives", Permission.CATALOG_READ, catalog.list_objectives, errors=(NotFound,)),
    Route(
        "PUT",
        f"{_MODEL}/objectives/{{name}}",
        Permission.OBJECTIVE_SET,
        catalog.set_objective,
        errors=(NotFound, NameInvalid),
    ),
    Route(
        "DELETE",
        f"{_MODEL}/objectives/{{name}}",
        Permission.OBJECTIVE_SET,
        catalog.remove_objective,
        status=204,
        errors=(NotFound,),
    ),
)

_CONFIGS = (
    Route(
        "POST",
        f"{_MODEL}/versions/{{number}}/config",
        Permission.CATALOG_READ,
        configs.generate_config,
        errors=(NotFound, ConfigInvalid, ConfigPathInvalid),
    ),
    Route("POST", "/v1/configs/parse", Permission.CATALOG_READ, configs.parse_config, errors=(ConfigInvalid,)),
    Route("POST", "/v1/configs/lint", Permission.CATALOG_READ, configs.lint_config, errors=(NotFound, ConfigInvalid)),
    Route("POST", "/v1/configs/diff", Permission.CATALOG_READ, configs.diff_configs, errors=(ConfigInvalid,)),
    Route(
        "GET",
        f"{_DEPLOYMENT}/config",
        Permission.ENVIRONMENT_READ,
        configs.show_deployed_config,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        f"{_DEPLOYMENT}/revisions/{{number}}/diff",
        Permission.ENVIRONMENT_READ,
        configs.diff_revisions,
        errors=(NotFound,),
    ),
)

_AUDIT = (
    Route("GET", "/v1/audit/entries", Permission.AUDIT_READ, audit.list_entries, errors=(CursorInvalid,)),
    Route("GET", "/v1/audit/checkpoint", Permission.AUDIT_READ, audit.show_checkpoint, errors=(NotFound,)),
    Route("POST", "/v1/audit/checkpoint", Permission.AUDIT_CHECKPOINT, audit.sign_checkpoint, errors=(Conflict,)),
    Route("GET", "/v1/audit/consistency", Permission.AUDIT_READ, audit.prove_consistency),
    Route(
        "GET",
        "/v1/audit/changes/{change}/proof",
        Permission.AUDIT_READ,
        audit.prove_change,
        errors=(NotFound, Conflict),
    ),
)

_ENVIRONMENTS = (
    Route("GET", "/v1/environments", Permission.ENVIRONMENT_READ, environments.list_environments),
    Route(
        "POST",
        "/v1/environments",
        Permission.ENVIRONMENT_MANAGE,
        environments.create_environment,
        status=201,
        creates=True,
        errors=(AlreadyExists, NameInvalid, PolicyInvalid),
    ),
    Route("GET", _ENVIRONMENT, Permission.ENVIRONMENT_READ, environments.show_environment, errors=(NotFound,)),
    Route(
        "DELETE",
        _ENVIRONMENT,
        Permission.ENVIRONMENT_MANAGE,
        environments.remove_environment,
        status=204,
        errors=(NotFound, Conflict),
    ),
    Route(
        "PUT",
        f"{_ENVIRONMENT}/policy",
        Permission.POLICY_SET,
        environments.set_policy,
        errors=(NotFound, PolicyInvalid, PreconditionFailed),
    ),
    Route("GET", f"{_ENVIRONMENT}/servers", Permission.ENVIRONMENT_READ, environments.list_servers, errors=(NotFound,)),
    Route(
        "POST",
        f"{_ENVIRONMENT}/servers",
        Permission.SERVER_MANAGE,
        environments.add_server,
        status=201,
        creates=True,
        errors=(NotFound, AlreadyExists, NameInvalid),
    ),
    Route("GET", _SERVER, Permission.ENVIRONMENT_READ, environments.show_server, errors=(NotFound,)),
    Route(
        "PATCH",
        _SERVER,
        Permission.SERVER_MANAGE,
        environments.change_server,
        errors=(NotFound, Conflict, PreconditionFailed),
    ),
    Route(
        "DELETE",
        _SERVER,
        Permission.SERVER_MANAGE,
        environments.remove_server,
        status=204,
        errors=(NotFound, Conflict),
    ),
    Route(
        "GET",
        f"{_ENVIRONMENT}/deployments",
        Permission.ENVIRONMENT_READ,
        environments.list_deployments,
        errors=(NotFound,),
    ),
    Route("GET", _DEPLOYMENT, Permission.ENVIRONMENT_READ, environments.show_deployment, errors=(NotFound,)),
    Route(
        "GET", f"{_DEPLOYMENT}/revisions", Permission.ENVIRONMENT_READ, environments.list_revisions, errors=(NotFound,)
    ),
    Route(
        "GET",
        f"{_DEPLOYMENT}/revisions/{{number}}",
        Permission.ENVIRONMENT_READ,
        environments.show_revision,
        errors=(NotFound,),
    ),
    Route(
        "POST",
        f"{_DEPLOYMENT}/rollback",
        Permission.CHANGE_ROLLBACK,
        changes.roll_back,
        status=201,
        creates=True,
        errors=(*_PROPOSING, ChangeBlocked),
    ),
)

_CHANGES = (
    Route("GET", "/v1/changes", Permission.CHANGE_READ, changes.list_changes, errors=(CursorInvalid,)),
    Route(
        "POST",
        "/v1/changes",
        Permission.CHANGE_PROPOSE,
        changes.propose_change,
        status=201,
        creates=True,
        errors=_PROPOSING,
    ),
    Route("GET", _CHANGE, Permission.CHANGE_READ, changes.show_change, errors=(NotFound,)),
    Route("GET", f"{_CHANGE}/events", Permission.CHANGE_READ, changes.watch_change, errors=(NotFound,)),
    Route(
        "POST",
        f"{_CHANGE}/plans",
        Permission.CHANGE_PROPOSE,
        changes.replan_change,
        status=201,
        creates=True,
        errors=(*_PROPOSING, TransitionIllegal),
    ),
    Route(
        "POST",
        f"{_CHANGE}/approvals",
        Permission.CHANGE_APPROVE,
        changes.approve_change,
        status=201,
        creates=True,
        errors=(*_MOVING, PreconditionFailed),
    ),
    Route(
        "POST",
        f"{_CHANGE}/rejection",
        Permission.CHANGE_APPROVE,
        changes.reject_change,
        creates=True,
        errors=(*_MOVING, PreconditionFailed),
    ),
    Route(
        "POST",
        f"{_CHANGE}/withdrawal",
        Permission.CHANGE_WITHDRAW,
        changes.withdraw_change,
        creates=True,
        errors=_MOVING,
    ),
    Route(
        "POST",
        f"{_CHANGE}/application",
        Permission.CHANGE_APPLY,
        changes.apply_change,
        status=202,
        creates=True,
        errors=(*_MOVING, ChangeBlocked),
    ),
    Route(
        "POST",
        f"{_CHANGE}/resumption",
        Permission.CHANGE_APPLY,
        changes.resume_change,
        status=202,
        creates=True,
        errors=_MOVING,
    ),
    Route(
        "POST",
        f"{_CHANGE}/review",
        Permission.REVIEW_CLOSE,
        changes.close_review,
        creates=True,
        errors=(NotFound, Conflict),
    ),
)

_WEBHOOK = "/v1/webhooks/{number}"
_WEBHOOKS = (
    Route("GET", "/v1/webhooks", Permission.WEBHOOK_MANAGE, webhooks.list_webhooks),
    Route(
        "POST",
        "/v1/webhooks",
        Permission.WEBHOOK_MANAGE,
        webhooks.add_webhook,
        status=201,
        creates=True,
        errors=(NotFound,),
    ),
    Route("GET", _WEBHOOK, Permission.WEBHOOK_MANAGE, webhooks.show_webhook, errors=(NotFound,)),
    Route("DELETE", _WEBHOOK, Permission.WEBHOOK_MANAGE, webhooks.remove_webhook, status=204, errors=(NotFound,)),
    Route("PUT", f"{_WEBHOOK}/disabled", Permission.WEBHOOK_MANAGE, webhooks.disable_webhook, errors=(NotFound,)),
    Route("DELETE", f"{_WEBHOOK}/disabled", Permission.WEBHOOK_MANAGE, webhooks.enable_webhook, errors=(NotFound,)),
    Route(
        "POST",
        f"{_WEBHOOK}/ping",
        Permission.WEBHOOK_MANAGE,
        webhooks.ping_webhook,
        creates=True,
        errors=(NotFound,),
    ),
)

ROUTES: tuple[Route, ...] = (
    *_ACCESS,
    *_BLOBS,
    *_CATALOG,
    *_CONFIGS,
    *_ENVIRONMENTS,
    *_CHANGES,
    *SWEEPS,
    *_AUDIT,
    *_WEBHOOKS,
)
