"""Discovery as the NATS Services API specifies it: PING, INFO and STATS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nats
import pytest

import natalog
from natalog.actors.config import ServiceConfig
from natalog.actors.service import running

pytestmark = pytest.mark.asyncio


async def test_discovery_tells_who_serves_what_and_what_became_of_it(tmp_path: Path) -> None:
    async with (
        running(ServiceConfig(data=tmp_path, listen="127.0.0.1:0")) as service,
        natalog.connect(service.url) as client,
    ):
        connection = await nats.connect(service.url)

        async def ask(subject: str) -> dict[str, Any]:
            return dict(json.loads((await connection.request(subject, timeout=5)).data))

        await client.create_database("people", schema_flexibility="read")
        conn = client.database("people")
        await conn.transact([{"n": 1}])
        for _ in range(3):
            await conn.q("[:find ?n :where [_ :n ?n]]")
        with pytest.raises(natalog.NatalogError):
            await conn.q("[:find ?n :where (nowhere ?n)]")

        ping = await ask("$SRV.PING")
        assert ping["type"] == "io.nats.micro.v1.ping_response"
        assert ping["name"] == "natalog" and ping["version"].count(".") == 2
        info = await ask("$SRV.INFO.natalog")
        assert info["type"] == "io.nats.micro.v1.info_response" and info["id"] == ping["id"]
        subjects = {one["name"]: one["subject"] for one in info["endpoints"]}
        assert subjects["query"] == "natalog.*.*.query"
        stats = await ask(f"$SRV.STATS.natalog.{ping['id']}")
        assert stats["type"] == "io.nats.micro.v1.stats_response"
        query = next(one for one in stats["endpoints"] if one["name"] == "query")
        assert (query["num_requests"], query["num_errors"]) == (4, 1)
        assert query["last_error"].startswith("400:")
        assert query["average_processing_time"] == query["processing_time"] // 4 > 0
        await connection.close()
