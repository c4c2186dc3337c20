"""Print whether the server is well and how it spends its time. Exit status 1 unless it is live, ready and answers.

python -m clients.health --url grpc://127.0.0.1:8001
"""

from __future__ import annotations

import tyro

from clients.client import FaceAttributesClient
from clients.command_line import ServerConnection
from contract import program


def main(server: ServerConnection) -> int:
    with FaceAttributesClient(server.url, **server.options()) as client:
        health = client.health()
    print(health.to_text())
    return int(not health.well)


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(ServerConnection, description=__doc__)))
