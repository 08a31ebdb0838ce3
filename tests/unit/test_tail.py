"""The tailer against a plain model: every byte written, in order, or a loss where it is missing."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import tempfile
import time
from collections.abc import Collection
from itertools import count, pairwise
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nvflare_logstream.site import chain, plain, strays, tail
from nvflare_logstream.site.chain import scan
from nvflare_logstream.site.cursor import Segment
from nvflare_logstream.site.plain import ChainFile
from nvflare_logstream.site.tail import Tailer
from nvflare_logstream.streams import Loss
from tests.unit.site_world import Changes

ENOUGH = 1 << 24


def read_all(tailer: Tailer, limit: int = ENOUGH) -> bytes:
    """What the tailer still has; for tests in which nothing may be lost."""
    data = b""
    while chunk := tailer.read(limit):
        assert not chunk.losses
        data += chunk.data
    return data


def read_with_losses(tailer: Tailer) -> tuple[bytes, list[Loss]]:
    """What the tailer still has, and what it says is missing."""
    chunks = list(iter(lambda: tailer.read(ENOUGH), None))
    return b"".join(chunk.data for chunk in chunks), [loss for chunk in chunks for loss in chunk.losses]


def assert_explained(written: bytes, delivered: bytes, losses: set[int]) -> None:
    """`delivered` is `written` in order, and bytes are missing only at the offsets in `losses`."""
    cuts = sorted({0, len(delivered), *losses})
    explained = 0
    for start, end in pairwise(cuts):
        begins = written.find(delivered[start:end], explained)
        assert begins >= 0, f"bytes {start}-{end} are out of order, changed or there twice"
        missing = f"bytes {explained}-{begins} are missing at {start} without a loss"
        assert begins == explained or start in losses, missing
        explained = begins + end - start
    missing = f"bytes {explained}-{len(written)} are missing at the end"
    assert explained == len(written) or len(delivered) in losses, missing


class TailMachine(RuleBasedStateMachine):
    """A writer, its rotations and a reader that may start anew at any place it has given out."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="tail-"))
        self.path = self.directory / "log.txt"
        self.serial, self.time, self.changes = count(1), count(1), Changes()
        self.written, self.delivered, self.losses = b"", b"", set()
        self.cursors = [(0, b"")]
        self.tailer = Tailer(self.directory, "log.txt")
        self.destroyed = False  # bytes of the log are no longer on disk
        self.earliest = 0  # the first place from which a reader can still know what was destroyed behind it
        self.doubt = False  # bytes were destroyed unread, or a reader could not tell whether they were
        self.current_begun = False
        self.deleted = False  # the log was deleted, and the reader has not looked since
        self.seen = (
            True  # the reader has looked since the last rotation, and is in a file that still has a name
        )
        self.copied = False  # there was a copytruncate: what vanishes unread after it can leave no trace
        self.renamed = False  # the writer still owns log.txt.1

    def teardown(self) -> None:
        try:
            self.look_until_nothing_is_new()
            assert_explained(self.written, self.delivered, self.losses)
            assert self.doubt or self.delivered == self.written
            digest, begins = self.tailer.digest()
            assert digest == hashlib.sha256(self.delivered[begins:]).hexdigest()
        finally:
            self.tailer.close()
            shutil.rmtree(self.directory)

    @initialize(backups=st.integers(1, 4), rising=st.booleans())
    def choose_a_scheme(self, backups: int, rising: bool) -> None:
        """Rising: each backup gets a number above all before, and stays; otherwise they are shifted."""
        self.backups, self.rising, self.rotations = backups, rising, 0

    # -- the writer ------------------------------------------------------------------------------------------

    @rule(kind=st.sampled_from(["line", "partial", "binary", "empty", "long"]))
    def write(self, kind: str) -> None:
        unique = random.Random(next(self.serial)).randbytes(12)
        data = {
            "line": unique.hex().encode() + b" - INFO - a line\n",
            "partial": unique.hex().encode(),
            "binary": b"\x00\xff\xfe" + unique,
            "empty": b"",
            "long": unique * 300,
        }[kind]
        # Who finds a log deleted and made anew in one look cannot know how often that happened.
        self.doubt |= self.deleted and not self.path.exists()
        with self.path.open("ab") as file:
            file.write(data)
        self.written += data
        self.touch(self.path)

    def touch(self, path: Path) -> None:
        """Let time pass: two changes of a file never bear the same time."""
        now = next(self.time) * 1_000_000
        os.utime(path, ns=(now, now))
        self.changes.happen_now(path)

    def is_begun(self) -> bool:
        """Whether the reader's file can still be compared with others; else what vanishes leaves no trace."""
        fd = self.tailer.descriptor
        return bool(self.delivered or self.losses) and fd is not None and os.fstat(fd).st_nlink > 0

    def is_at_current(self) -> bool:
        """Whether the reader has read something of the current file."""
        fd = self.tailer.descriptor
        return (
            self.is_begun()
            and self.path.exists()
            and os.fstat(fd).st_ino == self.path.stat().st_ino
            and self.current_begun
        )

    def shift(self) -> None:
        """Make room for a new backup."""
        if self.rising:
            self.rotations += 1
            self.doubt |= self.destroyed and not self.seen
            self.seen = False
            return
        oldest = self.backup(self.backups)
        if oldest.exists():
            if not self.is_begun() or self.copied:
                self.look_until_nothing_is_new()
            self.doubt |= self.delivered != self.written
            self.destroyed, self.earliest = True, max(1, self.earliest)
            oldest.unlink()
        for number in range(self.backups - 1, 0, -1):
            if self.backup(number).exists():
                self.backup(number).rename(self.backup(number + 1))
                self.changes.happen_now(self.backup(number + 1))
        self.doubt |= self.destroyed and not self.seen
        self.seen = False

    def backup(self, number: int) -> Path:
        """The backup of this age; 1 is the newest."""
        return self.directory / f"log.txt.{self.rotations + 1 - number if self.rising else number}"

    @precondition(lambda self: self.path.exists())
    @rule(successor=st.booleans())
    def rotate(self, successor: bool) -> None:
        self.shift()
        self.path.rename(self.backup(1))
        self.changes.happen_now(self.backup(1))
        self.renamed = True
        if successor:
            self.path.touch()
            self.touch(self.path)

    @precondition(lambda self: self.renamed and not (self.path.exists() and self.path.stat().st_size))
    @rule()
    def write_late(self) -> None:
        """A line for the renamed file, before its successor has data."""
        data = b"%d, a late line\n" % next(self.serial)
        with self.backup(1).open("ab") as file:
            file.write(data)
        self.written += data
        self.touch(self.backup(1))

    @precondition(lambda self: self.path.exists() and self.path.stat().st_size)
    @rule()
    def copytruncate(self) -> None:
        self.shift()
        shutil.copyfile(self.path, self.backup(1))
        self.copied = True
        self.touch(self.backup(1))
        os.truncate(self.path, 0)
        self.touch(self.path)
        self.current_begun = self.renamed = False

    @precondition(lambda self: self.is_at_current())
    @rule()
    def truncate(self) -> None:
        os.truncate(self.path, 0)
        self.touch(self.path)
        self.doubt, self.destroyed, self.current_begun = True, True, False
        self.earliest = len(self.cursors) - 1

    @precondition(lambda self: self.is_at_current())
    @rule()
    def truncate_and_outgrow(self) -> None:
        size = self.path.stat().st_size
        self.truncate()
        while self.path.stat().st_size <= size:
            self.write("long")

    @precondition(lambda self: self.is_at_current())
    @rule(recreate=st.booleans())
    def delete(self, recreate: bool) -> None:
        self.path.unlink()
        self.seen = False
        self.destroyed, self.deleted, self.current_begun, self.renamed = True, True, False, False
        self.earliest = len(self.cursors) - 1
        if recreate:
            self.write("line")

    @precondition(lambda self: self.path.exists())
    @rule(name=st.sampled_from(["bak", "1.bak", "save"]))
    def copy_as_an_operator_does(self, name: str) -> None:
        shutil.copyfile(self.path, self.directory / f"log.txt.{name}")

    @rule(kind=st.sampled_from(["link", "loop", "pipe"]), number=st.integers(1, 9))
    def put_something_else_there(self, kind: str, number: int) -> None:
        """What is no file of the log, under a name that a rotated one may have."""
        path = self.directory / f"log.txt.0{number}"
        path.unlink(missing_ok=True)
        secret = self.directory / "secret"
        secret.write_bytes(b"a secret")
        os.mkfifo(path) if kind == "pipe" else path.symlink_to(secret if kind == "link" else path)

    # -- the reader ------------------------------------------------------------------------------------------

    @rule(limit=st.sampled_from([16, 64, 1000, ENOUGH]))
    def read(self, limit: int) -> None:
        self.look(limit)

    @rule()
    def look_until_nothing_is_new(self) -> None:
        while self.look(ENOUGH):
            pass

    def look(self, limit: int) -> bool:
        chunk, fd = self.tailer.read(limit), self.tailer.descriptor
        self.seen = fd is None or os.fstat(fd).st_nlink > 0
        if chunk is None:
            self.deleted = False
            return False
        assert chunk.offset == len(self.delivered) and len(chunk.data) <= limit
        assert chunk.data or chunk.losses
        self.losses |= {loss.offset for loss in chunk.losses}
        self.delivered += chunk.data
        self.cursors.append((self.tailer.offset, chunk.cursor))
        assert self.tailer.stands_at(*self.cursors[-1])
        self.current_begun = bool(chunk.data)
        return True

    @precondition(lambda self: len(self.cursors) > 1)
    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        """A new reader goes on at a place of an earlier one; what follows it is still there, or is a loss."""
        place = data.draw(st.integers(max(self.earliest, len(self.cursors) - 4), len(self.cursors) - 1))
        offset, cursor = self.cursors[place]
        self.tailer.close()
        self.tailer = Tailer(self.directory, "log.txt")
        self.tailer.seek(offset, cursor)
        del self.cursors[place + 1 :]
        self.delivered = self.delivered[:offset]
        self.losses = {loss for loss in self.losses if loss <= offset}
        self.current_begun = False
        self.doubt |= self.destroyed

    @invariant()
    def nothing_is_reported_lost_without_reason(self) -> None:
        assert self.doubt or not self.losses


