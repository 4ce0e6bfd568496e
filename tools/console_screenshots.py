"""Pictures of the web console for the documentation: ``docs/images/console-*.png``.

Starts a service of its own with the database of `console_demo`, opens it in headless Chromium, and
looks at each page in light and in dark.  Needs ``pip install playwright pillow`` and a chromium.
"""

from __future__ import annotations

import asyncio
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from console_demo import NAME, build
from PIL import Image
from playwright.async_api import Page, async_playwright

import natalog
from natalog.testing import own_service

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
SIZE = {"width": 1280, "height": 760}
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
ORDERS = """[:find ?number ?title ?status ?maker ?price
 :where [?o :order/number ?number]
        [?o :order/title ?title]
        [?o :order/status ?status]
        [?o :order/price ?price]
        [?o :order/maker ?m]
        [?m :person/name ?maker]]"""
BUSY = """[:find ?maker (count ?o)
 :where [?o :order/maker ?m] [?m :person/name ?maker]
        [?o :order/status ?status]
        [(not= ?status :status/delivered)]
        (not [?o :order/rush? true])]"""
THEN = 2**52 + 96
SETTLED_MS = 700

Act = Callable[[Page, Any], Awaitable[None]]


async def nothing(page: Page, conn: Any) -> None:
    """The page as it is."""


async def complete(page: Page, conn: Any) -> None:
    """Begin another clause, and look at what is offered."""
    await page.locator(".cm-content").click()
    await page.keyboard.press("Control+End")
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.type("\n        [?o :or", delay=20)
    await page.locator(".cm-tooltip-autocomplete").wait_for()


async def open_history(page: Page, conn: Any) -> None:
    """The changes of an attribute."""
    await page.get_by_role("button", name="history of :order/status").click()


async def choose_merge(page: Page, conn: Any) -> None:
    """The commit that merged a branch."""
    await page.locator(".commit", has_text="Take summer-plan over").click()


async def happen(page: Page, conn: Any) -> None:
    """Let something happen while the feed is looked at."""
    await page.locator(".pulse.on").wait_for()
    for at in range(9):
        wood = ("Ebony", "Pernambuco", "Flamed maple")[at % 3]
        change = [{"wood/name": wood, "wood/stock": 3.5 + at}]
        await conn.transact(change, tx_meta={"audit/note": f"{wood} counted"})
        await asyncio.sleep(0.35)
    await conn.publish([{"wood/name": "Ebony", "wood/colour": "black"}], id="stock-17")
    change = [{"order/number": "W-105", "order/price": "3100.00", "order/rush?": True}]
    await conn.transact(change, tx_meta={"audit/note": "W-105 is in a hurry, and cheaper"})
    row = page.locator(".feed > li", has_text="cheaper")
    await row.wait_for()
    await row.locator(".disclose").click()


def pages() -> dict[str, tuple[str, Act]]:
    """Names of pictures, the links to what they show, and what is done there."""
    at = f"#/{NAME}/db"
    lookup = quote('[:order/number "W-105"]', safe="")
    return {
        "query": (f"{at}/query?q={quote(ORDERS)}&s=1", complete),
        "plan": (f"{at}/query?tab=plan&q={quote(BUSY)}", nothing),
        "past": (f"{at}/query?t={THEN}&s=-2&q={quote(BUSY)}", nothing),
        "entity": (f"{at}/entity/{lookup}", open_history),
        "graph": (f"{at}/graph", choose_merge),
        "schema": (f"{at}/schema", nothing),
        "live": (f"{at}/live", happen),
    }


def small(picture: bytes, path: Path) -> None:
    """Save a picture with 256 colours, which is all that it has but for the edges of letters."""
    with Image.open(io.BytesIO(picture)) as full:
        few = full.convert("RGB").quantize(
            256, method=Image.Quantize.MAXCOVERAGE, kmeans=8, dither=Image.Dither.NONE
        )
        few.save(path, optimize=True)


async def take(url: str, console: str, chromium: str) -> None:
    async with async_playwright() as tool, natalog.connect(url) as client:
        browser = await tool.chromium.launch(executable_path=chromium, args=FLAGS)
        conn = client.database(NAME)
        for name, (link, act) in pages().items():
            for scheme in ("light", "dark"):
                context = await browser.new_context(viewport=SIZE, color_scheme=scheme)
                page = await context.new_page()
                await page.goto(console + link)
                await page.locator(".status.live").wait_for()
                await page.wait_for_timeout(SETTLED_MS)
                await act(page, conn)
                await page.wait_for_timeout(SETTLED_MS)
                path = FOLDER / f"console-{name}-{scheme}.png"
                small(await page.screenshot(), path)
                print(f"{path.stat().st_size:8}  {path.name}")
                await context.close()
        await browser.close()


async def main() -> int:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("no chromium is installed", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    options = ("--console", "--metrics-port", "0")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with own_service(folder, *options) as url:
            await build(url)
            log = (folder / "service.log").read_text()
            await take(url, re.findall(r"console at (\S+)", log)[-1], chromium)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
