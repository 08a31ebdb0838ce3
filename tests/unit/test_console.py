"""What a job prints becomes a log: real processes that print, crash and are killed, and a bounded disk."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from nvflare_logstream.site.console_copy import note_of, show_rest
from nvflare_logstream.site.console_tail import ConsoleTailer

ROOT = Path(__file__).parents[2]
BEGIN = """
import ctypes, os, subprocess, sys, threading, time
from pathlib import Path
from nvflare_logstream.site import console, console_copy
try:
    print("before", flush=True)
except OSError:
    pass
log = Path(sys.argv[1])
"""


def run(
    log: Path, code: str, begin: str = "own = console.Console(log)", **options: object
) -> subprocess.CompletedProcess[bytes]:
    """Run a job's process whose console is a log; it prints "before" just before that begins."""
    program = BEGIN + begin + "\n" + textwrap.dedent(code)
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, str(log)]
    return subprocess.run(command, env=environment, timeout=60, check=False, **settings)  # type: ignore[call-overload]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "console.txt"


# -- what reaches the log ------------------------------------------------------------------------------------


def test_everything_that_is_printed_is_in_the_log_and_on_the_sites_console(log: Path) -> None:
    ended = run(
        log,
        """
        print("line of Python")
        sys.stderr.write("error of Python\\n")
        os.write(1, b"from native code\\n")
        subprocess.run(["sh", "-c", "echo line of a child; echo error of a child >&2"])
        """,
    )
    assert ended.returncode == 0
    words = b"line of Python\nerror of Python\nfrom native code\nline of a child\nerror of a child\n"
    assert log.read_bytes() == words
    assert ended.stdout == b"before\n" + words


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_last_words_before_a_signal(log: Path, name: str) -> None:
    ended = run(log, f"print('last words')\nos.kill(os.getpid(), {int(signal.Signals[name])})")
    assert ended.returncode == -signal.Signals[name]
    printed = log.read_bytes()
    assert printed.startswith(b"last words\n")
    assert (b"Segmentation fault" in printed) == (name == "SIGSEGV")


def test_last_words_of_a_trainer_outside_the_jobs_process(log: Path) -> None:
    """One crashes in native code, and says where in Python; another is killed."""
    crash = "import ctypes; print('epoch 1', flush=True); ctypes.string_at(0)"
    kill = "import os; os.write(1, b'epoch 2'); os.kill(os.getpid(), 9)"
    ended = run(
        log,
        f"""
        print([subprocess.run([sys.executable, "-c", code]).returncode for code in ({crash!r}, {kill!r})])
        """,
    )
    printed = log.read_text()
    assert "epoch 1\nFatal Python error: Segmentation fault" in printed and "string_at" in printed
    assert printed.endswith("epoch 2[-11, -9]\n")
    assert ended.stdout.decode() == "before\n" + printed


def test_the_parent_process_shows_what_a_killed_job_could_not_copy(log: Path, tmp_path: Path) -> None:
    """Whatever was copied before, the two together are all of it, once."""
    # Between a copy and its note it could be killed too: then a part is shown twice.
    code = "print('x' * 100)\nprint('last words')\nwith own._lock: os.kill(os.getpid(), 9)"
    ended = run(log, code)
    with (tmp_path / "console").open("wb") as console:
        show_rest(log, console.fileno())
    shown = ended.stdout.removeprefix(b"before\n") + (tmp_path / "console").read_bytes()
    assert shown == log.read_bytes() == b"x" * 100 + b"\nlast words\n"
    with (tmp_path / "console").open("wb") as console:
        show_rest(log, console.fileno())
    assert not (tmp_path / "console").read_bytes() and not note_of(log).exists()


def test_the_parent_process_shows_all_of_a_job_that_was_killed_at_once(log: Path, tmp_path: Path) -> None:
    begin = "console.Console.turn = lambda self: None; own = console.Console(log)"
    assert run(log, "print('last words')\nos.kill(os.getpid(), 9)", begin=begin).stdout == b"before\n"
    with (tmp_path / "console").open("wb") as console:
        show_rest(log, console.fileno())
    assert (tmp_path / "console").read_bytes() == b"last words\n"


