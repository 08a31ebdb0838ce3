"""Runs the parent process of a server of nvflare 2.7, so that it listens on the loopback address only.

By itself it listens on every address; later versions take the address from `fed_server.json`.
"""

import runpy

from nvflare.private.fed.server.fed_server import FederatedServer

FederatedServer.LISTENING_HOST = "127.0.0.1"  # as the runtime's own simulator has it
runpy.run_module("nvflare.private.fed.app.server.server_train", run_name="__main__", alter_sys=True)
