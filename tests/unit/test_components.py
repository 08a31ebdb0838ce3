"""The three classes that a federation loads: arguments, public names, and what several of them share."""

from __future__ import annotations

import importlib
import inspect

import pytest

import nvflare_logstream
from nvflare_logstream import JobLogReceiver, JobLogStreamer, SiteLogStreamer
from nvflare_logstream.errors import ArgumentError
from nvflare_logstream.flare.shared import shared
from nvflare_logstream.names import check_name, check_site
from nvflare_logstream.store.quotas import Quotas
from nvflare_logstream.streams import StreamKey


@pytest.fixture(autouse=True)
def site():
    """What the site's entries share, fresh for each test."""
    shared.reset()
    return shared.site_entries


STREAMER_ARGUMENTS = [
    ({"log_files": []}, "log_files", "a list of at least one file name"),
    ({"log_files": "log.txt"}, "log_files", "a list of at least one file name"),
    ({"log_files": ["ok.txt", "../x"]}, r"log_files\[1\]", "a plain name is"),
    ({"log_files": ["ok.txt", 5]}, r"log_files\[1\]", "a plain name is"),
    ({"poll_interval": 0}, "poll_interval", "from 0.01 to 60"),
    ({"poll_interval": "1"}, "poll_interval", "a number of seconds"),
    ({"poll_interval": True}, "poll_interval", "a number of seconds"),
    ({"poll_interval": float("nan")}, "poll_interval", "from 0.01 to 60"),
    ({"liveness_interval": 4000}, "liveness_interval", "from 0.1 to 3600"),
]


@pytest.mark.parametrize(
    "component, arguments, name, allowed",
    [(component, *case) for component in (SiteLogStreamer, JobLogStreamer) for case in STREAMER_ARGUMENTS]
    + [
        *(
            (component, *case)
            for component in (SiteLogStreamer, JobLogStreamer)
            for case in (
                ({"log_file_name": ".hidden"}, "log_file_name", "a plain name is"),
                ({"log_file_name": "a", "log_files": ["b"]}, "log_files", "not both"),
            )
        ),
        (JobLogStreamer, {"drain_timeout": -1}, "drain_timeout", "from 0 to 600"),
        (JobLogReceiver, {"dest_dir": "../relative"}, "dest_dir", "an absolute path, or one inside of"),
        (JobLogReceiver, {"dest_dir": "."}, "dest_dir", "an absolute path"),
        (JobLogReceiver, {"dest_dir": ""}, "dest_dir", "an absolute path"),
        (JobLogReceiver, {"dest_dir": 5}, "dest_dir", "an absolute path"),
        (JobLogReceiver, {"idle_timeout": -1}, "idle_timeout", "from 0 to 86400"),
        (JobLogReceiver, {"max_stream_gib": 0}, "max_stream_gib", "above 0"),
        (JobLogReceiver, {"max_job_gib": "64"}, "max_job_gib", "above 0"),
        (JobLogReceiver, {"max_store_gib": float("nan")}, "max_store_gib", "above 0"),
        (JobLogReceiver, {"max_site_gib": -1}, "max_site_gib", "above 0"),
        (JobLogReceiver, {"max_site_files": 0}, "max_site_files", "a whole number from 1 to 1000000"),
        (JobLogReceiver, {"max_site_files": 2.5}, "max_site_files", "a whole number from 1 to 1000000"),
        (JobLogReceiver, {"max_site_files": True}, "max_site_files", "a whole number from 1 to 1000000"),
        (JobLogReceiver, {"min_free_percent": -1}, "min_free_percent", "from 0 to 90"),
        (JobLogReceiver, {"min_free_percent": 91}, "min_free_percent", "from 0 to 90"),
        (JobLogReceiver, {"min_free_percent": "5"}, "min_free_percent", "from 0 to 90"),
        (JobLogReceiver, {"keep_days": False}, "keep_days", "above 0"),
    ],
)
def test_an_argument_that_is_not_allowed_is_named_with_its_value_and_what_is_allowed(
    component, arguments, name, allowed
):
    with pytest.raises(ArgumentError, match=rf"^{name}: .* is not allowed; .*{allowed}") as error:
        component(**arguments)
    assert isinstance(error.value, ValueError)


def test_the_receivers_limits_come_from_its_arguments():
    receiver = JobLogReceiver(
        max_stream_gib=1,
        max_job_gib=2,
        max_store_gib=3,
        max_site_gib=0.5,
        max_site_files=7,
        min_free_percent=1,
    )
    assert receiver._settings.quotas == Quotas(1 << 30, 2 << 30, 3 << 30, 1 << 29, 7, 0.01)
    assert JobLogReceiver()._settings.quotas == Quotas(), "the same defaults everywhere"


