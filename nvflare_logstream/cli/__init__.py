"""Commands for the terminal."""

PROGRAM = "nvflare-logstream"
COMPLETING = "_NVFLARE_LOGSTREAM_COMPLETE"  # set by a shell that asks what may come next; typer's choice
