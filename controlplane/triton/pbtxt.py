# Triton's config.pbtxt and ModelConfig messages, read into JSON trees and written from them.
from __future__ import annotations

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from controlplane.domain.canonical import JsonObject
from controlplane.errors import ConfigInvalid
from controlplane.triton import config_edit
from controlplane.triton.config_fields import message_of, tree_of
from controlplane.triton.config_text import parse_into

MAX_TEXT = 256 * 1024
"""Characters of a config.pbtxt that are read (about half a second's work); Triton's own samples have under 10,000."""


class PbtxtCodec:
    """The port ConfigCodec, on Google's own parser and printer and the schema that tritonclient ships."""

    def parse(self, text: str) -> JsonObject:
        if len(text) > MAX_TEXT:
            raise ConfigInvalid(f"a config of {len(text)} characters is too large", hint=f"at most {MAX_TEXT} are read")
        message = model_config_pb2.ModelConfig()
        parse_into(message, text, "config.pbtxt")
        return self.check(tree_of(message))

    def render(self, config: JsonObject) -> str:
        return text_format.MessageToString(message_of(config), as_utf8=True)

    def check(self, config: JsonObject) -> JsonObject:
        return tree_of(message_of(config))

    def set(self, config: JsonObject, path: str, text: str) -> JsonObject:
        return self.check(config_edit.set_value(self.check(config), path, text))

    def unset(self, config: JsonObject, path: str) -> JsonObject:
        return self.check(config_edit.unset_value(self.check(config), path))
