"""What a site's resources.json decides, case by case; whatever is odd keeps the logs at the site."""

from __future__ import annotations

import errno
import json
import os

import pytest
from nvflare.apis.workspace import Workspace

from nvflare_logstream.flare.job_config import STREAMER_PATH
from nvflare_logstream.flare.site_policy import read_policy

STOCK = "nvflare.app_common.logging.site_log_streamer.SiteLogStreamer"


@pytest.fixture
def local(tmp_path):
    (tmp_path / "startup").mkdir()
    (tmp_path / "local").mkdir()
    return tmp_path / "local"


@pytest.fixture
def workspace(local):
    return Workspace(str(local.parent), site_name="site-1")


def write(local, resources, name="resources.json"):
    (local / name).write_text(resources if isinstance(resources, str) else json.dumps(resources))


def test_true_lets_logs_out(local, workspace):
    write(local, {"allow_log_streaming": True})
    logs = read_policy(workspace).logs
    assert logs.allowed and logs.reason == "allow_log_streaming is true"


def test_an_absent_key_lets_logs_out_and_says_so(local, workspace):
    write(local, {})
    logs = read_policy(workspace).logs
    assert logs.allowed and "allow_log_streaming is not set in the site's resources.json" in logs.reason


def test_no_file_lets_logs_out_and_says_so(workspace):
    logs = read_policy(workspace).logs
    assert logs.allowed and "the site has no resources.json" in logs.reason


def test_the_default_file_counts_where_there_is_no_other(local, workspace):
    write(local, {"allow_log_streaming": False}, "resources.json.default")
    assert not read_policy(workspace).logs.allowed
    write(local, {"allow_log_streaming": True})
    assert read_policy(workspace).logs.allowed


@pytest.mark.parametrize(
    "name, no, yes",
    [
        ("resources.conf", "allow_log_streaming = false", "allow_log_streaming = true"),
        ("resources.yml", "allow_log_streaming: false", "allow_log_streaming: true"),
        ("old/resources.json", '{"allow_log_streaming": false}', '{"allow_log_streaming": true}'),
        ("resources.conf", "allow_log_streaming = {", None),
        ("resources.conf", 'allow_log_streaming = "true"', None),
    ],
)
def test_what_the_runtime_takes_instead_of_the_default_file_counts(local, workspace, name, no, yes):
    """It looks for all its formats, in all of the directory, before it takes the default one."""
    (local / "old").mkdir()
    write(local, {"allow_log_streaming": True}, "resources.json.default")
    write(local, no, name)
    assert not read_policy(workspace).logs.allowed
    write(local, {"allow_log_streaming": False}, "resources.json.default")
    if yes:
        write(local, yes, name)
        assert read_policy(workspace).logs.allowed


def test_the_file_is_read_afresh_each_time(local, workspace):
    for allowed in (True, False, True):
        write(local, {"allow_log_streaming": allowed})
        assert read_policy(workspace).logs.allowed is allowed


@pytest.mark.parametrize("value", [False, None, 0, 1, "true", "false", "", [], [True], {}, {"a": 1}])
def test_a_value_that_is_not_plainly_true_keeps_logs(local, workspace, value):
    write(local, {"allow_log_streaming": value})
    logs = read_policy(workspace).logs
    wanted = f"the site does not allow it (allow_log_streaming is {json.dumps(value)})"
    assert (logs.allowed, logs.reason) == (False, wanted)


@pytest.mark.parametrize("values", ["false, true", "true, false", 'true, "no", true'])
def test_a_key_that_is_there_twice_keeps_logs_unless_it_is_true_each_time(local, workspace, values):
    """The last one counts for a reader of JSON: an admin who adds a line above it would not be heard."""
    lines = ", ".join(f'"allow_log_streaming": {value}' for value in values.split(", "))
    write(local, f"{{{lines}}}")
    assert not read_policy(workspace).logs.allowed
    write(local, '{"allow_log_streaming": true, "allow_log_streaming": true}')
    assert read_policy(workspace).logs.allowed


@pytest.mark.parametrize("key", ["path", "class_path", "name"])
def test_a_stock_component_is_found_under_each_key_that_the_runtime_knows(local, workspace, key):
    write(local, {"components": [{"id": "a", key: f" {STOCK} "}, {"id": "b", key: 5}]})
    assert read_policy(workspace).stock_components == (STOCK,)


