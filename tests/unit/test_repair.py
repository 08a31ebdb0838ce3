"""A store whose index is gone or damaged: nothing that is stored is lost, and its sites go on."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nvflare_logstream.cli.main import run
from nvflare_logstream.errors import DamagedError, RefusedError, StoreError
from nvflare_logstream.store import repair as repair_module
from nvflare_logstream.store.index import INDEX_FILE
from nvflare_logstream.store.migrations import STEPS
from nvflare_logstream.store.repair import repair
from nvflare_logstream.store.store import LogStore
from nvflare_logstream.streams import Loss, State, StreamKey
from tests.unit.site_world import JOB, SITE, World

LINES = b"".join(b"line %d\n" % number for number in range(1000))
OTHER = StreamKey("job-9", SITE, "log.txt")


@pytest.fixture
def world(memory_path):
    """`log.txt` is still being written, `old.txt` is complete, and so are many logs of other jobs."""
    world = World(memory_path)
    sender = world.sender("log.txt", "old.txt")
    world.write(LINES[:3000], "old.txt")
    world.run(sender)
    world.finish(sender)
    for number in range(300):
        world.store.refuse(StreamKey(f"job-{number}", "site-2", "log.txt"), "its policy" * 20, commit=False)
    world.store.commit()
    world.write(LINES[:2000])
    world.run(world.sender("log.txt"))
    world.store.commit()
    yield world
    world.close()


def stop(world: World) -> Path:
    """Stop the server; returns its index."""
    world.store.close()
    return world.root / INDEX_FILE


def start(world: World) -> None:
    world.store = LogStore(world.root, world.quotas, world.clock)


def go_on(world: World) -> None:
    """The site writes more, and the job ends; all that it wrote is then stored, once."""
    world.write(LINES[2000:])
    sender = world.senders[-1]
    world.run(sender)
    world.finish(sender)
    assert world.stored() == LINES and world.stored("old.txt") == LINES[:3000]
    assert world.info().verdict == "complete" and str(world.verdicts).count("complete") >= 2


def lose(index: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{index}{suffix}").unlink(missing_ok=True)


# -- an index that is gone -----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["removed", "emptied"])
def test_a_server_whose_index_is_gone_keeps_the_logs_and_their_sites_go_on(world, caplog, loss):
    index = stop(world)
    lose(index)
    if loss == "emptied":
        index.touch()
    start(world)
    assert "was gone, and is made anew from the 2 logs that are stored" in caplog.text
    assert [(s.file, s.end, s.lines, s.state) for s in world.store.streams()] == [
        ("log.txt", 2000, LINES[:2000].count(b"\n"), State.STOPPED),
        ("old.txt", 3000, LINES[:3000].count(b"\n"), State.STOPPED),
    ]
    reason = "the server's index was rebuilt; its site has not gone on with this log since"
    assert {s.standing for s in world.store.streams()} == {f"partial ({reason})"}
    go_on(world)
    assert world.info("old.txt").verdict == "partial", "its site was not asked again"
    assert len(world.link.requests) < 60
    world.store.close()
    start(world)
    assert world.info().verdict == "complete"


@pytest.mark.parametrize("rotated", [0, 1000, 2500])
def test_a_site_that_comes_again_makes_a_log_complete_whose_row_was_lost(world, rotated):
    """It counts the stored bytes from the start of its oldest file."""
    lose(stop(world))
    start(world)
    log = world.logs / "log.txt"
    if rotated:
        log.write_bytes(LINES[:rotated])
        log.rename(world.logs / "log.txt.1")
    log.write_bytes(LINES[rotated:])
    sender = world.sender("log.txt", "old.txt")
    world.finish(sender)
    assert {world.info("log.txt").verdict, world.info("old.txt").verdict} == {"complete"}
    assert world.stored() == LINES and world.stored("old.txt") == LINES[:3000]


def test_what_rotation_removed_at_the_site_stays_at_the_server_whose_index_is_gone(world):
    """Nobody can then say that the log is complete."""
    lose(stop(world))
    start(world)
    log = world.logs / "log.txt"
    log.rename(world.logs / "log.txt.1")
    world.write(b"after\n" * 500)
    (world.logs / "log.txt.1").unlink()
    world.run(world.senders[-1])
    world.finish(world.senders[-1])
    assert world.stored().startswith(LINES[:2000])
    assert world.info().verdict in ("lost", "partial")


def test_a_crash_while_the_index_is_made_anew_loses_nothing(world, monkeypatch):
    lose(stop(world))
    with monkeypatch.context() as patched:
        patched.setattr(repair_module.Index, "save", lambda *args: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                start(world)
    start(world)
    assert len(world.store.streams()) == 2
    go_on(world)


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_store_takes_up_nothing_that_others_have_left_in_its_directory(memory_path, mode):
    (memory_path / "home").mkdir(mode=0o700)
    (memory_path / "home" / "alice").mkdir(mode=0o700)
    (memory_path / "home" / "alice" / "diary").write_text("dear diary")
    (memory_path / "home" / "alice" / "diary").chmod(mode)
    for number in range(3):
        store = LogStore(memory_path)
        assert store.streams() == []
        store.close()
        if number == 1 and mode == 0o644:  # what the store makes is its own user's alone
            lose(memory_path / INDEX_FILE)


def test_a_link_is_not_taken_up(world):
    lose(stop(world))
    (world.root / JOB / SITE / "passwd").symlink_to("/etc/passwd")
    (world.root / "job-2").symlink_to(world.root / JOB)
    start(world)
    assert len(world.store.streams()) == 2


# -- one that is damaged -------------------------------------------------------------------------------------


def damage_at(index: Path, place: float, length: int) -> None:
    with index.open("r+b") as file:
        file.seek(int(place * index.stat().st_size))
        file.write(random.Random(length).randbytes(length))


DAMAGES = {
    "cut at a tenth": lambda index: os.truncate(index, index.stat().st_size // 10),
    "cut in the middle": lambda index: os.truncate(index, index.stat().st_size // 2),
    "cut at the end": lambda index: os.truncate(index, index.stat().st_size - 5000),
    "cut in the header": lambda index: os.truncate(index, 50),
    "no database": lambda index: index.write_bytes(b"not a database " * 1000),
    "garbage at the start": lambda index: damage_at(index, 0.0, 40),
    "garbage in the schema": lambda index: damage_at(index, 0.0, 4096),
    "garbage in the middle": lambda index: damage_at(index, 0.3, 30_000),
    "garbage at the end": lambda index: damage_at(index, 0.8, 20_000),
    "zeros": lambda index: os.truncate(index, 8192) or os.truncate(index, 80_000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_stops_the_store_with_one_line_and_is_repaired(world, damage):
    index = stop(world)
    assert index.stat().st_size > 80_000
    DAMAGES[damage](index)
    content = index.read_bytes()
    with pytest.raises(DamagedError) as error:
        start(world)
    said = str(error.value)
    assert re.fullmatch(rf"cannot open the store's index {index}: [^\n]+", said)
    assert said.endswith(f"stop the server and run `nvflare-logstream repair {world.root}`")
    assert index.read_bytes() == content
    done = repair(world.root)
    assert done.damage and done.kept_as and done.kept_as.read_bytes() == content
    start(world)
    assert [stream for stream, _ in done.rows] == world.store.streams()
    complete = [stream.file for stream in world.store.streams() if stream.verdict == "complete"]
    assert complete in ([], ["old.txt"])
    go_on(world)
    world.store.close()
    assert repair(world.root).damage == "" and not list(world.root.glob(".repair-*"))
    start(world)


@pytest.mark.parametrize("field", ["reason", "state", "came"])
def test_a_row_that_is_no_text_is_told_and_made_anew(world, field, capsys):
    """SQLite itself finds nothing wrong with it."""
    index = stop(world)
    with closing(sqlite3.connect(index)) as db, db:
        db.execute(f"UPDATE streams SET {field} = CAST(x'6f0a1bff' AS TEXT) WHERE file = 'old.txt'")
    start(world)
    assert len(world.store.streams("job-7")) == 1
    with pytest.raises(StoreError, match="run `nvflare-logstream repair STORE_DIR`") as error:
        world.store.streams(JOB)
    assert str(error.value).isprintable()
    world.store.index.close()
    assert run(["repair", str(world.root)]) == 0
    start(world)
    assert world.info("old.txt").end == 3000 and world.info("old.txt").verdict == "partial"
    assert len(world.store.streams()) == 302
    go_on(world)


def test_a_schema_that_is_no_text_is_damage(world):
    index = stop(world)
    content = index.read_bytes()
    index.write_bytes(content.replace(b"heard", bytes([0xFF]) * 5))
    assert index.read_bytes() != content
    with pytest.raises(DamagedError):
        start(world)
    repair(world.root)
    start(world)
    go_on(world)


def test_damage_that_comes_while_the_server_runs_is_told_without_a_path(world):
    """Sites read what the server says of it."""
    world.store.index._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    world.store.index._db.execute("PRAGMA cache_size=0")
    damage_at(world.root / INDEX_FILE, 0.0, 80_000)
    with pytest.raises(DamagedError, match="run `nvflare-logstream repair STORE_DIR`") as error:
        world.store.streams()
    assert str(world.root) not in str(error.value)
    world.store.index.close()
    repair(world.root)
    start(world)
    go_on(world)


def test_what_can_be_read_of_a_damaged_index_is_kept(world):
    world.store.delete_job(OTHER.job_id, "the job was deleted")
    before = [stream._replace(came="") for stream in world.store.streams()]
    index = stop(world)
    with closing(sqlite3.connect(index)) as db:
        ((root_page,),) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'heard'").fetchall()
        ((size,),) = db.execute("PRAGMA page_size").fetchall()
    with index.open("r+b") as file:
        file.seek((root_page - 1) * size)
        file.write(b"\xff" * size)
    assert repair(world.root).kept_as
    start(world)
    assert world.store.streams() == before
    assert world.info("old.txt").verdict == "complete"
    with pytest.raises(RefusedError, match="has removed the logs of job job-9: the job was deleted"):
        world.store.open(OTHER)
    go_on(world)


def cannot_be_read(*args: object) -> str:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("damage", ["ledger", "file", "disk"])
def test_what_was_complete_is_so_only_where_it_can_be_proven(world, monkeypatch, damage):
    """An entry of the ledger that cannot be read may say that bytes are missing."""
    for number in range(400):
        losses = (Loss(number, 3, "gone"),)
        world.store.append(OTHER, number, b"x", b"{}", losses, commit=False)
    index = stop(world)
    wanted = "losses" if damage == "ledger" else "heard"
    with closing(sqlite3.connect(index)) as db:
        ((page,),) = db.execute(f"SELECT rootpage FROM sqlite_master WHERE name = '{wanted}'").fetchall()
    with index.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    if damage == "disk":
        monkeypatch.setattr(repair_module, "digest_of", cannot_be_read)
    if damage == "file":
        with (world.root / JOB / SITE / "old.txt").open("r+b") as file:
            file.write(b"changed")
    repair(world.root)
    start(world)
    reason = "the server's index was damaged: whether nothing was lost of this log is not known"
    assert world.info("old.txt").standing == f"partial ({reason})"


def test_a_log_that_was_removed_or_cut_is_known_by_what_is_left(world):
    index = stop(world)
    damage_at(index, 0.3, 30_000)
    os.truncate(world.root / JOB / SITE / "old.txt", 1000)
    (world.root / JOB / SITE / "log.txt").unlink()
    repair(world.root)
    start(world)
    assert (world.info("old.txt").end, world.info("old.txt").verdict) == (1000, "partial")
    sender = world.sender("log.txt", "old.txt")
    world.write(LINES[2000:])
    world.finish(sender)
    assert world.stored() == LINES and world.stored("old.txt") == LINES[:3000]


def test_an_index_that_lost_its_last_changes_goes_on_from_where_it_was(world):
    """The file that SQLite keeps beside it was lost: what it knew is older, and sound."""
    world.store.index._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(world.root / INDEX_FILE, world.root / "copy")
    later = StreamKey(JOB, SITE, "later.txt")
    world.store.append(later, 0, LINES, b"{}")
    world.write(LINES[2000:2500])
    world.run(world.senders[-1])
    index = stop(world)
    lose(index)
    (world.root / "copy").rename(index)
    done = repair(world.root)
    assert done.damage == "" and [str(s.key) for s, origin in done.rows if origin == "file"] == [str(later)]
    start(world)
    assert world.info("later.txt").end == len(LINES)
    world.write(LINES[2500:])
    world.finish(world.senders[-1])
    assert world.stored() == LINES and world.info().verdict == "complete"
    assert world.stored("later.txt") == LINES


def test_a_file_that_cannot_be_read_keeps_no_other_log_back(world, capsys, monkeypatch):
    """Its row stays as it was, if that can be read; else the command is to be run again."""
    index = stop(world)
    damage_at(index, 0.0, 4096)
    from_file = repair_module.from_file

    def fails(key, path):
        if key.file == "old.txt":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return from_file(key, path)

    with monkeypatch.context() as patched:
        patched.setattr(repair_module, "from_file", fails)
        assert run(["repair", str(world.root)]) == 1
    assert "old.txt'; run the command again when that can be read" in capsys.readouterr().out
    assert run(["repair", str(world.root)]) == 0
    start(world)
    assert world.info("log.txt").end == 2000 and world.info("old.txt").end == 3000


# -- what is refused -----------------------------------------------------------------------------------------


def refused(root: Path, capsys) -> str:
    files = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert run(["repair", str(root)]) == 1
    assert {
        path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != ".lock"
    } == {path: content for path, content in files.items() if path.name != ".lock"}
    said = capsys.readouterr()
    assert not said.out
    return said.err


def test_a_store_in_use_is_not_repaired_and_one_in_repair_is_not_used(world, capsys, monkeypatch):
    assert "is in use: a server uses it; stop the server first" in refused(world.root, capsys)
    world.run(world.senders[-1])
    damage_at(stop(world), 0.3, 30_000)

    def replace(root, new):
        with pytest.raises(StoreError, match="it is being repaired"):
            LogStore(root)
        return replace_index(root, new)

    replace_index = repair_module._replace
    monkeypatch.setattr(repair_module, "_replace", replace)
    repair(world.root)
    monkeypatch.undo()
    start(world)


def test_two_receivers_may_use_a_store(world):
    """Those that come with jobs keep one store together."""
    other = LogStore(world.root)
    assert other.streams() == world.store.streams()
    other.close()


def test_an_index_of_a_later_release_is_not_repaired_over(world, capsys):
    with closing(sqlite3.connect(stop(world))) as db:
        db.execute(f"PRAGMA user_version={len(STEPS) + 1}")
    assert "was written by a later release" in refused(world.root, capsys)
    with closing(sqlite3.connect(world.root / INDEX_FILE)) as db:
        db.execute(f"PRAGMA user_version={len(STEPS)}")
    start(world)


def test_what_is_no_store_is_left_alone(tmp_path, capsys):
    assert "is not the directory of a log store" in refused(tmp_path, capsys)
    assert "is not the directory of a log store" in refused(tmp_path / "nowhere", capsys)
    with closing(sqlite3.connect(tmp_path / INDEX_FILE)) as db:
        db.execute("CREATE TABLE bookmarks (url)")
    assert "is not the index of a log store" in refused(tmp_path, capsys)


# -- the command ---------------------------------------------------------------------------------------------


def test_the_command_says_what_it_found(world, capsys):
    damage_at(stop(world), 0.0, 4096)
    assert run(["repair", str(world.root)]) == 0
    said = capsys.readouterr()
    assert not said.err and "job-1/site-1/old.txt: 3,000 bytes, partial (the server's index" in said.out
    assert "0 logs are as they were" in said.out and "2 are known by their files alone" in said.out
    assert f"the old index is kept as {world.root / INDEX_FILE}.damaged-1" in said.out
    assert run(["repair", str(world.root)]) == 0
    assert "it is sound\n2 logs are as they were" in capsys.readouterr().out
    damage_at(world.root / INDEX_FILE, 0.0, 4096)
    assert run(["repair", str(world.root), "--format", "json"]) == 0
    (found,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert found["data"]["damage"] and found["data"]["kept_as"].endswith(".damaged-2")
    assert found["data"]["logs"][0] == {
        "job_id": JOB,
        "site": SITE,
        "file": "log.txt",
        "bytes": 2000,
        "verdict": "partial",
        "from": "file",
    }
    start(world)
