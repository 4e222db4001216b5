"""What the command line does with a cluster: a real database, the runner's other parts are not needed."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cappuccino.entrypoints.cli import main
from tests.unit.controllers.builders import BAR

from .operating import local_ports, operating

ROOT = Path(__file__).parents[3]
QUICKSTART = str(ROOT / "examples" / "quickstart")
DIGEST = "a" * 64
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CAPPUCCINO_DATABASE_URL", database_url)
    return database_url


def said(capsys: Captured, *argv: str) -> list[str]:
    """The lines that a command prints; it must succeed."""
    code = main(argv)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out.splitlines()


def refused(capsys: Captured, *argv: str) -> str:
    assert main(argv) == 2
    return capsys.readouterr().err


def trader_manifest(folder: Path, *, name: str = "t-0", account: str = "acct-0") -> str:
    file = folder / f"{name}.yaml"
    spec = {"bundleDigest": DIGEST, "account": account, "venue": {"kind": "simulated"}}
    document = {"apiVersion": "cappuccino.dev/v1alpha1", "kind": "Trader", "metadata": {"name": name}, "spec": spec}
    file.write_text(json.dumps(document))
    return str(file)


def account(database: str, name: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("insert into account (name, venue) values (%s, 'simulated')", [name])


def test_applying_again_changes_nothing_and_says_so(database: str, capsys: Captured) -> None:
    assert said(capsys, "apply", "-f", QUICKSTART) == [
        *("dataset/quickstart created", "deployment/quickstart created", "study/quickstart created"),
    ]
    assert all(line.endswith(" unchanged") for line in said(capsys, "apply", "-f", QUICKSTART))


def test_a_changed_manifest_is_configured(database: str, capsys: Captured, tmp_path: Path) -> None:
    said(capsys, "apply", "-f", QUICKSTART)
    changed = (Path(QUICKSTART) / "study.yaml").read_text().replace("parallelism: 2", "parallelism: 3")
    (tmp_path / "study.yaml").write_text(changed)
    assert said(capsys, "apply", "-f", str(tmp_path)) == ["study/quickstart configured"]
    (document,) = [json.loads("\n".join(said(capsys, "get", "study", "quickstart", "-o", "json")))]
    assert document["spec"]["parallelism"] == 3
    assert document["metadata"]["generation"] == 2


def test_nothing_is_applied_when_one_document_is_wrong(database: str, capsys: Captured) -> None:
    wrong = str(ROOT / "tests" / "contract" / "invalid" / "empty-symbols.yaml")
    assert "spec.symbols" in refused(capsys, "apply", "-f", QUICKSTART, "-f", wrong)
    assert said(capsys, "get", "all") == ["no objects in namespace default"]


def test_objects_are_listed_in_every_form(database: str, capsys: Captured) -> None:
    said(capsys, "apply", "-f", QUICKSTART)
    head, row = said(capsys, "get", "mst")
    assert head.split() == ["NAME", "STRATEGY", "READY", "REASON", "COMPLETE", "FAILED", "BEST", "AGE"]
    assert row.split()[:3] == ["quickstart", "ppo", "<none>"]
    assert said(capsys, "get", "studies,datasets", "-o", "name") == ["study/quickstart", "dataset/quickstart"]
    several = said(capsys, "get", "all")
    assert [line.split()[0] for line in several if line and not line.startswith("NAME")] == [
        *("dataset/quickstart", "study/quickstart", "deployment/quickstart"),
    ]
    assert json.loads("\n".join(said(capsys, "get", "traders", "-o", "json")))["items"] == []
    assert "kind: Study" in said(capsys, "get", "study/quickstart", "--output", "yaml")
    assert said(capsys, "get", "studies", "-n", "elsewhere") == ["no objects in namespace elsewhere"]


def test_what_get_prints_can_be_applied_again(database: str, capsys: Captured, tmp_path: Path) -> None:
    said(capsys, "apply", "-f", QUICKSTART)
    (tmp_path / "all.yaml").write_text("\n".join(said(capsys, "get", "all", "-o", "yaml")))
    assert {line.split()[1] for line in said(capsys, "apply", "-f", str(tmp_path))} == {"unchanged"}


def test_an_absent_object_is_an_error_that_says_where_to_look(database: str, capsys: Captured) -> None:
    assert "study/a is not in namespace default: `cappuccino get studies` lists them" in refused(capsys, "get", "study", "a")
    assert "trader/a is not in" in refused(capsys, "describe", "trader/a")
    assert "trader/a is not in" in refused(capsys, "delete", "trader/a")
    assert said(capsys, "delete", "trader/a", "--ignore-not-found") == []


def test_delete_takes_names_files_and_all_of_a_kind(database: str, capsys: Captured, tmp_path: Path) -> None:
    for number in range(3):
        said(capsys, "apply", "-f", trader_manifest(tmp_path, name=f"t-{number}", account=f"acct-{number}"))
    assert said(capsys, "delete", "trader", "t-0") == ["trader/t-0 deleted"]
    assert said(capsys, "delete", "-f", str(tmp_path / "t-1.yaml")) == ["trader/t-1 deleted"]
    assert said(capsys, "delete", "traders", "--all") == ["trader/t-2 deleted"]
    assert said(capsys, "get", "traders") == ["no objects in namespace default"]


def test_describe_shows_what_happened(database: str, capsys: Captured) -> None:
    said(capsys, "apply", "-f", QUICKSTART)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "insert into event (kind, namespace, name, uid, type, reason, message, first_at, last_at)"
            " values ('Study', 'default', 'quickstart', 'u', 'Normal', 'Pinned', 'Snapshot pinned.', now(), now())"
        )
    text = "\n".join(said(capsys, "describe", "study", "quickstart"))
    assert "Snapshot pinned." in text
    assert "gateBars: 720" in text


def test_a_halt_stays_until_a_reason_lifts_it_and_the_audit_has_both(database: str, capsys: Captured, tmp_path: Path) -> None:
    said(capsys, "apply", "-f", trader_manifest(tmp_path))
    account(database, "acct-0")
    account(database, "acct-1")
    assert said(capsys, "halt", "t-0", "--reason", "odd spread") == ["trader/t-0 halted"]
    assert said(capsys, "halt", "--all", "--reason", "maintenance") == ["account acct-0 halted", "account acct-1 halted"]
    with psycopg.connect(database, autocommit=True) as connection:
        reasons = dict(connection.execute("select name, halted_reason from account").fetchall())
        assert reasons == {"acct-0": "odd spread", "acct-1": "maintenance"}  # the first reason stands
    assert said(capsys, "resume", "trader/t-0", "--reason", "checked") == ["trader/t-0 resumed"]
    with psycopg.connect(database, autocommit=True) as connection:
        assert connection.execute("select halted_reason from account where name = 'acct-0'").fetchone() == (None,)
    head, *rows = said(capsys, "audit", "verify", "--rows", "9")
    assert head.startswith("audit: 3 rows, unbroken")
    who = getpass.getuser()
    assert [row.split("  ")[2:] for row in rows] == [
        [who, "halt", "account/acct-0", "odd spread"],
        [who, "halt", "account/acct-1", "maintenance"],
        [who, "resume", "account/acct-0", "checked"],
    ]
    assert said(capsys, "audit", "verify", "--rows", "1")[1:] == rows[-1:]


def test_a_wrong_name_holds_up_no_other_halt(database: str, capsys: Captured, tmp_path: Path) -> None:
    said(capsys, "apply", "-f", trader_manifest(tmp_path))
    account(database, "acct-0")
    assert main(["halt", "typo", "t-0", "other", "--reason", "odd"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "trader/t-0 halted\n"
    assert "2 traders are not known to be halted: trader/typo is not in namespace default" in captured.err


def test_halting_all_holds_back_those_that_have_not_started(database: str, capsys: Captured, tmp_path: Path) -> None:
    assert "there is nothing to halt" in refused(capsys, "halt", "--all", "--reason", "odd")
    said(capsys, "apply", "-f", trader_manifest(tmp_path))
    account(database, "acct-1")
    assert said(capsys, "halt", "--all", "--reason", "odd") == [
        *("account acct-1 halted", "trader/t-0 halted before its first start: it has no account yet"),
    ]


def test_an_altered_audit_row_is_named(database: str, capsys: Captured) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("""select audit_append('me', 'halt', 'account/a', '{"reason": "x"}')""")
        (answer,) = said(capsys, "audit", "verify")
        kept = answer.partition("keep ")[2]
        assert said(capsys, "audit", "verify", "--since", kept) == [answer]
        assert "write it as `audit verify` printed it" in refused(capsys, "audit", "verify", "--since", "7")
        connection.execute("set session_replication_role = replica")
        connection.execute("alter table audit disable trigger all")
        connection.execute("""update audit set body = '{"reason": "y"}'""")
    assert main(["audit", "verify"]) == 3
    assert "audit: row 1 is not what was written" in capsys.readouterr().err


def test_evidence_has_the_smallest_effect_that_a_gate_could_see(database: str, capsys: Captured) -> None:
    said(capsys, "apply", "-f", QUICKSTART)
    assert said(capsys, "evidence", "mdep/quickstart") == ["no evidence yet for deployment/quickstart"]
    uid = json.loads("\n".join(said(capsys, "get", "mdep/quickstart", "-o", "json")))["metadata"]["uid"]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "insert into evidence (bundle_digest, gate, gate_version, scope, deployment_uid, outcome, measured, threshold,"
            " minimum_detectable, message, detail)"
            " values (%s, 'window', 1, 's', %s, 'Inconclusive', 3.2, 0, 8.4, 'Too few bars.', '{}')",
            [DIGEST, uid],
        )
    head, row = said(capsys, "evidence", "deployment", "quickstart")
    assert head.split() == ["BUNDLE", "GATE", "OUTCOME", "MEASURED", "THRESHOLD", "DETECTABLE", "MESSAGE"]
    assert row.split()[:6] == [DIGEST[:12], "window", "Inconclusive", "3.2", "0", "8.4"]
    (found,) = json.loads("\n".join(said(capsys, "evidence", "mdep/quickstart", "-o", "json")))
    assert found["minimum_detectable"] == 8.4


def test_a_database_that_is_away_is_said_and_can_be_tried_again(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPPUCCINO_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert main(["get", "all"]) == 75
    assert capsys.readouterr().err.startswith("error: database is away: ")


def test_a_report_is_written_from_the_record(database: str, capsys: Captured, tmp_path: Path) -> None:
    said(capsys, "apply", "-f", QUICKSTART)
    out = tmp_path / "sub" / "report.html"
    (line,) = said(capsys, "report", "mdep/quickstart", "--out", str(out), "--state", str(tmp_path))
    assert line == f"{out}: No candidate was judged."
    assert "not compared" in out.read_text()
    assert "deployment/none does not exist" in refused(capsys, "report", "mdep/none", "--state", str(tmp_path))
    assert "name one, as mdep/quickstart" in refused(capsys, "report", "study/quickstart")


# --- what the controllers do for the command line ---------------------------------------------------


@pytest.fixture
def controllers(database: str) -> Iterator[None]:
    with operating(lambda: local_ports(database)):
        yield


def judged(database: str, uid: str, *, soak: str = "Pass") -> None:
    """Evidence of one candidate that passed every gate; `soak` is the outcome of the last one on paper."""
    rows: list[tuple[str, str, str, dict[str, object]]] = [
        ("backtest", "Pass", "It earned.", {}),
        ("soak", soak, "soaking: 1.5 of 7 market days.", BAR),
        ("grade", "Pass", "", BAR),
        ("verdict", "Pass", "", {"verdict": "Passed", "role": "candidate", "rank": 0, "number": 2, "kind": "trend"}),
    ]
    with psycopg.connect(database, autocommit=True) as connection:
        for gate, outcome, message, detail in rows:
            connection.execute(
                "insert into evidence (bundle_digest, gate, gate_version, scope, deployment_uid, outcome, message, detail)"
                " values (%s, %s, 1, %s, %s, %s, %s, %s) on conflict do nothing",
                [DIGEST, gate, soak if gate == "soak" else "s", uid, outcome, message, json.dumps(detail)],
            )


def deployed(capsys: Captured, folder: Path) -> str:
    """A Deployment of one bundle, no Study; its uid."""
    template = {"venue": {"kind": "simulated"}, "mode": "paper"}
    document = {
        "apiVersion": "cappuccino.dev/v1alpha1",
        "kind": "Deployment",
        "metadata": {"name": "desk"},
        "spec": {"bundles": [DIGEST], "traderTemplate": template},
    }
    (folder / "desk.yaml").write_text(json.dumps(document))
    said(capsys, "apply", "-f", str(folder / "desk.yaml"))
    return str(json.loads("\n".join(said(capsys, "get", "mdep/desk", "-o", "json")))["metadata"]["uid"])


def test_a_promotion_is_refused_with_what_is_missing_then_granted(
    database: str, controllers: None, capsys: Captured, tmp_path: Path
) -> None:
    uid = deployed(capsys, tmp_path)
    judged(database, uid, soak="Inconclusive")
    early = refused(capsys, "promote", "mdep/desk", "desk-00002", "--reason", "too eager")
    assert "desk-00002 cannot be promoted: soak is Inconclusive: soaking: 1.5 of 7 market days." in early
    assert "names no candidate" in refused(capsys, "promote", "desk", "desk-00009", "--reason", "a slip")
    judged(database, uid, soak="Pass")
    (line,) = said(capsys, "promote", "mdep/desk", "trader/desk-00002", "--reason", "read the report")
    assert line.startswith("desk-00002 was approved by ")
    assert line.endswith(": read the report")
    with psycopg.connect(database, autocommit=True) as connection:
        actions = connection.execute("select action from promotion order by id").fetchall()
        audited = connection.execute("select action, subject from audit order by seq").fetchall()
    assert actions == [("refused",), ("approved",)]
    assert audited == [("promotion refused", "deployment/default/desk"), ("promotion approved", "deployment/default/desk")]
    tree = said(capsys, "status", "mdep/desk")
    assert any("candidate desk-00002  Promoted" in line for line in tree)
    assert "Approved" in tree[0]


def test_before_it_has_an_account_a_trader_is_halted_and_resumed_by_annotation(
    database: str, controllers: None, capsys: Captured, tmp_path: Path
) -> None:
    said(capsys, "apply", "-f", trader_manifest(tmp_path))
    assert said(capsys, "halt", "t-0", "--reason", "not yet") == [
        "trader/t-0 halted before its first start: it has no account yet"
    ]
    assert said(capsys, "resume", "t-0", "--reason", "now") == ["trader/t-0 resumed"]
    assert "trader/t-0 is not halted" in refused(capsys, "resume", "t-0", "--reason", "now")


def test_what_nobody_acts_on_is_said_to_be_asked_for(database: str, capsys: Captured, tmp_path: Path) -> None:
    deployed(capsys, tmp_path)
    assert main(["promote", "desk", "desk-00002", "--reason", "why", "--timeout", "0"]) == 75
    assert "deployment/desk: asked for, and not acted on within 0 s" in capsys.readouterr().err


def test_status_shows_the_study_and_what_it_waits_for(database: str, capsys: Captured) -> None:
    said(capsys, "apply", "-f", QUICKSTART)
    tree = said(capsys, "status", "quickstart")
    assert tree == [
        "study/quickstart  nobody has looked at it yet",
        "├─ dataset/quickstart  nobody has looked at it yet",
        "└─ deployment/quickstart  nobody has looked at it yet",
    ]
    assert said(capsys, "status") == tree
    assert "status is of a Study or a Deployment" in refused(capsys, "status", "trader/x")
    assert "study/none is not in namespace" in refused(capsys, "status", "none")


def test_watching_prints_what_changes(database: str, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said(capsys, "apply", "-f", trader_manifest(tmp_path))
    turns = iter(("halted", "end"))

    async def meanwhile(_: float) -> None:
        if next(turns) == "end":
            raise KeyboardInterrupt
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("update object set resource_version = resource_version + 1 where kind = 'Trader'")

    monkeypatch.setattr("cappuccino.entrypoints.cli.objects.asyncio.sleep", meanwhile)
    assert main(["get", "traders", "--watch"]) == 130
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "t-0", "t-0"]