def test_a_huge_value_is_shown_in_part(local, workspace):
    write(local, {"allow_log_streaming": "x" * 1_000_000})
    logs = read_policy(workspace).logs
    assert not logs.allowed and len(logs.reason) < 250


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "5",
        '{"allow_log_streaming": true',
        '{"allow_log_streaming": True}',
        "[" * 100_000,
        '{"allow_log_streaming": true, "a": ' + "[" * 100_000,
        '{"allow_log_streaming": ' + '{"a":' * 100_000,
    ],
    ids=lambda text: text[:40],
)
def test_a_file_that_cannot_be_read_keeps_logs(local, workspace, text):
    write(local, text)
    policy = read_policy(workspace, STREAMER_PATH)
    assert not policy.logs.allowed and "resources.json cannot be read: " in policy.logs.reason
    assert policy.stock_components == ()


def test_bytes_that_are_no_text_keep_logs(local, workspace):
    (local / "resources.json").write_bytes(b'{"allow_log_streaming": true, "a": "\xff"}')
    assert not read_policy(workspace).logs.allowed


def test_a_directory_in_the_files_place_keeps_logs(local, workspace):
    (local / "resources.json").mkdir()
    assert not read_policy(workspace).logs.allowed


@pytest.mark.parametrize("target", ["is not there", "resources.json"])
def test_a_link_that_leads_nowhere_keeps_logs(local, workspace, target):
    """The runtime passes over it, as over what cannot be looked at, and takes the default."""
    write(local, {"allow_log_streaming": True}, "resources.json.default")
    (local / "resources.json").symlink_to(target)
    assert not read_policy(workspace).logs.allowed


def test_a_file_that_cannot_be_looked_at_keeps_logs(local, workspace, monkeypatch):
    write(local, {"allow_log_streaming": False})

    def fails(path, **more):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "stat", fails)
    monkeypatch.setattr(os, "lstat", fails)
    logs = read_policy(workspace).logs
    assert not logs.allowed and "Input/output error" in logs.reason


def test_a_class_that_the_site_admits(local, workspace):
    write(local, {"class_allow_list": ["nvflare_logstream."]})
    assert read_policy(workspace, STREAMER_PATH).job_class.allowed


@pytest.mark.parametrize("entries", [[], ["nvflare."], "nvflare_logstream.", None])
def test_a_class_that_the_site_does_not_admit(local, workspace, entries):
    write(local, {"class_allow_list": entries})
    policy = read_policy(workspace, STREAMER_PATH)
    assert policy.logs.allowed and not policy.job_class.allowed
    assert policy.job_class.reason.startswith(
        'class_allow_list in resources.json lacks "nvflare_logstream.": '
    )


def test_without_a_list_the_runtimes_own_classes_are_admitted_and_ours_is_not(local, workspace):
    write(local, {})
    assert not read_policy(workspace, STREAMER_PATH).job_class.allowed


@pytest.mark.parametrize("allowed, job_class", [(True, ""), (False, STREAMER_PATH)])
def test_the_runtime_is_asked_only_where_it_matters(local, workspace, monkeypatch, allowed, job_class):
    """Its check writes into the site's audit log: not for custom code, nor where logs stay anyway."""
    monkeypatch.setattr("nvflare_logstream.flare.runtime.class_refusal", lambda *args: 1 / 0)
    write(local, {"allow_log_streaming": allowed, "class_allow_list": []})
    assert read_policy(workspace, job_class).job_class.allowed is allowed


def test_stock_components_are_listed(local, workspace):
    components = [
        {"path": STOCK},
        {"name": STOCK},
        {"path": "nvflare_logstream.SiteLogStreamer"},
        "odd",
        None,
        {},
    ]
    write(local, {"components": components})
    assert read_policy(workspace).stock_components == (STOCK, STOCK)


@pytest.mark.parametrize("components", [None, 5, "text", {"path": STOCK}])
def test_components_that_are_no_list_count_as_none(local, workspace, components):
    write(local, {"components": components})
    assert read_policy(workspace).stock_components == () and read_policy(workspace).logs.allowed
