"""The exchange's own endpoints, outside Alpaca's protocol: accounts, lockstep, the clock, the referee's ledger, faults."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from aiohttp import WSMsgType, web

from cappuccino.adapters.venue_server import wire
from cappuccino.adapters.venue_server.coinbase.keys import new_key
from cappuccino.adapters.venue_server.desk import Desk
from cappuccino.adapters.venue_server.metronome import Metronome
from cappuccino.adapters.venue_server.outbox import OUTBOXES, Outbox
from cappuccino.adapters.venue_server.trading_rest import Handler
from cappuccino.core.errors import InvalidInput
from cappuccino.exchange.accounts import Account
from cappuccino.exchange.commands import OpenAccount
from cappuccino.exchange.faults import Plan, incident_json, plan_json, read_plan
from cappuccino.exchange.orders import Refused, parse_request
from cappuccino.exchange.tape import MICROSECONDS

PREFIX = "/control/v1"


class Control:
    """`token` is the secret that every request must bring (`Authorization: Bearer ...`); empty asks for none."""

    def __init__(self, desk: Desk, metronome: Metronome, *, token: str) -> None:
        self._desk = desk
        self._exchange = desk.exchange
        self._metronome = metronome
        self._token = token

    def routes(self) -> list[web.RouteDef]:
        guard = self._guard
        return [
            web.post(f"{PREFIX}/accounts", guard(self._open)),
            web.get(f"{PREFIX}/accounts/{{name}}/ledger", guard(self._ledger)),
            web.post(f"{PREFIX}/start", guard(self._start)),
            web.get(f"{PREFIX}/state", guard(self._state)),
            web.delete(f"{PREFIX}/sessions/{{account}}", guard(self._leave)),
            web.get(f"{PREFIX}/lockstep", guard(self._lockstep)),
            web.get(f"{PREFIX}/faults", guard(self._faults)),
            web.post(f"{PREFIX}/faults", guard(self._plan_faults)),
            web.delete(f"{PREFIX}/faults", guard(self._end_faults)),
        ]

    def _guard(self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            offered = request.headers.get("Authorization", "")
            if self._token and not hmac.compare_digest(offered.encode(), f"Bearer {self._token}".encode()):
                return wire.error(401, 40110000, "control endpoints need Authorization: Bearer <CAPPUCCINO_EXCHANGE_TOKEN>")
            try:
                return await handler(request)
            except Refused as refused:
                return wire.refusal(refused)

        return guarded

    async def _open(self, request: web.Request) -> web.Response:
        """Idempotent by name: an account that exists is answered with its key."""
        try:
            fields = json.loads(await request.read(), parse_float=Decimal, parse_int=Decimal)
        except ValueError:
            fields = None
        if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
            return wire.error(400, 40010000, 'send {"name": ..., "capital_usd": ...}')
        name = fields["name"]
        capital = parse_request({"symbol": "-", "side": "buy", "qty": fields.get("capital_usd")}).qty
        if capital is None:
            return wire.error(422, 42210000, "capital_usd is required")
        face, kind = fields.get("protocol", "alpaca"), fields.get("key_type", "ed25519")
        if face not in ("alpaca", "coinbase") or kind not in ("ed25519", "ecdsa"):
            return wire.error(422, 42210000, "protocol is alpaca or coinbase; key_type, of Coinbase's, ed25519 or ecdsa")
        existing = self._exchange.accounts.get(name)
        if existing is None:
            key_id, secret_key = f"SIM{secrets.token_hex(9).upper()}", secrets.token_urlsafe(30)
            if face == "coinbase":
                key_id, secret_key = new_key(kind)
            await self._desk.execute(
                OpenAccount(name=name, capital_usd=capital, key_id=key_id, secret_key=secret_key, face=face)
            )
            return wire.answer(_credentials(self._exchange.accounts[name]), status=201)
        if existing.face != face:
            return wire.error(409, 40910000, f"account {name!r} was opened for {existing.face}: use another name")
        if existing.capital != capital:
            was = wire.text(existing.capital)
            return wire.error(409, 40910000, f"account {name!r} was opened with {was} USD: use another name or that capital")
        return wire.answer(_credentials(existing))

    async def _ledger(self, request: web.Request) -> web.Response:
        return wire.answer(wire.ledger_json(self._exchange, self._exchange.account(request.match_info["name"])))

    async def _start(self, _: web.Request) -> web.Response:
        await self._metronome.start()
        return wire.answer(self.state())

    async def _state(self, _: web.Request) -> web.Response:
        return wire.answer(self.state())

    def state(self) -> dict[str, Any]:
        """Where the clock is; `bar` counts complete bars since the start."""
        exchange = self._exchange
        tick, tape = exchange.tick, exchange.tape
        sessions = self._metronome.sessions()
        return {
            "at": tick.at_us / MICROSECONDS,
            "market_at": wire.when(tick.at_us),
            "tick": tick.number,
            "ticks": len(tape),
            "bar": tick.bar - tape.first,
            "bars": len(tape.bars.ts) - tape.first,
            "history_bars": tape.first,
            "timeframe": str(tape.timeframe),
            "symbols": list(tape.symbols),
            "started": exchange.started,
            "ended": exchange.ended,
            "mode": "free" if self._metronome.free else "lockstep",
            "speed": self._metronome.speed,
            "sessions": sessions,
            "waiting_for": [session["account"] for session in sessions if session["waited_for"]],
            "accounts": list(exchange.accounts),
        }

    async def _leave(self, request: web.Request) -> web.Response:
        await self._metronome.leave(request.match_info["account"])
        return web.Response(status=204)

    async def _faults(self, _: web.Request) -> web.Response:
        """What is still to go wrong, everything that went wrong, oldest first, and which orders were sent again in vain."""
        incidents = [incident_json(incident) for incident in self._exchange.incidents]
        absorbed = dict(self._desk.absorbed)
        return wire.answer({"plan": plan_json(self._desk.plan), "incidents": incidents, "absorbed": absorbed})

    async def _plan_faults(self, request: web.Request) -> web.Response:
        """Rules are added to the script; a seed and rates replace those before."""
        try:
            added = read_plan(await request.text())
        except InvalidInput as error:
            return wire.error(422, 42210000, str(error))
        if "price_gap" in added.rates or any(rule.operation == "bar" for rule in added.script):
            return wire.error(422, 42210000, "price_gap is part of the tape: give it to `cappuccino exchange --faults`")
        held = self._desk.plan
        if added.rates:
            held = replace(held, rates=added.rates, seed=added.seed)
        self._desk.plan = replace(held, script=(*held.script, *added.script))
        return wire.answer(plan_json(self._desk.plan))

    async def _end_faults(self, _: web.Request) -> web.Response:
        self._desk.plan = Plan()
        return web.Response(status=204)

    async def _lockstep(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, heartbeat=60)
        await socket.prepare(request)
        mine: set[str] = set()
        async with Outbox(socket, request.app[OUTBOXES]) as outbox:
            try:
                async for message in socket:
                    if message.type == WSMsgType.TEXT:
                        try:
                            await self._hear(json.loads(message.data), mine, outbox)
                        except (Refused, ValueError, TypeError, AttributeError, OverflowError) as error:
                            outbox.put(json.dumps({"error": str(error)}))
            finally:
                for account in mine:
                    self._metronome.lost(account, outbox)
        return socket

    async def _hear(self, asked: Any, mine: set[str], outbox: Outbox) -> None:
        """One message of a session. A connection that joined for several accounts acknowledges for all, or for `account`."""
        if "ack" in asked:
            number, until_us = int(asked["ack"]), round(float(asked.get("until") or 0) * MICROSECONDS)
            for account in (asked["account"],) if "account" in asked else mine:
                self._metronome.acknowledge(account, outbox, number, until_us)
        elif "join" in asked:
            await self._metronome.join(str(asked["join"]), outbox)
            mine.add(str(asked["join"]))
        elif "leave" in asked:
            await self._metronome.leave(str(asked["leave"]))
            mine.discard(str(asked["leave"]))
        else:
            raise ValueError('send {"join": account}, {"ack": tick, "until": epoch_seconds} or {"leave": account}')


def _credentials(account: Account) -> dict[str, str]:
    return {"name": account.name, "account_id": account.id, "key_id": account.key_id, "secret_key": account.secret_key}
