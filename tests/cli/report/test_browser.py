"""The page in a real browser: Chromium without a window, driven by Selenium. Skipped where either is missing."""

import io
import shutil
import socket

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
selenium = pytest.importorskip("selenium", reason="selenium is not installed; it comes with budc[dev]")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

WIDTHS = (360, 768, 1280, 1600)


@pytest.fixture(scope="module")
def driver():
    binary = shutil.which("chromium") or shutil.which("chromium-headless-shell")
    service = shutil.which("chromedriver")
    if binary is None or service is None:
        pytest.skip("there is no chromium with chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # Where tests run as root, Chromium has no sandbox.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        found = webdriver.Chrome(options=options, service=webdriver.ChromeService(service))
    except socket.gaierror:
        pytest.skip("there is no localhost, over which chromedriver is called")
    yield found
    found.quit()


FRAMES = """
const figure = document.querySelector(".comparison");
figure.scrollIntoView({behavior: "instant", block: "center"});
const box = figure.querySelector("svg").getBoundingClientRect();
const images = [...figure.querySelectorAll("image")];
return {
  clip: getComputedStyle(images[1]).clipPath,
  blend: getComputedStyle(images[1]).mixBlendMode,
  tops: images.map((image) => Number(image.getAttribute("y"))),
  box: [box.left + 4, box.right - 4, box.top + box.height / 2],
};
"""


@pytest.fixture(scope="module")
def url(marked_up, tmp_path_factory):
    from budc.cli.report.page import report_page
    from budc.cli.report.sources import read_sources
    from budc.schema.trust import Trust

    path = tmp_path_factory.mktemp("page") / "report.html"
    sources = read_sources([marked_up], [], Trust(keys=()), must_verify=False)
    path.write_bytes(report_page(sources, "0"))
    return path.as_uri()


@pytest.fixture
def page(driver, url):
    """The page, freshly loaded; after the test, nothing may be in its console."""
    _resize(driver, 1280)
    _prefer(driver, "light")
    driver.get(url)
    yield driver
    assert driver.get_log("browser") == []


def _resize(driver, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def _prefer(driver, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def _brightness(driver):
    """Return the brightness of the paper and of the ink, 0 to 255."""
    script = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color];"
    colours = driver.execute_script(script)
    return [
        sum(int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]) / 3 for colour in colours
    ]


def test_markup_is_shown_and_does_not_run(page):
    assert page.execute_script("return document.images.length") == 0
    assert "<img src=x onerror=alert(1)>" in page.find_element(By.TAG_NAME, "main").text


def test_a_violation_would_be_seen(driver, url):
    driver.get(url)
    driver.execute_script("document.body.insertAdjacentHTML('beforeend', '<i style=\"color:red\">x</i>')")
    assert any("Content Security Policy" in entry["message"] for entry in driver.get_log("browser"))


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(page, width):
    _resize(page, width)
    for details in page.find_elements(By.CSS_SELECTOR, "details"):
        page.execute_script("arguments[0].open = true", details)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    drawn = page.execute_script(
        "return [...document.querySelectorAll('svg text, svg tspan')].map(t => t.getBoundingClientRect().height)"
    )
    assert drawn
    assert min(drawn) >= 8, "letters of a chart are too small to read"


def test_both_themes_have_contrast_and_the_button_changes_them(page):
    paper, ink = _brightness(page)
    assert paper - ink > 150
    _prefer(page, "dark")
    paper, ink = _brightness(page)
    assert ink - paper > 150
    button = page.find_element(By.ID, "theme")
    # The browser tells the page of another scheme a moment later.
    WebDriverWait(page, 10).until(lambda _: button.text == "Light")
    button.click()
    paper, ink = _brightness(page)
    assert paper - ink > 150
    assert button.text == "Dark"


def test_by_keyboard_alone(page):
    def press(*keys):
        webdriver.ActionChains(page).send_keys(*keys).perform()
        return page.switch_to.active_element

    assert press(Keys.TAB).get_attribute("class") == "skip"
    assert press(Keys.TAB).get_attribute("id") == "theme"
    press(Keys.ENTER)
    paper, ink = _brightness(page)
    assert ink > paper
    for _ in range(60):
        focused = press(Keys.TAB)
        if focused.tag_name == "summary":
            break
    assert focused.text == "Numbers"
    press(Keys.ENTER)
    assert focused.find_element(By.XPATH, "..").get_attribute("open") is not None


def test_figures_are_copied(page):
    page.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    figure = page.find_element(By.ID, "compared-1-psnr-evaluations")

    def copied(form):
        button = figure.find_element(By.CSS_SELECTOR, f"[data-copy={form}]")
        page.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", button)
        button.click()
        page.set_script_timeout(10)
        text = page.execute_async_script(
            "const done = arguments[0]; setTimeout(() => navigator.clipboard.readText().then(done), 300)"
        )
        assert button.text == "Copied"
        return text

    head, first, *_ = copied("csv").splitlines()
    assert head == "method,evaluations,mean,standard error,worst,geometric mean,samples"
    assert first == "tiny-nfe3,3,36,0.72,27,,4"
    assert '"title": "PSNR over evaluations"' in copied("json")
    assert page.find_element(By.ID, "status").get_attribute("textContent").endswith(": copied")


def _shades(driver, *points):
    """Return the red of these points of the window, which the pictures of the tests differ in."""
    from PIL import Image

    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    return [picture.getpixel((int(x), int(y)))[0] for x, y in points]


def _figure(page):
    figure = page.find_element(By.CSS_SELECTOR, ".comparison")
    for button in page.find_elements(By.CSS_SELECTOR, ".play"):
        if button.text == "Pause":
            page.execute_script("arguments[0].click()", button)
    return figure


def test_the_slider_divides_full_run_and_policy(page):
    figure = _figure(page)
    left, right, middle = page.execute_script(FRAMES)["box"]
    # The full run's pictures have no red, the policy's have 40 of it.
    assert _shades(page, (left, middle), (right, middle)) == pytest.approx([0, 40], abs=4)
    slider = figure.find_element(By.CSS_SELECTOR, ".split")
    slider.send_keys(Keys.END)
    assert _shades(page, (left, middle), (right, middle)) == pytest.approx([0, 0], abs=4)
    slider.send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    assert "1%" in page.execute_script(FRAMES)["clip"]
    assert _shades(page, (left + 8, middle), (right, middle)) == pytest.approx([40, 40], abs=4)


def test_the_difference_is_shown_enlarged(page):
    figure = _figure(page)
    button = figure.find_element(By.CSS_SELECTOR, ".difference")
    button.send_keys(Keys.SPACE)
    assert button.get_attribute("aria-pressed") == "true"
    state = page.execute_script(FRAMES)
    assert state["blend"] == "difference"
    left, right, middle = state["box"]
    assert _shades(page, (left, middle), (right, middle)) == pytest.approx([160, 160], abs=8)
    button.send_keys(Keys.SPACE)
    assert page.execute_script(FRAMES)["blend"] == "normal"


def test_clips_play_in_step_until_they_are_stopped(page):
    figure = page.find_element(By.CSS_SELECTOR, ".comparison")
    seen = page.execute_async_script(
        """
        const done = arguments[0], seen = [], [full, policy] = document.querySelectorAll(".comparison image");
        const timer = setInterval(() => {
          seen.push([full.getAttribute("y"), policy.getAttribute("y")].map(Number));
          if (seen.length === 40) { clearInterval(timer); done(seen); }
        }, 20);
        """
    )
    assert all(full == policy for full, policy in seen)
    assert {full for full, _ in seen} == {0, -16, -32}
    play = figure.find_element(By.CSS_SELECTOR, ".play")
    assert play.text == "Pause"
    page.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", play)
    play.click()
    slider = figure.find_element(By.CSS_SELECTOR, ".frame")
    slider.send_keys(Keys.END)
    assert page.execute_script(FRAMES)["tops"] == [-32, -32]
    slider.send_keys(Keys.ARROW_LEFT)
    assert page.execute_script(FRAMES)["tops"] == [-16, -16]


def test_clips_wait_where_motion_is_not_wanted(page, url):
    reduced = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": reduced})
    page.get(url)
    assert page.find_element(By.CSS_SELECTOR, ".play").text == "Play"


def test_a_printed_page_is_light(page):
    _prefer(page, "dark")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    paper, ink = _brightness(page)
    assert paper - ink > 150
    assert not page.find_element(By.TAG_NAME, "nav").is_displayed()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
