# The HTTP API as one ASGI application over the services.
from __future__ import annotations

from typing import Any

from fastapi import FastAPI

import controlplane
from controlplane.api import health, openapi, problems
from controlplane.api.middleware import BODY_BYTES, Headed, Limited
from controlplane.api.routes import ROUTES
from controlplane.services.rooms import Services


class Api(FastAPI):
    """FastAPI, with our problem document and authentication in its OpenAPI."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            components = document.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            schemas["Problem"] = problems.schema()
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"token": []}]
            self.openapi_schema = document
        assert self.openapi_schema is not None
        return self.openapi_schema


def create_app(services: Services, *, max_artifact_bytes: int) -> FastAPI:
    """Endpoints are plain functions: the framework runs each in its pool of threads."""
    app = Api(
        title="triton-controlplane",
        version=controlplane.__version__,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    problems.install(app)
    app.add_middleware(Limited, limit=lambda path: max_artifact_bytes if path.startswith("/v1/blobs/") else BODY_BYTES)
    app.add_middleware(Headed)  # added last, so it is the outer one
    app.add_api_route("/healthz", health.healthz, methods=["GET"], tags=["health"])
    app.add_api_route("/readyz", health.readyz, methods=["GET"], tags=["health"])
    for route in ROUTES:
        openapi.add(app, route)
    return app