TestTailer = TailMachine.TestCase
TestTailer.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


# -- named cases ---------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.txt"


@pytest.fixture
def tailer(log):
    tailer = Tailer(log.parent, log.name)
    yield tailer
    tailer.close()


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_a_line_of_many_mib_comes_in_chunks_of_the_limit(log, tailer):
    line = os.urandom(5 << 20)
    log.write_bytes(line)
    chunks = list(iter(lambda: tailer.read(1 << 20), None))
    assert [len(chunk.data) for chunk in chunks] == [1 << 20] * 5
    assert b"".join(chunk.data for chunk in chunks) == line


def test_rotation_while_a_file_is_being_read(log, tailer):
    """Between two chunks of one file it is renamed twice, and its successor is written to."""
    log.write_bytes(b"0123456789")
    data = tailer.read(4).data
    log.rename(log.with_name("log.txt.1"))
    log.write_bytes(b"abc")
    data += tailer.read(4).data
    log.with_name("log.txt.1").rename(log.with_name("log.txt.2"))
    log.rename(log.with_name("log.txt.1"))
    log.write_bytes(b"xyz")
    assert data + read_all(tailer, 2) == b"0123456789abcxyz"


def test_a_late_line_in_the_renamed_file_comes_before_its_successor(log, tailer):
    log.write_bytes(b"one ")
    data = read_all(tailer)
    renamed = log.with_name("log.txt.1")
    log.rename(renamed)
    log.touch()
    data += read_all(tailer)
    append(renamed, b"late ")
    append(log, b"two")
    assert data + read_all(tailer) == b"one late two"


