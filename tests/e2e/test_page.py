"""The page in a real browser, over a real server, with a fake embedder."""

from __future__ import annotations

import io
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("no chromium and chromedriver", allow_module_level=True)
for package in ("fastapi", "uvicorn", "selenium"):
    pytest.importorskip(package)

import uvicorn  # noqa: E402
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

from polymodal.index import create_index  # noqa: E402
from polymodal.service import Cards, Engine, write_cards  # noqa: E402
from polymodal.service.app import create_app  # noqa: E402
from polymodal.types import Embeddings, MediaError, Record  # noqa: E402

COLOURS = {"red": (200, 40, 30), "green": (30, 150, 60), "blue": (30, 60, 190), "grey": (120, 120, 120)}


class Colours:
    """Knows colours: by their name in a text or a table, by the mean of a picture."""

    model = "colours"
    width = 3
    modalities: ClassVar = {"image": "image", "text": "text", "table": "table", "audio": "audio"}

    def embed(self, records: Sequence[Record]) -> Embeddings:
        vectors = np.stack([self._one(record) for record in records]).astype(np.float32)
        names = tuple(str(i) for i in range(len(records)))
        return Embeddings(names, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), self.model)

    def _one(self, record: Record) -> np.ndarray:
        total = np.full(3, 1e-3)
        for value in record.values.values():
            if isinstance(value, bytes):
                try:
                    total = total + np.asarray(Image.open(io.BytesIO(value)).convert("RGB")).reshape(-1, 3).mean(0)
                except OSError:
                    raise MediaError("wrong type", "not a picture") from None
            words = json.dumps(value).lower() if not isinstance(value, bytes) else ""
            total = total + sum((np.array(rgb) for name, rgb in COLOURS.items() if name in words), np.zeros(3))
        return total


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("served")
    rng = np.random.default_rng(0)
    names, vectors, attributes, rows = [], [], [], []
    for i in range(24):
        colour = list(COLOURS)[i % 4]
        Image.new("RGB", (60, 80), COLOURS[colour]).save(directory / f"{i}.jpg")
        vector = np.array(COLOURS[colour]) + rng.normal(0, 3, 3)
        names.append(f"item-{i:02d}")
        vectors.append(vector / np.linalg.norm(vector))
        attributes.append({"colour": colour, "price": float(i)})
        media = [{"modality": "image", "kind": "image", "source": f"{i}.jpg"}] if i % 3 else []
        title = f"A {colour} thing <b>{i}</b>"
        rows.append({"id": names[-1], "title": title, "attributes": attributes[-1], "media": media})
    index = create_index("exact", "colours", 3)
    index.add(Embeddings(tuple(names), np.stack(vectors).astype(np.float32), "colours"), attributes)
    write_cards(directory, rows, directory)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = create_app(Engine(Colours(), index, Cards.open(directory)))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    for flag in [*flags.split(), "disable-component-update", "disable-sync", "window-size=1280,900"]:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: webdriver.Chrome, address: str) -> Iterator[webdriver.Chrome]:
    browser.get_log("browser")
    browser.get(address)
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".message h2"))
    yield browser
    bad = [line for line in browser.get_log("browser") if line["level"] == "SEVERE" and "422" not in line["message"]]
    assert bad == []


def wait(browser: webdriver.Chrome, condition) -> None:
    WebDriverWait(browser, 10, 0.05).until(lambda _: condition())


def text(browser: webdriver.Chrome, selector: str) -> list[str]:
    # in one step inside the page, which may redraw between two calls from outside
    return list(browser.execute_script(f"return [...document.querySelectorAll({selector!r})].map((e) => e.innerText)"))


def search(browser: webdriver.Chrome, words: str) -> None:
    box = browser.find_element(By.CSS_SELECTOR, "#texts input")
    box.clear()
    box.send_keys(words, Keys.ENTER)


def shown(browser: webdriver.Chrome) -> list[int]:
    ids = browser.execute_script("return [...document.querySelectorAll('.card[data-id]')].map((e) => e.dataset.id)")
    return [int(name.partition("-")[2]) for name in ids]


def test_search_by_words_then_more_like_this_then_back(page: webdriver.Chrome) -> None:
    page.find_element(By.TAG_NAME, "body").send_keys("/")
    assert page.switch_to.active_element.get_attribute("name") == "text"
    search(page, "blue")
    wait(page, lambda: len(shown(page)) == 24)
    assert {i % 4 for i in shown(page)[:6]} == {2}
    assert text(page, ".chip .what") == ["blue"]
    worded = page.find_elements(By.CSS_SELECTOR, ".words")
    assert len(worded) == 8
    assert "<b>" in worded[0].text
    name = page.find_element(By.CSS_SELECTOR, ".card[data-id]").get_attribute("data-id")
    page.find_element(By.CSS_SELECTOR, ".like").click()
    wait(page, lambda: len(shown(page)) == 23)
    assert int(name.partition("-")[2]) not in shown(page)
    assert name in page.current_url
    page.back()
    wait(page, lambda: text(page, ".chip .what") == ["blue"])


