"""A responder that answers every request with itself: ``python echo.py URL``."""

from __future__ import annotations

import asyncio
import sys

from nats.aio.client import Client as Nats
from nats.aio.msg import Msg


async def serve(url: str) -> None:
    connection = Nats()
    await connection.connect(url)

    async def reply(msg: Msg) -> None:
        await connection.publish(msg.reply, msg.data)

    await connection.subscribe("bench.echo", cb=reply)
    await connection.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