@pytest.mark.parametrize("inode", ["another", "the same"])
def test_a_file_that_was_seen_behind_others_does_not_go_unnoticed(log, tailer, inode):
    """It was deleted and made anew while the reader was two files behind, maybe with the inode it had."""
    log.write_bytes(b"one ")
    read_all(tailer)
    log.rename(log.with_name("log.txt.20261101"))
    log.write_bytes(b"two ")
    log.rename(log.with_name("log.txt.20261102"))
    log.write_bytes(b"never read ")
    tailer.open()
    if inode == "another":
        log.rename(log.with_name("gone"))
        log.write_bytes(b"four")
    else:
        log.write_bytes(b"four, and longer than it was")
    data, losses = read_with_losses(tailer)
    assert data == b"two " + log.read_bytes()
    assert [loss.offset for loss in losses] == [8]


def test_a_copytruncate_that_happened_while_nobody_looked_is_resumed_in_the_copy(log, tailer):
    log.write_bytes(b"0123456789")
    chunk = tailer.read(4)
    shutil.copyfile(log, log.with_name("log.txt.1"))
    os.truncate(log, 0)
    append(log, b"abcdefghijklmnop")
    resumed = Tailer(log.parent, log.name)
    resumed.seek(4, chunk.cursor)
    assert chunk.data + read_all(resumed) == b"0123456789abcdefghijklmnop"
    assert resumed.digest() == (hashlib.sha256(b"0123456789abcdefghijklmnop").hexdigest(), 0)
    resumed.close()


def test_of_several_like_copies_the_newest_is_the_truncated_one(log, tailer):
    log.write_bytes(b"=\n")
    log.rename(log.with_name("log.txt.2"))
    log.write_bytes(b"=\n")
    data = read_all(tailer)
    shutil.copyfile(log, log.with_name("log.txt.1"))
    os.truncate(log, 0)
    append(log, b"new\n")
    assert data + read_all(tailer) == b"=\n=\nnew\n"


def test_a_copy_of_what_nobody_had_begun_to_read_comes_first(log, tailer):
    log.touch()
    assert tailer.read(ENOUGH) is None
    append(log, b"before ")
    shutil.copyfile(log, log.with_name("log.txt.1"))
    os.truncate(log, 0)
    append(log, b"after")
    assert read_all(tailer) == b"before after"


def test_rotation_of_a_file_nobody_saw_is_a_loss(log, tailer):
    """The reader knew the successor by name; it went away unread."""
    log.write_bytes(b"one ")
    read_all(tailer)
    log.rename(log.with_name("log.txt.1"))
    log.touch()
    assert tailer.read(ENOUGH) is None
    log.with_name("log.txt.1").unlink()
    append(log, b"unread ")
    log.rename(log.with_name("gone"))
    append(log, b"three")
    data, losses = read_with_losses(tailer)
    assert (data, [loss.offset for loss in losses]) == (b"three", [4])


def test_a_loss_is_told_even_if_nothing_comes_after_it(log, tailer):
    """The successor was seen, then written and rotated away while nobody looked; the files left are empty."""
    log.write_bytes(b"one ")
    read_all(tailer)
    log.rename(log.with_name("log.txt.1"))
    log.touch()
    assert tailer.read(ENOUGH) is None
    append(log, b"unread ")
    log.with_name("log.txt.1").unlink()
    log.with_name("empty").touch()
    log.with_name("empty").rename(log)
    data, losses = read_with_losses(tailer)
    assert data == b"" and [loss.offset for loss in losses] == [4]


def test_a_late_line_that_comes_while_the_reader_moves_on_is_read(log, tailer, monkeypatch):
    """Between its last look at the renamed file and its look at the directory."""
    log.write_bytes(b"one ")
    data, renamed = read_all(tailer), log.with_name("log.txt.1")
    log.rename(renamed)

    def scan_late(
        path: Path, known: Collection[Segment], copies: Collection[tuple[int, int]]
    ) -> list[ChainFile]:
        if not log.exists():
            append(renamed, b"late ")
            append(log, b"two")
        return scan(path, known, copies)

    monkeypatch.setattr(strays, "scan", scan_late)
    assert data + read_all(tailer) == b"one late two"


