"""Disks that are full or read-only, processes out of descriptors: nothing is lost, and no restart is needed.

One federation; its jobs run side by side. A process's limits are lowered and raised while it runs, which
needs no rights. What takes a file system of our own is mounted where this user may mount one.
"""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from nvflare_logstream import LogClient, SessionPort
from nvflare_logstream.lab.kits import SiteSetup
from nvflare_logstream.lab.processes import CONSOLE
from nvflare_logstream.streams import Stream
from tests.ahead import Ahead

from .lab import RECEIVER, SERVER_SETUP, Job, Lab, wait_for

SITE = "site-1"
ROUNDS = [
    [["lines_until", f"full {more}", 0.02], ["rotate_or_not"], ["lines", 5], ["sign", f"went on {more}"]]
    for more in range(4)  # descriptors that are left
]
END = [["lines_until", "go", 0.02], ["warning", "the end"]]
AS_IT_WAS = [["lines", 21], ["wait_for", "begin"], *END]
THROUGH = [
    ["lines", 21],
    ["wait_for", "begin"],
    ["lines_until", "full", 0.02],
    ["sign", "went on"],
    *(step for steps in ROUNDS for step in steps),
    *END,
]
PADDING = [0] * 70_000  # bytes of a job's config: 200 KB, and 600 KB as it is rewritten
MOST = 400_000  # bytes a file of the site may have meanwhile
FILL = 1 << 16


def mount(*arguments: str) -> str:
    """Mount a file system; returns why not, empty if it is mounted."""
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stderr.strip() or ("" if done.returncode == 0 else f"mount ended with {done.returncode}")


def unmount(path: Path) -> None:
    subprocess.run(["umount", "--lazy", str(path)], capture_output=True, check=True)


class DiskLab(Lab):
    """A lab whose store has a small file system of its own, where this user may mount one."""

    no_disk = "it has not begun"  # why it has none
    expected_errors = (
        "keeper - ERROR - keeping the log store:",
        "its archive cannot be completed, which is tried again: [Errno",
    )

    def __enter__(self) -> DiskLab:
        self.federation.prepare()
        self.store.mkdir(mode=0o700)
        self.no_disk = mount("-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(self.store))
        try:
            super().__enter__()
        except BaseException:
            self._unmount()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            super().__exit__(*error)
        finally:
            self._unmount()

    def close(self) -> None:
        super().close()
        self._unmount()

    def _unmount(self) -> None:
        if not self.no_disk:
            unmount(self.store)
            self.no_disk = "it is over"

    def stream_of(self, job: Job) -> Stream:
        """What readers are told: the index cannot always be read and written."""
        client = LogClient(SessionPort(self.federation.session()))
        return next(s for s in client.streams(job.id) if (s.site, s.file) == (SITE, "log.txt"))


def start_lab(directory: Path) -> Lab:
    receiver = {**RECEIVER, "args": {"min_free_percent": 0}}  # the disk itself is to say that it is full
    server = SiteSetup([*SERVER_SETUP.components, receiver])
    return DiskLab(directory, clients=[SITE], server=server).begin(submit_where_is_no_room)


def submit_where_is_no_room(lab: Lab) -> dict[str, Job]:
    """A job that goes through all faults, and one for whose config the site had no room."""
    with limit(lab.federation.pid(SITE), resource.RLIMIT_FSIZE, MOST):
        jobs = {
            "through": lab.submit("through", THROUGH, sites=[SITE]),
            "as it was": lab.submit("as-it-was", AS_IT_WAS, sites=[SITE], apps={SITE: {"padding": PADDING}}),
        }
        for job in jobs.values():
            job.wait_live(SITE)
    for job in jobs.values():  # a process inherits its parent's limits
        pid = lab.federation.job_pid(SITE, job.id)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE))
    return jobs


pytestmark = [pytest.mark.timeout(240), pytest.mark.ahead(run=start_lab)]


@pytest.fixture(scope="module")
def lab(begun: Ahead) -> Iterator[Lab]:
    lab = begun.result(start_lab)
    yield lab
    lab.end()


@pytest.fixture(scope="module")
def jobs(lab: Lab) -> dict[str, Job]:
    """They go on writing now."""
    for job in lab.jobs.values():
        job.signal(SITE, "begin")
    return lab.jobs


# -- faults --------------------------------------------------------------------------------------------------


