# Triton's config.pbtxt and ModelConfig messages, read into JSON trees and written from them.
from __future__ import annotations

import copy
from functools import lru_cache

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from controlplane.domain.canonical import JsonObject
from controlplane.errors import ConfigInvalid
from controlplane.triton import config_edit
from controlplane.triton.config_fields import message_of, tree_of
from controlplane.triton.config_text import parse_into

MAX_TEXT = 256 * 1024
"""Characters of a config.pbtxt that are read (about half a second's work); Triton's own samples have under 10,000."""


_SURELY_SHORT = 4096
"""Bytes of a message whose text cannot be too long, whatever it holds."""


class PbtxtCodec:
    """The port ConfigCodec, on Google's own parser and printer and the schema that tritonclient ships.

    No method takes or gives a config whose text is longer than MAX_TEXT, so what was written can be read again.
    """

    def parse(self, text: str) -> JsonObject:
        return copy.deepcopy(_parsed(text))

    def render(self, config: JsonObject) -> str:
        text = text_format.MessageToString(message_of(config), as_utf8=True)
        _check_length(text)
        return text

    def check(self, config: JsonObject) -> JsonObject:
        message = message_of(config)
        if message.ByteSize() > _SURELY_SHORT:
            _check_length(text_format.MessageToString(message, as_utf8=True))
        return tree_of(message)

    def check_path(self, path: str) -> None:
        config_edit.check_path(path)

    def set(self, config: JsonObject, path: str, text: str) -> JsonObject:
        return self.check(config_edit.set_value(self.check(config), path, text))

    def unset(self, config: JsonObject, path: str) -> JsonObject:
        return self.check(config_edit.unset_value(self.check(config), path))


@lru_cache(maxsize=64)
def _parsed(text: str) -> JsonObject:
    """The same few texts are read again and again: what lies in a repository is observed before and after each effect."""
    _check_length(text)
    message = model_config_pb2.ModelConfig()
    parse_into(message, text, "config.pbtxt")
    return PbtxtCodec().check(tree_of(message))


def _check_length(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise ConfigInvalid(f"a config of {len(text)} characters is too large", hint=f"at most {MAX_TEXT} are read")
