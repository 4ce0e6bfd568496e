"""Clients work while things break; afterwards their histories must be true of the log."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from histories import DATABASE, Clients, check, prepared
from nemesis import Nemesis, Proxy

pytestmark = pytest.mark.asyncio

SEEDS = range(4)


async def survives(lab: Any, names: list[str] | int, seed: int, members: int = 2) -> dict[str, int]:
    """Run clients through faults; the numbers of the checked history."""
    broker = lab.broker()
    async with Proxy(broker.port) as proxy:
        services = [lab.member(proxy.url) for _ in range(members)]
        for service in services:
            await asyncio.to_thread(service.start)
        entities = await prepared(broker.url)
        nemesis = Nemesis(broker, services, proxy, seed)
        faults = nemesis.schedule(names) if isinstance(names, int) else names
        async with Clients(broker.url, entities, seed) as clients:
            await clients.progress()
            for name in faults:
                await nemesis.run(name)
                await clients.progress()
        found = await check(broker.url, clients.history)
        done = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "natalog", "check", DATABASE, "--nats", broker.url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await done.communicate()
        assert done.returncode == 0, said.decode()
    print(faults, found)
    assert found["acknowledged"] > 0 and found["reads"] > 0
    return found


async def test_histories_are_true_when_a_service_and_the_server_are_killed(lab: Any) -> None:
    await survives(lab, ["kill_member", "kill_broker"], seed=7)


@pytest.mark.faults
@pytest.mark.parametrize("name", Nemesis.ACTIONS)
async def test_histories_are_true_through_each_fault(lab: Any, name: str) -> None:
    await survives(lab, [name] * 3, seed=11)


@pytest.mark.faults
@pytest.mark.parametrize("seed", SEEDS)
async def test_histories_are_true_through_mixed_faults(lab: Any, seed: int) -> None:
    await survives(lab, 6, seed)


@pytest.mark.faults
async def test_histories_are_true_without_a_standby(lab: Any) -> None:
    await survives(lab, ["kill_member", "kill_broker", "pause_member", "cut"], 5, members=1)


async def test_the_checker_finds_what_is_not_true() -> None:
    from histories import Read, Write, _check_order, _check_reads

    early = Write("a", 0.0, 1.0, "acknowledged", 9)
    late = Write("b", 2.0, 3.0, "acknowledged", 8)
    with pytest.raises(AssertionError, match="overtook"):
        _check_order([early, late])
    with pytest.raises(AssertionError, match="too many"):
        _check_reads([Read(5, 0, frozenset({(1, ":list/item", "x")}))], [])
    with pytest.raises(AssertionError, match="forgot"):
        _check_reads([Read(5, 6, frozenset())], [])
