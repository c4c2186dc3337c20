"""The page in a real browser: headless Chromium, driven by selenium, against the real server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.server import TritonServer
from tests.photos import encoded, grid, photo_with_faces

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed; uv pip install selenium")
By = pytest.importorskip("selenium.webdriver.common.by").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
Actions = pytest.importorskip("selenium.webdriver.common.action_chains").ActionChains
Wait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait

pytestmark = [
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="apt-get install chromium chromium-driver"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of selenium's own connections
]
SQUARES = grid((640, 480), 3, 190)
TIMEOUT_S = 90


@pytest.fixture(scope="module")
def page(triton_server: TritonServer) -> Iterator[str]:
    """The address of the page, served by its own program."""
    command = [
        sys.executable,
        "-m",
        "clients.page",
        "--port",
        "0",
        "--url",
        triton_server.grpc_url,
        "--timeout-s",
        "60",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        yield program.stdout.readline().split()[-1]
        program.terminate()
    assert program.returncode == 0


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "three.jpg"
    path.write_bytes(encoded(photo_with_faces((640, 480), SQUARES), "JPEG", quality=90))
    return path


@pytest.fixture(scope="module")
def browser(photo: Path) -> Iterator[Any]:
    """A Chromium whose webcam shows the photo."""
    camera = photo.with_suffix(".mjpeg")
    camera.write_bytes(photo.read_bytes() * 30)
    options = webdriver.ChromeOptions()
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1000"),
        *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
        f"--use-file-for-fake-video-capture={camera}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options)
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, page: str) -> Any:
    browser.get_log("performance")  # forget what an earlier test asked for
    browser.get(page)
    return browser


def wait_for(browser: Any, selector: str, count: int) -> list[Any]:
    def found(driver: Any) -> list[Any] | None:
        elements: list[Any] = driver.find_elements(By.CSS_SELECTOR, selector)
        return elements if len(elements) == count else None

    elements: list[Any] = Wait(browser, TIMEOUT_S).until(found)
    return elements


def drop(browser: Any, files: str) -> None:
    """Let go of files, an array in JavaScript, over the page."""
    browser.execute_script(
        "const data = new DataTransfer(); const files = "
        + files
        + "; files.forEach((file) => data.items.add(file));"
        + "document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));"
    )


def js_file(content: bytes, name: str) -> str:
    return f"new File([new Uint8Array({json.dumps(list(content))})], {json.dumps(name)})"


def test_dropped_photos_get_a_box_and_bars_for_every_face(opened: Any, photo: Path) -> None:
    drop(opened, f"[{js_file(photo.read_bytes(), 'three.jpg')}]")
    boxes = wait_for(opened, "#photos .box", 3)
    picture = opened.find_element(By.CSS_SELECTOR, "#photos img").rect
    scale = picture["width"] / 640
    for (left, top, side), box in zip(
        SQUARES, sorted(boxes, key=lambda box: (box.rect["y"] > 400, box.rect["x"])), strict=True
    ):
        x = box.rect["x"] + box.rect["width"] / 2 - picture["x"]
        y = box.rect["y"] + box.rect["height"] / 2 - picture["y"]
        assert (x / scale, y / scale) == pytest.approx((left + side / 2, top + side / 2), abs=40)
    faces = opened.find_elements(By.CSS_SELECTOR, "#photos .face")
    assert len(faces) == 3
    for face in faces:
        assert "years" in face.text
        assert len(face.find_elements(By.CSS_SELECTOR, ".bar")) == 8


def test_nothing_is_asked_of_another_origin(opened: Any, page: str) -> None:
    opened.find_element(By.ID, "example").click()
    wait_for(opened, "#photos .box", 4)
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(url.endswith("/faces") for url in urls)
    assert [url for url in urls if not url.startswith((page, "blob:", "data:"))] == []
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_bad_photos_and_photos_without_faces_say_so(opened: Any) -> None:
    empty = encoded(photo_with_faces((200, 200), []))
    drop(opened, f"[{js_file(b'no photo', 'bad.jpg')}, {js_file(empty, 'empty.png')}]")
    Wait(opened, TIMEOUT_S).until(lambda driver: "no face found" in driver.find_element(By.ID, "photos").text)
    assert "not an image" in wait_for(opened, "#photos .message.bad", 1)[0].text
    opened.find_element(By.ID, "clear").click()
    assert opened.find_elements(By.CSS_SELECTOR, "#photos .photo") == []


def test_photos_can_be_chosen_and_read_with_the_keyboard_alone(opened: Any, photo: Path) -> None:
    opened.find_element(By.ID, "files").send_keys(str(photo))
    wait_for(opened, "#photos .box", 3)
    reached = []
    for _ in range(14):
        Actions(opened).send_keys(Keys.TAB).perform()
        active = opened.switch_to.active_element
        reached.append(active.get_attribute("class") or active.get_attribute("id"))
        if "box" in reached[-1]:
            break
    assert {"camera", "example", "clear"} <= set(reached)
    assert "Face 1: " in active.get_attribute("aria-label")
    Actions(opened).send_keys(Keys.ENTER).perform()
    assert "face chosen" in opened.switch_to.active_element.get_attribute("class")


def test_the_webcam_is_watched_until_it_is_stopped(opened: Any) -> None:
    opened.find_element(By.ID, "camera").click()
    wait_for(opened, "#live .box", 3)
    opened.find_element(By.ID, "camera").click()
    assert not opened.find_element(By.ID, "live").is_displayed()


def test_a_phones_screen_needs_no_scrolling_sideways(opened: Any, photo: Path, tmp_path: Path) -> None:
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        opened.find_element(By.ID, "files").send_keys(str(photo))
        wait_for(opened, "#photos .box", 3)
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 360
        assert opened.save_screenshot(str(tmp_path / "phone.png"))
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
