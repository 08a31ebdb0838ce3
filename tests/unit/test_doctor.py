"""The doctor's checks: each mistake is made, and found with what to do."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from nvflare_logstream import __version__
from nvflare_logstream.deploy import probe as probes
from nvflare_logstream.deploy.check_python import check_together
from nvflare_logstream.deploy.check_server import check_server
from nvflare_logstream.deploy.doctor import diagnose
from nvflare_logstream.deploy.findings import Severity
from nvflare_logstream.deploy.interpreter import find_interpreter
from nvflare_logstream.deploy.kits import find_places
from nvflare_logstream.deploy.probe import Probe
from nvflare_logstream.deploy.resources_read import Resources
from nvflare_logstream.wire.server_status import Disk, ServerStatus, SiteUse, StreamCounts
from nvflare_logstream.wire.standing import Standing
from tests.unit.doctor_world import FITS, RECEIVER, ROOT, STOCK, STREAMER, certificate, found, make

ERROR, WARNING = Severity.ERROR, Severity.WARNING


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """What the doctor's own shell has: this package, and files enough."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (4096, 4096))


def one(findings, check, severity, *texts):
    """The one finding there is."""
    assert [(finding.check, finding.severity) for finding in findings] == [(check, severity)], findings
    for text in texts:
        assert text in f"{findings[0].text} → {findings[0].advice}", findings[0]
    assert findings[0].advice, "everything that is wrong has something to do"


def changed(component, **args):
    return {**component, "args": {**component["args"], **args}}


# -- a set-up that is right ----------------------------------------------------------------------------------


def test_a_set_up_that_is_right_has_nothing_wrong_and_says_what_runs(tmp_path):
    make(tmp_path / "server", "server")
    make(tmp_path / "site-1")
    assert found(tmp_path, probe=None) == []
    findings = diagnose(find_places(tmp_path))
    (versions,) = {finding.text for finding in findings if finding.check == "package"}
    assert versions.startswith(f"nvflare_logstream {__version__}, protocol 1, nvflare 2.")
    assert f"({sys.executable})" in versions


def test_kits_of_admins_and_relays_need_nothing(tmp_path):
    make(tmp_path / "relay-1", "relay")
    make(tmp_path / "admin", "admin")
    assert found(tmp_path) == []


# -- resources -----------------------------------------------------------------------------------------------


def test_a_site_without_resources(tmp_path):
    (make(tmp_path / "site-1") / "local" / "resources.json.default").unlink()
    one(
        found(tmp_path),
        "resources",
        ERROR,
        "neither resources.json nor resources.json.default",
        "start-up kit",
    )


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"components": {}}', '{"a": "\udcff"}', "[" * 100_000, '{"components": 5}']
)
def test_resources_that_cannot_be_read(tmp_path, text):
    path = make(tmp_path / "site-1") / "local" / "resources.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    one(found(tmp_path), "resources", ERROR, "resources.json: ", "correct the file")


def test_resources_that_are_no_file(tmp_path):
    (make(tmp_path / "site-1") / "local" / "a__p_resources.json").mkdir()
    one(found(tmp_path), "resources", ERROR, "a__p_resources.json: it is not a file")


def test_resources_that_are_too_large(tmp_path):
    with (make(tmp_path / "site-1") / "local" / "resources.json").open("wb") as file:
        file.truncate(17 << 20)
    one(found(tmp_path), "resources", ERROR, "resources.json: at most 16 MiB are allowed")


@pytest.mark.timeout(10)
def test_what_blocks_or_is_endless_in_a_kit_is_not_read(tmp_path):
    root = make(tmp_path / "site-1")
    for name in ("startup/client.crt", "startup/sub_start.sh"):
        (root / name).unlink()
        os.mkfifo(root / name)
    (root / "local" / "x__p_resources.json").symlink_to("/dev/zero")
    texts = {finding.check: finding.text for finding in found(tmp_path)}
    assert "it is not a file" in texts["certificates"] and "it is not a file" in texts["resources"]


@pytest.mark.timeout(10)
def test_a_script_made_to_take_time_does_not(tmp_path):
    root = make(tmp_path / "site-1")
    (root / "startup" / "sub_start.sh").write_text(
        "x" * 60_000 + "\n" + "python " * 8000 + "\npython3 " * 4000
    )
    assert find_interpreter(find_places(root)[0]).named == "python3"