def test_a_deleted_file_whose_inode_is_used_again_is_not_mistaken(log, tailer):
    log.write_bytes(b"first file")
    chunk = tailer.read(ENOUGH)
    tailer.close()
    inode = log.stat().st_ino
    log.unlink()
    log.write_bytes(b"second file, longer")
    resumed = Tailer(log.parent, log.name)
    resumed.seek(chunk.offset + len(chunk.data), chunk.cursor)
    data, losses = read_with_losses(resumed)
    assert data == b"second file, longer" and [loss.offset for loss in losses] == [10]
    assert resumed.digest() == (hashlib.sha256(b"second file, longer").hexdigest(), 10)
    assert inode  # whether it was used again is up to the file system; nothing may depend on it
    resumed.close()


def test_a_truncation_says_how_much_was_known_to_be_unread(log, tailer):
    log.write_bytes(b"0123456789")
    tailer.read(4)
    os.truncate(log, 0)
    (loss,) = tailer.read(ENOUGH).losses
    assert loss.offset == 4 and "truncated in place; at least 6 bytes" in loss.reason


@pytest.mark.parametrize("restarts", [False, True])
def test_a_rotated_file_is_not_read_again_after_many_truncations(log, restarts):
    """There are more of them than a cursor holds files."""
    tailer = Tailer(log.parent, log.name)
    log.write_bytes(b"rotated ")
    data, losses = read_with_losses(tailer)
    log.rename(log.with_name("log.txt.1"))
    log.touch()
    written = data
    for number in range(20):
        os.truncate(log, 0)
        append(log, b"life %d " % number)
        chunks = list(iter(lambda tailer=tailer: tailer.read(ENOUGH), None))
        data += b"".join(chunk.data for chunk in chunks)
        losses += [loss for chunk in chunks for loss in chunk.losses]
        written += b"life %d " % number
        if restarts:
            tailer.close()
            tailer = Tailer(log.parent, log.name)
            tailer.seek(len(data), chunks[-1].cursor)
    assert data == written and len(losses) == 19
    digest, begins = tailer.digest()
    assert (digest, begins) == (hashlib.sha256(b"life 19 ").hexdigest(), len(written) - 8)
    tailer.close()


def test_a_log_and_a_directory_that_appear_late(tmp_path):
    tailer = Tailer(tmp_path / "later", "log.txt")
    assert tailer.read(ENOUGH) is None
    (tmp_path / "later").mkdir()
    assert tailer.read(ENOUGH) is None
    (tmp_path / "later" / "log.txt").write_bytes(b"here")
    assert read_all(tailer) == b"here"
    tailer.close()


def test_backups_named_by_date_are_read_in_the_order_of_their_last_write(log, tailer):
    for day, data in ((1, b"a"), (2, b"b"), (3, b"c")):
        path = log.with_name(f"log.txt.2026-01-0{day}")
        path.write_bytes(data)
        os.utime(path, (day, day))
    log.write_bytes(b"d")
    assert read_all(tailer) == b"abcd"


@pytest.mark.timeout(10)
def test_what_is_no_log_file_is_passed_over(log, tailer):
    """A named pipe would block, a directory cannot be read, a compressed backup holds other bytes."""
    os.mkfifo(log.with_name("log.txt.1"))
    log.with_name("log.txt.2").mkdir()
    log.with_name("log.txt.3.gz").write_bytes(b"packed")
    log.with_name("log.txt.\u00b2").write_bytes(b"not a number ")
    log.with_name("log.txt.4").symlink_to("nowhere")
    log.write_bytes(b"plain")
    assert read_all(tailer) == b"not a number plain"


def test_an_unreadable_file_is_an_error_that_passes(log, tailer, monkeypatch):
    log.write_bytes(b"data")
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", lambda *args: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                tailer.read(ENOUGH)
    assert read_all(tailer) == b"data"


def test_a_cursor_stays_small_over_many_rotations(log, tailer):
    written = b""
    for number in range(60):
        data = b"file number %d\n" % number
        log.write_bytes(data)
        written += data
        chunk = tailer.read(ENOUGH)
        assert not chunk.losses and len(chunk.cursor) < 2000
        log.rename(log.with_name(f"log.txt.{100 - number}"))
    digest, begins = tailer.digest()
    assert 0 < begins < len(written) and digest == hashlib.sha256(written[begins:]).hexdigest()


@pytest.mark.parametrize("looks", [1, 2, 3, 5], ids="looked at every {}".format)
@pytest.mark.parametrize("name", ["{}", "2026112{}", "2026-11-2{}"])
def test_backups_whose_newest_comes_last_are_read_once_and_in_order(log, tailer, name, looks):
    """Whether the reader sees each rotation or comes late."""
    written = data = b""
    for number in range(1, 7):
        line = b"file number %d\n" % number
        log.write_bytes(line)
        os.utime(log, (number, number))
        written += line
        if number == 1 or number % looks == 0:
            data += read_all(tailer)
        log.rename(log.with_name("log.txt." + name.format(number)))
    data += read_all(tailer)
    assert data == written
    assert tailer.digest() == (hashlib.sha256(written).hexdigest(), 0)


@pytest.mark.parametrize("name", ["bak", "orig", "1.bak", "save"])
def test_a_copy_that_an_operator_made_is_left_alone(log, tailer, name):
    log.write_bytes(b"one ")
    data = read_all(tailer)
    shutil.copyfile(log, log.with_name(f"log.txt.{name}"))
    append(log, b"two ")
    log.rename(log.with_name("log.txt.1"))
    log.write_bytes(b"three")
    assert data + read_all(tailer) == b"one two three"


