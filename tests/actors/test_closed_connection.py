"""A connection that is closed for good."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from natalog.actors.config import ServiceConfig
from natalog.actors.service import running
from natalog.core.errors import Unavailable

pytestmark = pytest.mark.asyncio


async def test_a_connection_closed_for_good_ends_the_service(
    service_config: Callable[..., ServiceConfig],
) -> None:
    with pytest.raises(Unavailable):
        async with running(service_config()) as service:
            await service.port.close()
            await anyio.sleep(30)
