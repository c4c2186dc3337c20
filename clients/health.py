"""Print whether the server is well and how it spends its time. Exit status 1 unless it is live, ready and answers.

python -m clients.health --url grpc://127.0.0.1:8001
"""

from __future__ import annotations

import sys

import tyro

from clients.client import FaceAttributesClient
from clients.command_line import ServerConnection, one_line_for
from clients.errors import FaceAttributesError


@one_line_for(FaceAttributesError)
def main(server: ServerConnection) -> int:
    with FaceAttributesClient(server.url, **server.options()) as client:
        health = client.health()
    print(health.to_text())
    return int(not health.well)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(ServerConnection, description=__doc__)))
