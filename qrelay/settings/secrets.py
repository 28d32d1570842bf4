"""What must not be shown: passwords and tokens inside URLs, and in the free mappings of a setting."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "***"
_PASSWORD = re.compile(r"(://[^:/@]*:).*@")
_NATS_TOKEN = re.compile(r"((?:nats|tls|wss?)://)[^/]*@")
_PARAMETER = re.compile(r"([?&]\w*password=)[^&]*", re.IGNORECASE)
_NAME = re.compile(r"(^|[_-])(password|secret|token|api[_-]?key|authorization)$", re.IGNORECASE)


def masked(value: Any) -> Any:
    """The value as it may be shown: of the same shape, with what is secret in it as `***`."""
    if isinstance(value, str):
        value = _NATS_TOKEN.sub(rf"\1{HIDDEN}@", value)
        return _PARAMETER.sub(rf"\1{HIDDEN}", _PASSWORD.sub(rf"\1{HIDDEN}@", value))
    if isinstance(value, Mapping):
        return {key: HIDDEN if _NAME.search(str(key)) and each else masked(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [masked(each) for each in value]
    return value
