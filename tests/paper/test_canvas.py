"""The page in a browser: Chromium without a window, steered by its driver; skipped where there is none."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stbp import data as data_sets
from stbp import nn, ops
from stbp.experiments import results
from stbp.ops.philox import philox
from stbp.paper.page import render, samples
from stbp.paper.page.content import NONE
from stbp.paper.quantized import Quantized, dequantized, load

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(
        BROWSER is None or DRIVER is None, reason="no browser: needs chromium and chromedriver (chromium-driver)"
    ),
    pytest.mark.slow,
]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
DIGITS = {  # strokes in units of the pad
    "0": [[(0.5 + 0.2 * math.sin(a / 3), 0.5 - 0.3 * math.cos(a / 3)) for a in range(20)]],
    "1": [[(0.55, 0.15), (0.5, 0.5), (0.45, 0.85)]],
    "7": [[(0.25, 0.2), (0.5, 0.19), (0.75, 0.2), (0.6, 0.5), (0.45, 0.85)]],
}


@pytest.fixture(scope="module")
def network() -> Quantized:
    return load(results.FOLDER / render.CANVAS)


@pytest.fixture(scope="module")
def float_network(network: Quantized) -> nn.Network:
    return dequantized(network)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    assert BROWSER is not None
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(network: Quantized, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(render.render(results.FOLDER, network, samples.Seen()), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser: Any, address: str) -> Any:
    """The page, freshly opened in a wide window, without motion: an answer is there at once."""
    _window(browser, 1400, motion=False)
    browser.get(address)
    return browser


def _window(browser: Any, width: int, *, motion: bool = True, dark: bool = False) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [
        {"name": "prefers-reduced-motion", "value": "no-preference" if motion else "reduce"},
        {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def _part(browser: Any, name: str) -> Any:
    return browser.find_element("css selector", f'[data-part="{name}"]')


def _draw(browser: Any, strokes: list[list[tuple[float, float]]]) -> None:
    """Press, move and release the pointer on the pad."""
    pad = _part(browser, "pad")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", pad)
    box = browser.execute_script("const b = arguments[0].getBoundingClientRect(); return [b.x, b.y, b.width]", pad)
    for stroke in strokes:
        for index, (x, y) in enumerate([*stroke, stroke[-1]]):
            kind = "mousePressed" if index == 0 else "mouseReleased" if index == len(stroke) else "mouseMoved"
            at = {"x": box[0] + x * box[2], "y": box[1] + y * box[2], "button": "left", "buttons": 1, "clickCount": 1}
            browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, **at})


def _state(browser: Any) -> str:
    return _part(browser, "state").text


def _images() -> torch.Tensor:
    """Images `[B, 784]` of bytes: noise, the extremes, a ramp; and some of MNIST where it is."""
    draw = torch.Generator().manual_seed(3)
    noise = torch.randint(0, 256, (3, 784), generator=draw, dtype=torch.uint8)
    noise[0][torch.rand(784, generator=draw) < 0.8] = 0
    extremes = torch.stack([torch.zeros(784), torch.full((784,), 255), torch.arange(784) % 256]).to(torch.uint8)
    images = [noise, extremes]
    if os.environ.get("STBP_DATA"):
        images.append(data_sets.load("mnist")[1].images[:6].flatten(1))
    return torch.cat(images)


def test_random_words_are_the_packages(opened: Any):
    counters = [(0, 0, 0, 0), (2**32 - 1,) * 4, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (783, 7, 5, 0)]
    for counter, key in zip(counters, [(0, 0), (2**32 - 1,) * 2, (0xA4093822, 0x299F31D0), (2**31, 0)], strict=True):
        c0, c1, c2, c3 = (torch.tensor(word) for word in counter)
        expected = [int(word) for word in philox((c0, c1, c2, c3), key)]
        assert opened.execute_script("return stbp.philox(...arguments)", *counter, *key) == expected


def test_every_spike_is_the_python_networks(opened: Any, network: Quantized, float_network: nn.Network):
    images, e = _images(), network.experiment
    ids = torch.arange(len(images)) * 1000
    x = ops.bernoulli(images, e.T, e.seed, 0, ids)
    with torch.no_grad():
        assert torch.equal(float_network(x), float_network.record(x)[-1].o)
    layers = [x.dense(), *(trace.o for trace in float_network.record(x))]
    assert all(0 < o.mean() < 1 for o in layers)
    for b, image in enumerate(images):
        given = image.tolist(), int(ids[b])
        found = opened.execute_script("return stbp.run(stbp.net, Uint8Array.from(arguments[0]), arguments[1])", *given)
        expected = [[o[t, b].nonzero().flatten().tolist() for o in layers] for t in range(e.T)]
        assert found == expected


def test_every_potential_is_the_python_networks_bit_for_bit(opened: Any, network: Quantized, float_network: nn.Network):
    images, e = _images(), network.experiment
    traces = float_network.record(ops.bernoulli(images, e.T, e.seed, 0, torch.zeros(len(images), dtype=torch.int64)))
    for b, image in enumerate(images):
        script = """const [layer] = stbp.atRest(stbp.net);
            return stbp.encode(arguments[0], stbp.net.T, stbp.net.seed, 0).map((input) => {
                stbp.advance(layer, stbp.net, input);
                return [...layer.u];
            });"""
        found = torch.tensor(opened.execute_script(script, image.tolist()), dtype=torch.float64)
        u = traces[0].u
        assert u is not None
        assert torch.equal(found, u[:, b].double())


def test_a_drawing_is_put_where_mnists_digits_are(opened: Any):
    for strokes in [*DIGITS.values(), [[(0.1, 0.1), (0.2, 0.12)]], [[(0.5, 0.5)]]]:
        found = opened.execute_script("return [...stbp.normalise(arguments[0])]", strokes)
        image = np.array(found).reshape(28, 28) / 255
        y, x = (np.arange(28) + 0.5) @ image.sum(1), (np.arange(28) + 0.5) @ image.sum(0)
        assert np.allclose([x / image.sum(), y / image.sum()], 14, atol=0.25)
        inked = [np.ptp(np.flatnonzero(image.sum(axis) > 0.5)) + 1 for axis in (0, 1)]
        assert max(inked) <= 21
        assert max(inked) >= 19 or len(strokes[0]) < 3
    sizes = [[[(s * x, s * y) for x, y in DIGITS["7"][0]]] for s in (1, 0.5)]
    large, small = (opened.execute_script("return [...stbp.normalise(arguments[0])]", strokes) for strokes in sizes)
    assert np.abs(np.array(large) - small).max() <= 1
    assert not any(opened.execute_script("return [...stbp.normalise([])]"))


@pytest.mark.parametrize("digit", DIGITS)
def test_a_digit_that_is_drawn_gets_its_answer(opened: Any, digit: str):
    _draw(opened, DIGITS[digit])
    assert _part(opened, "answer").text == digit
    assert _state(opened).startswith("step 30 of 30: ")
    counts = [int(count.text) for count in opened.find_elements("css selector", "#canvas .count")]
    assert counts.index(max(counts)) == int(digit)
    inked = "return arguments[0].getContext('2d').getImageData(0, 0, 400, 300).data.some((v) => v)"
    assert all(opened.execute_script(inked, _part(opened, name)) for name in ("pad", "input", "hidden", "output"))


def test_the_answer_forms_step_by_step(opened: Any, network: Quantized):
    T = network.experiment.T
    assert _state(opened).startswith(f"step {T} of {T}")
    _part(opened, "step").click()
    assert _state(opened).startswith(f"step 1 of {T}")
    _part(opened, "step").click()
    assert _state(opened).startswith(f"step 2 of {T}")
    counts = [int(count.text) for count in opened.find_elements("css selector", "#canvas .count")]
    assert max(counts) <= 2
    _part(opened, "play").click()
    assert _state(opened).startswith(f"step {T} of {T}")
    _part(opened, "clear").click()
    assert _state(opened) == f"step 0 of {T}: draw a digit"
    assert _part(opened, "answer").text == NONE
    assert not _part(opened, "play").is_enabled()


def test_it_plays_pauses_and_draws_other_noise(browser: Any, address: str):
    from selenium.webdriver.support.ui import WebDriverWait

    _window(browser, 1400)
    browser.get(address)
    wait = WebDriverWait(browser, 10, poll_frequency=0.02)
    _part(browser, "play").click()
    wait.until(lambda b: _state(b).startswith("step 3 "))
    _part(browser, "play").click()
    paused = _state(browser)
    browser.execute_async_script("setTimeout(arguments[0], 400)")
    assert _state(browser) == paused
    _part(browser, "again").click()
    wait.until(lambda b: _state(b).startswith("step 30 "))
    assert _part(browser, "answer").text == "3"


def test_nothing_is_fetched_and_nothing_complained_of(browser: Any, address: str):
    browser.get_log("performance")
    browser.get_log("browser")
    for dark in (False, True):
        _window(browser, 1400, motion=False, dark=dark)
        browser.get(address)
        _draw(browser, DIGITS["1"])
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert address in asked
    assert [url for url in asked if not url.startswith((address, "data:"))] == []


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_no_window_is_too_narrow(browser: Any, address: str, width: int):
    _window(browser, width, motion=False)
    browser.get(address)
    browser.execute_script("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    wide = """const wide = innerWidth + 1;
        return [...document.querySelectorAll('body *')].filter((e) => !e.closest('svg, thead') &&
            Math.max(e.getBoundingClientRect().right, e.getBoundingClientRect().left + e.scrollWidth) > wide)
            .map((e) => e.outerHTML.slice(0, 80));"""
    assert browser.execute_script(wide) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_commands_have_a_button_that_copies_them(opened: Any):
    block = opened.find_element("css selector", "#table2 + table code.command")
    button = opened.find_element("css selector", "#table2 + table button.copy")
    button.click()
    assert opened.execute_async_script("setTimeout(() => arguments[0](1), 100)") == 1
    assert button.text == "copied"
    assert block.text.startswith("stbp train ")


def test_a_link_to_a_result_opens_its_settings(opened: Any, address: str):
    opened.get(f"{address}#result-mnist-mlp")
    opened.refresh()
    assert opened.execute_script("return document.getElementById('result-mnist-mlp').open")


def test_it_fits_on_paper(browser: Any, address: str, tmp_path: Path):
    _window(browser, 1400, motion=False)
    browser.get(address)
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"]
    assert len(printed) > 100_000