def test_a_known_copy_stays_left_out_when_the_file_it_is_a_copy_of_has_gone(log, tailer):
    """The receiver lost what it had not on disk, and goes back to a file that rotation removed meanwhile."""
    log.write_bytes(b"what was written first, ")
    shutil.copyfile(log, log.with_name("log.txt.99"))
    append(log, b"and then ")
    log.rename(log.with_name("log.txt.1"))
    log.write_bytes(b"the next ")
    chunk = tailer.read(ENOUGH)
    assert [loss.offset for loss in chunk.losses] == [0], "an entry tells of the copy"
    assert chunk.data + read_all(tailer) == b"what was written first, and then the next "
    log.rename(log.with_name("log.txt.1"))
    tailer.seek(chunk.offset + len(chunk.data), chunk.cursor)
    assert b"first" not in read_with_losses(tailer)[0]


# -- what else may lie there ---------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True], ids=["at first", "after a rotation"])
@pytest.mark.parametrize("kind", ["link", "loop", "pipe", "device", "socket", "owner"])
@pytest.mark.timeout(10)
def test_a_log_that_is_no_plain_file_of_ours_is_not_read(log, tailer, monkeypatch, kind, late):
    """The error says what it is; what was there before it is read, and what is there after it, too."""
    if late:
        log.write_bytes(b"before ")
        assert tailer.read(3).data == b"bef"
        log.rename(log.with_name("log.txt.1"))
    secret = log.with_name("secret.key")
    secret.write_bytes(b"a secret")
    if kind == "link":
        log.symlink_to(secret)
    elif kind == "loop":
        log.symlink_to(log)
    elif kind == "pipe":
        os.mkfifo(log)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as unheard:
            unheard.bind(os.path.relpath(log))
    elif kind == "device":
        log.symlink_to("/dev/zero")
    else:
        log.write_bytes(b"a secret")
        strangers = log.stat().st_ino
        real = plain.obstacle
        monkeypatch.setattr(
            plain, "obstacle", lambda s, users: real(s, users if s.st_ino != strangers else {-1})
        )
    if late:
        assert tailer.read(ENOUGH).data == b"ore "
    said = {"pipe": "no regular file", "socket": "no regular file", "owner": f"a file of user {os.getuid()}"}
    for _ in range(2):
        with pytest.raises(OSError, match=said.get(kind, "a symbolic link")):
            tailer.read(ENOUGH)
    assert tailer.offset == (7 if late else 0)
    log.with_name("new").write_bytes(b"after")
    log.with_name("new").rename(log)
    assert read_all(tailer) == b"after"


def test_a_link_among_the_rotated_files_is_passed_over(log, tailer):
    secret = log.with_name("secret.key")
    secret.write_bytes(b"a secret")
    log.with_name("log.txt.2").symlink_to(secret)
    log.with_name("log.txt.3").symlink_to("log.txt.3")
    log.with_name("log.txt.1").write_bytes(b"one ")
    log.write_bytes(b"two ")
    data = read_all(tailer)
    log.with_name("log.txt.1").unlink()
    log.with_name("log.txt.1").symlink_to(secret)
    append(log, b"three")
    assert data + read_all(tailer) == b"one two three"


@pytest.mark.timeout(10)
@pytest.mark.parametrize("comes", ["link", "pipe"])
def test_what_takes_a_files_place_after_the_scan_is_not_read(log, tailer, monkeypatch, comes):
    log.write_bytes(b"one ")
    data = read_all(tailer)
    log.rename(log.with_name("log.txt.1"))
    log.write_bytes(b"two ")
    log.with_name("secret.key").write_bytes(b"a secret")

    def scan_early(
        path: Path, known: Collection[Segment], copies: Collection[tuple[int, int]]
    ) -> list[ChainFile]:
        seen = scan(path, known, copies)
        if not log.with_name("log.txt.2").exists():
            log.with_name("log.txt.1").rename(log.with_name("log.txt.2"))
            log.rename(log.with_name("log.txt.1"))
            log.symlink_to("secret.key") if comes == "link" else os.mkfifo(log)
        return seen

    monkeypatch.setattr(strays, "scan", scan_early)
    assert data + tailer.read(ENOUGH).data == b"one two "
    with pytest.raises(OSError, match="only regular files"):
        tailer.read(ENOUGH)


@pytest.mark.timeout(100)
def test_a_scan_ends_soon_with_50_000_names_while_more_come(memory_path, monkeypatch):
    """The names come as fast as the reader looks at them."""
    log, fresh = memory_path / "log.txt", count(100_000)
    for number in range(50_000):
        os.mknod(f"{log}.{'x' if number % 2 else 9}{number}")
    log.with_name("log.txt.1").write_bytes(b"one ")
    log.write_bytes(b"two ")
    real, looks = os.lstat, count()

    def lstat(path: Path) -> os.stat_result:
        next(looks)
        os.mknod(f"{log}.{next(fresh)}")
        return real(path)

    monkeypatch.setattr(os, "lstat", lstat)
    tailer = Tailer(log.parent, log.name)
    began = time.thread_time()
    data, losses = read_with_losses(tailer)
    took = time.thread_time() - began
    tailer.close()
    assert data == b"one two " and [loss.offset for loss in losses] == [0]
    assert next(looks) < 20 * chain.MOST_FILES and took < 10


