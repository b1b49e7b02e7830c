"""The map of the report in a real browser, opened as a file."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("no chromium and chromedriver", allow_module_level=True)
for package in ("selenium", "sklearn", "matplotlib"):
    pytest.importorskip(package)

from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

from polymodal.evaluate import Report, write_report  # noqa: E402
from polymodal.types import Embeddings  # noqa: E402

COLOURS = {"red": (200, 40, 30), "green": (30, 150, 60), "blue": (30, 60, 190)}
NASTY = "</script><b>shoe</b> 茶壶"


def report() -> Report:
    random = np.random.default_rng(0)
    names = [list(COLOURS)[k % 3] for k in range(60)]
    ids = tuple(f"item-{k:02d}" for k in range(60))
    x = np.eye(3)[[k % 3 for k in range(60)]] + random.normal(0, 0.15, (60, 3))
    vectors = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    pictures = {}
    for i, name in zip(ids[:50], names, strict=False):
        file = io.BytesIO()
        Image.new("RGB", (40, 30), COLOURS[name]).save(file, "PNG")
        pictures[i] = file.getvalue()
    return Report(
        "map",
        "polymodal evaluate",
        space=Embeddings(ids, vectors, "m"),
        space_labels=dict(zip(ids, names, strict=True)),
        space_label="colour",
        space_presence={i: frozenset({"text"} if k % 2 else {"text", "image"}) for k, i in enumerate(ids)},
        thumbnails=pictures,
        titles=dict.fromkeys(ids, NASTY),
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    page = write_report(tmp_path_factory.mktemp("report"), report())[1]
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = "headless no-sandbox disable-gpu no-first-run disable-background-networking disable-sync"
    for flag in [
        *flags.split(),
        "disable-component-update",
        "window-size=1280,900",
        "host-resolver-rules=MAP * ~NOTFOUND",
    ]:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.get(page.as_uri())
    yield driver
    assert [line for line in driver.get_log("browser") if line["level"] == "SEVERE"] == []
    driver.quit()


def fills(browser: webdriver.Chrome) -> list[str]:
    read = "return [...document.querySelectorAll('#space-points circle')].map((c) => c.getAttribute('fill'))"
    return list(browser.execute_script(read))


def said(browser: webdriver.Chrome) -> str:
    return str(browser.execute_script("return document.getElementById('space-card').innerText"))


def click(browser: webdriver.Chrome, by: str, what: str) -> None:
    element = browser.find_element(by, what)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    element.click()


def wait(browser: webdriver.Chrome, condition) -> None:
    WebDriverWait(browser, 10, 0.05).until(lambda _: condition())


def test_colours_follow_the_switch(browser: webdriver.Chrome) -> None:
    labels = fills(browser)
    assert len(labels) == 60
    assert len(set(labels)) == 3
    click(browser, By.XPATH, "//span[text()='what an item has']")
    assert [len(set(fills(browser)[k::2])) for k in (0, 1)] == [1, 1]
    click(browser, By.XPATH, "//span[text()='cluster']")
    assert fills(browser) != labels
    click(browser, By.XPATH, "//span[text()='colour']")
    assert fills(browser) == labels


def test_an_item_shows_its_picture_and_its_true_neighbours(browser: webdriver.Chrome) -> None:
    dot = browser.find_elements(By.CSS_SELECTOR, "#space-points circle")[3]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", dot)
    ActionChains(browser).move_to_element(dot).click().perform()
    wait(browser, lambda: "item-03" in said(browser))
    assert NASTY in said(browser)
    assert browser.find_elements(By.CSS_SELECTOR, "#space-card b b") == []
    assert "red" in said(browser)
    assert len(browser.find_elements(By.CSS_SELECTOR, "#space-marks .near")) == 5
    made = report()
    assert made.space is not None
    scores = made.space.vectors @ made.space.vectors[3]
    scores[3] = -1
    nearest = f"item-{int(scores.argmax()):02d}"
    first = browser.find_element(By.CSS_SELECTOR, "#space-card ol button")
    assert first.get_attribute("title") == nearest
    first.click()
    wait(browser, lambda: nearest in said(browser))
    browser.find_element(By.ID, "space-map").send_keys(Keys.ARROW_LEFT)
    wait(browser, lambda: nearest not in said(browser).split("\n")[1])
    browser.find_element(By.ID, "space-map").send_keys(Keys.ESCAPE)
    wait(browser, lambda: "Point at an item" in said(browser))


def test_pictures_come_onto_the_map_and_legend_entries_dim_the_rest(browser: webdriver.Chrome) -> None:
    click(browser, By.ID, "space-show")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#space-pictures svg")) >= 3
    click(browser, By.ID, "space-show")
    assert browser.find_elements(By.CSS_SELECTOR, "#space-pictures svg") == []
    click(browser, By.CSS_SELECTOR, "#space-legend button")
    read = "return [...document.querySelectorAll('#space-points circle')].map((c) => c.getAttribute('opacity'))"
    assert sorted(browser.execute_script(read)).count("0.82") == 20
    click(browser, By.CSS_SELECTOR, "#space-legend button")
    assert set(browser.execute_script(read)) == {"0.82"}


def test_the_page_is_one_file_that_fits_a_narrow_screen(browser: webdriver.Chrome, tmp_path: Path) -> None:
    asked = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert [name for name in asked if not name.startswith("data:")] == []
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
