"""What the command line does without a cluster."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cappuccino.core.errors import InvalidInput
from cappuccino.entrypoints import presence
from cappuccino.entrypoints.cli import kinds, main, tables
from cappuccino.entrypoints.cli.app import app
from cappuccino.entrypoints.cli.description import described

ROOT = Path(__file__).parents[3]
Captured = pytest.CaptureFixture[str]


def test_help_is_quick_because_it_imports_nothing_slow() -> None:
    program = (
        "import sys; from cappuccino.entrypoints.cli import main; main(['--help']);"
        "slow = {'pydantic', 'polars', 'numpy', 'torch', 'psycopg', 'sqlalchemy', 'yaml', 'rich'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(slow)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "apply" in ended.stdout


def walk(command: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    children = getattr(command, "commands", {})
    return [found for name, child in children.items() for found in walk(child, (*path, name))] if children else [path]


def commands() -> list[tuple[str, ...]]:
    from typer.main import get_command

    return walk(get_command(app))


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_explains_itself_with_an_example(path: tuple[str, ...]) -> None:
    from typer.main import get_command

    command = get_command(app)
    for name in path:
        command = command.commands[name]
    assert "Examples:" in (command.help or "")
    assert f"cappuccino {' '.join(path)}" in (command.help or "")


def test_a_dry_run_checks_files_folders_and_standard_input(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    quickstart = ROOT / "examples" / "quickstart"
    monkeypatch.setattr("sys.stdin", io.StringIO((ROOT / "examples" / "arena" / "deployment.yaml").read_text()))
    assert main(["apply", "--dry-run", "-f", str(quickstart), "-f", "-"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        *("dataset/quickstart valid (dry run)", "deployment/quickstart valid (dry run)"),
        *("study/quickstart valid (dry run)", "deployment/arena valid (dry run)"),
    ]


def test_a_dry_run_names_every_bad_document_on_a_line_of_its_own(capsys: Captured, tmp_path: Path) -> None:
    invalid = ROOT / "tests" / "contract" / "invalid"
    assert main(["apply", "--dry-run", "-f", str(invalid)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == len(list(invalid.glob("*.yaml")))
    assert all(line.startswith("error: ") for line in captured.err.splitlines())


def test_the_same_object_twice_is_refused(capsys: Captured) -> None:
    file = str(ROOT / "examples" / "quickstart" / "study.yaml")
    assert main(["apply", "--dry-run", "-f", file, "-f", file]) == 2
    assert "study/quickstart is declared twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["gett"], 2, "No such command 'gett'"),
        (["get", "--wide"], 2, "No such option: --wide"),
        (["get", "tradr", "a"], 2, "did you mean trader?"),
        (["get"], 2, "name what"),
        (["get", "trader/"], 2, "has no name"),
        (["get", "trader/a", "b"], 2, "write every object as kind/name"),
        (["apply"], 2, "-f FILE"),
        (["apply", "-f", "absent.yaml"], 2, "absent.yaml: no such file or folder"),
        (["delete", "traders"], 2, "add --all"),
        (["halt", "a"], 2, "--reason"),
        (["halt", "--reason", "why"], 2, "--all"),
        (["resume", "a"], 2, "--reason"),
        (["evidence", "study/a"], 2, "name one, as mdep/quickstart"),
        (["promote", "mdep/a", "b"], 2, "--reason"),
        (["promote", "study/a", "b", "--reason", "why"], 2, "candidates belong to a Deployment"),
        (["get", "all", "--watch"], 2, "--watch follows one kind"),
        (["halt", "a", "--reason", "why", "--kubeconfig", "absent"], 2, "no kubeconfig at absent: name one with --kubeconfig"),
        (["get", "traders", "-l", "a"], 2, "key=value"),
        (["data", "check", "absent.parquet"], 2, "there is no such file"),
        (["backtest", "abc", "bars.csv"], 2, "64 hexadecimal digits"),
    ],
)
def test_a_mistake_is_one_line_on_stderr(argv: list[str], code: int, says: str, capsys: Captured) -> None:
    assert main(argv) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("error: ")


def test_the_traceback_is_shown_only_when_asked_for(capsys: Captured) -> None:
    assert main(["get", "tradr"]) == main(["--debug", "get", "tradr"]) == main(["get", "tradr", "--debug"]) == 2
    assert capsys.readouterr().err.count("Traceback") == 2


def test_without_a_runner_the_remedy_is_said(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAPPUCCINO_DATABASE_URL", raising=False)
    assert main(["get", "all", "--state", str(tmp_path)]) == 2
    assert f"no runner in {tmp_path}: start one with `cappuccino run`" in capsys.readouterr().err


def test_a_runner_is_found_while_it_lives_and_no_longer(tmp_path: Path) -> None:
    assert presence.announce(tmp_path, "postgresql:///x") == presence.find(tmp_path)
    assert (tmp_path / presence.FILE).stat().st_mode & 0o077 == 0
    text = json.loads((tmp_path / presence.FILE).read_text())
    (tmp_path / presence.FILE).write_text(json.dumps(text | {"started": "another boot:1"}))
    with pytest.raises(Exception, match="has ended: start it again"):
        presence.find(tmp_path)
    presence.announce(tmp_path, "postgresql:///x")
    presence.withdraw(tmp_path)
    with pytest.raises(Exception, match="no runner"):
        presence.find(tmp_path)


def test_a_damaged_runner_file_is_named(tmp_path: Path) -> None:
    (tmp_path / presence.FILE).write_text('{"pid": 1}')
    with pytest.raises(Exception, match=r"runner\.json is not readable"):
        presence.find(tmp_path)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["study", "a"], [("Study", "a")]),
        (["mst", "a", "b"], [("Study", "a"), ("Study", "b")]),
        (["Traders"], [("Trader", None)]),
        (["deployments.cappuccino.dev"], [("Deployment", None)]),
        (["studies,mtr"], [("Study", None), ("Trial", None)]),
        (["trader/a", "mds/b"], [("Trader", "a"), ("Dataset", "b")]),
        (["all"], [(kind, None) for kind in ("Dataset", "Study", "Trial", "Deployment", "Trader")]),
    ],
)
def test_objects_are_named_as_in_kubectl(words: list[str], found: list[tuple[str, str | None]]) -> None:
    assert kinds.targets(words) == found


def test_one_object_is_one_object() -> None:
    assert kinds.one(["trader/a"]) == ("Trader", "a")
    for words in (["traders"], ["trader", "a", "b"]):
        with pytest.raises(InvalidInput, match="name one object"):
            kinds.one(words)


def test_a_printer_column_finds_fields_and_conditions() -> None:
    document = {
        "spec": {"mode": "paper"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Halted", "status": "False"}]},
    }
    assert tables.value_at(document, ".spec.mode") == "paper"
    assert tables.value_at(document, '.status.conditions[?(@.type=="Halted")].status') == "False"
    assert tables.value_at(document, '.status.conditions[?(@.type=="Stalled")].status') is None
    assert tables.value_at({}, ".spec.mode") is None


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (119, "119s"), (125, "2m5s"), (180, "3m"), (3600, "60m"), (4 * 3600, "4h"), (3 * 86400, "3d")],
)
def test_ages_are_kubectls(seconds: float, shown: str) -> None:
    assert tables.age(seconds) == shown


def test_a_description_has_conditions_and_events() -> None:
    text = described(
        {
            "kind": "Study",
            "metadata": {"name": "s", "labels": {"a": "b"}, "ownerReferences": [{"kind": "Deployment", "name": "d"}]},
            "spec": {"parallelism": 2},
            "status": {
                "active": 1,
                "conditions": [{"type": "Ready", "status": "True", "reason": "Searching", "message": "2 of 4."}],
            },
        },
        [{"last_at": "2024-01-01T00:00:00Z", "type": "Normal", "reason": "Pinned", "count": 3, "message": "Snapshot pinned."}],
    )
    assert "Controlled by: deployment/d" in text
    assert "parallelism: 2" in text
    assert "Searching" in text
    assert "x3" in text
    assert "conditions:" not in text


def test_workers_get_their_arguments_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    class Module:
        @staticmethod
        def main(argv: list[str]) -> int:
            seen.append(list(argv))
            return 143

    monkeypatch.setattr(
        "cappuccino.entrypoints.cli.workers.import_module", lambda name: Module if name.endswith(".train") else None
    )
    assert main(["train", "--study-uid", "u", "--trials", "3,4", "--help"]) == 143
    assert seen == [["--study-uid", "u", "--trials", "3,4", "--help"]]


def test_the_version_is_the_packages(capsys: Captured) -> None:
    from importlib.metadata import version

    assert main(["version", "--short"]) == 0
    assert capsys.readouterr().out.strip() == version("cappuccino")


def test_logs_are_those_of_the_objects_workloads_and_need_no_runner(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "default.trial.s-00001.log").write_text("one\ntwo\nthree\n")
    assert main(["logs", "trial/s-00001", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "one\ntwo\nthree\n"
    assert main(["logs", "trial", "s-00001", "--tail", "1", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "three\n"
    assert main(["logs", "trader/none", "--state", str(tmp_path)]) == 2
    assert "trader/none has written nothing" in capsys.readouterr().err
    assert main(["logs", "study/s", "--state", str(tmp_path)]) == 2
    assert "look at its trials" in capsys.readouterr().err


KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "near", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "me", "user": {"token": "t"}}],
    "contexts": [
        {"name": "desk", "context": {"cluster": "near", "user": "me", "namespace": "trading"}},
        {"name": "lab", "context": {"cluster": "near", "user": "me"}},
    ],
}


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(KUBECONFIG))
    return file


def test_a_context_that_is_not_there_is_named_with_those_that_are(kubeconfig: Path, capsys: Captured) -> None:
    assert main(["get", "all", "--kubeconfig", str(kubeconfig), "--context", "prod"]) == 2
    assert "context 'prod' is not in" in (said := capsys.readouterr().err)
    assert "(desk, lab)" in said
    assert main(["get", "all", "--kubeconfig", str(kubeconfig)]) == 2
    assert "has no current context: choose one with --context (desk, lab)" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["a: [", "[1, 2]", "contexts: [{name: x}]"])
def test_what_is_no_kubeconfig_is_said_to_be_none(text: str, capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(text)
    assert main(["get", "all", "--kubeconfig", str(tmp_path / "config")]) == 2
    assert "config is no kubeconfig" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_said_with_its_context(kubeconfig: Path, capsys: Captured) -> None:
    assert main(["get", "all", "--kubeconfig", str(kubeconfig), "--context", "lab"]) == 75
    said = capsys.readouterr().err
    assert said.startswith("error: context lab: ")
    assert "does not answer" in said
    assert len(said.splitlines()) == 1


def test_the_plugin_is_the_same_program_for_the_cluster_of_the_kubeconfig(
    kubeconfig: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/kubectl-cappuccino"])
    assert main(["get", "all"]) == 2
    assert "has no current context" in capsys.readouterr().err
    assert main(["halt", "--help"]) == 0
    assert "Usage: kubectl cappuccino halt" in capsys.readouterr().out


def test_the_namespace_is_the_options_else_the_contexts(kubeconfig: Path) -> None:
    from cappuccino.entrypoints.cli.remote import chosen
    from cappuccino.entrypoints.cli.target import Target

    assert chosen(Target(kubeconfig=kubeconfig, context="desk")).namespace == "trading"
    assert chosen(Target(kubeconfig=kubeconfig, context="lab")).namespace == "default"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ha"], ["halt", ":4"]),
        (["halt", "--rea"], ["--reason", ":4"]),
        (["get", "-o", "ya"], ["yaml", ":4"]),
        (["apply", "-f", ""], [":0"]),  # the shell offers files
    ],
)
def test_kubectl_completes_the_plugin(words: list[str], offered: list[str], capsys: Captured) -> None:
    from cappuccino.entrypoints.cli.completion import main as complete

    assert complete(words) == 0
    assert capsys.readouterr().out.splitlines() == offered
