"""The key of a venue account. It never prints its secret."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """`secret_key` on Coinbase: PEM (ES256) or base64 (Ed25519)."""

    key_id: str
    secret_key: str

    def __repr__(self) -> str:
        return f"Credentials(key_id={self.key_id[:4]}…)"
