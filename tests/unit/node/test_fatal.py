"""The process when it must end, asked to or because something that must not fail did: it says why, whatever hangs."""

import subprocess
import sys

import pytest

AGENT = """
import asyncio, logging, os, signal, sys, threading
from pathlib import Path
from swarm_agent import daemon
from swarm_agent.node.settings import Settings
from swarm_agent.raft.errors import DiskFailed
from swarm_agent.raft.files import _guard

folder, hangs, ordered = Path(sys.argv[1]), sys.argv[2] == "hangs", sys.argv[3] == "ordered"

class Node(daemon.ClusterNode):
    def __init__(self, *arguments, on_fatal, **options):
        super().__init__(*arguments, on_fatal=on_fatal, **options)
        self.fatal = on_fatal

    async def start(self):
        await super().start()
        if ordered:
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
            return
        try:
            with _guard("sync", folder / "0001.wal"):
                raise OSError(5, "Input/output error")
        except DiskFailed as error:
            self.fatal(error)

    async def stop(self):
        await super().stop()
        if hangs:
            asyncio.current_task().set_name("the hanging part")
            await asyncio.to_thread(threading.Event().wait)

daemon.ClusterNode = Node
daemon.FATAL_PATIENCE = daemon.STOP_PATIENCE = 1.5
logging.basicConfig(level="INFO", format="%(levelname)s %(message)s")
settings = Settings(
    socket=folder / "front.sock", socket_group="root", engine_socket=folder / "no.sock", state_dir=folder / "state",
    run_dir=folder / "run", dns_port=0,
)
sys.exit(asyncio.run(daemon.run(settings)))
"""


def run_agent(folder, *arguments):
    command = [sys.executable, "-c", AGENT, str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("stop", ["ends", "hangs"])
def test_a_failed_sync_ends_the_process_with_words(tmp_path, stop):
    ended = run_agent(tmp_path, stop, "fatal")
    assert ended.returncode == 1, ended.stderr
    assert f"CRITICAL the agent cannot go on: could not sync {tmp_path}/0001.wal: Input/output error." in ended.stderr
    assert "check the disk (space, dmesg) and start it again" in ended.stderr


def test_a_stop_that_was_asked_for_ends_although_a_part_hangs_and_names_it(tmp_path):
    ended = run_agent(tmp_path, "hangs", "ordered")
    assert ended.returncode == 0, ended.stderr
    assert "ERROR still at work: the hanging part at " in ended.stderr
