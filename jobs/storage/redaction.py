"""Takes credentials out of messages."""

from __future__ import annotations

import os
import re


def one_line(text: str, limit: int = 300) -> str:
    """`text` without credentials, control characters and line breaks, at most `limit` characters long."""
    printable = "".join(character if character.isprintable() else " " for character in without_credentials(text))
    words = " ".join(printable.split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


_SIGNED_QUERY = re.compile(
    r"(?i)\b(X-Amz-Signature|X-Amz-Credential|X-Amz-Security-Token|AWSAccessKeyId|Signature|sig|token|access_token)"
    r"=[^&\s\"'<>]+"
)
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")
_ACCESS_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b")
_SECRET_NAME = re.compile(r"(?i)(ACCESS_KEY_ID|ACCESS_KEY|SECRET|_TOKEN|PASSWORD|_KEY)$")


_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")


def holds_credentials(uri: str) -> bool:
    """Whether an address holds a password or a signature; such an address must not be written to a file or a log."""
    return bool(_PASSWORD.search(uri) or _SIGNED_QUERY.search(uri))


def without_credentials(text: str) -> str:
    """`text` with *** for signed query parameters, user:password@, AWS key ids and this environment's secrets."""
    text = _SIGNED_QUERY.sub(r"\1=***", text)
    text = _USER_INFO.sub("***@", text)
    text = _ACCESS_KEY_ID.sub("***", text)
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return text
