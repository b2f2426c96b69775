"""A real browser, and what a person sees in it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SHOTS = Path(__file__).parents[1] / ".build" / "page"
"""Where screenshots are kept, as output of the build."""

LIMIT = 60.0
"""Seconds that only a hang reaches."""

# The text that can be read without scrolling, of what is not hidden.
FIRST_SCREEN = """() => {
  const lines = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const range = document.createRange();
    range.selectNodeContents(node);
    const seen = [...range.getClientRects()].some(
      (box) => box.width && box.bottom <= innerHeight && box.top >= 0 && box.right <= innerWidth);
    if (seen && node.parentElement.checkVisibility()) lines.push(node.textContent);
  }
  return lines.join(" ").replace(/\\s+/g, " ");
}"""

# The least contrast of any text with what is behind it, and that text (WCAG 2.2, 1.4.3).
LEAST_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = rgba(getComputedStyle(each).backgroundColor);
      if (color[3] === 255) return color;
    }
    return rgba("white");
  };
  let least = [99, ""];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].filter((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own.length || !element.checkVisibility()) continue;
    const a = luminance(rgba(getComputedStyle(element).color));
    const b = luminance(behind(element));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least[0]) least = [ratio, `${element.className}: ${own[0].textContent}`];
  }
  return least;
}"""


@asynccontextmanager
async def chromium() -> AsyncIterator[Any]:
    """Start a browser."""
    playwright = pytest.importorskip("playwright.async_api")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def tab(
    browser: Any, url: str, *, width: int = 1280, height: int = 800, dark: bool = False
) -> AsyncIterator[Any]:
    """Open a page. Nothing may go wrong in it, and all that it needs must come from `url`."""
    wrong: list[str] = []
    context = await browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        ignore_https_errors=True,
    )
    page = await context.new_page()
    page.set_default_timeout(LIMIT * 1000)
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("console", lambda line: wrong.append(line.text) if _is_fault(line) else None)
    page.on(
        "request",
        lambda sent: None if sent.url.startswith(url.partition("#")[0]) else wrong.append(sent.url),
    )
    try:
        await page.goto(url)
        yield page
        assert wrong == []
    finally:
        await context.close()


def _is_fault(line: Any) -> bool:
    # A request that the router refuses, or a router that is gone, is the subject of a test.
    return line.type == "error" and not line.text.startswith("Failed to load resource")


async def shoot(page: Any, name: str, *, full: bool = False) -> None:
    """Keep a screenshot."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SHOTS / f"{name}.png", full_page=full)