def test_more_rotated_files_than_are_looked_into_are_an_entry(log, tailer, monkeypatch):
    monkeypatch.setattr(chain, "MOST_FILES", 20)
    monkeypatch.setattr(tail, "MOST_FILES", 20)
    for number in range(30, 0, -1):
        log.with_name(f"log.txt.{number}").write_bytes(b"%d\n" % number)
        os.utime(log.with_name(f"log.txt.{number}"), (100 - number, 100 - number))
    log.write_bytes(b"the log")
    data, losses = read_with_losses(tailer)
    assert data.endswith(b"\n2\n1\nthe log") and [loss.offset for loss in losses] == [0]


@pytest.mark.parametrize(("times", "late"), [((1000, 1100, 1200), True), ((1000, 900, 950), False)])
def test_a_late_line_or_a_clock_set_back_does_not_turn_the_order_of_two_backups(tmp_path, times, late):
    log, tailer, data = tmp_path / "log.txt", Tailer(tmp_path, "log.txt"), b""

    def write(path, content, time):
        with path.open("ab") as file:
            file.write(content)
        os.utime(path, (time, time))

    def rotate():
        if (tmp_path / "log.txt.1").exists():
            (tmp_path / "log.txt.1").rename(tmp_path / "log.txt.2")
        log.rename(tmp_path / "log.txt.1")

    def read():
        chunks = []
        while chunk := tailer.read(1 << 20):
            assert not chunk.losses
            chunks.append(chunk.data)
        return b"".join(chunks)

    write(log, b"A" * 2000 + b"\n", times[0])
    data += read()
    rotate()
    write(log, b"B" * 2000 + b"\n", times[1])
    if late:
        write(tmp_path / "log.txt.1", b"late\n", times[1] + 1)
    rotate()
    write(log, b"C" * 2000 + b"\n", times[2])
    data += read()
    assert data == b"".join((tmp_path / name).read_bytes() for name in ("log.txt.2", "log.txt.1", "log.txt"))
    tailer.close()


# -- what is missing, and nobody can say how much ------------------------------------------------------------


def losses_at_the_end(tailer: Tailer) -> tuple[bytes, list[int]]:
    """What the tailer still has, and where bytes are missing, what the last digest finds included."""
    data, losses = read_with_losses(tailer)
    tailer.digest()
    last, found = read_with_losses(tailer)
    tailer.digest()
    assert not last and tailer.read(ENOUGH) is None, "each is told once"
    return data, [loss.offset for loss in (*losses, *found)]


@pytest.mark.parametrize("times", [1, 2])
def test_a_log_that_was_deleted_and_made_anew_while_nobody_looked_is_an_entry(log, tailer, times):
    """Once or twice: nothing tells."""
    log.write_bytes(b"one ")
    data = read_all(tailer)
    for number in range(times):
        log.unlink()
        log.write_bytes(b"life %d " % number)
    assert losses_at_the_end(tailer) == (b"life %d " % (times - 1), [4]) and data == b"one "


def test_a_log_that_was_seen_to_be_deleted_and_then_made_anew_is_whole(log, tailer):
    log.write_bytes(b"one ")
    data = read_all(tailer)
    log.unlink()
    assert tailer.read(ENOUGH) is None
    log.write_bytes(b"two")
    assert losses_at_the_end(tailer) == (b"two", []) and data == b"one "


@pytest.mark.parametrize("looks", [True, False], ids=["seen", "unseen"])
def test_a_file_that_rotation_made_and_deleted_while_nobody_looked_is_an_entry(log, tailer, looks):
    """One backup is kept, and the log is empty after each rotation."""
    backup = log.with_name("log.txt.1")
    data = b""
    for line in (b"one ", b"two ", b"three "):
        append(log, line)
        data += read_with_losses(tailer)[0] if looks or line == b"one " else b""
        log.rename(backup)
        log.touch()
    rest, losses = losses_at_the_end(tailer)
    assert (data + rest, losses) == ((b"one two three ", []) if looks else (b"one three ", [4]))


def test_a_doubt_outlives_a_file_that_cannot_be_opened_now(log, tailer, monkeypatch):
    log.write_bytes(b"one ")
    data = read_all(tailer)
    log.unlink()
    log.with_name("log.txt.1").write_bytes(b"two ")
    log.write_bytes(b"three")
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", lambda *args: (_ for _ in ()).throw(OSError(24, "Too many open files")))
        with pytest.raises(OSError, match="Too many"):
            tailer.read(ENOUGH)
    log.with_name("log.txt.1").unlink()
    assert losses_at_the_end(tailer) == (b"three", [4]) and data == b"one "


@pytest.mark.parametrize("more", [False, True], ids=["at the end", "before the next rotation"])
def test_a_line_that_comes_to_a_rotated_file_after_its_successor_was_begun_is_an_entry(log, tailer, more):
    log.write_bytes(b"one ")
    data = read_all(tailer)
    log.rename(log.with_name("log.txt.1"))
    log.write_bytes(b"two ")
    data += read_all(tailer)
    append(log.with_name("log.txt.1"), b"too late")
    if more:
        log.with_name("log.txt.1").rename(log.with_name("log.txt.2"))
        log.rename(log.with_name("log.txt.1"))
        log.write_bytes(b"three")
    rest, losses = losses_at_the_end(tailer)
    assert data + rest == b"one two " + b"three" * more and losses == [4]