def test_resources_in_another_format_are_not_looked_at_and_it_is_said(tmp_path):
    (make(tmp_path / "site-1") / "local" / "resources.conf").write_text("components = []")
    one(found(tmp_path), "resources", WARNING, "resources.conf is not JSON", "by hand")


def test_a_key_that_stands_twice(tmp_path):
    path = make(tmp_path / "site-1") / "local" / "resources.json.default"
    path.write_text(
        path.read_text().replace("{", '{"allow_log_streaming": false, "allow_log_streaming": true, ', 1)
    )
    one(found(tmp_path), "resources", ERROR, "'allow_log_streaming' stands twice", "leave one")


def test_no_component_of_ours(tmp_path):
    make(tmp_path / "site-1", "client", STOCK)
    one(
        found(tmp_path),
        "components",
        ERROR,
        "no component is nvflare_logstream.SiteLogStreamer",
        STOCK["path"],
    )
    make(tmp_path / "server", "server", {**RECEIVER, "disabled": True})
    one(
        found(tmp_path / "server"),
        "components",
        ERROR,
        "no component is nvflare_logstream.JobLogReceiver",
        f"`nvflare-logstream setup {tmp_path / 'server'}` does it",
    )


def test_a_misspelt_package(tmp_path):
    make(tmp_path / "site-1", "client", {**STREAMER, "path": "nvflare_logsteam.SiteLogStreamer"})
    one(found(tmp_path), "components", ERROR, "lists nvflare_logsteam.SiteLogStreamer instead")


def test_the_runtimes_own_component_beside_ours_also_in_another_file(tmp_path):
    root = make(tmp_path / "site-1", "client", STREAMER, STOCK)
    one(
        found(tmp_path), "components", ERROR, f"lists {STOCK['path']} beside ours", "remove the runtime's own"
    )
    (root / "local" / "resources.json").write_text(
        (make(tmp_path / "x") / "local/resources.json.default").read_text()
    )
    (root / "local" / "more__p_resources.json").write_text(json.dumps({"components": [STOCK]}))
    one(found(root), "components", ERROR, f"more__p_resources.json lists {STOCK['path']} beside ours")


def test_a_component_at_the_wrong_place_and_one_too_many(tmp_path):
    make(tmp_path / "site-1", "client", STREAMER, RECEIVER)
    one(found(tmp_path), "components", ERROR, "JobLogReceiver, which has no work at a client", "remove it")
    make(tmp_path / "server", "server", RECEIVER, {**RECEIVER, "id": "second"})
    one(found(tmp_path / "server"), "components", ERROR, "2 entries are JobLogReceiver", "leave one")


def test_a_site_that_keeps_its_logs(tmp_path):
    make(tmp_path / "site-1", allow_log_streaming=False)
    one(found(tmp_path), "policy", WARNING, "no job log leaves this site", "true if that is not meant")


@pytest.mark.parametrize("value", ["true", 1, None, [True], "no"])
def test_a_policy_that_is_neither_true_nor_false(tmp_path, value):
    make(tmp_path / "site-1", allow_log_streaming=value)
    one(found(tmp_path), "policy", ERROR, "which counts as false", "without quotes")


@pytest.mark.parametrize(
    "key", ["allow_log_steaming", "allow-log-streaming", "Allow_Log_Streaming", "class_allowlist"]
)
def test_a_misspelt_key(tmp_path, key):
    make(tmp_path / "site-1", **{key: False, "snapshot_persistor": {}, "servers": [], "allow_logs": 1})
    meant = "class_allow_list" if "class" in key else "allow_log_streaming"
    one(found(tmp_path), "keys", ERROR, f"{key!r} in the resources has no effect", f"it is spelt {meant}")


def test_a_policy_in_the_wrong_place(tmp_path):
    make(tmp_path / "site-1", client={"more": [{"allow_log_streaming": False}]})
    one(found(tmp_path), "keys", ERROR, "allow_log_streaming inside 'client' has no effect", "top level")


