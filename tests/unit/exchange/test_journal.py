"""The journal keeps commands, in order, and says clearly what it cannot replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from cappuccino.adapters.venue_server.desk import Desk
from cappuccino.adapters.venue_server.journal import Journal
from cappuccino.core.errors import Conflict, IntegrityError, InvariantViolation
from cappuccino.exchange.commands import Submit

from .builders import exchange, order


def journal(path: Path, *, tape: str = "t1", terms: str = "x") -> Journal:
    return Journal(path, tape=tape, terms={"fee": terms})


async def test_what_was_appended_is_replayed_in_order(tmp_path: Path) -> None:
    first = journal(tmp_path / "j")
    for number in range(3):
        first.append(["tick", {"n": number}])
    await first.durable()
    first.close()
    assert list(journal(tmp_path / "j").replay()) == [["tick", {"n": number}] for number in range(3)]


def test_a_last_line_that_was_torn_off_is_cut_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "j"
    first = journal(path)
    first.append(["a"])
    first.append(["b", {"long": "line"}])
    first.close()
    path.write_bytes(path.read_bytes()[:-5])
    second = journal(path)
    assert list(second.replay()) == [["a"]]
    second.append(["c"])
    second.close()
    assert list(journal(path).replay()) == [["a"], ["c"]]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j"
    first = journal(path)
    first.append(["a"])
    first.close()
    path.write_bytes(path.read_bytes() + b'["b"\n["c"]\n')
    with pytest.raises(IntegrityError, match="line 3"):
        journal(path)


@pytest.mark.parametrize(("tape", "terms", "said"), [("t2", "x", "another tape"), ("t1", "y", "another terms")])
def test_another_tape_or_other_terms_are_refused_with_the_remedy(tmp_path: Path, tape: str, terms: str, said: str) -> None:
    journal(tmp_path / "j").close()
    with pytest.raises(Conflict, match=f"{said}.*same bars, start and options, or name another journal"):
        journal(tmp_path / "j", tape=tape, terms=terms)


def test_a_file_of_something_else_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_text('{"a": 1}\n')
    with pytest.raises(IntegrityError, match="another file"):
        journal(path)
    assert path.read_text() == '{"a": 1}\n'


def test_two_exchanges_cannot_have_one_journal(tmp_path: Path) -> None:
    first = journal(tmp_path / "j")
    with pytest.raises(Conflict, match="in use by another exchange"):
        journal(tmp_path / "j")
    first.close()
    journal(tmp_path / "j").close()


def test_a_line_that_the_exchange_refuses_is_an_integrity_error(tmp_path: Path) -> None:
    first = journal(tmp_path / "j")
    first.append(["cancel", {"account": "a", "order_id": "none"}])
    first.close()
    with pytest.raises(IntegrityError, match="line 2 cannot be replayed"):
        Desk(exchange(), journal(tmp_path / "j"))


async def test_an_exchange_that_cannot_write_stops_for_good(tmp_path: Path) -> None:
    class Full(Journal):
        async def durable(self) -> None:
            raise OSError(28, "No space left on device")

    desk = Desk(exchange(), Full(tmp_path / "j", tape="t", terms={}))
    command = Submit(account="a", request=order())
    with pytest.raises(InvariantViolation, match="No space left"):
        await desk.execute(command)
    assert desk.broken.is_set()
    with pytest.raises(InvariantViolation, match="stopped"):
        await desk.execute(command)
    assert len(desk.exchange.account("a").fills) == 1
