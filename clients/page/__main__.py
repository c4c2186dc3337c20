"""Serve the page on this machine until Ctrl-C, in front of a Triton server that runs already (`make page` starts one).

python -m clients.page --url grpc://127.0.0.1:8001 --port 8080
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field

import tyro
from aiohttp import web

from clients.aio import AsyncFaceAttributesClient
from clients.command_line import ServerConnection
from clients.page.gateway import application
from contract import program


@dataclass(frozen=True)
class Config:
    """Serve a page that finds faces in photos; nothing is stored and nothing is loaded from elsewhere."""

    server: tyro.conf.OmitArgPrefixes[ServerConnection] = field(default_factory=ServerConnection)
    host: str = "127.0.0.1"  # on which to listen; anyone who reaches another address may use the page
    port: int = 8080  # 0 for any free one
    names: tuple[str, ...] = ()  # further host names that the page may be asked for by, such as those of a proxy


async def serve(config: Config) -> None:
    """Listen until SIGINT or SIGTERM. Raises OSError for a port that is taken."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with AsyncFaceAttributesClient(config.server.url, **config.server.options()) as client:
        runner = web.AppRunner(application(client, names=(config.host, *config.names)), access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, config.host, config.port, shutdown_timeout=2.0)
            await site.start()
            host, port = runner.addresses[0][:2]
            print(f"the page is at http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
            await stopped.wait()
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    program.run(lambda: asyncio.run(serve(tyro.cli(Config))))
