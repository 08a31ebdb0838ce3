"""Logs that are named by patterns: which files they mean, when they are found, and how many."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nvflare_logstream.errors import ArgumentError
from nvflare_logstream.names import check_log_files, is_pattern
from nvflare_logstream.site import appearing
from nvflare_logstream.site.appearing import Directory, matches
from nvflare_logstream.streams import StreamId, Verdict
from nvflare_logstream.testing import Fault
from tests.unit.site_world import JOB, World

# -- the names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern", ["*", "*.log", "slurm-*.out", "rank?.txt", "rank[0-9].txt", "[!a]*", "a*b?c"]
)
def test_patterns(pattern: str) -> None:
    assert is_pattern(pattern) and check_log_files("log_files", [pattern, "log.txt", pattern]) == (
        pattern,
        "log.txt",
    )


@pytest.mark.parametrize(
    "value",
    [
        "",
        "/x/*",
        "../*.log",
        "sub/*.log",
        ".*",
        "-*",
        "a b*",
        "*.l\n",
        "[a",
        "a]",
        "[]",
        "[a/b]",
        "*" * 129,
        5,
        "**/x",
        "{a,b}*",
        "~*",
        "$x*",
        "[a\\]*",
    ],
)
def test_what_is_no_pattern(value: object) -> None:
    assert not is_pattern(value)
    with pytest.raises(ArgumentError, match=r"log_files\[1\].*or a pattern of such names"):
        check_log_files("log_files", ["log.txt", value])


@pytest.mark.parametrize(
    ("name", "pattern", "beside"),
    [
        ("train.log", "*.log", ()),
        ("slurm-17.out", "slurm-*.out", ()),
        ("worker.0", "worker*", ("worker.1",)),  # numbered, and a backup of nothing
        ("model-20261121", "model-*", ()),
        ("log_fl.txt", "log*", ("log.txt",)),
        ("log.json", "log*", ("log.txt",)),
        ("x.tmp", "*.tmp", ()),  # who says so wants it
        ("data.gz", "*.gz", ("other",)),
    ],
)
def test_a_file_that_is_meant(name: str, pattern: str, beside: tuple[str, ...]) -> None:
    assert matches(name, [pattern], {name, *beside})


@pytest.mark.parametrize(
    ("name", "pattern", "beside"),
    [
        ("log.txt.1", "log*", ("log.txt",)),
        ("log.txt.2026-11-21", "*", ("log.txt",)),
        ("log.txt-20261121", "log*", ("log.txt",)),
        ("train.log.2.gz", "*", ("train.log",)),
        ("train.log.gz", "*", ("train.log",)),
        ("audit.log", "*.log", ()),
        ("audit.log.1", "*", ()),  # the record itself may just have been moved away
        ("audit.log-20261121", "audit*", ()),
        ("audit.log.2.gz", "*.gz", ()),
        ("audit.log.gz", "*", ("audit.log",)),
        ("meta.json", "*.json", ()),
        ("_process_rc.txt", "*.txt", ()),
        ("stats_pool_summary.json", "*", ()),
        (".hidden.log", "*.log", ()),
        (".config_fed_client.json.x1", "*", ()),
        ("two words.log", "*.log", ()),
        ("x\x1b[31m.log", "*.log", ()),
        ("x.log.tmp", "*", ()),
        ("x.part", "x*", ()),
        ("TRAIN.LOG", "*.log", ()),
    ],
)
def test_a_file_that_is_not_meant(name: str, pattern: str, beside: tuple[str, ...]) -> None:
    assert not matches(name, [pattern], {name, *beside})


def test_only_plain_files_of_known_owners_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.log").touch()
    (tmp_path / "b.log").mkdir()
    (tmp_path / "c.log").symlink_to(tmp_path / "a.log")
    os.mkfifo(tmp_path / "d.log")
    directory = Directory(tmp_path)
    directory.patterns.add("*.log")
    assert directory.look(0.0, ()).names == ("a.log",)


@pytest.mark.parametrize("pattern", ["rank.*", "rank*"])
@pytest.mark.parametrize("kind", ["directory", "link"])
def test_a_numbered_log_beside_what_is_no_log(tmp_path: Path, pattern: str, kind: str) -> None:
    """Only the backup of a log belongs to another stream: here nobody else would send these."""
    other = tmp_path / "rank"
    other.mkdir() if kind == "directory" else other.symlink_to(tmp_path / "rank.0")
    for name in ("rank.0", "rank.1", "rank-20261121"):
        (tmp_path / name).touch()
    directory = Directory(tmp_path)
    directory.patterns.update({pattern, "rank-*"})
    expected = ("rank-20261121", "rank.0", "rank.1")
    assert directory.look(0.0, ()).names == expected
    again = Directory(tmp_path)
    again.patterns.update({pattern, "rank-*"})
    assert tuple(sorted(again.last_look((), ("rank.0",)).names)) == expected


def test_a_backup_of_a_log_that_no_pattern_means(tmp_path: Path) -> None:
    """A site that names only `train.log.*` gets these: nobody follows `train.log`."""
    for name in ("train.log", "train.log.1", "other.log", "other.log.1", "other.log.1.gz"):
        (tmp_path / name).touch()
    directory = Directory(tmp_path)
    directory.patterns.update({"train.log.*", "other*"})
    assert directory.look(0.0, ()).names == ("other.log", "train.log.1")


def test_a_directory_that_is_not_there_or_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = Directory(tmp_path / "later")
    directory.patterns.add("*.log")
    assert directory.look(0.0, ()).names == () and not caplog.records
    (tmp_path / "later").write_text("no directory")
    assert directory.look(10.0, ()).names == directory.look(20.0, ()).names == ()
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot look for logs in {tmp_path / 'later'}: Not a directory"
    ]


def test_looks_are_no_more_frequent_than_they_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 2.0, 0.0, 0.0])
    monkeypatch.setattr(appearing.time, "perf_counter", lambda: next(times))
    directory = Directory(tmp_path)
    directory.patterns.add("*")
    directory.look(0.0, ())  # it took two seconds
    (tmp_path / "a").touch()
    assert directory.look(99.0, ()).names == ()
    assert directory.look(100.0, ()).names == ("a",)


# -- a site and a server -------------------------------------------------------------------------------------


@pytest.fixture
def world(memory_path):
    world = World(memory_path)
    yield world
    world.close()


def files(world: World) -> dict[str, str]:
    return {info.key.file: info.verdict for info in world.store.streams(JOB)}


def test_what_appears_is_followed_from_its_beginning(world: World) -> None:
    sender = world.sender("log.txt", "*.log")
    world.write(b"early\n", "a.log")
    world.run(sender)
    world.write(b"line 1\n", "b.log")
    world.run(sender)
    world.write(b"line 2\n", "b.log")
    world.run(sender)
    assert (world.stored("a.log"), world.stored("b.log")) == (b"early\n", b"line 1\nline 2\n")
    world.finish(sender)
    assert files(world) == dict.fromkeys(["a.log", "b.log", "log.txt"], Verdict.COMPLETE)


def test_a_pattern_alone_is_looked_for_without_any_stream(world: World) -> None:
    """The sender sleeps for a minute while there is nothing to do; a pattern is something."""
    sender = world.sender("*.log")
    world.run(sender, 3)
    assert max(world.watcher.waits) <= 1.0
    world.write(b"x\n", "a.log")
    world.run(sender)
    assert world.stored("a.log") == b"x\n"


def test_a_log_that_appears_at_the_last_moment(world: World) -> None:
    """Also one that was never looked for: the process that closes is another one."""
    world.write(b"x\n", "a.log")
    world.finish(world.sender(), ("*.log",))
    assert files(world) == {"a.log": Verdict.COMPLETE}


def test_a_drain_finds_what_was_written_before_it(world: World) -> None:
    sender = world.sender("*.log")
    world.run(sender)
    world.write(b"x\n", "a.log")
    world.run(sender, 2)  # a look was just now
    sender._orders._waiting = 1  # somebody waits for all to be sent
    world.run(sender, 5)
    assert world.stored("a.log") == b"x\n"


def test_a_rotation_of_what_a_pattern_found_is_one_stream(world: World) -> None:
    sender = world.sender("train*")
    world.write(b"line 1\n", "train.log")
    world.run(sender)
    (world.logs / "train.log").rename(world.logs / "train.log.1")
    world.run(sender)  # between the two steps of the rotation
    world.write(b"line 2\n", "train.log")
    world.run(sender)
    world.finish(sender)
    assert files(world) == {"train.log": Verdict.COMPLETE}
    assert world.stored("train.log") == b"line 1\nline 2\n"


def test_a_log_whose_file_is_gone_at_the_end_is_closed_too(world: World) -> None:
    sender = world.sender("*.log")
    world.write(b"x\n", "a.log")
    world.run(sender)
    sender.stop()
    (world.logs / "a.log").unlink()
    world.finish(world.sender(), ("*.log",))
    assert world.info("a.log").ended


def test_what_the_server_names_is_not_read_for_it(world: World) -> None:
    """It may have others of this job, from before; only what the patterns mean is touched."""
    for name in ("a.log", "secret.txt", "audit.log", "log.txt.1"):
        world.write(b"x\n", name)
    world.write(b"x\n", "log.txt")
    world.run(world.sender("secret.txt", "audit.log", "log.txt.1"))
    world.finish(world.sender(), ("*.log", "log*"))
    assert {file for file, verdict in files(world).items() if verdict is Verdict.COMPLETE} == {
        "a.log",
        "log.txt",
    }


def test_a_restart_leaves_closed_logs_alone(world: World) -> None:
    world.write(b"x\n", "a.log")
    world.finish(world.sender("*.log"))
    closed = world.info("a.log").closed
    world.write(b"x\n", "b.log")
    world.clock.advance(60)
    world.finish(world.sender(), ("*.log",), only_unclosed=True)
    assert files(world) == {"a.log": Verdict.COMPLETE, "b.log": Verdict.COMPLETE}
    assert world.info("a.log").closed == closed


def test_more_than_the_server_takes(memory_path: Path) -> None:
    world = World(memory_path, files=3)
    sender = world.sender("log.txt", "*.log")
    for number in range(6):
        world.write(b"x\n", f"{number}.log")
    world.run(sender)
    asked = len(world.link.requests)
    world.run(sender)
    assert len(world.link.requests) <= asked + 2  # what was refused is not asked for again
    world.finish(sender)
    stopped = [info for info in world.store.streams(JOB) if info.verdict is Verdict.PARTIAL]
    assert len(stopped) == 1 and "the most allowed, see max_site_files" in stopped[0].verdict_reason
    assert list(files(world).values()).count(Verdict.COMPLETE) == 3
    world.close()


def test_more_than_a_site_sends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appearing, "MOST_FOUND", 3)
    for number in range(9):
        world.write(b"x\n", f"{number}.log")
    sender = world.sender("log.txt", "*.log")
    world.run(sender)
    world.write(b"x\n", "later.log")
    world.run(sender)
    refused = [info for info in world.store.streams(JOB) if info.verdict is Verdict.REFUSED]
    assert [info.key.file for info in refused] == ["3.log"] and "files match the site's" in refused[0].reason
    world.finish(sender)
    # What was refused, the server knows: it is closed with the others, and the next one is refused.
    found = dict.fromkeys([f"{number}.log" for number in range(4)], Verdict.COMPLETE)
    assert files(world) == {"log.txt": Verdict.COMPLETE, **found, "4.log": Verdict.REFUSED}


def test_faults_on_the_way(world: World) -> None:
    sender = world.sender("*.log")
    for number, fault in enumerate(Fault):
        world.link.faults.append(fault)
        world.write(b"line\n" * 10, f"{number}.log")
        world.run(sender, 6)
    world.finish(sender)
    assert files(world) == {f"{number}.log": Verdict.COMPLETE for number in range(len(Fault))}
    assert world.verdicts[StreamId(JOB, "0.log")] is Verdict.COMPLETE