def test_picks_are_recommended_from_and_the_list_follows_them(page: webdriver.Chrome) -> None:
    def heart(item: int) -> None:
        page.find_element(By.CSS_SELECTOR, f'.pick[data-id="item-{item:02d}"]').click()

    search(page, "blue")
    wait(page, lambda: len(shown(page)) == 24)
    heart(2)
    heart(6)
    assert text(page, "#recommend") == ["Recommend by 2 picks"]
    assert len(shown(page)) == 24  # picking is not searching
    page.find_element(By.ID, "recommend").click()
    wait(page, lambda: "recommended, by 2 picks" in page.find_element(By.ID, "status").text)
    assert {i % 4 for i in shown(page)[:4]} == {2}
    assert not {2, 6} & set(shown(page))
    assert "picked=item-02&picked=item-06" in page.current_url
    heart(10)
    wait(page, lambda: "by 3 picks" in page.find_element(By.ID, "status").text and 10 not in shown(page))
    page.refresh()
    wait(page, lambda: "by 3 picks" in page.find_element(By.ID, "status").text)
    assert text(page, ".chip em") == ["picked"] * 3
    for _ in range(3):
        page.find_element(By.CSS_SELECTOR, ".chip button").click()
    wait(page, lambda: not page.find_elements(By.CSS_SELECTOR, ".chip"))
    search(page, "red")
    wait(page, lambda: "nearest" in page.find_element(By.ID, "status").text)


def test_filters_narrow_and_can_be_removed(page: webdriver.Chrome) -> None:
    search(page, "red")
    page.find_element(By.ID, "filters-toggle").click()
    page.find_element(By.CSS_SELECTOR, '[data-name="colour"] input[value=\'"green"\']').click()
    wait(page, lambda: len(shown(page)) == 6)
    assert {i % 4 for i in shown(page)} == {1}
    page.find_element(By.CSS_SELECTOR, '[data-name="price"] .min').send_keys("100", Keys.TAB)
    wait(page, lambda: text(page, ".message h2") == ["Nothing is left"])
    for label in ("only price", "only colour"):
        page.find_element(By.CSS_SELECTOR, f'.chip button[aria-label^="Remove {label}"]').click()
    wait(page, lambda: len(shown(page)) == 24)


def test_search_by_picture_and_attribute(page: webdriver.Chrome, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), COLOURS["green"]).save(tmp_path / "mine.png")
    page.find_element(By.CSS_SELECTOR, '#files input[accept="image/*"]').send_keys(str(tmp_path / "mine.png"))
    wait(page, lambda: len(shown(page)) == 24)
    assert {i % 4 for i in shown(page)[:6]} == {1}
    assert text(page, ".chip .what") == ["mine.png"]
    page.find_element(By.ID, "attributes-toggle").click()
    page.find_element(By.CSS_SELECTOR, ".pair .name").send_keys("colour")
    page.find_element(By.CSS_SELECTOR, ".pair .value").send_keys("green", Keys.TAB)
    wait(page, lambda: "image + table" in page.find_element(By.ID, "status").text)


def test_a_file_that_is_no_picture_is_explained(page: webdriver.Chrome, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"this is text")
    page.find_element(By.CSS_SELECTOR, '#files input[accept="image/*"]').send_keys(str(tmp_path / "bad.png"))
    wait(page, lambda: page.find_elements(By.CSS_SELECTOR, ".message.bad"))
    assert "wrong type" in text(page, ".message.bad h2")[0]
    page.find_element(By.CSS_SELECTOR, ".chip button").click()
    wait(page, lambda: text(page, ".message h2") == ["Search with whatever you have"])


def test_an_item_opens_and_closes_with_the_keyboard(page: webdriver.Chrome) -> None:
    search(page, "grey")
    wait(page, lambda: len(shown(page)) == 24)
    page.find_element(By.CSS_SELECTOR, ".card[data-id] .face").send_keys(Keys.ENTER)
    wait(page, lambda: page.find_element(By.ID, "item").is_displayed())
    assert "grey" in text(page, "#item-attributes dd")
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    wait(page, lambda: not page.find_element(By.ID, "item").is_displayed())


def test_it_fits_a_narrow_screen(page: webdriver.Chrome) -> None:
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    search(page, "red")
    wait(page, lambda: len(shown(page)) == 24)
    for name in ("filters-toggle", "attributes-toggle"):
        page.find_element(By.ID, name).click()
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
