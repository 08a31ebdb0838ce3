"""What the admin command and the sessions that send it have in common."""

COMMAND = "logstream"  # the admin command that carries a reader's requests, in its properties
SERVER_COMMAND = "logstream_server"  # the one that asks how the receiver is doing
JOBS_COMMAND = "logstream_jobs"  # the one that asks which jobs have which logs
