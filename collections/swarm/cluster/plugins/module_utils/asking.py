# Copyright: swarm.cluster contributors
# GNU General Public License v3.0 or later (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a controller asks a manager for the cluster's nodes by ssh, for the inventory plugin."""

from __future__ import annotations

import shlex

# Runs on the host with its own Python and nothing else.
ASK = """
import http.client, json, socket, sys
path, timeout = sys.argv[1], float(sys.argv[2])
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.sock.connect(path)
connection = Unix("localhost")
connection.request("GET", "/nodes")
answer = connection.getresponse()
body = answer.read().decode()
if answer.status != 200:
    sys.exit(json.loads(body).get("message", body))
print(body)
"""


def ssh_command(manager, socket, ssh_args, become, timeout):
    """The command that asks a manager by ssh. Raises ValueError."""
    user_host, _colon, port = manager.removeprefix("ssh://").partition(":")
    if not user_host or (port and not port.isdigit()):
        raise ValueError(f"{manager!r} is not ssh://[USER@]HOST[:PORT] or unix:///PATH")
    program = ["python3", "-", socket, str(timeout)]
    remote = shlex.join(["sudo", "-n", *program] if become else program)
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={timeout}", *shlex.split(ssh_args)]
    return ["ssh", *options, *(["-p", port] if port else []), user_host, remote]
