"""`swarm-agent`: puts the parts together and runs them until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from swarm_agent.api.cluster import ClusterApi
from swarm_agent.api.engine import EngineClient
from swarm_agent.api.frontdoor import FrontDoor
from swarm_agent.api.local import LocalApi
from swarm_agent.api.message import (
    Request,
    Response,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from swarm_agent.api.metrics_port import MetricsPort
from swarm_agent.node import settings as node_settings
from swarm_agent.node.cluster_node import ClusterNode
from swarm_agent.node.manager_role import ManagerRole
from swarm_agent.node.manager_routes import ApiHandler
from swarm_agent.node.settings import DEFAULT_FILE, Settings, SettingsError
from swarm_agent.node.state import StateError
from swarm_agent.worker.engine import Engine

log = logging.getLogger("swarm_agent")

FATAL_PATIENCE = 15.0
"""Seconds for an orderly stop after something that must not fail did."""

STOP_PATIENCE = 30.0
"""Seconds for any other orderly stop; a restart of the agent must not wait for a part that hangs."""


def notify(message: str) -> None:
    """Tell systemd (sd_notify): a datagram to $NOTIFY_SOCKET; nothing without it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as endpoint:
        endpoint.connect(address)
        endpoint.sendall(message.encode())


def give_up_after(seconds: float, code: int) -> None:
    """End the process then, come what may. A disk that fails may hang as well, and a thread that waits for it cannot be
    ended: an orderly stop would wait with it, and nobody would start the agent again.
    """
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()


def tell_who_is_late() -> None:
    """Log what an orderly stop waits for, so that it can be mended."""
    for task in asyncio.all_tasks():
        frames = task.get_stack(limit=1)
        where = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "-"
        log.error("still at work: %s at %s", task.get_name(), where)


def serve_forwarded(manager: ManagerRole) -> ApiHandler:
    """The handler of API requests that other managers pass on to this one."""

    async def handle(data: bytes) -> bytes:
        api = ClusterApi(manager.store, quorum=manager, external=manager)
        return encode_response(await api.handle(decode_request(data)))

    return handle


async def open_metrics(node: ClusterNode, address: str) -> MetricsPort | None:
    """The metrics port, if one is set. A taken port is no reason to leave the cluster: it is said, and that is all."""
    if not address:
        return None
    try:
        port = MetricsPort(node.introspection.metrics, address)
        await port.start()
    except (OSError, ValueError) as error:
        log.error("no metrics at %s: %s", address, error)
        return None
    return port


async def run(settings: Settings) -> int:
    """Run the agent; returns the exit code."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def stop(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    def fatal(error: BaseException) -> None:
        log.critical("the agent cannot go on: %s", error)
        stop(1)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, 0)
    engine = Engine(str(settings.engine_socket))
    node = ClusterNode(settings, engine, api=serve_forwarded, on_fatal=fatal)
    front_engine = EngineClient(str(settings.engine_socket))

    async def forward(address: str, request: Request) -> Response:
        return decode_response(await node.ask_leader(encode_request(request)))

    door = FrontDoor(LocalApi(node, front_engine, forward=forward), settings.socket, group=settings.socket_group)
    await node.start()
    await door.start()
    metrics = await open_metrics(node, settings.metrics_addr)
    notify("READY=1")
    log.info("serving %s", settings.socket)
    code = await ended
    patience = FATAL_PATIENCE if code else STOP_PATIENCE
    loop.call_later(patience - 1, tell_who_is_late)
    give_up_after(patience, code)
    notify("STOPPING=1")
    if metrics is not None:
        await metrics.stop()
    await door.stop()
    await node.stop()
    await front_engine.close()
    await engine.close()
    return code


def main() -> None:
    """Entry point of the `swarm-agent` command."""
    parser = argparse.ArgumentParser(prog="swarm-agent", description="Runs this host's part of the cluster.")
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, help="settings file (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        settings = node_settings.load(arguments.config)
    except SettingsError as error:
        sys.exit(f"swarm-agent: {error}")
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        sys.exit(asyncio.run(run(settings)))
    except StateError as error:
        sys.exit(f"swarm-agent: {error}")