@pytest.mark.parametrize("name", ["log.txt.1", "log.txt.7"])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("way", ["shift", "rising", "copytruncate", "none"])
def test_a_copy_under_a_backups_number_is_not_sent_as_one(log, tailer, name, begun, way):
    """It is left out, with an entry where it might have been a rotated file."""
    first = b"2026-11-21 12:00:00 - INFO - a first line\n"
    log.write_bytes(first)
    data = read_all(tailer) if begun else b""
    shutil.copyfile(log, log.with_name(name))
    written = first + b"a second line\n"
    append(log, b"a second line\n")
    if way != "none":
        backup = log.with_name("log.txt.2" if way == "rising" else "log.txt.1")
        if backup.exists():
            backup.rename(log.with_name("log.txt.2"))
        if way == "copytruncate":
            shutil.copyfile(log, backup)
            os.truncate(log, 0)
        else:
            log.rename(backup)
        append(log, b"a third line\n")
        written += b"a third line\n"
    rest, losses = losses_at_the_end(tailer)
    assert data + rest == written and (begun or len(losses) == 1)


def test_a_directory_that_is_gone_before_the_first_look_is_an_entry(tmp_path):
    tailer = Tailer(tmp_path / "gone", "log.txt")
    assert losses_at_the_end(tailer) == (b"", [0])


def test_a_file_that_cannot_be_looked_at_is_not_passed_over(log, tailer, monkeypatch):
    log.with_name("log.txt.1").write_bytes(b"one ")
    log.write_bytes(b"two")
    real = os.lstat

    def lstat(path: Path) -> os.stat_result:
        if str(path).endswith(".1"):
            raise OSError(5, "Input/output error")
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", lstat)
        with pytest.raises(OSError, match="Input/output"):
            tailer.read(ENOUGH)
    assert read_all(tailer) == b"one two"


def test_a_copy_that_cannot_be_opened_now_is_not_taken_for_a_loss(log, tailer, monkeypatch):
    log.write_bytes(b"0123456789")
    chunk = tailer.read(4)
    shutil.copyfile(log, log.with_name("log.txt.1"))
    os.truncate(log, 0)
    resumed, real = Tailer(log.parent, log.name), os.open

    def few(path: Path, *args: int) -> int:
        if str(path).endswith(".1"):
            raise OSError(24, "Too many open files")
        return real(path, *args)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", few)
        with pytest.raises(OSError, match="Too many"):
            resumed.seek(4, chunk.cursor)
    resumed.seek(4, chunk.cursor)
    assert read_all(resumed) == b"456789"
    resumed.close()


@pytest.mark.parametrize("again", [False, True])
def test_what_was_read_and_is_gone_when_the_receiver_goes_back_is_an_entry(log, tailer, again):
    log.write_bytes(b"one ")
    chunk = tailer.read(ENOUGH)
    log.rename(log.with_name("log.txt.1"))
    log.write_bytes(b"two ")
    assert read_all(tailer) == b"two "
    log.unlink()
    if again:
        log.write_bytes(b"three")
    tailer.seek(4, chunk.cursor)
    assert losses_at_the_end(tailer) == (b"three" if again else b"", [4])


def test_a_copy_that_holds_less_than_was_read_does_not_stand_in_when_the_receiver_goes_back(log, tailer):
    log.write_bytes(b"0123456789")
    chunk = tailer.read(ENOUGH)
    shutil.copyfile(log, log.with_name("log.txt.2"))
    append(log, b"read, then gone")
    assert read_all(tailer) == b"read, then gone"
    log.unlink()
    log.write_bytes(b"next")
    tailer.close()  # else it reads on in the file that has no name any more
    tailer.seek(10, chunk.cursor)
    assert losses_at_the_end(tailer) == (b"next", [10])


def test_what_was_read_is_read_again_when_the_receiver_goes_back(log, tailer):
    log.write_bytes(b"one ")
    chunk = tailer.read(ENOUGH)
    for line in (b"two ", b"three "):
        if (backup := log.with_name("log.txt.1")).exists():
            backup.rename(log.with_name("log.txt.2"))
        log.rename(log.with_name("log.txt.1"))
        log.write_bytes(line)
    assert read_all(tailer) == b"two three "
    for place, cursor in ((4, chunk.cursor), (0, b"")):
        tailer.seek(place, cursor)
        assert losses_at_the_end(tailer) == (b"one two three "[place:], [])


def test_what_was_written_to_a_copied_and_truncated_log_that_was_then_deleted_is_an_entry(log, tailer):
    log.write_bytes(b"0123456789")
    data = read_all(tailer)
    shutil.copyfile(log, log.with_name("log.txt.1"))
    os.truncate(log, 0)
    append(log, b"unread")
    log.unlink()
    assert losses_at_the_end(tailer) == (b"", [10]) and data == b"0123456789"


def test_the_entry_of_a_copied_and_deleted_log_stands_after_what_the_copy_holds(log, tailer):
    log.write_bytes(b"0123456789")
    data = tailer.read(4).data
    shutil.copyfile(log, log.with_name("log.txt.1"))
    os.truncate(log, 0)
    log.unlink()
    assert losses_at_the_end(tailer) == (b"456789", [10]) and data == b"0123"


def test_an_empty_file_that_rotation_put_elsewhere_is_no_loss(log, tailer):
    log.write_bytes(b"one ")
    shutil.copyfile(log, log.with_name("log.txt.1"))
    os.truncate(log, 0)
    data = read_all(tailer)
    log.rename(log.with_name("log.txt.2"))
    assert losses_at_the_end(tailer) == (b"", []) and data == b"one "