@pytest.mark.parametrize("note", [b"", b"no number", b"9" * 40])
def test_a_note_that_is_none_shows_nothing_twice(log: Path, tmp_path: Path, note: bytes) -> None:
    log.write_bytes(b"words\n")
    note_of(log).write_bytes(note)
    with (tmp_path / "console").open("wb") as console:
        show_rest(log, console.fileno())
    assert (tmp_path / "console").read_bytes() in (b"", b"words\n")


def test_a_child_that_was_forked_does_not_copy_too(log: Path) -> None:
    ended = run(log, "print('once')\nif os.fork() == 0:\n    sys.exit(0)\nos.wait()")
    assert ended.stdout == b"before\nonce\n"


# -- a site's console that is no good ------------------------------------------------------------------------


def test_a_console_that_takes_nothing_blocks_nobody(log: Path) -> None:
    """Nobody reads the pipe: without us, the job would stand still after 64 KiB."""
    read, write = os.pipe()
    try:
        ended = run(log, "for i in range(3000): print('x' * 99)", stdout=write, stderr=write)
    finally:
        os.close(write)
        os.close(read)
    assert ended.returncode == 0
    assert log.stat().st_size == 300_000


@pytest.mark.parametrize("kind", ["a pipe", "a terminal"])
def test_a_console_that_another_process_fills_at_the_same_moment_blocks_nobody(log: Path, kind: str) -> None:
    """Its last room is taken between our look and our write: two jobs share it, and nobody reads."""
    read, write = os.pipe() if kind == "a pipe" else os.openpty()
    code = """
        def has_room(*anything):
            os.set_blocking(shared_with, False)
            try:
                while True:
                    os.write(shared_with, b"y" * 512)
            except BlockingIOError:
                os.set_blocking(shared_with, True)
            return select.POLLOUT
        console_copy._room = has_room
        print("x" * 5000)
        time.sleep(0.3)
    """
    begin = "import select; shared_with = os.dup(1); own = console.Console(log)"
    try:
        ended = run(log, code, begin=begin, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
        os.close(read)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert log.read_bytes() == b"x" * 5000 + b"\n"


def test_the_end_of_a_job_does_not_wait_for_a_console_that_blocks(log: Path) -> None:
    """A socket, say, or a terminal of another user: it cannot be opened so that it never blocks."""
    code = "console_copy.os.write = lambda *given: threading.Event().wait()\nprint('words')\ntime.sleep(0.3)"
    assert run(log, code).returncode == 0
    assert log.read_bytes() == b"words\n"


def test_a_console_that_nobody_reads_any_more(log: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    code = "print('words')\nown.turn()\nprint('more')"
    try:
        ended = run(log, code, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert log.read_bytes().endswith(b"words\nmore\n")


def test_a_job_that_a_broken_pipe_would_kill_outlives_its_console(log: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    begin = "import signal; own = console.Console(log); signal.signal(signal.SIGPIPE, signal.SIG_DFL)"
    try:
        ended = run(log, "print('words')\nown.turn()", begin=begin, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert ended.returncode == 0 and log.read_bytes().endswith(b"words\n")


def test_a_process_without_standard_output(log: Path) -> None:
    """The words go to the log, and standard error is the console."""
    begin = "os.close(1); own = console.Console(log)"
    ended = run(
        log, "os.write(1, b'words\\n')", begin=begin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert log.read_bytes().endswith(b"words\n") and ended.stderr.endswith(b"words\n")


def test_a_console_that_the_job_has_closed_is_not_written_to(log: Path, tmp_path: Path) -> None:
    """The numbers of closed descriptors are soon those of the job's own files."""
    own = tmp_path / "of the job"
    code = f"""
        os.closerange(3, 50)
        files = [os.open({str(own)!r}, os.O_RDWR | os.O_CREAT) for _ in range(40)]
        print("words")
        time.sleep(0.3)
        own.turn()
        own._bound(1 << 40) if own._are_ours() else None
    """
    assert run(log, code).returncode == 0
    assert b"words\n" in log.read_bytes() and own.read_bytes() == b""


# -- where it cannot be had ----------------------------------------------------------------------------------


def refused(log: Path, prepare: str) -> str:
    """What is said where there is no such console, by a process that then prints as before."""
    begin = (
        prepare
        + "\ntry:\n    console.Console(log)\nexcept (OSError, RuntimeError) as error:\n    print(error)"
    )
    ended = run(log, "print('goes on', flush=True); os.write(2, b'as before')", begin=begin)
    assert ended.stdout.endswith(b"goes on\nas before") and ended.returncode == 0
    return ended.stdout.decode()


def test_a_log_that_is_no_plain_file(log: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    log.symlink_to(tmp_path / "secret")
    assert "a symbolic link" in refused(log, "") and (tmp_path / "secret").read_bytes() == b"secret"


def test_no_thread_is_left(log: Path) -> None:
    prepare = """
def start(self): raise RuntimeError("can't start new thread")
threading.Thread.start = start
"""
    assert "can't start new thread" in refused(log, prepare) and not log.read_bytes()


def test_a_limit_on_the_size_of_files(log: Path) -> None:
    prepare = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))"
    assert "ulimit -f" in refused(log, prepare)


def test_a_disk_that_is_nearly_full_fails_nobody(log: Path) -> None:
    ended = run(
        log,
        """
        print("there is room")
        console._LEAST_FREE = 1 << 62
        own.turn()
        print("there is none")
        """,
    )
    assert log.read_text() == (
        "there is room\nthe disk is nearly full: "
        "what the job's process prints from now on is on the site's console only\n"
    )
    assert b"there is room\n" in ended.stdout and b"there is none\n" in ended.stdout
    assert b"the disk is nearly full" in ended.stdout
    assert "nearly full" in refused(log, "console._LEAST_FREE = 1 << 62")


def test_a_disk_so_full_that_nothing_of_ours_can_be_written(log: Path) -> None:
    """The job prints where it did before all the same, and its log stays bounded."""
    ended = run(
        log,
        """
        with own._lock:
            own._shown = os.open("/dev/full", os.O_WRONLY)
            own._note_is = console.identity(own._shown)
        own.turn()
        subprocess.run([sys.executable, "-c", "for i in range(300_000): print('%063d' % i)"])
        own.turn()
        console._LEAST_FREE = 1 << 62
        own.turn()
        print("there is none")
        """,
        begin="own = console.Console(log, kept=3 << 20)",
    )
    assert ended.returncode == 0 and b"Traceback" not in ended.stdout
    assert b"there is none\n" in ended.stdout and b"there is none\n" not in log.read_bytes()
    assert log.stat().st_blocks * 512 <= 6 << 20


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EFBIG"])
def test_room_that_is_left_and_may_not_be_taken(log: Path, name: str) -> None:
    """The file system has room, but not for this user: a quota, say, of which nobody is told beforehand."""
    code = f"""
        print("there is room")
        def refused(*given):
            raise OSError({int(getattr(errno, name))}, "no more for you")
        console.reserve, console.RESERVED = refused, 1 << 40
        own.turn()
        print("there is none")
    """
    ended = run(log, code)
    assert b"there is none\n" in ended.stdout and b"there is none\n" not in log.read_bytes()
    assert b"the disk takes no more (no more for you): what" in log.read_bytes()


def test_a_file_system_that_cannot_reserve_room(log: Path) -> None:
    prepare = f"""
def cannot(*given):
    raise OSError({errno.EOPNOTSUPP}, "Operation not supported")
console.reserve = cannot
own = console.Console(log)
"""
    run(log, "own.turn()\nprint('words')", begin=prepare)
    assert log.read_bytes() == b"words\n"


def test_a_limit_on_the_size_of_files_that_the_job_sets_itself(log: Path) -> None:
    code = """
        import resource
        print("x" * 9999)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
        own.turn()
        print("goes on")
    """
    ended = run(log, code)
    assert ended.returncode == 0 and ended.stdout.endswith(b"goes on\n")
    assert b"the size of files is limited here (ulimit -f)" in ended.stdout


def test_a_limit_that_is_a_deadly_signal_does_not_meet_us_first(memory_path: Path) -> None:
    """In memory, to reserve room beyond the limit is a signal, as to write there is."""
    code = """
        import resource, signal
        print("x" * (700 << 10))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
        own.turn()
        print("goes on")
    """
    ended = run(memory_path / "console.txt", code)
    assert ended.returncode == 0 and b"goes on\n" in ended.stdout


def test_a_disk_that_fills_up_between_two_looks(log: Path) -> None:
    """What the job and a child of it print meanwhile finds the room that was kept for it."""
    disk = log.parent / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may mount no disk")
    code = """
        child = subprocess.Popen(["sh", "-c", "read go; echo of the child; echo more"], stdin=subprocess.PIPE)
        with own._lock, open(log.with_name("fill"), "wb", buffering=0) as fill:
            try:
                while fill.write(bytes(1 << 16)): pass
            except OSError:
                pass
            for number in range(60_000): print("line", number)
        own.turn()
        print("there is none")
        child.communicate(b"go\\n")
        print(child.returncode)
    """
    try:
        ended = run(disk / log.name, code, begin="console._LEAST_FREE = 0; own = console.Console(log)")
        printed = (disk / log.name).read_bytes()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    lines = b"".join(b"line %d\n" % number for number in range(60_000))
    assert ended.returncode == 0
    assert printed.startswith(lines) and printed.endswith(b"of the child\nmore\n")
    assert b"there is none\n" in ended.stdout


def test_what_goes_wrong_again_and_again_is_told_once(log: Path) -> None:
    ended = run(
        log,
        """
        console._PAUSE = console._AFTER_ERROR = 0.01
        def turn(): calls.append(1); raise OSError(5, "no such luck")
        calls, own.turn = [], turn
        while len(calls) < 5: time.sleep(0.01)
        """,
    )
    assert ended.returncode == 0 and log.read_bytes().count(b"no such luck\n") == 1


# -- its size ------------------------------------------------------------------------------------------------

PRINT_MUCH = """
subprocess.run([sys.executable, "-c", "for i in range(300_000): print('%063d' % i)"])
own.turn()
"""


def test_a_child_that_prints_without_end_takes_a_bounded_part_of_the_disk(log: Path) -> None:
    """19 MB are printed and 3 MiB kept, beside the first: what is there is where it was."""
    begin = "own = console.Console(log, kept=3 << 20)"
    assert run(log, PRINT_MUCH, begin=begin, stdout=subprocess.DEVNULL).returncode == 0
    status, printed = log.stat(), log.read_bytes()
    assert status.st_size == 300_000 * 64 and status.st_blocks * 512 <= 6 << 20
    lines = [b"%063d\n" % number for number in range(300_000)]
    whole = b"".join(lines)
    assert printed[: 1 << 20] == whole[: 1 << 20] and printed[-(3 << 20) :] == whole[-(3 << 20) :]
    assert set(printed[2 << 20 : 10 << 20]) == {0}


def test_a_file_system_without_holes(log: Path) -> None:
    """The log is begun again; writers go on at its new end."""
    begin = "console.can_make_holes = lambda directory: False; own = console.Console(log, kept=3 << 20)"
    ended = run(log, PRINT_MUCH + "print('at the end')", begin=begin, stdout=subprocess.DEVNULL)
    assert ended.returncode == 0
    printed = log.read_bytes()
    assert len(printed) < 19_000_000 and printed.endswith(b"at the end\n") and b"\0" not in printed


def test_a_log_that_is_begun_again_with_the_same_lines_is_no_whole_one(log: Path) -> None:
    """A flood is mostly one line again and again: at the reader's place stands the same as before."""
    begin = """
console.can_make_holes, console._PAUSE = lambda directory: False, 60
own = console.Console(log, kept=1 << 20)
"""
    flood = """
        for _ in range(128): os.write(1, b"nan nan\\n" * 4096)
        own.turn()
        for _ in range(40): os.write(1, b"nan nan\\n" * 4096)
    """
    log.write_bytes(b"nan nan\n" * 1000)
    tailer = ConsoleTailer(log.parent, log.name)
    first = tailer.read(1000)
    run(log, flood, begin=begin, stdout=subprocess.DEVNULL)
    assert log.read_bytes().startswith(b"[") and log.stat().st_size > 1 << 20
    chunks = list(iter(lambda: tailer.read(1 << 20), None))
    later = ConsoleTailer(log.parent, log.name)  # the parent process goes on from the cursor
    later.seek(len(first.data), first.cursor)
    chunk = later.read(1000)
    for source in (tailer, later):
        source.close()
    assert any(chunk.losses for chunk in chunks) and chunk.losses
    assert b"".join(chunk.data for chunk in chunks) == log.read_bytes()
