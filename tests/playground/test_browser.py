"""The page in a real browser: Debian's chromium, driven by playwright, without a network."""

import json
import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.playground import Layer, begin, load, train, write_page
from nnlab.playground.data import features
from nnlab.playground.network import ARITHMETICS, FEATURES
from tests.playground.test_lessons import TOLERANCE, _arrays

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--disable-quic", "--no-first-run"),
)
SIDE = 60  # pixels along a side of a map

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed."),
]


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed.")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "playground.html"
    write_page(path)
    return path.as_uri()


@pytest.fixture
def open_page(chromium, address):
    """Open the page at a hash; no request but that of the file itself and no error may occur."""
    contexts, requests, errors = [], [], []

    def opened(hash="", **options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url.partition("#")[0]))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.goto(f"{address}#{hash}")
        return page

    yield opened
    assert not errors and set(requests) == {address}
    for context in contexts:
        context.close()


def _lesson(page, path):
    path.write_text(page.evaluate("JSON.stringify(page.lesson)"))
    return load(path)


def _settings(page):
    return page.evaluate("page.lesson.settings")


@pytest.mark.parametrize("name", ARITHMETICS)
def test_200_steps_by_the_page_are_200_steps_of_nnlab(open_page, tmp_path, name):
    first = "float" if name == "binary" else name
    page = open_page(f"layers={first}:5:tanh,{name}:4:relu&seed=4&noise=15")
    lesson = train(begin(_lesson(page, tmp_path / "start.json").settings), 200)
    page.evaluate("train(200)")
    other = _lesson(page, tmp_path / "end.json")
    assert lesson.settings.layers == (Layer(first, 5, "tanh"), Layer(name, 4, "relu"))
    mine, theirs = _arrays(lesson), _arrays(other)
    close = TOLERANCE[name]
    for key in mine:
        np.testing.assert_allclose(mine[key], theirs[key], rtol=close, atol=close, err_msg=key)
    # The map shows what the network in Python decides, pixel by pixel.
    page.check("#sharp")
    pixels = page.evaluate(
        "side => Array.from($('map').getContext('2d').getImageData(0, 0, side, side).data)", SIDE
    )
    pixels = np.array(pixels).reshape(SIDE, SIDE, 4)
    orange = pixels[..., 0] > pixels[..., 2]  # more red than blue: class 1
    steps = ((2 * np.arange(SIDE) + 1) / SIDE - 1) * 3
    grid = np.stack(np.meshgrid(steps, -steps), -1).reshape(-1, 2).astype(np.float32)
    chosen = [FEATURES.index(each) for each in lesson.settings.inputs]
    outputs = lesson.model.apply(
        lesson.variables, np.asarray(features(jnp.asarray(grid)))[chosen].T
    )
    decided = np.asarray(outputs).argmax(-1).reshape(SIDE, SIDE) == 1
    assert (orange == decided).mean() > 0.998
    if name in ("float", "adder"):
        assert not orange[SIDE // 2, SIDE // 2] and orange[3, 3] and orange[-4, -4]


def test_the_address_holds_every_setting(open_page):
    wanted = (
        "data=spiral&optimizer=adam&classes=3&noise=10&points=300&share=70&seed=9&batch=25&"
        "rate=0.03&l1=0.001&l2=0.01&norm=0&inputs=x1,x2,sin2x1&"
        "layers=adder:6:relu,posit8:3:sigmoid&last=shift&output=tanh&loss=squared&stop=40&test=1&"
        "start=zeros&hide=hand,l1&text=What+is+it%3F"
    )
    page = open_page(wanted)
    assert sorted(page.evaluate("page.address").split("&")) == sorted(wanted.split("&"))
    settings = _settings(page)
    assert settings["layers"][1] == {"arithmetic": "posit8", "units": 3, "activation": "sigmoid"}
    page.reload()
    assert _settings(page) == settings
    # A new address is read at once, without a reload, which would read what the page made of it.
    page.goto(page.url.partition("#")[0] + "#classes=7&rate=0.3&moon=1")
    page.wait_for_selector("#message:has-text('classes, moon')")
    assert _settings(page)["classes"] == 2 and _settings(page)["rate"] == 0.3
    page.goto(page.url.partition("#")[0] + "#pace=1e99&stop=1.5&sharp=-1&toString=1")
    page.wait_for_selector("#message:has-text('pace, stop, sharp, toString')")
    assert page.evaluate("page.extra") == {"stop": 0, "pace": 10, "test": 0, "sharp": 0}


def test_csv_with_bad_rows_loses_nothing(open_page):
    page = open_page()
    page.click("summary")
    rows = "x, y, class\n0.5, 1, 0\n-1; 2; 1\n"
    page.fill("#csv", rows)
    page.click("#csv-take")
    assert sorted(page.evaluate("page.lesson.own")) == [[-1, 2, 1], [0.5, 1, 0]]
    assert page.text_content("#csv-message") == ""
    for bad in ("1, 2", "a, b, 1", "1, 2, 9", "1, , 0"):
        page.fill("#csv", rows + bad)
        page.click("#csv-take")
        assert "row 4" in page.text_content("#csv-message")
        assert page.input_value("#csv").endswith(bad)
        assert len(page.evaluate("page.lesson.own")) == 2
    page.fill("#csv", "10, 20, 0\n30, 90, 2\n20, 50, 1")
    page.click("#csv-take")
    assert np.abs(page.evaluate("page.lesson.own.map(p => p.slice(0, 2))")).max() <= 3
    assert _settings(page)["classes"] == 3
    page.reload()
    assert len(page.evaluate("page.lesson.own")) == 3


def test_csv_may_name_classes_and_points_keep_them(open_page):
    page = open_page()
    page.click("summary")
    page.fill("#csv", "x y kind\n1 1 red\n2 2 blue\n-1 0 green")
    page.click("#csv-take")
    assert page.text_content("#csv-message") == "red is class 0, blue is class 1, green is class 2"
    assert sorted(page.evaluate("page.lesson.own")) == [[-1, 0, 2], [1, 1, 0], [2, 2, 1]]
    page.select_option("#classes", "2")
    assert "3 classes" in page.text_content("#message")
    assert _settings(page)["classes"] == 3
    page.fill("#csv", "\n".join(f"0, 0, {name}" for name in "abcde"))
    page.click("#csv-take")
    assert "row 5" in page.text_content("#csv-message")


def _middle_of_link(page, number):
    """Where the line of a weight is, in the middle."""
    return page.evaluate(
        """(number) => {
          const line = document.querySelectorAll("#links .wide path")[number];
          const { x, y } = line.getPointAtLength(line.getTotalLength() / 2);
          const frame = $("links").getBoundingClientRect();
          return [x + frame.left, y + frame.top];
        }""",
        number,
    )


def test_lines_show_and_change_their_weight_and_changes_are_taken_back(open_page):
    page = open_page("layers=float:1:tanh&classes=3")
    page.mouse.move(*_middle_of_link(page, 4))
    weight = page.evaluate("page.lesson.layers[1].w[2]")
    text = page.text_content("#edit label").replace("\N{MINUS SIGN}", "-")
    assert text.startswith("unit 1 of layer 1 → output 3: ")
    assert float(text.split(": ")[1].split(",")[0]) == pytest.approx(weight, rel=1e-3)
    page.mouse.click(*_middle_of_link(page, 4))
    page.keyboard.type("1.25")
    page.keyboard.press("Enter")
    assert page.evaluate("page.lesson.layers[1].w[2]") == 1.25 and page.is_hidden("#edit")
    page.mouse.click(*_middle_of_link(page, 4))
    page.keyboard.type("7")
    page.keyboard.press("Escape")
    assert page.evaluate("page.lesson.layers[1].w[2]") == 1.25 and page.is_hidden("#edit")
    page.evaluate("train(7)")
    trained = page.evaluate("JSON.stringify(page.lesson)")
    page.select_option("#optimizer", "adam")
    page.click("#reseed")
    page.click("#add-layer")
    for _ in range(3):
        page.click("#undo")
    assert page.evaluate("JSON.stringify(page.lesson)") == trained
    page.click("#rewind")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Control+z")
    assert page.evaluate("JSON.stringify(page.lesson)") == trained
    page.keyboard.press("Control+z")
    assert page.evaluate("page.lesson.layers[1].w[2]") == weight
    page.keyboard.press("Control+z")
    assert "no change" in page.text_content("#message")


def test_lessons_have_a_text_and_hide_controls(open_page):
    page = open_page("text=<b>One</b> line%0AAnother&hide=rule,noise,l1&start=zeros")
    assert page.text_content("#lesson-text") == "<b>One</b> line\nAnother"
    assert page.is_hidden("#panel-rule") and page.is_hidden("#noise") and page.is_hidden("#l1")
    assert page.is_visible("#l2") and page.is_visible("#panel-hand")
    assert "text=%3Cb%3EOne" in page.evaluate("page.address")
    assert page.evaluate("page.lesson.layers.every((l) => l.w.every((w) => w === 0))")
    page.evaluate("train(30); draw()")  # in floats no unit of zeros learns
    assert "Dead: unit 1 of layer 1" in page.text_content("#about")


def test_the_curve_is_read_at_a_step(open_page):
    page = open_page()
    page.evaluate("for (let k = 0; k < 4; k++) { train(10); draw(); }")
    box = page.locator("#curve").bounding_box()
    page.mouse.move(box["x"] + 0.55 * box["width"], box["y"] + 20)
    loss = page.evaluate("page.history.find((entry) => entry.step === 20).train")
    assert page.text_content("#curve-reading").startswith(f"step 20: training {loss:.4f}, test ")


def test_points_are_added_by_click(open_page):
    page = open_page("points=50")
    page.check("#pen input[value='1']")
    box = page.locator("#dots").bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.25 * box["height"])
    own = page.evaluate("page.lesson.own")
    assert _settings(page)["data"] == "own" and len(own) == 51
    np.testing.assert_allclose(own[0], [1.5, 1.5, 1], atol=0.03)