def test_an_unread_file_that_lies_among_those_that_were_read_is_an_entry(log, tailer):
    log.write_bytes(b"one ")
    data = read_all(tailer)
    log.with_name("log.txt.3").write_bytes(b"where does this come from?")
    os.utime(log.with_name("log.txt.3"), (1, 1))
    log.rename(log.with_name("log.txt.1"))
    log.write_bytes(b"two ")
    rest, losses = losses_at_the_end(tailer)
    assert data + rest == b"one two " and losses == [8]


def test_a_file_that_was_seen_and_is_gone_before_it_was_read_is_an_entry(log, tailer):
    log.write_bytes(b"one ")
    chunk = tailer.read(ENOUGH)
    log.rename(log.with_name("log.txt.1"))
    log.write_bytes(b"unread ")
    tailer.seek(4, chunk.cursor)
    log.rename(log.with_name("gone"))  # and not deleted: its inode would be used again
    log.write_bytes(b"three")
    assert losses_at_the_end(tailer) == (b"three", [4])


def test_a_copy_that_holds_less_than_was_seen_is_not_what_was_copied_before_a_truncation(log, tailer):
    log.write_bytes(b"0123456789abcdef")
    shutil.copyfile(log, log.with_name("log.txt.bak"))
    append(log, b"unread")
    assert tailer.read(10).data == b"0123456789"
    shutil.move(log.with_name("log.txt.bak"), log.with_name("log.txt.1"))
    os.truncate(log, 0)
    (loss,) = tailer.read(ENOUGH).losses
    assert loss.offset == 10 and "at least 12 bytes" in loss.reason


def test_rotated_files_whose_times_tell_two_orders_are_an_entry(log, tailer):
    """Rising numbers, a late line, and nobody looked before: the times of writing are turned round."""
    first, second = log.with_name("log.txt.1"), log.with_name("log.txt.2")
    first.write_bytes(b"one ")
    log.write_bytes(b"two ")
    os.utime(log, (1000, 1000))
    append(first, b"late ")
    os.utime(first, (1001, 1001))
    log.rename(second)
    while second.stat().st_ctime_ns <= first.stat().st_ctime_ns:
        os.utime(second, (1000, 1000))
    log.write_bytes(b"three")
    assert losses_at_the_end(tailer) == (b"one late two three", [0])


def test_what_was_read_tells_the_order_where_the_times_do_not(log, tailer):
    """Rising numbers; the first backup was read, then got a late line."""
    log.write_bytes(b"one ")
    data = read_all(tailer)
    log.rename(log.with_name("log.txt.1"))
    for number, seconds in ((2, 1001), (3, 1003)):
        log.write_bytes(b"number %d " % number)
        os.utime(log, (seconds, seconds))
        log.rename(log.with_name(f"log.txt.{number}"))
    os.utime(log.with_name("log.txt.1"), (1002, 1002))
    log.write_bytes(b"the log")
    rest, losses = losses_at_the_end(tailer)
    assert data + rest == b"one number 2 number 3 the log" and not losses


def test_what_is_gone_after_a_copy_is_missing_behind_the_copy(log, tailer):
    log.write_bytes(b"0123456789abcdef")
    data = read_all(tailer)
    append(log, b"unread ")
    shutil.copyfile(log, log.with_name("log.txt.1"))
    os.truncate(log, 0)
    append(log, b"gone")
    log.unlink()
    log.write_bytes(b"new")
    rest, losses = losses_at_the_end(tailer)
    assert data + rest == b"0123456789abcdefunread new" and losses == [23]


def test_a_short_copy_of_a_log_that_is_deleted_is_left_out(log, tailer):
    log.write_bytes(b"0123456789abcdef")
    data = read_all(tailer)
    shutil.copyfile(log, log.with_name("log.txt.1"))
    append(log, b"more ")
    data += read_all(tailer)
    log.unlink()
    log.write_bytes(b"new")
    rest, losses = losses_at_the_end(tailer)
    assert data + rest == b"0123456789abcdefmore new" and 21 in losses


@pytest.mark.parametrize("times", [(1000, 900, 905), (1000, 1100, 900), (1000, 900, 1100, 1200)])
def test_unread_files_whose_times_contradict_each_other_are_an_entry(log, tailer, times):
    """The clock was set back between two of them; they are read in one order or the other."""
    for number, written in enumerate(times):
        path = log.with_name(f"log.txt.{len(times) - 1 - number}") if number < len(times) - 1 else log
        path.write_bytes(b"file %d " % number)
        os.utime(path, (written, written))
    data, losses = losses_at_the_end(tailer)
    assert len(data) == 7 * len(times) and losses


def test_a_copy_with_a_low_number_does_not_follow_the_dates_that_were_read(log, tailer):
    log.with_name("log.txt.1").write_bytes(b"whatever it is")
    log.write_bytes(b"the log ")
    chunk = tailer.read(ENOUGH)
    while more := tailer.read(ENOUGH):
        chunk = more
    log.rename(log.with_name("log.txt.20261121"))
    log.with_name("log.txt.1").unlink()
    log.with_name("log.txt.2").write_bytes(b"none of it")
    log.write_bytes(b"next")
    anew = Tailer(log.parent, log.name)
    anew.seek(chunk.offset + len(chunk.data), chunk.cursor)
    data, losses = losses_at_the_end(anew)
    anew.close()
    assert data == b"next" and losses
