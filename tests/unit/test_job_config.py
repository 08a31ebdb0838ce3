"""The deployed client config: what is put in and taken out; a failure leaves the author's file as it was."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nvflare_logstream.errors import JobConfigError
from nvflare_logstream.flare.job_config import STREAMER_PATH, JobConfig

STOCK = "nvflare.app_common.logging.job_log_streamer.JobLogStreamer"
LONG = "nvflare_logstream.flare.job_log_streamer.JobLogStreamer"
CONFIG = Path("/site/job/config")
OTHER = {"id": "metrics", "path": "custom.Metrics", "args": {"every": 5}}
ARGS = {"log_files": ["log.txt"]}


@pytest.fixture
def directory(fs):
    """A config directory in a file system of its own."""
    fs.create_dir(CONFIG)
    return CONFIG


def deploy(directory: Path, components: object = None, **more: object) -> None:
    config = {"format_version": 2, "executors": [{"tasks": ["train"]}], **more}
    if components is not None:
        config["components"] = components
    (directory / "config_fed_client.json").write_text(json.dumps(config))


def deployed(directory: Path) -> dict:
    return json.loads((directory / "config_fed_client.json").read_text())


def only_config_left(directory: Path) -> bool:
    return [path.name for path in directory.iterdir()] == ["config_fed_client.json"]


@pytest.mark.parametrize("more", [{}, {"components": None}, {"components": []}])
def test_the_streamer_goes_in_where_there_are_no_components(directory, more):
    deploy(directory, **more)
    JobConfig(directory).put_streamer(ARGS)
    (entry,) = deployed(directory)["components"]
    assert entry == {
        "id": "logstream_job_log_streamer",
        "path": STREAMER_PATH,
        "args": {**ARGS, "site_closes": True},
    }
    assert deployed(directory)["executors"] == [{"tasks": ["train"]}] and only_config_left(directory)


def test_other_components_stay_as_they_are(directory):
    odd = [OTHER, "not a dict", None, {"id": ["unhashable"]}]
    deploy(directory, odd)
    JobConfig(directory).put_streamer(ARGS)
    assert deployed(directory)["components"][:-1] == odd


def test_an_id_that_is_taken_is_not_used_again(directory):
    deploy(
        directory, [{"id": name} for name in ("logstream_job_log_streamer", "logstream_job_log_streamer_2")]
    )
    JobConfig(directory).put_streamer(ARGS)
    assert deployed(directory)["components"][-1]["id"] == "logstream_job_log_streamer_3"


@pytest.mark.parametrize("field", ["path", "class_path", "name"])
@pytest.mark.parametrize("path", [STREAMER_PATH, LONG])
def test_a_streamer_that_the_job_declares_gets_the_sites_files_and_intervals(directory, field, path):
    given = {"log_files": ["train.csv"], "poll_interval": 60, "site_closes": False, "drain_timeout": 9}
    deploy(directory, [{"id": "mine", field: path, "args": given}])
    JobConfig(directory).put_streamer({**ARGS, "poll_interval": 0.5})
    (entry,) = deployed(directory)["components"]
    wanted = {**ARGS, "poll_interval": 0.5, "site_closes": True, "drain_timeout": 9}
    assert entry == {"id": "mine", field: path, "args": wanted}


@pytest.mark.parametrize("key", ["class_attributes", "log_file_name", "anything"])
def test_no_argument_of_the_job_gets_past_the_sites(directory, key):
    """The runtime takes `class_attributes` in place of all other arguments."""
    deploy(directory, [{"id": "mine", "path": STREAMER_PATH, "args": {key: {"log_files": ["train.csv"]}}}])
    JobConfig(directory).put_streamer(ARGS)
    (entry,) = deployed(directory)["components"]
    assert entry["args"] == {**ARGS, "site_closes": True}


def test_the_files_of_the_deployed_streamers_are_known(directory):
    deploy(
        directory,
        [
            {"id": "a", "path": STREAMER_PATH, "args": {"log_files": ["a.txt", "../b.txt", 5, "c.txt"]}},
            {"id": "b", "path": STREAMER_PATH, "args": {"log_files": "d.txt"}},
            {"id": "c", "path": STREAMER_PATH, "args": None},
            {"id": "d", "path": LONG, "args": {"log_files": ["c.txt", "e.txt"]}},
            {"id": "e", "path": LONG, "args": {"log_file_name": "f.txt"}},
            {"id": "f", "path": LONG, "args": {"log_file_name": ["g.txt"]}},
        ],
    )
    assert JobConfig(directory).log_files == ("a.txt", "c.txt", "e.txt", "f.txt")


def test_put_twice_is_put_once(directory):
    deploy(directory)
    for _ in range(2):
        JobConfig(directory).put_streamer(ARGS)
    assert len(JobConfig(directory).streamers()) == len(deployed(directory)["components"]) == 1


def test_a_disabled_streamer_does_not_count(directory):
    deploy(directory, [{"id": "mine", "path": STREAMER_PATH, "disabled": True}])
    JobConfig(directory).put_streamer(ARGS)
    assert len(deployed(directory)["components"]) == 2


def test_strip_takes_out_ours_and_the_runtimes_own_and_nothing_else(directory):
    streamers = [
        {"id": "a", "path": STOCK},
        {"id": "b", "name": "JobLogStreamer"},
        {"id": "c", "path": STREAMER_PATH},
    ]
    streamers += [{"id": "d", "class_path": LONG, "args": {}}]
    kept = [OTHER, "not a dict", {"id": "e", "path": "custom.JobLogStreamer"}]
    deploy(directory, [*streamers, *kept])
    assert JobConfig(directory).strip_streamers() == 4
    assert deployed(directory)["components"] == kept


@pytest.mark.parametrize(
    "entry",
    [
        {"path": f" {STREAMER_PATH}"},
        {"class_path": f"{STOCK}\n"},
        {"name": " JobLogStreamer "},
        {"path": "nvflare_logstream.flare.site_log_streamer.JobLogStreamer"},
        {"path": "nvflare.recipe.spec.JobLogStreamer"},
        {"path": STOCK, "name": "custom.Metrics"},
        {"class_path": STREAMER_PATH, "name": "Metrics", "config_type": "dict"},
    ],
)
def test_every_form_of_a_streamers_class_is_stripped(directory, entry):
    deploy(directory, [{"id": "a", **entry}, OTHER])
    assert JobConfig(directory).strip_streamers() == 1
    assert deployed(directory)["components"] == [OTHER]


def test_strip_without_a_streamer_writes_nothing(directory, monkeypatch):
    deploy(directory, [OTHER])
    monkeypatch.setattr(os, "replace", None)
    assert JobConfig(directory).strip_streamers() == 0


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_config_and_nothing_beside_it(directory, monkeypatch, name):
    deploy(directory, [OTHER])
    before = (directory / "config_fed_client.json").read_bytes()
    monkeypatch.setattr(os, name, lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(JobConfigError, match="No space left"):
        JobConfig(directory).put_streamer(ARGS)
    assert (directory / "config_fed_client.json").read_bytes() == before and only_config_left(directory)


def test_a_disk_that_takes_not_even_a_removal_is_a_job_config_error(directory, monkeypatch):
    """The parent then follows the files; anything else would leave the job without."""
    deploy(directory, [OTHER])
    before = (directory / "config_fed_client.json").read_bytes()
    for name in ("fsync", "remove", "unlink"):
        monkeypatch.setattr(
            os, name, lambda *args: (_ for _ in ()).throw(OSError(30, "Read-only file system"))
        )
    with pytest.raises(JobConfigError, match="Read-only"):
        JobConfig(directory).put_streamer(ARGS)
    assert (directory / "config_fed_client.json").read_bytes() == before


def test_the_files_mode_is_kept(directory):
    deploy(directory)
    os.chmod(directory / "config_fed_client.json", 0o640)
    JobConfig(directory).put_streamer(ARGS)
    assert (directory / "config_fed_client.json").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", '{"components": {"id": 1}}', '{"components": "none"}', "\x00"]
)
def test_a_config_that_cannot_be_used_is_a_job_config_error(directory, text):
    (directory / "config_fed_client.json").write_text(text)
    with pytest.raises(JobConfigError):
        JobConfig(directory).put_streamer(ARGS)
    assert (directory / "config_fed_client.json").read_text() == text


@pytest.mark.parametrize("args", ["text", [1], 5])
def test_a_declared_streamer_with_impossible_arguments_is_a_job_config_error(directory, args):
    deploy(directory, [{"id": "mine", "path": STREAMER_PATH, "args": args}])
    with pytest.raises(JobConfigError, match=r"^args of nvflare_logstream"):
        JobConfig(directory).put_streamer(ARGS)


@pytest.mark.parametrize("depth", [300, 600, 900, 100_000])
def test_a_config_that_is_nested_too_deeply_is_written_whole_or_is_a_job_config_error(directory, depth):
    """It takes less depth to write than to read."""
    text = '{"executors": ' + "[" * depth + "]" * depth + "}"
    (directory / "config_fed_client.json").write_text(text)
    try:
        JobConfig(directory).put_streamer(ARGS)
    except JobConfigError:
        assert (directory / "config_fed_client.json").read_text() == text
    else:
        assert len(deployed(directory)["components"]) == 1
    assert only_config_left(directory)


def test_no_config_is_a_job_config_error(directory):
    with pytest.raises(JobConfigError, match="no client config"):
        JobConfig(directory)


@pytest.mark.parametrize(
    "name, text",
    [
        (
            "config_fed_client.conf",
            'format_version = 2\ncomponents = [{id = metrics, path = "custom.Metrics", args {every = 5}}]\n',
        ),
        (
            "config_fed_client.yml",
            "format_version: 2\n"
            "components:\n  - id: metrics\n    path: custom.Metrics\n    args:\n      every: 5\n",
        ),
    ],
)
def test_hocon_and_yaml_get_a_json_beside_them_that_the_runtime_reads_first(tmp_path, name, text):
    """Their loaders are not written for a file system that is not there."""
    (tmp_path / name).write_text(text)
    JobConfig(tmp_path).put_streamer(ARGS)
    assert deployed(tmp_path)["components"][0] == OTHER and deployed(tmp_path)["format_version"] == 2
    assert (tmp_path / name).read_text() == text
    assert len(JobConfig(tmp_path).streamers()) == 1
