"""`nvflare-logstream setup`: what a person and a program are shown, and who is asked."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from nvflare_logstream.cli.main import run
from nvflare_logstream.deploy import setup
from nvflare_logstream.lines import visible
from tests.unit.deploy_world import CLIENT_RESOURCES, write_kit, write_server, write_site


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def prod(tmp_path):
    """A provisioned federation: the server, two sites, a relay and an admin."""
    write_server(tmp_path / "server")
    for name in ("site-1", "site-2"):
        write_site(tmp_path / name)
    write_kit(tmp_path / "relay-1", "relay")
    write_kit(tmp_path / "admin@nvidia.com", "admin")
    return tmp_path


def resources(prod):
    return sorted(path.parent.parent.name for path in prod.glob("*/local/resources.json"))


def test_the_difference_is_shown_and_then_asked(prod, capsys, monkeypatch):
    for typed, code in [("", 1), ("n\n", 1), ("what\n", 1), ("y\n", 0)]:
        monkeypatch.setattr(sys, "stdin", Terminal(typed))
        assert resources(prod) == []
        assert run(["setup", str(prod)]) == code
        said = capsys.readouterr()
        assert said.err.startswith("Do this? [y/N] ") and ("nothing was changed" in said.err) is bool(code)
        for line in ('+  "nvflare_logstream."', '-          "log_file_name": "error_log.txt"'):
            assert said.out.count(f"\n{line}\n") == 2
    assert resources(prod) == ["server", "site-1", "site-2"]
    assert said.out.count("✓") == 3 and said.out.endswith(
        "Restart what is running there. --remove undoes this.\n"
    )
    assert "relay-1" not in said.out and "admin@" not in said.out


def test_where_nobody_can_be_asked_nothing_is_done_and_it_is_said_how(prod, capsys):
    for extra in ([], ["--format", "json"]):
        assert run(["setup", str(prod), *extra]) == 4
        said = capsys.readouterr()
        assert "--yes does it without asking" in said.out + said.err
    assert resources(prod) == []


def test_a_dry_run_writes_nothing(prod, capsys):
    assert run(["setup", str(prod), "--dry-run", "--yes"]) == 0
    assert resources(prod) == [] and "+++ " in capsys.readouterr().out


def test_a_program_gets_one_envelope(prod, capsys):
    (prod / "site-2" / "local" / "resources.json").write_text("{")
    assert run(["setup", str(prod), "--yes", "--format", "json"]) == 1
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert not said.err and (answer["status"], answer["exit_code"]) == ("ok", 1)
    assert [(place["name"], place["role"], place["status"]) for place in answer["data"]["places"]] == [
        ("server", "server", "done"),
        ("site-1", "client", "done"),
        ("site-2", "client", "failed"),
    ]
    assert "it is not JSON" in answer["data"]["places"][2]["problem"]
    assert any(line.startswith("+") for line in answer["data"]["places"][0]["diff"])
    assert run(["setup", str(prod / "server"), "--format", "json"]) == 0  # nobody needs to be asked
    assert json.loads(capsys.readouterr().out)["data"]["places"][0]["status"] == "unchanged"


def test_several_directories_are_set_up_at_once_each_once(prod, capsys):
    assert run(["setup", str(prod / "site-1"), str(prod / "server"), str(prod), "--yes"]) == 0
    assert capsys.readouterr().out.count(" written; what was before is kept as ") == 3
    assert run(["setup", str(prod), "--yes"]) == 0
    assert capsys.readouterr().out.count("nothing to do\n") == 3


def test_what_was_done_is_said_also_if_the_rest_is_interrupted(prod, capsys, monkeypatch):
    real = setup.files.replace

    def interrupted(path, *arguments):
        if "site-1" in str(path):
            raise KeyboardInterrupt
        return real(path, *arguments)

    monkeypatch.setattr(setup.files, "replace", interrupted)
    assert run(["setup", str(prod), "--yes"]) == 130
    assert "✓ server: " in capsys.readouterr().out and resources(prod) == ["server"]


def test_what_failed_is_named_and_what_to_paste(prod, capsys):
    (prod / "site-1" / "local" / "resources.conf").write_text("components = []")
    assert run(["setup", str(prod), "--yes", "--files", "log.txt,log.json"]) == 1
    said = capsys.readouterr().out
    assert "✗ site-1 (client): " in said and '"log_files": [\n' in said
    assert resources(prod) == ["server", "site-2"]


def test_a_damaged_kit_does_not_keep_the_others_from_being_set_up(prod, capsys):
    (prod / "site-1" / "startup" / "fed_client.json").unlink()
    assert run(["setup", str(prod), "--yes"]) == 1
    assert resources(prod) == ["server", "site-2"]
    said = capsys.readouterr()
    assert f"✗ site-1: {prod / 'site-1' / 'startup'}: it holds no startup/fed_server.json" in said.out
    assert run(["setup", str(prod), "--dry-run", "--format", "json"]) == 1
    places = {place["name"]: place for place in json.loads(capsys.readouterr().out)["data"]["places"]}
    assert (places["site-1"]["role"], places["site-1"]["status"]) == ("unknown", "failed")


def test_the_way_back(prod, capsys):
    run(["setup", str(prod), "--yes", "--opt-out", "--keep-days", "7"])
    assert run(["setup", str(prod / "server"), "--remove", "--yes"]) == 0
    assert resources(prod) == ["site-1", "site-2"]
    assert "removed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, code, reason",
    [
        ([], 4, "Missing argument"),
        (["{}/none"], 2, "none: does not exist"),
        (["{}/relay-1"], 2, "only sites and servers are set up"),
        (["{}/admin@nvidia.com"], 2, "only sites and servers are set up"),
        (["{}", "--files", "a,,b"], 4, r"--files[1]: '' is not allowed"),
        (["{}", "--files", "../x"], 4, "--files[0]"),
        (["{}", "--keep-days", "0"], 4, "--keep-days: 0 is not allowed; a whole number of days from 1 to"),
        (["{}", "--keep-days", "x"], 4, "a whole number from 0 on"),
        (["{}", "--remove", "--opt-out"], 4, "--remove takes all back"),
        (["{}/server", "--opt-out"], 4, "--opt-out: True is not allowed; it is for sites"),
    ],
)
def test_wrong_arguments_are_answered(prod, capsys, arguments, code, reason):
    assert run(["setup", *(word.format(prod) for word in arguments), "--yes"]) == code
    said = capsys.readouterr()
    assert reason in said.err and not said.out and ("Hint: " in said.err or code == 2)
    assert resources(prod) == []


def test_kits_of_one_name_are_told_apart(tmp_path, capsys):
    one, other = tmp_path / "one" / "site-1", tmp_path / "other" / "site-1"
    for root in (one, other):
        write_site(root)
    assert run(["setup", str(one), "--yes"]) == 0
    capsys.readouterr()
    assert run(["setup", str(one), str(other), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"✓ site-1 (client) in {one}: nothing to do" in said and f"site-1 (client) in {other}:\n" in said


def test_a_variable_of_the_shell_that_is_not_set_is_not_this_directory(prod, capsys, monkeypatch):
    monkeypatch.chdir(prod / "site-1")
    assert run(["setup", "", "--yes"]) == 4
    assert resources(prod) == [] and "an empty name; for this directory, write ." in capsys.readouterr().err
    assert run(["setup", ".", "--yes"]) == 0 and resources(prod) == ["site-1"]


def test_nothing_in_a_file_is_obeyed_by_the_terminal(tmp_path, capsys):
    evil = "\u202e\x9b31m"
    text = CLIENT_RESOURCES.replace('"error_log.txt"', f'"{evil}"')
    write_site(tmp_path / f"site{evil[:1]}", text)
    assert run(["setup", str(tmp_path), "--yes"]) == 0
    assert run(["setup", str(tmp_path), "--dry-run", "--remove"]) == 0
    said = capsys.readouterr()
    assert visible(said.out) == said.out and "\\u202e" in said.out


@pytest.mark.timeout(60)
def test_what_the_runtime_provisions_is_set_up_and_comes_back(tmp_path, capsys):
    """With the runtime's own kits: what it would load has our components, and none of its own for logs."""
    names = ["site-1", "site-2"]
    participants = [
        {"name": "server", "type": "server", "org": "o", "fed_learn_port": 8002, "default_host": "localhost"},
        {
            "name": "relay-1",
            "type": "relay",
            "org": "o",
            "listening_host": {"default_host": "localhost", "port": 8003},
        },
        {"name": "a@b.org", "type": "admin", "org": "o", "role": "project_admin"},
        {"name": "site-1", "type": "client", "org": "o", "connect_to": {"name": "relay-1"}},
        {"name": "site-2", "type": "client", "org": "o"},
    ]
    builders = [
        {"path": f"nvflare.lighter.impl.{path}", "args": arguments}
        for path, arguments in [
            ("workspace.WorkspaceBuilder", {"template_file": ["master_template.yml"]}),
            ("static_file.StaticFileBuilder", {"config_folder": "config"}),
            ("cert.CertBuilder", {}),
            ("signature.SignatureBuilder", {}),
        ]
    ]
    project = {"api_version": 3, "name": "p", "participants": participants, "builders": builders}
    (tmp_path / "project.yml").write_text(json.dumps(project))
    command = [sys.executable, "-m", "nvflare.cli", "provision", "-p", "project.yml", "-w", "w"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    kits = tmp_path / "w" / "p" / "prod_00"
    before = {path: path.read_bytes() for path in kits.rglob("*") if path.is_file()}
    assert run(["setup", str(tmp_path / "w"), "--yes"]) == 0
    from nvflare.apis.workspace import Workspace
    from nvflare.fuel.utils.config_service import ConfigService

    ours = {"server": "JobLogReceiver", **dict.fromkeys(names, "SiteLogStreamer")}
    for name, class_name in ours.items():
        loaded = ConfigService.load_config_dict(Workspace(str(kits / name)).get_resources_file_path())
        paths = [entry["path"] for entry in loaded["components"]]
        assert f"nvflare_logstream.{class_name}" in paths
        assert not [path for path in paths if path.startswith("nvflare.app_common.logging.")]
        assert loaded["class_allow_list"][-1] == "nvflare_logstream." and len(loaded["class_allow_list"]) > 50
    assert resources(kits) == ["server", *names]
    assert run(["setup", str(tmp_path / "w"), "--remove", "--yes"]) == 0
    assert {path: path.read_bytes() for path in kits.rglob("*") if path.is_file()} == before
    assert capsys.readouterr().err == ""
