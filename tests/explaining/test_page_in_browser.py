"""The explain page in a real browser: headless Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import left_over
import pytest
from conftest import DEMO
from explanation_samples import COST, explanation

from mmfree_compiler.explaining.schema import Explanation, ModelFacts

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = "</script><img src=x onerror=hacked()>\u202e\"'&$data${hacked()}"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
Open = Callable[[Explanation], "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens the page of an explanation. At the end: no error was logged, nothing requested."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    path = tmp_path / "page.html"

    def open_page(shown: Explanation) -> Page:
        path.write_text(shown.html(), encoding="utf-8")
        page.goto(path.as_uri())
        if any(part.program for part in shown.targets):
            page.wait_for_selector("[data-drawn]")
        return page

    yield open_page
    context.close()
    assert errors == []
    assert requests == [path.as_uri()]


def _boxes(page: Page) -> list[str]:
    found: list[str] = page.eval_on_selector_all("g.node", "all => all.map(g => g.dataset.id)")
    return found


def test_a_click_on_a_box_shows_what_it_is(opened: Open) -> None:
    page = opened(explanation())
    page.click("g[data-id=norm]")
    assert page.inner_text("#chosen h3") == "norm_quant float32[64]"
    page.click("g[data-id=product]")
    chosen = page.inner_text("#chosen")
    for text in ("y = layer(x)", "model.py:7", "noted h", "8,192 additions", "1.5 µs"):
        assert text in chosen
    assert page.get_attribute("g[data-id=product]", "aria-pressed") == "true"
    assert page.get_attribute("g[data-id=norm]", "aria-pressed") == "false"


@pytest.mark.parametrize(("box", "title"), [("stage 0", "Stage 0: "), ("loop 0", "Loop, 24 times")])
def test_a_click_on_a_frame_shows_what_it_is(opened: Open, box: str, title: str) -> None:
    page = opened(explanation())
    page.click(f"g[data-id='{box}']", position={"x": 4, "y": 4})
    assert page.inner_text("#chosen h3").startswith(title)


def test_keys_go_through_the_graph(opened: Open) -> None:
    page = opened(explanation())
    page.focus("g[aria-pressed=true]")
    page.keyboard.press("ArrowUp")
    assert page.inner_text("#chosen h3").startswith("norm_quant")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#chosen h3").startswith("ternary_linear")
    assert page.evaluate("document.activeElement.dataset.id") == "product"


def test_links_lead_along_the_edges(opened: Open) -> None:
    page = opened(explanation())
    page.click("#chosen .links button >> text=norm_quant")
    assert page.inner_text("#chosen h3").startswith("norm_quant")


def test_a_loop_has_one_input(opened: Open) -> None:
    page = opened(explanation())
    assert _boxes(page).count("layer input 0") == 1
    carried = "path.edge.carried[data-source=product][data-target='layer input 0']"
    assert page.locator(carried).count() == 1


def test_constants_are_shown_when_wanted(opened: Open) -> None:
    page = opened(explanation())
    assert len(_boxes(page)) == 5
    page.check("#constants")
    page.wait_for_selector("g.constant")
    assert len(_boxes(page)) == 6


def test_a_pass_shows_its_text_before_and_after(opened: Open) -> None:
    page = opened(explanation())
    page.click("button.pass >> text=second")
    assert page.inner_text("#pass del") == "old"
    assert page.inner_text("#pass ins") == "new"
    shown = page.inner_text("#pass")
    for text in ("noted h", "2.5e-7", "aten.linear", "90 lines after", "0.5 s"):
        assert text in shown
    page.click("button.pass >> text=first")
    assert "The text is the same." in page.inner_text("#pass")


@pytest.mark.parametrize(
    ("stage", "title"), [("parts", "Parts what is compiled of the graph"), ("model", "Model what")]
)
def test_what_is_no_pass_of_a_target_is_not_called_one(
    opened: Open, stage: str, title: str
) -> None:
    whole = explanation()
    steps = (whole.passes[0], whole.passes[1].model_copy(update={"stage": stage}))
    page = opened(whole.model_copy(update={"passes": steps}))
    strips = " ".join(page.locator(".strip h3").all_inner_texts())
    assert title in strips
    assert "of this target alone" not in strips
    page.click("button.pass >> text=second")
    assert f"works on\n{stage.capitalize()}" in page.inner_text("#pass")


def test_equal_lines_are_folded(opened: Open) -> None:
    whole = explanation()
    equal = "\n".join(f"line {i}" for i in range(40))
    before, after = whole.snapshots
    texts = (
        before.model_copy(update={"text": f"{equal}\nold"}),
        after.model_copy(update={"text": f"{equal}\nnew"}),
    )
    page = opened(whole.model_copy(update={"snapshots": texts}))
    assert "line 7" not in page.inner_text("#pass")
    page.click("text=38 equal lines, show")
    assert "line 7" in page.inner_text("#pass")


def test_the_audit_names_what_is_left(opened: Open) -> None:
    page = opened(explanation())
    audit = page.inner_text("#audit")
    assert "1 product of float matrices left" in audit
    assert "aten.mm" in audit
    assert "model.py:9" in audit
    assert "module" in audit


@pytest.mark.parametrize(
    ("measured", "overlapping", "said"),
    [(2.0, False, False), (1.0, False, True), (1.0, True, False)],
)
def test_times_below_the_roofline_are_called_wrong(
    opened: Open, measured: float, overlapping: bool, said: bool
) -> None:
    whole = explanation()
    (target,) = whole.targets
    assert target.program
    (stage,) = target.program.stages
    cost = COST.model_copy(update={"measured_us": measured})
    timed = stage.model_copy(update={"cost": cost, "parts": ()})
    program = target.program.model_copy(update={"stages": (timed,)})
    part = target.model_copy(update={"program": program, "overlapping": overlapping})
    page = opened(whole.model_copy(update={"targets": (part,)}))
    assert ("contradict" in page.inner_text("#cost")) == said
    assert f"measured by h, all of stage 0\n{measured:g} µs" in page.inner_text("#chosen")


def test_times_of_parts_of_a_stage_and_of_the_rest(opened: Open) -> None:
    page = opened(explanation())
    assert "measured by h, with ternary_linear h\n3 µs" in page.inner_text("#chosen")
    cost = page.inner_text("#cost")
    assert "40 µs measured by h, at least 1.5 µs by the ceilings" in cost
    assert "h\n-2 µs" in cost
    rows = [row.split("\t") for row in page.locator("#cost tbody tr").all_inner_texts()]
    assert [(row[0], row[-1]) for row in rows] == [
        ("Stage 0: norm_quant, h", ""),
        ("- norm_quant", "3 µs"),
        ("- ternary_linear h", "3 µs"),
    ]


def test_another_target_can_be_chosen(opened: Open) -> None:
    page = opened(explanation(targets=("one", "two")))
    page.select_option("#target", label="two")
    page.wait_for_selector("[data-drawn]")
    assert page.input_value("#target") == "1"
    assert page.locator("#program svg").count() == 1


def test_texts_of_a_model_stay_texts(opened: Open) -> None:
    page = opened(explanation(HOSTILE))
    page.evaluate("void (window.hacked = () => { window.wasHacked = true })")
    page.check("#constants")
    page.wait_for_selector("g.constant")
    for box in _boxes(page):
        page.evaluate("id => document.querySelector(`g[data-id=${CSS.escape(id)}]`)"
                      ".dispatchEvent(new MouseEvent('click'))", box)  # fmt: skip
    for button in page.locator("button.pass").all():
        button.click()
    assert page.evaluate("window.wasHacked") is None
    assert page.locator("img").count() == 0
    shown = HOSTILE.replace("\u202e", "\\u202e")
    assert page.evaluate("document.querySelector('h1').textContent") == f"model {shown}"
    assert "\u202e" not in page.content()


def test_an_empty_explanation_opens(opened: Open) -> None:
    page = opened(Explanation(model=ModelFacts(title="nothing", kind="module"), failed="it is bad"))
    assert "it is bad" in page.inner_text("#summary")
    assert page.locator("section").count() == 0


def test_the_page_is_dark_where_the_reader_wants_it(opened: Open) -> None:
    page = opened(explanation())
    color = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(color)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(color) != light


@pytest.mark.parametrize("width", [400, 800, 1280])
def test_nothing_is_wider_than_the_window(opened: Open, width: int) -> None:
    page = opened(explanation("name" * 50))
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_float_product_left_on_purpose_is_named(opened: Open) -> None:
    from mmfree_compiler import compiler

    eager = compiler.compile(
        left_over.LeftOver(), "reference", fallback="eager", example_inputs=(left_over.rows(2),)
    )
    audit = opened(eager.explain()).inner_text("#audit")
    assert "1 product of float matrices left" in audit
    assert "aten.linear" in audit
    assert "left_over.py" in audit
    assert "y = self.plain(self.first(x))" in audit


def test_the_demo_opens(opened: Open) -> None:
    from mmfree_compiler import compiler

    page = opened(compiler.compile(DEMO, "reference", check=False).explain())
    assert "4 equal layers became one loop of 4 stages" in page.inner_text("#summary")
    for box in _boxes(page):
        page.click(f"g[data-id='{box}']")
        assert page.inner_text("#chosen h3")


@pytest.mark.slow
def test_24_layers_are_one_loop(opened: Open, tmp_path: Path) -> None:
    from mmfree_compiler import compiler
    from mmfree_compiler.models import ModelConfig, random_checkpoint

    random_checkpoint(tmp_path / "deep", ModelConfig.of(32, 24, 257))
    page = opened(compiler.compile(tmp_path / "deep", "reference", check=False).explain())
    assert "24 equal layers became one loop of 4 stages" in page.inner_text("#summary")
    assert "no product of float matrices is left" in page.inner_text("#summary")
    assert len(_boxes(page)) < 30
