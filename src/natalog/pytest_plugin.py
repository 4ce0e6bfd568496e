"""Fixtures for tests of programs that use Natalog: a real, throw-away service.

pytest finds them by itself where natalog is installed::

    def test_an_order_is_stored(natalog_db):
        natalog_db.transact([{"order/number": "A-1"}])
        assert natalog_db.db().q("[:find ?n . :where [_ :order/number ?n]]") == "A-1"

    async def test_the_same_without_blocking(natalog_url):
        async with natalog.connect(natalog_url) as client: ...
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from natalog.sync import Client, Conn

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def natalog_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service with a nats-server of its own, one for all tests of the run."""
    from natalog.testing import service

    with service(tmp_path_factory.mktemp("natalog")) as url:
        yield url


@pytest.fixture(scope="session")
def natalog_client(natalog_url: str) -> Iterator[Client]:
    """A client without ``await``, connected for the whole run."""
    from natalog import sync

    with sync.connect(natalog_url) as client:
        yield client


@pytest.fixture
def natalog_db(natalog_client: Client) -> Iterator[Conn]:
    """An empty database of this test's own, which takes any attribute; gone afterwards."""
    name = f"test-{next(_numbers)}"
    natalog_client.create_database(name, schema_flexibility="read")
    yield natalog_client.database(name)
    natalog_client.delete_database(name)
