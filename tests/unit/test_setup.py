"""Set-up of sites and servers: what is changed, what stays, and the way back."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nvflare_logstream.deploy import files
from nvflare_logstream.deploy.kits import find_places
from nvflare_logstream.deploy.resources import Choices
from nvflare_logstream.deploy.setup import Plan, Status, carry_out, plan
from nvflare_logstream.errors import ArgumentError, KitError
from tests.unit.deploy_world import CLIENT_RESOURCES, SERVER_RESOURCES, write_kit, write_server, write_site

OURS = '{"id": "mine", "path": "nvflare_logstream.SiteLogStreamer", "args": {"log_files": ["log.txt"]}}'
USUAL = Choices()
STOCK = "nvflare.app_common.logging.site_log_streamer.SiteLogStreamer"


def planned(root: Path, choices: Choices | None = USUAL) -> Plan:
    (found,) = plan(find_places(root), choices)
    return found


def done(root: Path, choices: Choices | None = USUAL) -> Plan:
    (found,) = carry_out([planned(root, choices)])
    assert not found.problem, found.problem
    return found


def snapshot(local: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in local.iterdir()}


def components(local: Path) -> list[Any]:
    found: list[Any] = json.loads((local / "resources.json").read_text())["components"]
    return found


# -- what is changed, and nothing else -----------------------------------------------------------------------


def test_a_fresh_site_gets_a_resources_file_that_repeats_the_default_one(tmp_path):
    local = write_site(tmp_path)
    found = done(tmp_path)
    assert (local / "resources.json").read_text() == CLIENT_RESOURCES.replace(
        STOCK, "nvflare_logstream.SiteLogStreamer"
    ).replace('"log_file_name": "error_log.txt"', '"log_files": ["log.txt", "error_log.txt"]').replace(
        'NPTrainer"\n', 'NPTrainer",\n  "nvflare_logstream."\n'
    )
    assert (local / "resources.json.default").read_text() == CLIENT_RESOURCES
    assert found.kept and found.kept.read_text() == CLIENT_RESOURCES
    assert found.notes == ("log.txt of every job will leave this site (--files chooses others)",)


def test_a_fresh_server_gets_our_receiver(tmp_path):
    local = write_server(tmp_path)
    done(tmp_path, Choices(keep_days=30))
    assert (local / "resources.json").read_text() == SERVER_RESOURCES.replace(
        "nvflare.app_common.logging.job_log_receiver.JobLogReceiver", "nvflare_logstream.JobLogReceiver"
    ).replace('"args": {}', '"args": {\n                "keep_days": 30\n            }').replace(
        'NPTrainer"]', 'NPTrainer", "nvflare_logstream."]'
    )


def test_a_second_set_up_changes_nothing_and_a_choice_only_what_was_chosen(tmp_path):
    local = write_site(tmp_path)
    done(tmp_path)
    first = snapshot(local)
    assert planned(tmp_path).status is Status.UNCHANGED and snapshot(local) == first
    done(tmp_path, Choices(files=("log.json",)))
    text = (local / "resources.json").read_text()
    assert text == first["resources.json"].decode().replace('["log.txt", "error_log.txt"]', '["log.json"]')
    assert planned(tmp_path, Choices(files=("log.json",))).status is Status.UNCHANGED
    assert planned(tmp_path).status is Status.UNCHANGED


@pytest.mark.parametrize(
    "stock",
    [
        [{"id": "a", "path": STOCK}],
        [{"id": "a", "class_path": f" {STOCK} ", "args": {"log_file_name": "log.txt"}}],
        [{"id": "a", "name": STOCK}],
        [{"id": "error_log_sender", "path": "nvflare.app_common.logging.log_sender.ErrorLogSender"}],
        [{"id": "a", "path": STOCK}, {"id": "b", "class_path": STOCK, "x": 1}, {"id": "c", "path": STOCK}],
        [],
    ],
)
@pytest.mark.parametrize("indent", [None, 1, "\t"])
def test_every_stock_component_goes_however_it_is_spelt(tmp_path, stock, indent):
    others = [{"id": "site_log_streamer", "path": "x.Y"}, {"id": "site_log_streamer_2", "path": "x.Z"}]
    resources = {"components": [others[0], *stock, others[1]], "class_allow_list": ["*"]}
    local = write_site(tmp_path, json.dumps(resources, indent=indent), own=True)
    done(tmp_path)
    ours = {
        "id": "site_log_streamer_3",
        "path": "nvflare_logstream.SiteLogStreamer",
        "args": {"log_files": ["log.txt", "error_log.txt"]},
    }
    place = 1 if stock else 2
    assert components(local) == [*others[:place], ours, *others[place:]]
    assert json.loads((local / "resources.json").read_text())["class_allow_list"] == ["*"]


def test_a_set_up_made_by_hand_is_kept_and_the_stock_component_beside_it_goes(tmp_path):
    local = write_site(tmp_path, f'{{"components": [{OURS}, {{"id": "s", "path": "{STOCK}"}}]}}', own=True)
    found = done(tmp_path)
    assert (local / "resources.json").read_text() == f'{{"components": [{OURS}]}}'
    assert any("it has no class_allow_list" in note for note in found.notes)


def test_the_older_argument_gives_way_to_the_files_that_are_chosen(tmp_path):
    mine = OURS.replace('"log_files": ["log.txt"]', '"log_file_name": "log.txt", "poll_interval": 1')
    local = write_site(tmp_path, f'{{"components": [{mine}]}}', own=True)
    done(tmp_path, Choices(files=("a.txt",)))
    assert components(local)[0]["args"] == {"poll_interval": 1, "log_files": ["a.txt"]}


@pytest.mark.parametrize("said", ["false", '"yes"', "null", "1"])
def test_a_site_that_says_no_keeps_saying_so(tmp_path, said):
    resources = CLIENT_RESOURCES.replace('streaming": true', f'streaming": {said}')
    local = write_site(tmp_path, resources)
    found = done(tmp_path)
    assert json.loads((local / "resources.json").read_text())["allow_log_streaming"] == json.loads(said)
    assert len(found.notes) == 1 and "no log leaves this site" in found.notes[0]


@pytest.mark.parametrize("before", [CLIENT_RESOURCES, "{}", '{"allow_log_streaming": "true"}'])
def test_an_opt_out_is_a_plain_no(tmp_path, before):
    local = write_site(tmp_path, before)
    done(tmp_path, Choices(opt_out=True))
    assert json.loads((local / "resources.json").read_text())["allow_log_streaming"] is False
    assert planned(tmp_path, Choices(opt_out=True)).status is Status.UNCHANGED


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_line_ends_mode_and_owner_are_kept(tmp_path, newline):
    text = CLIENT_RESOURCES.replace("\n", newline)
    local = write_site(tmp_path, text, own=True)
    path = local / "resources.json"
    path.chmod(0o640)
    owner = (12345, 12346) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    found = done(tmp_path)
    assert found.kept
    for file in (path, found.kept):
        status = file.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, *owner)
    assert path.read_bytes().count(b"\n") == path.read_bytes().count(newline.encode())
    assert found.kept.read_bytes() == text.encode()


def test_what_else_lists_stock_components_or_is_signed_is_said(tmp_path):
    local = write_site(tmp_path)
    (local / "x__p_resources.json").write_text(f'{{"components": [{{"path": "{STOCK}"}}]}}')
    (local / "signature.json").write_text("{}")
    text = " ".join(planned(tmp_path).notes)
    assert f"x__p_resources.json also lists {STOCK}: take it out by hand" in text and "is signed" in text


def test_a_component_that_is_switched_off_is_switched_on(tmp_path):
    entry = {"id": "mine", "path": "nvflare_logstream.SiteLogStreamer", "disabled": True}
    values = {"class_allow_list": ["nvflare_logstream."], "components": [entry]}
    local = write_site(tmp_path, json.dumps(values, indent=2), own=True)
    found = done(tmp_path)
    assert components(local) == [{"id": "mine", "path": "nvflare_logstream.SiteLogStreamer"}]
    assert found.notes == (
        "log.txt, error_log.txt of every job will leave this site (--files chooses others)",
    )
    assert planned(tmp_path).status is Status.UNCHANGED


def test_what_a_streamer_that_was_switched_off_kept_at_the_site_is_said_to_leave(tmp_path):
    off = CLIENT_RESOURCES.replace(f'"{STOCK}",', f'"{STOCK}", "disabled": true,')
    write_site(tmp_path, off)
    assert planned(tmp_path).notes[0].startswith("log.txt, error_log.txt of every job will leave this site")


def test_further_files_of_a_later_set_up_are_said_to_leave(tmp_path):
    write_site(tmp_path)
    done(tmp_path)
    (note,) = planned(tmp_path, Choices(files=("log.txt", "log.json"))).notes
    assert note.startswith("log.json of every job will leave this site")


# -- the way back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("choices", [[Choices()], [Choices(files=("a",)), Choices(), Choices(files=("b",))]])
def test_what_nobody_edited_comes_back_byte_for_byte(tmp_path, own, choices):
    local = write_site(tmp_path, CLIENT_RESOURCES.replace("\n", "\r\n").replace("  ", "\t"), own=own)
    before = snapshot(local)
    for each in choices:
        done(tmp_path, each)
    done(tmp_path, None)
    assert snapshot(local) == before
    assert planned(tmp_path, None).status is Status.UNCHANGED


def test_what_was_edited_since_keeps_the_edit(tmp_path):
    local = write_site(tmp_path)
    done(tmp_path)
    path = local / "resources.json"
    path.write_text(path.read_text().replace('"num_of_gpus": 0', '"num_of_gpus": 8'))
    done(tmp_path, None)
    assert path.read_text() == CLIENT_RESOURCES.replace('"num_of_gpus": 0', '"num_of_gpus": 8')
    assert planned(tmp_path, None).status is Status.UNCHANGED


def test_an_edit_between_two_set_ups_does_not_bring_the_first_one_back(tmp_path):
    local = write_site(tmp_path)
    path = local / "resources.json"
    done(tmp_path)
    path.write_text(path.read_text().replace('"num_of_gpus": 0', '"num_of_gpus": 8'))
    done(tmp_path, Choices(files=("log.json",)))
    done(tmp_path, None)
    assert [entry["path"] for entry in components(local)][1:] == [STOCK]
    assert '"num_of_gpus": 8' in path.read_text()
    assert planned(tmp_path, None).status is Status.UNCHANGED


def test_it_is_said_what_leaves_the_site_when_the_rules_go(tmp_path):
    local = write_site(tmp_path)
    path = local / "resources.json"
    done(tmp_path, Choices(files=("log.json",)))
    path.write_text(path.read_text().replace('["log.json"]', '["log.json"], "release": {"level": "errors"}'))
    text = " ".join(planned(tmp_path, None).notes)
    assert "error_log.txt of every job will leave this site" in text and 'the rules in "release" go' in text


def test_a_set_up_made_by_hand_is_undone_with_what_the_default_file_has(tmp_path):
    resources = f'{{"class_allow_list": ["a.", "nvflare_logstream."], "components": [{OURS}]}}'
    local = write_site(tmp_path, resources, own=True)
    done(tmp_path, None)
    found = json.loads((local / "resources.json").read_text())
    assert found["class_allow_list"] == ["a."]
    assert [entry["path"] for entry in found["components"]] == [STOCK]


@pytest.mark.parametrize("own", [True, False])
def test_an_opt_out_outlives_the_way_back(tmp_path, own):
    local = write_site(tmp_path, CLIENT_RESOURCES, own=own)
    done(tmp_path)
    done(tmp_path, Choices(opt_out=True))
    found = done(tmp_path, None)
    text = (local / "resources.json").read_text()
    assert text == CLIENT_RESOURCES.replace('streaming": true', 'streaming": false')
    assert "no log leaves this site until you set it to true" in found.notes[0]


def test_the_way_back_needs_nothing_that_was_kept(tmp_path):
    local = write_site(tmp_path)
    kept = done(tmp_path).kept
    assert kept
    kept.unlink()
    (local / "resources.json.default").write_text("{")
    done(tmp_path, None)
    assert [entry["id"] for entry in components(local)] == ["resource_manager"]


# -- what is refused -----------------------------------------------------------------------------------------


def refused(root: Path, choices: Choices | None = USUAL) -> str:
    before = snapshot(root / "local")
    found = planned(root, choices)
    assert found.status is Status.FAILED and not found.diff()
    assert snapshot(root / "local") == before
    return found.problem


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "it is not JSON: Expecting value"),
        (
            b'{\n  // a comment\n  "components": []\n}',
            "it is not JSON: Expecting property name .*line 2 .*; correct that by hand",
        ),
        (b"\xef\xbb\xbf{}", "it is not JSON: it begins with a byte order mark; save it as UTF-8 without one"),
        (b'{"a": "\xe9"}', r"it is not UTF-8 \(byte 7\); save it as UTF-8"),
        (b"[]", "no object at the top level"),
        (b'{"components": {}}', '"components" is not a list of objects'),
        (b'{"components": ["x"]}', '"components" is not a list of objects'),
        (b'{"components": [], "components": []}', 'it has "components" more than once'),
        (b'{"components": [{"path": "a", "path": "b"}]}', r'"path" of components\[0\] more than once'),
        (b'{"class_allow_list": "nvflare."}', '"class_allow_list" is not a list'),
        (f'{{"components": [{OURS}, {OURS}]}}'.encode(), "SiteLogStreamer of this package 2 times"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": "' + b"x" * (16 << 20) + b'"}', "larger than 16 MiB"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_file_that_is_not_as_the_runtime_has_it_is_left_alone(tmp_path, data, reason):
    local = write_site(tmp_path)
    (local / "resources.json").write_bytes(data)
    problem = refused(tmp_path)
    assert problem.startswith(str(local / "resources.json"))
    assert re.search(reason, problem), problem


@pytest.mark.parametrize("depth", [500, 900, 985, 993])
def test_a_file_that_is_nested_as_deeply_as_can_be_read_is_set_up_or_left_alone(tmp_path, depth):
    write_site(tmp_path, f'{{"components": [], "a": {"[" * depth}{"]" * depth}}}')
    found = planned(tmp_path)
    assert found.status is Status.TO_DO or "nested too deeply" in found.problem


def test_arguments_that_are_no_object_are_left_alone(tmp_path):
    write_site(tmp_path, '{"components": [{"path": "nvflare_logstream.SiteLogStreamer", "args": 1}]}')
    assert '"args" of components[0] is not an object' in refused(tmp_path, Choices(files=("a",)))


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_left_alone(tmp_path):
    for name, make in [
        ("link", lambda path: path.symlink_to("resources.json.default")),
        ("fifo", lambda path: os.mkfifo(path)),
    ]:
        local = write_site(tmp_path / name)
        make(local / "resources.json")
        assert planned(tmp_path / name).problem.startswith(str(local / "resources.json"))
    assert "it is a link to resources.json.default" in planned(tmp_path / "link").problem
    local = write_site(tmp_path / "directory")
    (local / "resources.json").mkdir()
    found = planned(tmp_path / "directory")
    assert found.status is Status.FAILED and (local / "resources.json").is_dir()


def test_resources_that_the_runtime_finds_elsewhere_are_named(tmp_path):
    local = write_site(tmp_path)
    (local / "old").mkdir()
    (local / "old" / "resources.json").write_text("{}")
    assert "old/resources.json: the runtime takes it for the site's" in planned(tmp_path).problem


def test_a_place_without_resources_is_named(tmp_path):
    write_kit(tmp_path, resources=None)
    assert "neither resources.json nor resources.json.default" in refused(tmp_path)


@pytest.mark.parametrize("name", ["resources.conf", "resources.yml"])
def test_for_other_formats_it_is_said_what_to_paste(tmp_path, name):
    local = write_site(tmp_path)
    path = local / name
    path.write_text(f"components = [ {{ id = s, path = {STOCK} }} ]")
    assert "merge this" in refused(tmp_path)
    pasted = json.loads(planned(tmp_path, Choices(opt_out=True)).paste)
    assert pasted["allow_log_streaming"] is False and pasted["class_allow_list"] == ["nvflare_logstream."]
    assert pasted["components"][0]["path"] == "nvflare_logstream.SiteLogStreamer"
    path.write_text("components = [ { id = s, path = nvflare_logstream.SiteLogStreamer } ]")
    assert planned(tmp_path).status is Status.UNCHANGED
    assert "by hand" in refused(tmp_path, Choices(opt_out=True)) and "by hand" in refused(tmp_path, None)


def test_a_kit_that_is_made_anew_or_signed_as_a_whole_is_left_alone(tmp_path):
    write_site(tmp_path / "kit")
    for name in ("startup", "local"):
        (tmp_path / name).symlink_to(tmp_path / "kit" / name)
    for root in (tmp_path, tmp_path / "kit"):
        assert "the start script makes anew at each start" in refused(root)
    write_site(tmp_path / "cc")
    (tmp_path / "cc" / "signature.json").touch()
    assert "signed as a whole, for confidential computing" in refused(tmp_path / "cc")


def test_a_choice_that_no_place_has_is_refused(tmp_path):
    write_site(tmp_path / "site-1")
    write_server(tmp_path / "server")
    write_kit(tmp_path / "relay-1", "relay")
    for name, choices, option in [
        ("server", Choices(files=("a",)), "--files"),
        ("server", Choices(opt_out=True), "--opt-out"),
        ("site-1", Choices(keep_days=1), "--keep-days"),
    ]:
        with pytest.raises(ArgumentError, match=option):
            planned(tmp_path / name, choices)
    with pytest.raises(KitError, match=r"relay-1 is the kit of a relay: only sites and servers are set up"):
        planned(tmp_path / "relay-1")
    for wrong in ({"files": ("../x",)}, {"files": ()}, {"keep_days": 0}):
        with pytest.raises(ArgumentError):
            Choices(**wrong)


# -- writing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["mkstemp", "fsync", "replace", "fchmod"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_place_that_cannot_be_written_is_as_before_and_the_others_are_done(
    tmp_path, monkeypatch, point, number
):
    """At each step of the writing, of the kept file and of the new one."""
    server, site = write_server(tmp_path / "server"), write_site(tmp_path / "site-1")
    plans = plan(find_places(tmp_path), Choices())
    owner = {"mkstemp": files.tempfile, "replace": Path}.get(point, os)
    real, calls = getattr(owner, point), []

    def failing(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            raise OSError(30, "Read-only file system")
        return real(*arguments, **options)

    before = snapshot(server)
    monkeypatch.setattr(owner, point, failing)
    first, second = carry_out(plans)
    assert first.status is Status.FAILED and "it cannot be written: Read-only file system" in first.problem
    assert snapshot(server) == before
    assert second.status is Status.DONE and components(site)[1]["path"] == "nvflare_logstream.SiteLogStreamer"


def test_a_file_whose_owner_cannot_be_kept_is_not_written(tmp_path, monkeypatch):
    """Somebody may write to the directory who may not give files away."""
    local = write_site(tmp_path)
    shown = planned(tmp_path)
    assert shown.before
    fields = list(shown.before.status)
    fields[4] += 1  # the user
    shown = replace(shown, before=replace(shown.before, status=os.stat_result(fields)))
    before = snapshot(local)

    def refuse(*arguments: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    (found,) = carry_out([shown])
    assert "its owner cannot be kept; run this as that user or root" in found.problem
    assert snapshot(local) == before


def test_a_file_that_changed_since_it_was_shown_is_not_written(tmp_path):
    local = write_site(tmp_path)
    for name in ("resources.json.default", "resources.json"):
        shown = planned(tmp_path)
        (local / name).write_text(CLIENT_RESOURCES + " ")
        before = snapshot(local)
        (found,) = carry_out([shown])
        assert found.status is Status.FAILED and "changed meanwhile; run this again" in found.problem
        assert snapshot(local) == before


def test_a_place_where_another_set_up_works_is_left_to_it(tmp_path):
    local = write_site(tmp_path)
    shown = planned(tmp_path)
    with files.locked(local):
        (found,) = carry_out([shown])
    assert "another set-up is changing it now" in found.problem
    (found,) = carry_out([shown])
    assert found.status is Status.DONE


@pytest.mark.timeout(60)
def test_set_ups_at_the_same_time_leave_one_right_file(tmp_path):
    local = write_site(tmp_path)
    command = [sys.executable, "-m", "nvflare_logstream.cli.main", "setup", str(tmp_path), "--yes"]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(4)]
    codes = [process.wait() for process in running]
    assert 0 in codes and set(codes) <= {0, 1}
    assert [entry["path"] for entry in components(local)][1:] == ["nvflare_logstream.SiteLogStreamer"]
    assert len(list(local.iterdir())) == 3
    done(tmp_path, None)
    assert [path.name for path in local.iterdir()] == ["resources.json.default"]
