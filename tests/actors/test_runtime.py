"""Actors: bounded mailboxes, supervision, and an answer for everybody who waits."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from natalog.actors.runtime import Actor, Ask, Runtime, Stop
from natalog.core.errors import (
    Busy,
    DeadlineExceeded,
    Internal,
    LogCorrupt,
    Unavailable,
)

pytestmark = pytest.mark.asyncio


class Echo(Actor):
    name = "echo"
    mailbox_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.starts = 0
        self.stops = 0
        self.failures: list[BaseException] = []

    async def on_start(self) -> None:
        self.starts += 1

    async def on_stop(self) -> None:
        self.stops += 1

    async def on_failure(self, error: BaseException) -> None:
        self.failures.append(error)

    async def on_message(self, message: Any) -> None:
        match message.body:
            case "crash":
                raise ZeroDivisionError("on purpose")
            case "sleep":
                await anyio.sleep(60)
            case "silent":
                return
        message.reply(message.body)


async def test_asks_are_answered_in_the_order_of_sending() -> None:
    async with anyio.create_task_group() as tasks:
        actor = Runtime(tasks).spawn(Echo())
        asks = [Ask(number) for number in range(4)]
        for ask in asks:
            actor.tell(ask)
        assert [await ask.result(5) for ask in asks] == [0, 1, 2, 3]
        await actor.stop()


async def test_a_full_mailbox_answers_busy_with_a_hint() -> None:
    async with anyio.create_task_group() as tasks:
        actor = Runtime(tasks).spawn(Echo())
        await actor.ready()
        actor.tell(Ask("sleep"))
        await anyio.sleep(0.01)
        for _ in range(4):
            actor.tell(Ask("later"))
        with pytest.raises(Busy) as caught:
            actor.tell(Ask("one too many"))
        assert caught.value.data["retry_after_ms"] > 0
        await actor.stop()


async def test_an_ask_ends_at_its_deadline() -> None:
    async with anyio.create_task_group() as tasks:
        actor = Runtime(tasks).spawn(Echo())
        with pytest.raises(DeadlineExceeded):
            await actor.ask("silent", 0.02)
        await actor.stop()


async def test_a_crash_fails_its_message_and_the_next_one_is_served() -> None:
    async with anyio.create_task_group() as tasks:
        runtime = Runtime(tasks)
        restarted: list[str] = []
        runtime.on_restart = lambda actor: restarted.append(actor.name)
        actor = Echo()
        runtime.spawn(actor)
        with pytest.raises(Internal, match="ZeroDivisionError"):
            await actor.ask("crash", 5)
        assert await actor.ask("after", 5) == "after"
        assert (actor.starts, actor.stops, actor.restarts) == (2, 1, 1)
        assert len(actor.failures) == 1 and restarted == ["echo"]
        await actor.stop()
        assert actor.stops == 2


async def test_a_stopped_actor_drains_its_mailbox_with_errors() -> None:
    async with anyio.create_task_group() as tasks:
        actor = Runtime(tasks).spawn(Echo())
        await actor.ready()
        busy, waiting = Ask("sleep"), Ask("never")
        actor.tell(busy)
        actor.tell(waiting)
        await anyio.sleep(0.01)
        await actor.stop()
        for ask in (busy, waiting):
            with pytest.raises(Unavailable):
                await ask.result(1)
        with pytest.raises(Unavailable):
            actor.tell(Ask("too late"))


async def test_stop_comes_after_the_messages_before_it() -> None:
    async with anyio.create_task_group() as tasks:
        actor = Runtime(tasks).spawn(Echo())
        last, late = Ask("last"), Ask("late")
        actor.tell(last)
        actor.tell(Stop())
        actor.tell(late)
        assert await last.result(1) == "last"
        with pytest.raises(Unavailable):
            await late.result(1)


async def test_a_final_error_reaches_every_sender() -> None:
    class Broken(Echo):
        async def on_start(self) -> None:
            raise LogCorrupt("The log is broken.")

    async with anyio.create_task_group() as tasks:
        actor = Broken()
        early = Ask("early")
        actor.tell(early)
        Runtime(tasks).spawn(actor)
        with pytest.raises(LogCorrupt):
            await early.result(5)
        with pytest.raises(LogCorrupt):
            await actor.ask("late", 5)
        assert actor.ended


async def test_a_passing_error_at_the_start_is_tried_again() -> None:
    class Slow(Echo):
        async def on_start(self) -> None:
            await super().on_start()
            if self.starts < 3:
                raise Unavailable("Not yet.")

    async with anyio.create_task_group() as tasks:
        actor = Slow()
        Runtime(tasks).spawn(actor)
        assert await actor.ask("there", 5) == "there"
        assert actor.starts == 3
        await actor.stop()