def test_a_misspelt_key_of_an_entry(tmp_path):
    entry = {"id": "logs", "path": STREAMER["path"], "arguments": {}}
    make(tmp_path / "site-1", "client", entry)
    one(
        found(tmp_path),
        "keys",
        ERROR,
        "'arguments' in the entry of nvflare_logstream.SiteLogStreamer",
        "spelt args",
    )
    make(tmp_path / "site-2", "client", {**STREAMER, "log_files": []})
    one(found(tmp_path / "site-2"), "keys", ERROR, "'log_files' in the entry", "arguments stand in args")
    make(tmp_path / "site-3", "client", {**STREAMER, "args": []})
    one(found(tmp_path / "site-3"), "keys", ERROR, "args of nvflare_logstream.SiteLogStreamer is no object")


def test_a_site_that_says_too_rarely_that_it_is_alive(tmp_path):
    make(tmp_path / "site-1", "client", changed(STREAMER, liveness_interval=40))
    one(found(tmp_path), "intervals", ERROR, "liveness_interval is 40 s", "30 s (its default)", "below 15")
    make(tmp_path / "server", "server", changed(RECEIVER, idle_timeout=60))
    assert found(tmp_path) == []
    make(tmp_path / "b" / "server", "server", changed(RECEIVER, idle_timeout=5))
    make(tmp_path / "b" / "site-1")
    one(found(tmp_path / "b"), "intervals", ERROR, "liveness_interval is 10 s", "idle_timeout of 5 s")
    make(tmp_path / "b" / "site-1" / "x", "client", STOCK)  # one without our streamer
    assert {finding.check for finding in found(tmp_path / "b" / "site-1" / "x")} == {"components"}
    make(tmp_path / "c" / "server", "server", changed(RECEIVER, idle_timeout=0))  # never silent
    make(tmp_path / "c" / "site-1", "client", changed(STREAMER, liveness_interval=3000))
    assert found(tmp_path / "c") == []


# -- the Python of the start script --------------------------------------------------------------------------


def test_a_number_that_is_too_large_to_be_reckoned_with(tmp_path):
    site = {**STREAMER, "args": {"liveness_interval": 10**400}}
    server = {**RECEIVER, "args": {"idle_timeout": 10**400, "min_free_percent": 10**400}}
    roots = make(tmp_path / "site-1", "client", site), make(tmp_path / "server", "server", server)
    findings = found(*roots, probe=None)
    assert {(finding.place, finding.check) for finding in findings} == {
        ("server", "arguments"),
        ("site-1", "arguments"),
    }
    assert all("cannot be made: " in finding.text for finding in findings)


@pytest.mark.parametrize(
    "component, said",
    [
        (changed(STREAMER, log_file="x"), "log_file: there is no such argument; did you mean log_file"),
        (
            changed(STREAMER, poll_interval=0),
            "poll_interval: 0 is not allowed; a number of seconds from 0.01",
        ),
        (changed(STREAMER, poll_interval="1"), "poll_interval: '1' is not allowed"),
        (
            {**STREAMER, "path": "nvflare_logstream.SiteLogStreamr"},
            "did you mean nvflare_logstream.SiteLogStreamer?",
        ),
        ({**STREAMER, "path": "nvflare_logstream.nothing.SiteLogStreamer"}, "No module named"),
    ],
)
def test_an_entry_of_which_no_component_can_be_made(tmp_path, component, said):
    make(tmp_path / "site-1", "client", STREAMER, component)
    one(found(tmp_path, probe=None), "arguments", ERROR, said, "this client does not start")


@pytest.mark.parametrize(
    "keys, right",
    [
        ({"class_allow_list": ["nvflare."]}, False),
        ({"class_allow_list": ["nvflare_logstream"]}, False),  # without its dot the runtime refuses all
        ({"class_allow_list": ...}, False),  # the runtime's own list counts
        ({"class_allow_list": ["*"]}, True),
        ({"class_allow_list": ["nvflare."], "class_list_enforcement_mode": "warn"}, True),
    ],
)
def test_a_list_of_classes_without_ours(tmp_path, keys, right):
    pytest.importorskip("nvflare.app_common.widgets.component_path_authorizer")
    make(tmp_path / "site-1", **keys)
    findings = found(tmp_path, probe=None)
    if right:
        assert findings == []
    else:
        one(
            findings, "allow_list", ERROR, "jobs without custom code may not load", 'add "nvflare_logstream."'
        )