STOCK = {
    SiteLogStreamer: "nvflare.app_common.logging.site_log_streamer.SiteLogStreamer",
    JobLogStreamer: "nvflare.app_common.logging.job_log_streamer.JobLogStreamer",
    JobLogReceiver: "nvflare.app_common.logging.job_log_receiver.JobLogReceiver",
}


@pytest.mark.parametrize("component", STOCK)
def test_arguments_of_the_runtimes_own_class_are_taken(component, tmp_path):
    """A config that was written for it works after a change of the path alone."""
    given = {
        "log_file_name": "log.json",
        "liveness_interval": 7.0,
        "poll_interval": 0.25,
        "target_parent_server": True,
        "dest_dir": str(tmp_path),
        "idle_timeout": 12.0,
    }
    module, _, name = STOCK[component].rpartition(".")
    stock = getattr(importlib.import_module(module), name)
    arguments = {key: given[key] for key in inspect.signature(stock).parameters}
    made = component(**arguments)
    taken = {key: value for key, value in arguments.items() if key != "log_file_name"}
    assert {key: getattr(made, key) for key in taken} == taken
    if "log_file_name" in arguments:
        assert (made.files if component is JobLogStreamer else made.log_files) == ("log.json",)


@pytest.mark.parametrize("component", [SiteLogStreamer, JobLogStreamer, JobLogReceiver])
def test_the_public_path_is_the_short_one(component):
    assert component.__module__ == "nvflare_logstream"
    assert component() is not None and getattr(nvflare_logstream, component.__name__) is component


def test_an_unknown_export_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        nvflare_logstream.Nothing  # noqa: B018


def test_several_entries_of_a_site_add_up(site):
    SiteLogStreamer(log_file_name="log.txt", poll_interval=5)
    SiteLogStreamer(log_files=["audit.log", "log.txt"], liveness_interval=3)
    assert site.streamer_args() == {
        "log_files": ["log.txt", "audit.log"],
        "poll_interval": 0.5,
        "liveness_interval": 3.0,
    }


def test_one_of_several_entries_acts_for_all(site):
    entries = [SiteLogStreamer(), SiteLogStreamer()]
    assert [site.claim(entry) for entry in (entries[1], entries[0], entries[1])] == [True, False, True]


def test_the_senders_of_a_jobs_components_are_one_until_the_last_is_done():
    made = []

    def make():
        made.append(object())
        return made[-1]

    sender = shared.job_sender
    assert [sender.acquire(user, make) for user in ("a", "b")] == [made[0]] * 2
    assert [sender.release(user) for user in ("stranger", "a", "a", "b", "b")] == [None] * 3 + [made[0], None]
    assert sender.acquire("c", make) is made[1] and len(made) == 2


def test_a_sender_that_cannot_be_made_leaves_nobody_waiting_for_it():
    with pytest.raises(ZeroDivisionError):
        shared.job_sender.acquire("a", lambda: 1 / 0)
    assert shared.job_sender.release("a") is None


# -- names


@pytest.mark.parametrize("name", ["log.txt", "log.txt.1", "_x", "A-b@c+d", "0" * 128])
def test_a_plain_name_is_taken_as_it_is(name):
    assert check_name("file", name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-rf",
        "a/b",
        "/etc/passwd",
        "a\\b",
        "a\x00",
        "a\n",
        "a b",
        "ä",
        "x" * 129,
        None,
        5,
        b"log.txt",
    ],
)
def test_any_other_name_is_refused(name):
    for key in ((name, "s", "f"), ("j", "s", name)):
        with pytest.raises(ArgumentError, match=r"^(job_id|file): .*a plain name is"):
            StreamKey(*key)


def test_a_changed_key_is_checked_too():
    with pytest.raises(ArgumentError, match=r"^file: "):
        StreamKey("job-1", "site-1", "log.txt")._replace(file="../../etc/passwd")


@pytest.mark.parametrize(
    "name",
    [
        "site-1",
        "h\u00f4pital-1",
        "ho\u0302pital-1",
        "-1",
        "_",
        "--all",
        "~root",
        "a b",
        "site[1]",
        "*",
        "%s",
        "\u75c5\u9662" * 42,
        "x" * 255,
    ],
)
def test_a_sites_name_is_taken_as_it_is(name):
    assert check_site("site", name) == name and StreamKey("j", name, "f").site == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "/etc/passwd",
        "a\\b",
        "a\x00",
        "a\n",
        "a\tb",
        "a\x1b[2J",
        "a\x7f",
        "a\x9b",
        "a\u202eb",
        "a\u2066b",
        "a\u200bb",
        "a\u2028b",
        "a\u00a0b",
        "a\ud800b",
        " a",
        "a ",
        "x" * 256,
        "\u75c5" * 86,
        None,
        5,
        b"site-1",
    ],
)
def test_any_other_name_of_a_site_is_refused(name):
    with pytest.raises(ArgumentError, match=r"^site: .*a site's name is"):
        StreamKey("j", name, "f")
