"""Who asks: an API key and its secret name an account."""

from __future__ import annotations

import base64
import binascii
import hmac

from aiohttp import web

from cappuccino.exchange.accounts import Account
from cappuccino.exchange.simulator import SimulatedExchange


class Keys:
    """Accounts by key. Found again whenever accounts were opened since."""

    def __init__(self, exchange: SimulatedExchange) -> None:
        self._exchange = exchange
        self._accounts: dict[str, Account] = {}

    def account(self, key_id: str, secret_key: str) -> Account | None:
        """None when the key is unknown or the secret is not its own."""
        if len(self._accounts) != len(self._exchange.accounts):
            self._accounts = {account.key_id: account for account in self._exchange.accounts.values()}
        account = self._accounts.get(key_id)
        if account is None or account.face != "alpaca":
            return None
        if not hmac.compare_digest(account.secret_key.encode(), secret_key.encode()):
            return None
        return account

    def of(self, request: web.Request) -> Account | None:
        """By Alpaca's two headers, or by basic authorization."""
        key_id, secret = request.headers.get("APCA-API-KEY-ID"), request.headers.get("APCA-API-SECRET-KEY", "")
        if key_id is None:
            scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "basic":
                return None
            try:
                key_id, _, secret = base64.b64decode(encoded).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return None
        return self.account(key_id, secret)

    @staticmethod
    def offered(request: web.Request) -> bool:
        return "APCA-API-KEY-ID" in request.headers or "Authorization" in request.headers