def site_with(tmp_path, python):
    """A kit whose start script runs another Python."""
    root = make(tmp_path / "site-1")
    script = root / "startup" / "sub_start.sh"
    script.write_text(script.read_text().replace(sys.executable, str(python)))
    return root


def python_that(tmp_path, script):
    path = tmp_path / "bin" / "python3"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_python_that_is_not_there(tmp_path):
    root = site_with(tmp_path, "python3.99")
    one(
        found(root, probe=None), "package", ERROR, "python3.99, which sub_start.sh starts, is not on the PATH"
    )


@pytest.mark.parametrize(
    "name, said",
    [
        ("nvflare", "cannot import nvflare (ModuleNotFoundError"),
        ("nvflare_logstream", "-m pip install nvflare-logstream`"),
        ("nvflare_logstream.wire.message", "cannot import nvflare_logstream (ModuleNotFoundError"),
    ],
)
def test_a_python_without_a_package(tmp_path, name, said):
    code = f"import sys; sys.modules['{name}'] = None; exec(sys.argv.pop(1))"
    python = python_that(tmp_path, f'exec {sys.executable} -c "{code}" "$2"')
    one(found(site_with(tmp_path, python), probe=None), "package", ERROR, said, str(python))


@pytest.mark.parametrize(
    "script, said",
    [("echo broken >&2; exit 3", "broken"), ("exit 3", "it ended with code 3"), ("echo '{}'", "code 0")],
)
def test_a_python_that_does_not_work(tmp_path, script, said):
    python = python_that(tmp_path, script)
    one(
        found(site_with(tmp_path, python), probe=None),
        "package",
        ERROR,
        "cannot be asked what it has: ",
        said,
    )


def test_a_python_that_does_not_answer_is_given_up(tmp_path):
    place = find_places(site_with(tmp_path, python_that(tmp_path, "exec sleep 60")))[0]
    told = probes.probe(place, Resources(), find_interpreter(place), seconds=0.2)
    assert told == Probe("it did not answer within 0.2 s")


@pytest.mark.parametrize("answer", ["[]", "5", '{"protocol": "x"}', '{"components": 5}', "{", ""])
def test_an_answer_that_is_none_is_said(tmp_path, answer):
    python = python_that(tmp_path, f"echo 'nvflare_logstream-probe:{answer}'")
    one(found(site_with(tmp_path, python), probe=None), "package", ERROR, "cannot be asked what it has")


def test_a_runtime_that_is_not_supported(tmp_path):
    make(tmp_path / "site-1")
    told = FITS._replace(unsupported="nvflare 2.6.0 is not supported")
    one(
        found(tmp_path, probe=told),
        "package",
        ERROR,
        "0.2.0 does nothing there: nvflare 2.6.0 is not supported",
    )


def test_a_site_that_speaks_another_protocol_than_the_server():
    reports = check_together({"server": FITS, "site-1": FITS, "site-2": FITS._replace(protocol=2)}, "server")
    one(
        [finding for report in reports for finding in report.findings],
        "protocol",
        ERROR,
        "protocol 2",
        "same release",
    )


def test_a_script_that_prepares_its_environment_in_ways_of_its_own(tmp_path):
    root = make(tmp_path / "site-1")
    script = root / "startup" / "sub_start.sh"
    start = script.read_text().replace(sys.executable, "python3")
    script.write_text("conda activate flare\n" + start)
    one(found(root), "package", WARNING, "in a way that cannot be followed", "while the site runs")
    python = python_that(tmp_path, "exit 0")
    script.write_text(
        f"  source {python.parent.parent}/bin/activate\nexport PYTHONPATH=/local/custom:$PYTHONPATH\n" + start
    )
    told = find_interpreter(find_places(root)[0])
    assert (told.path, told.sure) == (str(python), True)
    assert told.environment["PYTHONPATH"] == f"/local/custom:{ROOT}"


def test_what_a_start_script_names_is_run_only_if_it_is_a_python(tmp_path):
    root = site_with(tmp_path, tmp_path / "evil.sh;python3")
    assert find_interpreter(find_places(root)[0]).named == "python3"


# -- a site that runs ----------------------------------------------------------------------------------------


