"""A process stays awake for a moment where that pays, and sleeps otherwise."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from natalog.actors import alertness
from natalog.actors.alertness import Alertness


def turns(one: Alertness, usual_s: float) -> int:
    """Turns of an event loop of uvloop that ``one`` took before it slept again."""
    taken = 0

    async def main() -> None:
        nonlocal taken
        turn = one._turn

        def counted(loop: asyncio.AbstractEventLoop) -> None:
            nonlocal taken
            taken += 1
            turn(loop)

        one._turn = counted  # type: ignore[method-assign]
        one.expect(usual_s)
        one.expect(usual_s)  # twice does not mean twice as many turns at a time
        while one._awake:
            await asyncio.sleep(0.001)

    uvloop.run(main())
    return taken


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alertness, "_cores", lambda: 2)


@pytest.mark.usefixtures("two_cores")
def test_it_stays_awake_for_what_comes_soon() -> None:
    assert turns(Alertness(2_000), 0.0001) > 1


@pytest.mark.usefixtures("two_cores")
def test_it_sleeps_where_waiting_takes_longer_or_nobody_wants_it() -> None:
    assert turns(Alertness(2_000), 0.003) == 0
    assert turns(Alertness(0), 0.0) == 0


def test_it_sleeps_on_a_single_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alertness, "_cores", lambda: 1)
    assert turns(Alertness(2_000), 0.0001) == 0


@pytest.mark.asyncio
@pytest.mark.usefixtures("two_cores")
async def test_it_sleeps_on_other_event_loops() -> None:
    one = Alertness(2_000)
    one.expect(0.0001)
    assert not one._awake
