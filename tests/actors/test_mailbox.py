"""Mailboxes keep order, room and promises to senders that wait."""

from __future__ import annotations

import asyncio

import pytest

from natalog.actors.mailbox import Mailbox, MailboxClosed, MailboxFull

pytestmark = pytest.mark.asyncio


async def test_messages_come_in_the_order_in_which_they_were_put() -> None:
    box = Mailbox(10)
    receiver = asyncio.create_task(box.take())
    await asyncio.sleep(0)
    for number in range(5):
        box.put_nowait(number)
    assert [await receiver, await box.take(), box.take_nowait()] == [0, 1, 2]
    assert len(box) == 2


async def test_a_full_mailbox_refuses_or_makes_wait() -> None:
    box = Mailbox(2)
    box.put_nowait("a")
    box.put_nowait("b")
    with pytest.raises(MailboxFull):
        box.put_nowait("c")
    senders = [asyncio.create_task(box.put(name)) for name in "cde"]
    await asyncio.sleep(0)
    senders[1].cancel()
    await asyncio.sleep(0)
    assert box.take_nowait() == "a"
    with pytest.raises(MailboxFull):  # the room is for who waited
        box.put_nowait("f")
    assert [box.take_nowait() for _ in range(4)] == ["b", "c", "e", None]
    await asyncio.gather(senders[0], senders[2])
    assert senders[1].cancelled()


async def test_a_cancelled_receiver_takes_nothing_with_it() -> None:
    box = Mailbox(2)
    receiver = asyncio.create_task(box.take())
    await asyncio.sleep(0)
    box.put_nowait("a")
    receiver.cancel()
    await asyncio.gather(receiver, return_exceptions=True)
    assert receiver.cancelled()
    assert await box.take() == "a"


async def test_a_closed_mailbox_gives_back_what_is_in_it_and_what_waits() -> None:
    box = Mailbox(1)
    box.put_nowait("a")
    sender = asyncio.create_task(box.put("b"))
    await asyncio.sleep(0)
    box.close()
    with pytest.raises(MailboxClosed):
        box.put_nowait("c")
    with pytest.raises(MailboxClosed):
        await box.put("c")
    assert [box.take_nowait() for _ in range(3)] == ["a", "b", None]
    await sender


async def test_others_have_their_turn_between_messages() -> None:
    box = Mailbox(100)
    for number in range(50):
        box.put_nowait(number)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(50):
        await box.take()
    task.cancel()
    assert turns >= 49