def test_keys_and_changes_that_do_not_restart(open_page):
    page = open_page()
    start = page.evaluate("JSON.stringify(page.lesson.layers)")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("page.lesson.step") == 2
    two = page.evaluate("JSON.stringify(page.lesson.layers)")
    for control, value in (("rate", "0.3"), ("l2", "0.01"), ("loss", "squared")):
        page.select_option(f"#{control}", value)
    page.fill("#batch", "20")
    page.keyboard.press("Tab")
    page.select_option("#optimizer", "adam")
    assert page.evaluate("page.lesson.step") == 2
    assert json.loads(
        page.evaluate("JSON.stringify(page.lesson.layers.map(l => [l.w, l.bias]))")
    ) == [[layer["w"], layer["bias"]] for layer in json.loads(two)]
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    page.wait_for_function("page.lesson.step > 20")
    page.keyboard.press("Space")
    assert not page.evaluate("page.running")
    page.select_option("#optimizer", "sgd")
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("r")
    assert page.evaluate("JSON.stringify(page.lesson.layers)") == start
    # Everything can be reached by the keyboard.
    seen = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"run", "data", "node", "rate", "hand-next", "save"} <= seen


def test_units_that_are_dead_and_numbers_that_are_none_are_named(open_page):
    page = open_page("layers=float:2:relu&optimizer=momentum")
    page.fill("#weight-bias-0", "-1000")
    page.keyboard.press("Tab")
    assert "unit 1 of layer 1" in page.text_content("#about")
    assert page.locator(".node.dead").count() == 1
    page.evaluate("change({ rate: 1000, loss: 'squared' }); train(400)")
    assert "was not taken" in page.text_content("#message")
    assert page.evaluate("page.lesson.layers.every(l => l.w.every(Number.isFinite))")
    page.fill("#weight-bias-0", "1e40")  # no float32
    page.keyboard.press("Tab")
    assert "too large" in page.text_content("#message")
    page.fill("#points", "1")
    page.keyboard.press("Tab")
    assert "points must be a whole number" in page.text_content("#message")