@contextmanager
def limit(pid: int, which: int, most: int) -> Iterator[None]:
    """Lower a limit of a running process."""
    old = resource.prlimit(pid, which)
    resource.prlimit(pid, which, (most, old[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, which, old)


def no_larger_files(lab: DiskLab, job: Job) -> AbstractContextManager[None]:
    pid, size = lab.federation.pid("server"), job.path(SITE, "log.txt").stat().st_size
    return limit(pid, resource.RLIMIT_FSIZE, size)


def no_more_files(lab: DiskLab, job: Job) -> AbstractContextManager[None]:
    return out_of_descriptors(lab.federation.pid("server"))


def out_of_descriptors(pid: int, more: int = 0) -> AbstractContextManager[None]:
    """Let a process open `more` files beside those that it keeps open."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    for _ in range(20):  # what is open for a moment only will be free
        time.sleep(0.005)
        used &= {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = next(number for number in range(len(used) + 1) if number not in used)
    return limit(pid, resource.RLIMIT_NOFILE, free + more)


@contextmanager
def full_disk(lab: DiskLab, job: Job) -> Iterator[None]:
    filler = lab.store / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            for size in (FILL, 1):
                with suppress(OSError):
                    while True:
                        file.write(b"\0" * size)
        yield
    finally:
        filler.unlink()


@contextmanager
def read_only_disk(lab: DiskLab, job: Job) -> Iterator[None]:
    """The same file system once more, read-only, over itself: a remount waits for the index to be closed."""
    problem = mount("--bind", str(lab.store), str(lab.store))
    assert not problem, problem
    try:
        problem = mount("-o", "remount,bind,ro", str(lab.store))
        assert not problem, problem
        yield
    finally:
        unmount(lab.store)


FAULTS: dict[str, tuple[Callable[[DiskLab, Job], AbstractContextManager[None]], int]] = {
    "no larger files": (no_larger_files, errno.EFBIG),
    "no more files": (no_more_files, errno.EMFILE),
    "full disk": (full_disk, errno.ENOSPC),
    "read-only disk": (read_only_disk, errno.EROFS),
}


# -- the tests: the last one ends the job that goes through all of them --------------------------------------


def test_a_config_that_cannot_be_rewritten_is_launched_as_it_is(lab: DiskLab, jobs: dict[str, Job]) -> None:
    job, site = jobs["as it was"], lab.federation.client_dir(SITE)
    (config,) = (site / job.id).glob("app_*/config/config_fed_client.json")
    (given,) = (lab.root / "jobs").glob(f"as-it-was/app_{SITE}/config/config_fed_client.json")
    assert config.read_bytes() == given.read_bytes()
    assert not [name for name in os.listdir(config.parent) if name.startswith(f".{config.name}")]
    said = (site / "log.txt").read_text().splitlines()
    (line,) = [line for line in said if job.id in line and "SiteLogStreamer - WARNING" in line]
    assert line.endswith(f"{os.strerror(errno.EFBIG)}); following its logs from here"), line


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_server_cannot_store_comes_as_soon_as_it_can(
    lab: DiskLab, jobs: dict[str, Job], fault: str
) -> None:
    make, number = FAULTS[fault]
    if fault.endswith("disk") and lab.no_disk:
        pytest.skip(f"this user cannot mount a file system of its own: {lab.no_disk}")
    job, ends = jobs["through"], jobs["as it was"] if fault == "full disk" else None
    with make(lab, job):
        if ends:
            ends.signal(SITE)
        if number != errno.EMFILE:  # then the runtime itself finds no job to answer about
            stream = wait_for(lambda: told(lab, job, os.strerror(number)), "the verdict to say it", 20)
            assert stream.verdict == "partial" and stream.verdict_reason.startswith("the site waits: ")
        goes_on(job)  # what was under way when it began may still be stored
        size = len(job.path(SITE, "log.txt").read_bytes())
        goes_on(job)
        assert len(job.path(SITE, "log.txt").read_bytes()) == size, "nothing is stored meanwhile"
        if ends:
            wait_for(lambda: process_ended(lab, ends), "the end of a job", 20)
            if lab.stream_of(ends).verdict == "complete":  # the last bytes fitted into blocks that it had
                assert ends.path(SITE, "log.txt").read_bytes() == ends.written(SITE)
    comes_again(lab, job)
    if ends:
        ends.assert_complete(SITE)


def test_a_log_that_cannot_be_written_ends_no_training(lab: DiskLab, jobs: dict[str, Job]) -> None:
    job = jobs["through"]
    comes_again(lab, job)
    with limit(
        lab.federation.job_pid(SITE, job.id),
        resource.RLIMIT_FSIZE,
        (job.directory(SITE) / "log.txt").stat().st_size,
    ):
        went_on(job)
        assert lab.stream_of(job).standing == "streaming"
    comes_again(lab, job)


def test_a_jobs_process_out_of_descriptors_sends_the_rest_afterwards(
    lab: DiskLab, jobs: dict[str, Job]
) -> None:
    """Its log is rotated meanwhile."""
    job = jobs["through"]
    went_on(job)
    for more in range(4):
        with out_of_descriptors(lab.federation.job_pid(SITE, job.id), more):
            went_on(job, f" {more}")
    comes_again(lab, job)


def test_a_job_ends_while_its_site_is_out_of_descriptors(lab: DiskLab, jobs: dict[str, Job]) -> None:
    job, other = jobs["through"], jobs["as it was"]
    for which in ("", *(f" {more}" for more in range(4))):
        went_on(job, which)
    with out_of_descriptors(lab.federation.pid(SITE)):
        for ending in (job, other):
            ending.signal(SITE)
            wait_for(lambda ending=ending: process_ended(lab, ending), "a job's end")
    for ended in (job, other):
        assert ended.wait() == "FINISHED:COMPLETED"
        ended.assert_complete(SITE)


def told(lab: DiskLab, job: Job, text: str) -> Stream | None:
    stream = lab.stream_of(job)
    return stream if text in stream.verdict_reason else None


def goes_on(job: Job) -> None:
    size = len(job.written(SITE)) + 3000
    wait_for(lambda: len(job.written(SITE)) >= size, "the job to go on", 20)


def went_on(job: Job, which: str = "") -> None:
    job.signal(SITE, f"full{which}")
    wait_for((job.directory(SITE) / f"went on{which}").exists, "the training to go on", 10)


def comes_again(lab: DiskLab, job: Job) -> None:
    """All that the site has written comes, and lines written later too."""
    size = len(job.written(SITE)) + 1000
    wait_for(lambda: lab.stream_of(job).end >= size, "what was not stored", 40)
    assert lab.stream_of(job).standing == "streaming"
    copy = job.path(SITE, "log.txt").read_bytes()
    assert job.written(SITE).startswith(copy) and len(copy) >= size


def process_ended(lab: DiskLab, job: Job) -> bool:
    """Whether the site's parent process has seen the end of the job's."""
    said = (lab.federation.client_dir(SITE) / CONSOLE).read_text()
    return f"run ({job.id}): child worker process finished" in said
