# Models, versions and objectives.
from __future__ import annotations

from clients.control.decode import decode
from clients.control.transport import Connection, segment
from clients.control.types import Model, NewObjective, NewPruning, NewVersion, Objective, Page, Pruning, Version

REGISTRATION_SECONDS = 900.0
"""How long an answer is waited for: the model is validated in the meantime."""


class CatalogRoom:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def models(self, *, cursor: str | None = None, limit: int | None = None) -> Page[Model]:
        return self._connection.page(Model, "/v1/models", cursor=cursor, limit=limit)

    def model(self, name: str) -> Model:
        return decode(Model, self._connection.get(_model(name)))

    def versions(self, model: str, *, cursor: str | None = None, limit: int | None = None) -> Page[Version]:
        """The highest number first."""
        return self._connection.page(Version, f"{_model(model)}/versions", cursor=cursor, limit=limit)

    def version(self, model: str, number: int) -> Version:
        return decode(Version, self._connection.get(f"{_model(model)}/versions/{number}"))

    def register(self, model: str, new: NewVersion) -> Version:
        """The files were uploaded before (`uploads.upload`)."""
        path = f"{_model(model)}/versions"
        return decode(Version, self._connection.post(path, new, timeout_seconds=REGISTRATION_SECONDS))

    def prune(self, *, apply: bool) -> Pruning:
        """What nothing needs; deleted with `apply`."""
        return decode(Pruning, self._connection.post("/v1/prunings", NewPruning(apply)))

    def objectives(self, model: str) -> Page[Objective]:
        return self._connection.page(Objective, f"{_model(model)}/objectives")

    def set_objective(self, model: str, name: str, new: NewObjective) -> Objective:
        return decode(Objective, self._connection.put(f"{_model(model)}/objectives/{segment(name)}", new))

    def remove_objective(self, model: str, name: str) -> None:
        self._connection.delete(f"{_model(model)}/objectives/{segment(name)}")


def _model(name: str) -> str:
    return f"/v1/models/{segment(name)}"
