"""One JSON object a line, whoever logs; and no secrets."""

from __future__ import annotations

import logging

from cappuccino.telemetry.logs import get_logger

from .conftest import Lines


def test_a_line_says_when_how_bad_where_and_what(lines: Lines) -> None:
    get_logger("loop").warning("waits", seconds=3, key=("Study", "s"))
    (line,) = lines()
    assert {name: line[name] for name in line if name != "timestamp"} == {
        "process": "test",
        "component": "loop",
        "event": "waits",
        "level": "warning",
        "seconds": 3,
        "key": ["Study", "s"],
    }
    assert line["timestamp"].endswith("Z")


def test_libraries_join_in_from_warnings_on(lines: Lines) -> None:
    logging.getLogger("kopf.objects").info("Handler succeeded.")
    logging.getLogger("kopf.objects").warning("Handler %s is slow.", "x")
    logging.getLogger("kubernetes.client").error("no connection")
    assert [(line["component"], line["event"]) for line in lines()] == [
        ("kopf.objects", "Handler x is slow."),
        ("kubernetes.client", "no connection"),
    ]


def test_an_error_of_a_library_keeps_its_traceback_in_one_line(lines: Lines) -> None:
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("aiohttp.server").exception("failed")
        logging.getLogger("aiohttp.server").warning("not so bad", exc_info=True)
    failed, mild = lines()
    assert "ValueError: odd" in failed["exception"]
    assert "exception" not in mild


def test_secrets_do_not_get_into_a_line(lines: Lines) -> None:
    get_logger("x").info("connects", url="postgresql://u:hidden@h/d", secret_key="hidden", password=12345)
    logging.getLogger("psycopg.pool").warning("connection to postgresql://u:hidden@h/d failed")
    told = lines()
    assert "hidden" not in str(told)
    assert "12345" not in str(told)
    assert told[0]["url"] == "postgresql://u:[redacted]@h/d"