@pytest.fixture
def start():
    """Starts a process of the runtime in a place, by the name `python3`, and ends it."""
    processes = []

    def start(root, python, module="client.client_train"):
        code = "import sys; print('runs', flush=True); sys.stdin.read()"
        process = subprocess.Popen(
            ["python3", "-c", code, "-m", f"nvflare.private.fed.app.{module}", "-m", str(root)],
            executable=sys.executable,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"},
        )
        processes.append(process)
        assert process.stdout.readline() == b"runs\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def running(tmp_path, start):
    """A site whose process runs, with a Python that is on its own PATH alone."""
    root, python = make(tmp_path / "site-1"), python_that(tmp_path, "exit 0")
    return SimpleNamespace(root=root, process=start(root, python), python=python)


def test_the_process_that_runs_tells_which_python_it_is(running):
    told = find_interpreter(find_places(running.root)[0])
    assert (told.path, told.process.pid) == (str(running.python), running.process.pid)
    running.process.kill()
    running.process.wait()
    assert find_interpreter(find_places(running.root)[0]).process is None


def test_an_older_start_script_names_the_place_in_another_way(start, tmp_path):
    root = make(tmp_path / "server", "server")
    process = start(root / "startup" / "..", python_that(tmp_path, "exit 0"), "server.server_train")
    assert find_interpreter(find_places(root)[0]).process.pid == process.pid


def test_a_jobs_process_and_that_of_another_site_are_not_taken_for_the_sites(running, start, tmp_path):
    root = make(tmp_path / "site-2")
    start(root, running.python, "client.worker_process")
    assert find_interpreter(find_places(root)[0]).process is None


def test_resources_that_were_changed_after_the_start(running):
    path = running.root / "local" / "resources.json.default"
    later = time.time() + 60
    os.utime(path, (later, later))
    one(found(running.root), "restart", WARNING, "was changed after this client was started", "restart it")
    os.utime(path, (1, 1))
    assert found(running.root) == []


def test_a_process_that_may_open_few_files(running):
    resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (100, 4096))
    path = running.root / "local" / "resources.json.default"
    os.utime(path, (1, 1))
    one(found(running.root), "open_files", WARNING, "the running client may open 100 files", "ulimit -n 512")


# -- the machine ---------------------------------------------------------------------------------------------


def test_a_shell_that_may_open_few_files(tmp_path, monkeypatch):
    make(tmp_path / "server", "server")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 4096))
    one(found(tmp_path), "open_files", WARNING, "this shell may open 256 files", "ulimit -n 1024")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (-1, -1))
    assert found(tmp_path) == []


def test_a_store_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    make(tmp_path / "server", "server", changed(RECEIVER, dest_dir=str(tmp_path / "file" / "logs")))
    one(found(tmp_path / "server"), "store", ERROR, "is not a directory", "another dest_dir")


def test_a_store_that_cannot_be_written(tmp_path, monkeypatch):
    root, access = make(tmp_path / "server", "server"), os.access
    (root / "logstream").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: "logstream" not in str(path) and access(path, mode))
    one(
        found(root),
        "store",
        ERROR,
        f"the store {root / 'logstream'} cannot be written by",
        "the right to write",
    )


def test_a_full_disk(tmp_path, monkeypatch):
    make(tmp_path / "server", "server", changed(RECEIVER, min_free_percent=7))
    make(tmp_path / "site-1")
    free = 6 << 30
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=100 << 30, free=free))
    one(found(tmp_path), "disk", ERROR, "6.0 GiB (6%)", "7% have to stay free: the sites wait", "make room")
    free = 1 << 29
    one(
        found(tmp_path / "site-1"),
        "disk",
        WARNING,
        "0.5 GiB",
        "logs that cannot be written are lost",
        "make room",
    )


# -- keys and connection -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "days, severity, said",
    [
        ((-20, -1), ERROR, "has expired on"),
        ((-20, 10), WARNING, "expires on"),
        ((2, 300), ERROR, "UTC only, and here it is"),
    ],
)
@pytest.mark.parametrize("name", ["client.crt", "rootCA.pem"])
def test_a_certificate_that_is_not_valid_or_not_for_long(tmp_path, days, severity, said, name):
    (make(tmp_path / "site-1") / "startup" / name).write_bytes(certificate(*days))
    one(found(tmp_path), "certificates", severity, name, said)


