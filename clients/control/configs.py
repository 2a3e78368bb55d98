# Configs: generated, checked and compared by the API.
from __future__ import annotations

from clients.control.decode import decode
from clients.control.transport import Connection, segment
from clients.control.types import Config, ConfigDiff, ConfigPair, ConfigText, GeneratedConfig, Intent, LintReport


class ConfigsRoom:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def generate(self, model: str, version: int | None, intent: Intent) -> GeneratedConfig:
        """For a version, by default the highest."""
        number = "latest" if version is None else version
        path = f"/v1/models/{segment(model)}/versions/{number}/config"
        return decode(GeneratedConfig, self._connection.post(path, intent))

    def parse(self, text: str) -> Config:
        """A config.pbtxt as a tree, and as text in its one normal form."""
        return decode(Config, self._connection.post("/v1/configs/parse", ConfigText(text)))

    def lint(self, text: ConfigText) -> LintReport:
        return decode(LintReport, self._connection.post("/v1/configs/lint", text))

    def diff(self, before: str, after: str) -> ConfigDiff:
        """Of two config.pbtxt texts."""
        return decode(ConfigDiff, self._connection.post("/v1/configs/diff", ConfigPair(before, after)))

    def deployed(self, environment: str, model: str) -> Config:
        """The config of what is deployed, as tree and as text."""
        path = f"/v1/environments/{segment(environment)}/deployments/{segment(model)}/config"
        return decode(Config, self._connection.get(path))
