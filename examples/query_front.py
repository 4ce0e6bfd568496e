"""A read-only HTTP front: ``GET /orders?customer=Ada&as_of=2026-01-31T12:00:00Z``.

Needs ``pip install fastapi uvicorn``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from fastapi import FastAPI, HTTPException, Response

import natalog

QUERY = """
[:find ?number ?amount ?state
 :in $ ?customer
 :where [?e :order/customer ?customer] [?e :order/number ?number]
        [?e :order/amount ?amount] [?e :order/state ?state]]
"""


@asynccontextmanager
async def connected(app: FastAPI) -> AsyncIterator[None]:
    """One connection to NATS for the life of the application."""
    async with natalog.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222")) as client:
        app.state.orders = client.database(os.environ.get("NATALOG_DATABASE", "shop"))
        yield


app = FastAPI(title="Orders", lifespan=connected)


@app.get("/orders")
async def orders(
    response: Response, customer: str, as_of: datetime | None = None
) -> list[dict[str, Any]]:
    """The orders of a customer, now or as they were."""
    try:
        db = await app.state.orders.db()
        view = db if as_of is None else db.as_of(as_of)
        rows = await view.q(QUERY, customer, order_by=[0, "asc"], limit=1000)
    except natalog.NatalogError as error:
        raise HTTPException(400, {"code": error.code, "message": error.message}) from error
    # whoever asks again with this basis reads exactly the same value
    response.headers["Natalog-Basis"] = str(db.basis)
    return [{"number": n, "amount": a, "state": str(s)} for n, a, s in rows]


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=8000)
