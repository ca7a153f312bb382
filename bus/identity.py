"""A participant's identity: its CURVE key pair, in the text forms used on the wire and on disk.

Z85 (ZeroMQ RFC 32) is the text form of keys; subjects and file names use hex, because Z85 holds
``.``, ``*``, ``>`` and ``/``.
"""

from __future__ import annotations

import base64
import hashlib

from msgspec import Struct

KEY_BYTES = 32
KEY_TEXT = 40

# Z85 and RFC 1924 differ in their alphabets only, so the standard library's coder serves both.
_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_B85 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_TO_B85 = bytes.maketrans(_Z85, _B85)
_TO_Z85 = bytes.maketrans(_B85, _Z85)
_ALPHABET = frozenset(_Z85.decode())


def is_key(text: str) -> bool:
    """Whether `text` is a key in Z85 form."""
    if len(text) != KEY_TEXT or not _ALPHABET.issuperset(text):
        return False
    try:
        base64.b85decode(text.encode().translate(_TO_B85))
    except ValueError:  # five characters above 2**32 - 1
        return False
    return True


def to_bytes(key: str) -> bytes:
    """Z85 text to the 32 bytes; `ValueError` when it is no key."""
    if not is_key(key):
        raise ValueError(f"not a key in Z85 form: {key!r}")
    return base64.b85decode(key.encode().translate(_TO_B85))


def from_bytes(raw: bytes) -> str:
    return base64.b85encode(raw).translate(_TO_Z85).decode()


def to_hex(key: str) -> str:
    return to_bytes(key).hex()


def from_hex(text: str) -> str:
    raw = bytes.fromhex(text)
    if len(raw) != KEY_BYTES:
        raise ValueError(f"not a key in hex form: {text!r}")
    return from_bytes(raw)


def short(key: str) -> str:
    """The first 8 hex digits: for people to recognise, never to decide by."""
    return to_hex(key)[:8]


def fingerprint(key: str) -> str:
    """What two people compare to know that they mean the same key: eight groups of four.

    The first 160 bits of the SHA-256 of the raw key in base32, lower case: no digit looks like a letter.
    """
    text = base64.b32encode(hashlib.sha256(to_bytes(key)).digest()[:20]).decode().lower()
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


class KeyPair(Struct, frozen=True):
    """Both halves in Z85; the secret stays out of `repr`, hence out of logs and tracebacks."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


class Address(Struct, frozen=True):
    """Where a broker listens and the public key it must prove."""

    endpoint: str
    key: str
