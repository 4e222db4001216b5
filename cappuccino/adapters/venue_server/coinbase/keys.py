"""CDP keys: who asks is said by a signed token of two minutes at most, ES256 or EdDSA.

A REST token names the one request that it is for in `uri` ("GET host/path"); a websocket's names none. Signatures are checked
against the public half of the account's key, by the algorithm of that key alone. Tokens live in wall time, not the market's.
"""

from __future__ import annotations

import base64
import secrets
import time
from typing import Literal
from uuid import uuid4

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cappuccino.exchange.accounts import Account
from cappuccino.exchange.simulator import SimulatedExchange

LIFE_SECONDS = 120
LEEWAY_SECONDS = 5  # between two clocks
KeyType = Literal["ed25519", "ecdsa"]


def new_key(kind: KeyType) -> tuple[str, str]:
    """(key id, secret) as CDP hands them out: Ed25519 as base64 of seed and public key, ECDSA as PEM."""
    key_id = f"organizations/{uuid4()}/apiKeys/{uuid4()}"
    if kind == "ed25519":
        seed = secrets.token_bytes(32)
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        return key_id, base64.b64encode(seed + public).decode()
    pem = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return key_id, pem.decode()


def _private(secret: str) -> Ed25519PrivateKey | EllipticCurvePrivateKey:
    if not secret.startswith("-----BEGIN"):
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(secret)[:32])
    key = serialization.load_pem_private_key(secret.encode(), password=None)
    assert isinstance(key, EllipticCurvePrivateKey)
    return key


_Key = tuple[Account, str, Ed25519PublicKey | EllipticCurvePublicKey]  # with the algorithm of its signatures


class CdpKeys:
    """Accounts by token. Keys are read again whenever accounts were opened since."""

    def __init__(self, exchange: SimulatedExchange) -> None:
        self._exchange = exchange
        self._known = 0
        self._keys: dict[str, _Key] = {}

    def of(self, request: web.Request) -> Account | None:
        """By the bearer token of a REST request."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return self.account(token, uri=f"{request.method} {request.host}{request.path}") if scheme == "Bearer" else None

    def account(self, token: str, *, uri: str | None) -> Account | None:
        """None when the key is unknown, the signature is not its own, or the token is not for now or not for `uri`."""
        try:
            account, algorithm, public = self._found(str(jwt.get_unverified_header(token).get("kid")))
            claims = jwt.decode(
                token,
                public,
                algorithms=[algorithm],
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False},
            )
            begins, ends = float(claims["nbf"]), float(claims["exp"])
        except (jwt.PyJWTError, KeyError, TypeError, ValueError):
            return None
        now = time.time()
        in_time = begins - LEEWAY_SECONDS <= now < ends and ends - begins <= LIFE_SECONDS
        if not in_time or claims.get("sub") != account.key_id or claims.get("iss") != "cdp" or claims.get("uri") != uri:
            return None
        return account

    def _found(self, key_id: str) -> _Key:
        """Raises KeyError."""
        if self._known != len(self._exchange.accounts):
            self._known = len(self._exchange.accounts)
            for account in self._exchange.accounts.values():
                if account.face == "coinbase" and account.key_id not in self._keys:
                    private = _private(account.secret_key)
                    algorithm = "EdDSA" if isinstance(private, Ed25519PrivateKey) else "ES256"
                    self._keys[account.key_id] = account, algorithm, private.public_key()
        return self._keys[key_id]
