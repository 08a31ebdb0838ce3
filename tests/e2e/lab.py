"""A real federation under test: jobs whose logs we know, and the server's copy of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil

import nvflare_logstream
from nvflare_logstream.lab.federation import ADMIN, Federation
from nvflare_logstream.lab.kits import SiteSetup, write_job
from nvflare_logstream.store.index import Index
from nvflare_logstream.streams import State, Stream

EXECUTOR = "scripted_executor.ScriptedExecutor"
CUSTOM = Path(__file__).with_name("scripted_executor.py")
TRUTH = "truth-"  # as in scripted_executor.py
LOGS = ("log.txt", "error_log.txt")
SITES = ("site-1", "site-2")

# Many jobs are submitted at once; on a small machine a few side by side are done sooner than all together.
# Half of them only wait for their test, and they start in the order in which the tests need them.
SCHEDULER = {
    "id": "job_scheduler",
    "path": "nvflare.app_common.job_schedulers.job_scheduler.DefaultJobScheduler",
    "args": {"max_jobs": 8, "min_schedule_interval": 1.0},
}
_EXAMPLES = Path(__file__).parents[2] / "resources_examples"
_PACKAGE = Path(nvflare_logstream.__file__).parent
_STORE_FILES = {"index.sqlite", "index.sqlite-wal", "index.sqlite-shm", ".lock"}
# The runtime shows a module's logger by the last part of its name.
_OUR_LOGGERS = "|".join(
    path.stem for path in _PACKAGE.rglob("*.py") if "getLogger(__name__)" in path.read_text(encoding="utf-8")
)
_OUR_ERROR = re.compile(
    rf"unexpected error|- (nvflare_logstream\S*|SiteLogStreamer|JobLog\w+|{_OUR_LOGGERS}) - ERROR"
)


def example_setup(name: str) -> SiteSetup:
    """The set-up that a file of resources_examples/ describes."""
    example = json.loads((_EXAMPLES / f"{name}_resources.json").read_text())
    extra = {key: value for key, value in example.items() if key not in ("components", "class_allow_list")}
    return SiteSetup(example["components"], extra=extra, class_allow=tuple(example["class_allow_list"]))


CLIENT_SETUP = example_setup("client")
(STREAMER,) = CLIENT_SETUP.components
(RECEIVER,) = example_setup("server").components
SERVER_SETUP = SiteSetup([RECEIVER, SCHEDULER])


def wait_for(reached: Callable[[], Any], what: str, timeout: float = 90.0) -> Any:
    """Wait until `reached()` is true, and return it."""
    deadline = time.monotonic() + timeout
    while not (found := reached()):
        assert time.monotonic() < deadline, f"gave up waiting for {what}"
        time.sleep(0.1)
    return found


class Lab:
    """A federation with what tests need around it."""

    expected_errors: tuple[str, ...] = ()  # of ours, which the tests bring about: parts of their lines

    def __init__(self, root: Path, **setup: Any):
        self.root = root
        self.federation = Federation(
            root / "fed", **{"server": SERVER_SETUP, "client": CLIENT_SETUP, **setup}
        )
        self.jobs: dict[str, Job] = {}
        self.over = threading.Event()

    def begin(self, submit: Callable[[Lab], dict[str, Job]]) -> Lab:
        """Start, and submit jobs that the tests find in `jobs`; whoever calls this has to call `end`."""
        with ExitStack() as stack:
            stack.enter_context(self)
            self.jobs = submit(self)
            stack.pop_all()
        return self

    def __enter__(self) -> Lab:
        try:
            self.federation.start()
        except BaseException:
            self.federation.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.federation.stop()
        if error[0] is None:
            self.assert_clean()

    def end(self) -> None:
        self.__exit__(None)

    def close(self) -> None:
        """End the processes, whatever became of them."""
        self.federation.stop()

    @property
    def store(self) -> Path:
        return self.federation.server_dir / "logstream"

    def streams(self, job: str | None = None) -> list[Stream]:
        """The index as it stands on disk, read through a copy: a live store has one owner."""
        with tempfile.NamedTemporaryFile(suffix=".sqlite") as copy:
            source = sqlite3.connect(f"file:{self.store / 'index.sqlite'}?mode=ro", uri=True)
            target = sqlite3.connect(copy.name)
            source.backup(target)
            source.close()
            target.close()
            index = Index(Path(copy.name))
            try:
                return index.find(job)
            finally:
                index.close()

    def submit(
        self,
        name: str,
        scripts: Mapping[str, Sequence[Any]] | Sequence[Any] = (),
        *,
        sites: Sequence[str] = SITES,
        **job: Any,
    ) -> Job:
        """Submit a job; the arguments are those of `write_job`."""
        folder = self.write_job(name, scripts, sites=sites, **job)
        return Job(self, self.federation.submit(folder), tuple(sites))

    def write_job(
        self,
        name: str,
        scripts: Mapping[str, Sequence[Any]] | Sequence[Any] = (),
        *,
        sites: Sequence[str] = SITES,
        apps: Mapping[str, Mapping[str, Any]] | None = None,
        min_clients: int | None = None,
        **job: Any,
    ) -> Path:
        """Write a job folder for `sites`, of which the job needs all or `min_clients`.

        `apps` changes the client config of single sites; a value of ... removes a key.
        """
        args = {"scripts": scripts} if isinstance(scripts, Mapping) else {"script": scripts}
        folder = write_job(
            self.root / "jobs" / name,
            **{"executor": EXECUTOR, "executor_args": args, "custom": CUSTOM, **job},
        )
        deploy = {"app": ["server", *sites]}
        for site, change in (apps or {}).items():
            deploy["app"].remove(site)
            deploy[f"app_{site}"] = [site]
            _derive_app(folder, f"app_{site}", change)
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(
            json.dumps({**meta, "deploy_map": deploy, "min_clients": min_clients or len(sites)})
        )
        return folder

    def assert_clean(self) -> None:
        """After the end: no process, nothing half done in the store, no error of ours in anybody's log."""
        running = [
            p.info["cmdline"]
            for p in psutil.process_iter(["cmdline"])
            if str(self.root) in " ".join(p.info["cmdline"] or [])
        ]
        assert not running
        if self.store.exists():
            assert {entry.name for entry in self.store.iterdir() if entry.is_file()} <= _STORE_FILES
            for entry in [self.store, *self.store.rglob("*")]:
                assert entry.stat().st_mode & 0o777 == (0o700 if entry.is_dir() else 0o600), entry
            assert {entry.name for entry in self.store.glob(".*")} <= _STORE_FILES
        for log in self.root.rglob("fed/**/*.txt"):
            for line in log.read_text(errors="replace").splitlines():
                is_expected = any(part in line for part in self.expected_errors)
                assert is_expected or not _OUR_ERROR.search(line), f"{log}: {line}"

    def nvflare(self, *arguments: str, kit: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the runtime's command as an admin to its end; `kit`: it talks to the server."""
        return ended(self.start_nvflare(*arguments, kit=kit))

    def start_nvflare(self, *arguments: str, kit: bool = True) -> subprocess.Popen[str]:
        """Start the runtime's command with a home of its own and its output in pipes."""
        home = self.root / "home"
        home.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "nvflare.cli", *arguments]
        command += ["--startup-kit", str(self.federation.admin_dir())] if kit else []
        environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=environment, cwd=home, **pipes)  # type: ignore[call-overload]

    def command(self, *arguments: str, kit: str = ADMIN, **options: Any) -> subprocess.Popen[str]:
        """Start our own command as `kit`'s user would, in the tests' directory, with its output in pipes."""
        environment = {
            **os.environ,
            "NVFLARE_STARTUP_KIT_DIR": str(self.federation.admin_dir(kit)),
            "COLUMNS": "100",
        }
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        environment |= options.pop("env", {})
        command = [sys.executable, "-m", "nvflare_logstream.cli.main", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        return subprocess.Popen(command, env=environment, cwd=self.root, **pipes)

    def run(self, *arguments: str, kit: str = ADMIN) -> subprocess.CompletedProcess[str]:
        """Run our own command to its end."""
        return ended(self.command(*arguments, kit=kit))

    def run_all(
        self, *commands: Sequence[str], kits: Sequence[str] = ()
    ) -> list[subprocess.CompletedProcess[str]]:
        """Run our own commands side by side: most of their time they wait for the server."""
        kits = kits or [ADMIN] * len(commands)
        processes = [self.command(*command, kit=kit) for command, kit in zip(commands, kits, strict=True)]
        return [ended(process) for process in processes]


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """The process after its end, and what it printed."""
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _derive_app(folder: Path, app: str, change: Mapping[str, Any]) -> None:
    subprocess.run(["cp", "-r", folder / "app", folder / app], check=True)
    (path,) = (folder / app / "config").glob("config_fed_client.*")
    config = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


class Job:
    """A submitted job: what its sites wrote, and what the server holds."""

    def __init__(self, lab: Lab, job_id: str, sites: tuple[str, ...]):
        self.lab, self.id, self.sites = lab, job_id, sites

    def directory(self, site: str) -> Path:
        return self.lab.federation.job_log_dir(site, self.id)

    def path(self, site: str, file: str) -> Path:
        """The server's copy."""
        return self.lab.store / self.id / site / file

    def signal(self, site: str, name: str = "go") -> None:
        """Make the file that the site's script waits for, once the job writes its log."""
        wait_for((self.directory(site) / "log.txt").exists, f"job {self.id} at {site}", 180)
        (self.directory(site) / name).touch()

    def runs_at(self, name: str) -> bool:
        """Whether it has a process at a site or at the server."""
        with suppress(LookupError):
            return bool(self.lab.federation.job_pid(name, self.id))
        return False

    def wait(self, timeout: float = 180.0) -> str:
        return self.lab.federation.wait(self.id, timeout)

    def wait_live(
        self, site: str, text: bytes = b"- line 20", file: str = "log.txt", timeout: float = 120.0
    ) -> None:
        """Wait until the server holds `text`."""
        path = self.path(site, file)
        wait_for(lambda: path.exists() and text in path.read_bytes(), f"{text!r} in {path}", timeout)

    def stream(self, site: str, file: str = "log.txt") -> Stream | None:
        return next((i for i in self.lab.streams(self.id) if (i.key.site, i.key.file) == (site, file)), None)

    def wait_closed(self, site: str, file: str = "log.txt", timeout: float = 90.0) -> Stream:
        def closed() -> Stream | None:
            info = self.stream(site, file)
            return info if info and (info.ended or info.state is State.REFUSED) else None

        found: Stream = wait_for(closed, f"the end of {site}/{file} of job {self.id}", timeout)
        return found

    def written(self, site: str, file: str = "log.txt") -> bytes:
        """All that the site wrote: truncated contents, rotated files, oldest first, then the current one."""
        directory = self.directory(site)
        if site == "server":  # its run directory is in the archive now
            with zipfile.ZipFile(
                self.lab.federation.server_dir / "jobs-storage" / self.id / "workspace"
            ) as archive:
                return archive.read(file)
        rotated = sorted(directory.glob(f"{file}.[0-9]*"), key=lambda path: -int(path.suffix[1:]))
        paths = [directory / (TRUTH + file), *rotated, directory / file]
        return b"".join(path.read_bytes() for path in paths if path.exists())

    def assert_complete(self, site: str, *files: str, outcome: str = "exit code 0") -> None:
        """The server's copy is what the site wrote, by sha256, and the verdict says so."""
        for file in files or LOGS:
            info = self.wait_closed(site, file)
            written, stored = self.written(site, file), self.path(site, file).read_bytes()
            assert _sha256(stored) == _sha256(written), f"{info.key}: {difference(stored, written)}"
            assert (info.verdict, info.outcome, info.end) == ("complete", outcome, len(written)), info
            assert info.digest == _sha256(written)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def difference(stored: bytes, written: bytes) -> str:
    """Where two byte sequences part, for a failing test's message."""
    low, high = 0, min(len(stored), len(written))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if stored[:middle] == written[:middle] else (low, middle - 1)
    have, want = stored[low : low + 80], written[low : low + 80]
    return f"{len(stored)} of {len(written)} bytes; at {low}: {have!r} for {want!r}"