def test_the_worked_example_by_hand(open_page):
    page = open_page()

    def values():
        texts = page.locator("#hand td").all_text_contents()
        return {
            name: float(value.replace("\N{MINUS SIGN}", "-"))
            for name, value in zip(texts[::2], texts[1::2], strict=True)
        }

    page.click("#hand-all")
    first = values()
    assert first["E"] == pytest.approx(0.2983711087600027, rel=1e-6)
    assert first["∂w1,1"] == pytest.approx(0.00043856773447435, rel=1e-5)
    page.click("#hand-back")
    page.click("#hand-back")
    assert "part 10 of 12" in page.text_content("#hand p")
    page.click("#hand-all")
    page.click("#hand-next")
    page.click("#hand-all")
    assert values()["E"] == pytest.approx(0.29102777369359933, rel=1e-6)
    page.select_option("#hand-arithmetic", "adder")
    page.click("#hand-all")
    assert "|x \N{MINUS SIGN} w|" in page.text_content("#hand")
    page.select_option("#hand-what", "network")
    page.click("#hand-all")
    assert "new weights" in page.text_content("#hand")


def test_saved_networks_are_loaded_again(open_page, tmp_path):
    page = open_page("layers=adder:3:relu&optimizer=adam")
    page.evaluate("train(25)")
    with page.expect_download() as download:
        page.click("#save")
    path = tmp_path / "network.json"
    download.value.save_as(path)
    assert train(load(path), 5).state.step == 30
    saved = page.evaluate("JSON.stringify(page.lesson)")
    page.evaluate("rewind()")
    page.set_input_files("#load", path)
    page.wait_for_function("page.lesson.step === 25")
    assert page.evaluate("JSON.stringify(page.lesson)") == saved
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    page.set_input_files("#load", bad)
    page.wait_for_function("$('file-message').textContent.includes('bad.json')")
    assert page.evaluate("page.lesson.step") == 25


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_rules_are_slopes_of_their_potentials(open_page, arithmetic):
    page = open_page(f"layers={arithmetic}:3:tanh")
    checks = page.evaluate(
        """(name) => [0.3, -0.7, 1.6].flatMap((x) => [-0.45, 0.2, 2.5].map((w) => {
          const [inputs, weights] = [Float32Array.of(x, 0.5), Float32Array.of(w, 0.4, -0.8, 0.9)];
          return checkRule(name, inputs, weights, 2, 2, 0, 0);
        }))""",
        arithmetic,
    )
    # Posits of the input change in steps, and gradients of posits are rounded to posits.
    close = 0.07 if arithmetic == "posit8" else 2e-3
    for check in checks:
        assert check["w"] == pytest.approx(check["slopeW"], rel=close, abs=2e-3), check
        assert check["x"] == pytest.approx(check["slopeX"], rel=close, abs=2e-3), check


def test_phones_and_the_dark(open_page):
    page = open_page(viewport={"width": 375, "height": 812}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.evaluate("page.colours.paper") == [20, 24, 29]
    assert open_page("hide=data,rule").is_hidden("#panel-data")


@pytest.mark.parametrize("arithmetic", ["float", "adder"])
def test_30_redraws_a_second(open_page, arithmetic):
    """On two idle cores; where others work, the fastest quarter of the frames counts."""
    page = open_page(f"layers={arithmetic}:4:tanh,{arithmetic}:2:tanh")
    frames = page.evaluate(
        """async () => {
          const cost = [];
          run(true);
          while (cost.length < 60) {
            await new Promise(requestAnimationFrame);
            const begun = performance.now();
            train(page.extra.pace);
            draw();
            cost.push(performance.now() - begun);
          }
          run(false);
          return cost.sort((a, b) => a - b);
        }"""
    )
    assert frames[15] < 1000 / 30, f"{os.cpu_count()} cores: {frames[15]:.1f} ms a frame"
