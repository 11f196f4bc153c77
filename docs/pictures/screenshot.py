"""Takes the picture of the collector's page with events in it: `.venv/bin/python docs/pictures/screenshot.py`.

Needs chromium, chromedriver and the extra `browser`. No two pictures are the same, as events have ids and times.
"""

import os
import shutil
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from snowplow_tracker import (
    PagePing,
    PageView,
    ScreenView,
    SelfDescribing,
    SelfDescribingJson,
    StructuredEvent,
    Subject,
    __version__,
)
from snowplow_tracker.testing import TrackingKit

PICTURE = Path(__file__).resolve().parent / "micro-ui.png"
WIDTH, HEIGHT = 1080, 620
PATIENCE_SECONDS = 20


def track_some(kit: TrackingKit) -> None:
    """Track what a shop does on one visit, with a mistake in one of the events."""
    visitor = Subject().set_platform("web").set_user_id("c-17")
    tracker = kit.create_tracker("shop", app_id="web-shop", subject=visitor)
    product = SelfDescribingJson("iglu:com.acme/product/jsonschema/1-0-0", {"sku": "B-7", "name": "green tea"})
    order = SelfDescribingJson(
        "iglu:com.acme/order/jsonschema/1-0-0",
        {"id": "o-1", "total": 42, "currency": "EUR", "lines": [{"sku": "B-7", "amount": 2}]},
    )
    tracker.track(PageView("https://shop.example/teas", "Our teas"))
    tracker.track(PagePing("https://shop.example/teas", "Our teas", min_y=0, max_y=640))
    tracker.track(StructuredEvent("basket", "add", label="green tea", value=2, context=[product]))
    # An integer is wanted of this field; the pipeline would throw the event away.
    tracker.emitters[0].input(
        {"e": "pp", "p": "web", "tv": f"py-{__version__}", "url": "https://shop.example/", "pp_mix": "top"}
    )
    tracker.track(ScreenView(id_="7f6bd0ae-6d56-44ad-9b0c-4a0a8f6c1b57", name="basket"))
    tracker.track(PageView("https://shop.example/checkout", "Checkout"))
    tracker.track(SelfDescribing(order, context=[product]))


def take(target: Path) -> str:
    """Open the page, choose the bad event, and save what is to be seen.

    Returns:
        The heading of what is chosen.
    """
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-proxy-server"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or ""
    service = webdriver.ChromeService(shutil.which("chromedriver"), env={**os.environ, "SE_OFFLINE": "true"})
    with TrackingKit() as kit, webdriver.Chrome(options=options, service=service) as browser:
        track_some(kit)
        metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(f"{kit.collector.url}/micro/ui")
        wait = WebDriverWait(browser, PATIENCE_SECONDS)
        wait.until(lambda _: len(browser.find_elements("css selector", "#events li")) == 7)
        browser.find_elements("css selector", "#events li")[3].click()
        browser.execute_script("document.getAnimations().forEach((animation) => animation.finish())")
        browser.save_screenshot(str(target))
        return " ".join(browser.find_element("css selector", "#details h2").text.split())


if __name__ == "__main__":
    take(PICTURE)