def test_a_certificate_that_is_none_or_is_not_there(tmp_path):
    root = make(tmp_path / "server", "server")
    (root / "startup" / "server.crt").write_bytes(b"no certificate")
    one(found(tmp_path), "certificates", ERROR, "server.crt cannot be read: it is no certificate")
    (root / "startup" / "server.crt").unlink()
    one(found(tmp_path), "certificates", ERROR, "server.crt cannot be read: No such file")


def test_a_connection_on_which_nobody_is_known(tmp_path):
    root = make(tmp_path / "site-1")
    script, config = root / "startup" / "sub_start.sh", root / "startup" / "fed_client.json"
    config.write_text('{"client": {"relay_config": [{"connection_security": "clear"}]}}')
    one(found(tmp_path), "connection", ERROR, 'connection_security is "clear" in fed_client.json', "TLS")
    config.write_text("{}")
    script.write_text(script.read_text().replace("secure_train=true", "secure_train=false"))
    one(found(tmp_path), "connection", ERROR, "secure_train is false: nothing is encrypted", "TLS")
    config.write_text("{")
    one(found(tmp_path), "connection", ERROR, "fed_client.json cannot be read: it is no JSON")


# -- what the server says ------------------------------------------------------------------------------------

NOW = 1_800_000_000.0


def status(*standings, **changes):
    counts, disk = StreamCounts(), Disk()
    told = ServerStatus("0.2.0", "2.9.0", 1, 1, NOW, 7200.0, counts, 0, 0.0, 0.0, disk, standings=standings)
    return told._replace(**changes)


def said(told, asked=NOW, answered=NOW + 0.1):
    """All findings of an answer, and those that are wrong."""
    reports = check_server("server", told, asked, answered)
    findings = [finding for report in reports for finding in report.findings]
    return findings, [finding for finding in findings if finding.severity is not Severity.OK]


def test_what_runs_at_each_site():
    findings, wrong = said(
        status(
            Standing("site-1", NOW - 4, 2, 0, True, "0.2.0", "2.8.3", 1),
            Standing("site-2", NOW - 90_000, 0, 0, False),
        )
    )
    assert wrong == []
    assert [(finding.place, finding.check, finding.text) for finding in findings] == [
        ("server", "versions", "nvflare_logstream 0.2.0, protocol 1, nvflare 2.9.0"),
        ("server", "server", "up for 2 h"),
        ("site-1", "versions", "nvflare_logstream 0.2.0, protocol 1, nvflare 2.8.3"),
        ("site-1", "site", "heard of 4 s ago"),
        ("site-2", "versions", "its versions were not told since the receiver started, 2 h ago"),
        ("site-2", "site", "heard of 1 d ago"),
    ]


def test_a_silent_site():
    _, wrong = said(status(Standing("site-1", NOW - 600, 3, 2)))
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(NOW - 600))
    one(wrong, "site", ERROR, f"silent since {since} (10 min): 2 of 3 open logs, and it is not connected")


def test_a_site_of_which_no_log_ever_came():
    _, wrong = said(status(Standing("site-1", connected=True)))
    one(wrong, "site", WARNING, "connected, and no log ever came", "`nvflare-logstream doctor` at the site")


def test_a_site_that_still_runs_the_runtimes_own_streamer():
    _, wrong = said(status(Standing("site-1", NOW - 60, connected=True, stock=True)))
    one(wrong, "site", WARNING, "sent by the runtime's own streamer, and are not checked", "logstream setup`")


def test_clocks_that_differ():
    _, wrong = said(status(Standing("site-1", NOW, 0, 0, True, "0.2.0", "2.9.0", 1, -240.0)))
    one(wrong, "site", WARNING, "its clock is 4 min behind the server's", "NTP")
    _, wrong = said(status(), asked=NOW + 8, answered=NOW + 9)
    one(wrong, "server", WARNING, "this machine's clock is 8 s ahead of the server's", "NTP")
    _, wrong = said(status(), asked=NOW - 30, answered=NOW + 1)  # a slow answer is no clock
    assert wrong == []


def test_a_server_that_does_not_tell():
    _, wrong = said(status(named=False))
    one(wrong, "server", WARNING, "to project admins only", "kit of a project admin")
    _, wrong = said(status(sites=(SiteUse("site-1", 1, 0.0, 1),)))
    one(wrong, "server", WARNING, "too old to tell", "update nvflare_logstream")
