"""A real federation on this machine, for the demo, the end-to-end tests and the benchmark.

One server and some sites run as processes of their own, with the unmodified runtime in secure mode (mutual
TLS, certificates made for the occasion). Everything lies under one directory: kits, keys, logs, the server's
job store. Every socket is bound to the loopback address.
"""

from __future__ import annotations

import io
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path

from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from nvflare_logstream.errors import ArgumentError
from nvflare_logstream.flare.runtime import close_session
from nvflare_logstream.lab.kits import (
    DEFAULT_SETUP,
    ORG,
    SiteSetup,
    free_port,
    keep_stores_inside,
    project_of,
)
from nvflare_logstream.lab.processes import CONSOLE, Processes
from nvflare_logstream.lab.provision import make_kits
from nvflare_logstream.lab.submitting import Submitter
from nvflare_logstream.names import SERVER_SITE, check_name

ADMIN = "admin@nvidia.com"

_POLL_SECONDS = 0.1
_LOGIN_SECONDS = 30.0
_LOGIN = threading.Lock()


class Federation:
    """One server and its clients; a context manager that ends every process it started.

    Args:
        root: a directory that holds no federation yet; everything is kept below it.
        clients: names of the client sites.
        server: set-up of the server.
        client: set-up of the clients.
        overrides: set-up of single clients, by name, instead of `client`.
        relays: the relays, each with the names of those behind it: clients, and relays named further on.
        users: admin users beside the project_admin `ADMIN`, with their roles (project_admin, org_admin, lead,
            member).
        pythons: the Python that runs the server ("server") or a client, by name, where it is another than
            this one: that of a virtual environment with another version of the runtime, and with what this
            package needs; the package itself is this one. Admins have kits as the server has.
        on_progress: called with one line of text after each step.
    """

    def __init__(
        self,
        root: Path,
        clients: Sequence[str] = ("site-1", "site-2"),
        *,
        server: SiteSetup = DEFAULT_SETUP,
        client: SiteSetup = DEFAULT_SETUP,
        overrides: Mapping[str, SiteSetup] | None = None,
        relays: Mapping[str, Sequence[str]] | None = None,
        users: Mapping[str, str] | None = None,
        pythons: Mapping[str, str] | None = None,
        on_progress: Callable[[str], None] | None = None,
    ):
        self.root = Path(root).resolve()
        if any(character.isspace() for character in str(self.root)):
            # The runtime puts its job processes' command lines together without quoting paths.
            raise ArgumentError("root", str(self.root), "a path without spaces")
        self.clients = tuple(check_name("clients", name) for name in clients)
        self.relays = dict(relays or {})
        self.users = {ADMIN: "project_admin", **(users or {})}
        self._setups = {**dict.fromkeys(self.clients, client), **(overrides or {}), SERVER_SITE: server}
        self._pythons = dict(pythons or {})
        self._progress = on_progress or (lambda text: None)
        self._port = 0
        self._kits: dict[str, Path] = {}
        self._processes = Processes()
        self._started: dict[str, float] = {}  # when, by name, in seconds since the epoch
        self._sessions: dict[str, Session] = {}
        self._submitters: dict[str, Submitter] = {}

    def __enter__(self) -> Federation:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def prepare(self) -> None:
        """Make certificates and startup kits, and write every site's `local/resources.json`.

        Raises:
            ArgumentError: if `root` holds a federation already.
        """
        home = self.root / "kits"
        if home.exists():
            raise ArgumentError("root", str(self.root), "a directory that holds no federation yet")
        home.mkdir(parents=True, mode=0o700)
        self._port = free_port()
        project = project_of(self._port, self.clients, self.users, self.relays)
        names = (SERVER_SITE, *self.relays, *self.clients, *self.users)
        kits_of = {name: SERVER_SITE if name in self.users else name for name in names}
        pythons = {name: self._pythons.get(of, "") for name, of in kits_of.items()}
        self._kits = make_kits(home, project, pythons)
        for name, setup in self._setups.items():
            local = self._kit(name) / "local"
            resources = json.loads((local / "resources.json.default").read_text())
            if name == SERVER_SITE:
                keep_stores_inside(resources, self.server_dir)
            (local / "resources.json").write_text(json.dumps(setup.apply(resources), indent=2))
        self._progress(f"prepared a server and {len(self.clients)} sites in {self.root}")

    @property
    def server_dir(self) -> Path:
        """The server's kit, which is also its workspace."""
        return self._kit(SERVER_SITE)

    def client_dir(self, name: str) -> Path:
        """A client's kit, which is also its workspace."""
        return self._kit(name)

    def admin_dir(self, user: str = ADMIN) -> Path:
        """An admin user's kit, as the runtime's commands and sessions take it."""
        return self._kit(user)

    def job_log_dir(self, site: str, job_id: str) -> Path:
        """Where `site` writes the log files of a job; the server's is removed when the job is archived."""
        return self._kit(site) / job_id

    def start(self, timeout: float = 60.0) -> None:
        """Start the server and all clients, prepared first if need be, and wait until they are ready.

        Raises:
            RuntimeError: if a process ends instead.
            TimeoutError: after `timeout` seconds.
        """
        if not self._kits:
            self.prepare()
        began = time.monotonic()
        self.start_site(SERVER_SITE)
        # A client that finds no server waits for seconds before it tries again.
        self._wait("the server", timeout, self._listening)
        for name in (*self.relays, *self.clients):
            self.start_site(name)
        self.wait_ready(timeout)
        self._progress(
            f"the server and {len(self.clients)} sites are up after {time.monotonic() - began:.1f} s"
        )

    def start_site(self, name: str) -> None:
        """Start the parent process of a site or a relay, say after `kill`, and do not wait for it."""
        role = "server" if name == SERVER_SITE else "relay" if name in self.relays else "client"
        module = f"nvflare.private.fed.app.{role}.{'relay' if role == 'relay' else f'{role}_train'}"
        # Clients come back to a restarted server with a heartbeat, by default only every 10 seconds.
        own = [] if name == SERVER_SITE else [f"uid={name}", "heart_beat_interval=2"]
        kit, python = self._kit(name), self._pythons.get(name, sys.executable)
        if name == SERVER_SITE and name in self._pythons:
            module = "nvflare_logstream.lab.loopback"
        command = [python, "-u", "-m", module, "-m", str(kit), "-s", f"fed_{role}.json", "--set", *own]
        command += ["secure_train=true", f"org={ORG}", "config_folder=config"]
        self._started[name] = time.time()
        self._processes.start(name, command, kit)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until every client that was started has registered since, also with a restarted server.

        Raises:
            RuntimeError: if a process ends instead.
            TimeoutError: after `timeout` seconds.
        """
        self._wait("the clients", timeout, self._ready)

    def pid(self, name: str) -> int:
        """The process id of a site's parent process."""
        return self._processes.pid(name)

    def job_pid(self, site: str, job_id: str) -> int:
        """The process id of a job's process at a site.

        Raises:
            LookupError: if there is none now.
        """
        pid = self._processes.find({job_id, str(self._kit(site))})
        if pid is None:
            raise LookupError(f"no process of job {job_id} at {site}")
        return pid

    def kill(self, name: str, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a site's parent process only, and wait for its end if the signal is to end it."""
        if self._processes.kill(name, sig) and name == SERVER_SITE:
            self._close_sessions()

    def stop(self) -> None:
        """End every process of this federation within about two seconds; may be called again."""
        self._close_sessions()
        self._processes.stop()

    def session(self, user: str = ADMIN) -> Session:
        """The admin session of a user, opened when first asked for; `stop` and killing the server close it.

        Raises:
            ConnectionError: if the server does not answer.
        """
        if user not in self._sessions:
            # A greeting, where a command's output belongs; the redirection is the whole process's.
            with _LOGIN, redirect_stdout(io.StringIO()):
                self._sessions[user] = new_secure_session(
                    user, str(self.admin_dir(user)), timeout=_LOGIN_SECONDS
                )
        return self._sessions[user]

    def submit(self, job: Path, user: str = ADMIN) -> str:
        """Submit a job folder, such as one from `write_job`, and return the job's id."""
        if python := self._pythons.get(SERVER_SITE):
            if user not in self._submitters:
                self._submitters[user] = Submitter(python, user, self.admin_dir(user))
            job_id = self._submitters[user].submit(job)
        else:
            job_id = str(self.session(user).submit_job(str(job)))
        self._progress(f"submitted job {job.name} as {job_id}")
        return job_id

    def wait(self, job_id: str, timeout: float = 120.0) -> str:
        """Wait until a job is finished and return its status, such as "FINISHED:COMPLETED".

        Raises:
            RuntimeError: if a site's parent process ends meanwhile.
            TimeoutError: after `timeout` seconds.
        """
        self._wait(f"job {job_id}", timeout, lambda: self.status(job_id).startswith("FINISHED"))
        self._progress(f"job {job_id} is {self.status(job_id)}")
        return self.status(job_id)

    def status(self, job_id: str) -> str:
        """The status of a job, from the server's job store: to ask would be load on the server we measure."""
        meta = json.loads((self.server_dir / "jobs-storage" / job_id / "meta").read_text())
        return str(meta["status"])

    def abort(self, job_id: str) -> None:
        """Ask the server to abort a job."""
        self.session().abort_job(job_id)

    def _kit(self, name: str) -> Path:
        if not self._kits:
            raise RuntimeError("there are no kits yet: call prepare() or start() first")
        return self._kits[name]

    def _wait(self, goal: str, timeout: float, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + timeout
        while not reached():
            if ended := self._processes.ended():
                name, code = ended
                raise RuntimeError(f"{name} ended with exit code {code}, see {self._kit(name) / CONSOLE}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"gave up waiting for {goal} after {timeout:g} s")
            time.sleep(_POLL_SECONDS)

    def _listening(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1.0):
            return True
        return False

    def _ready(self) -> bool:
        if not self._listening():
            return False
        # A client that was killed stays on the server's list: what counts is when it was last heard.
        heard = {
            client.name: client.last_connect_time for client in self.session().get_system_info().client_info
        }
        # A relay is not on the list: a client that was heard since the relays' start was heard through them.
        relays = max((self._started[name] for name in self.relays), default=0.0)
        return all(
            heard.get(name, 0.0) > max(self._started[name], relays)
            for name in self._processes.names
            if name in self.clients
        )

    def _close_sessions(self) -> None:
        for session in self._sessions.values():
            close_session(session)
        for submitter in self._submitters.values():
            submitter.close()
        self._sessions.clear()
        self._submitters.clear()
