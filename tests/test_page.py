"""The page of a report: its layout, what it holds of the user's files, and how it does in a real browser."""

import dataclasses
import json
import math
import random
import re
import shutil
import types
from html.parser import HTMLParser
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.optimize import isotonic_regression

from jaxpartials.graph.cost import TURN, Cost, cost, total
from jaxpartials.graph.graph import Graph
from jaxpartials.graph.trace import read
from jaxpartials.inspection.drawing import AROUND, BODY, EQUATION, LEAF, draw
from jaxpartials.inspection.finding import ADDED, KINDS, TWICE, UNUSED, WRONG_MODE, Place, Work, finding
from jaxpartials.inspection.layout import BESIDE, _apart, layered
from jaxpartials.inspection.page import page_html, summary_html
from jaxpartials.inspection.report import Report, report

HOSTILE = '</script><img src=x onerror="window.harmed=1">&\'"\u2028'


# ---- layout


def some_graph(seed, count):
    r = random.Random(seed)
    sizes = [(r.uniform(30, 120), r.choice([32.0, 32.0, 32.0, 400.0])) for _ in range(count)]
    edges = [(max(0, b - 1 - int(r.expovariate(0.1))), b) for b in range(3, count) for _ in range(r.randint(0, 3))]
    return sizes, [edge for edge in edges if edge[0] < edge[1]]


@pytest.mark.parametrize("seed", range(4))
def test_boxes_do_not_overlap_and_wires_lead_down_from_box_to_box(seed):
    sizes, edges = some_graph(seed, 150)
    layout = layered(sizes, edges)
    spans = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(layout.corners, sizes, strict=True)]
    for i, (x0, y0, x1, y1) in enumerate(spans):
        assert x0 >= -1e-6
        assert y0 >= 0
        assert x1 <= layout.width + 1e-6
        assert y1 <= layout.height + 1e-6
        assert all(x1 <= a0 + 1e-6 or a1 <= x0 + 1e-6 or y1 <= b0 or b1 <= y0 for a0, b0, a1, b1 in spans[:i])
    assert all(spans[a][3] < spans[b][1] for a, b in edges)
    assert all(s.y0 <= s.y1 for s in layout.segments)
    assert {(s.source, s.target) for s in layout.segments if s.target >= 0} == set(edges)
    for s in layout.segments:
        if s.target >= 0:
            x0, y0, x1, _ = spans[s.target]
            assert (s.x1, s.y1) == pytest.approx(((x0 + x1) / 2, y0))
    # Every wire hangs together: what does not begin at its box begins where another piece of it ends.
    ends = {(s.source, round(s.x1, 6), round(s.y1, 6)) for s in layout.segments}
    for s in layout.segments:
        x0, _, x1, y1 = spans[s.source]
        if (s.x0, s.y0) != pytest.approx(((x0 + x1) / 2, y1)):
            assert (s.source, round(s.x0, 6), round(s.y0, 6)) in ends


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_are_as_near_to_their_wishes_as_they_can_be(seed):
    r = np.random.default_rng(seed)
    wish, widths = np.sort(r.normal(0, 150, 40)), r.uniform(20, 90, 40)
    pushed = np.cumsum(widths + BESIDE) - BESIDE - widths / 2
    np.testing.assert_allclose(_apart(list(wish), list(widths)), isotonic_regression(wish - pushed).x + pushed)


def test_a_layer_too_wide_for_a_page_becomes_several():
    layout = layered([(100.0, 32.0)] * 500, [])
    assert layout.width < 3000
    assert layout.height > 500


def test_loops_and_branches_hold_what_runs_inside_them():
    def f(x):
        def turn(carry, row):
            carry = lax.cond(carry[0] > 0, jnp.sin, lambda c: jnp.cos(c) * 2.0, carry + row)
            return lax.fori_loop(0, 5, lambda _, c: jnp.tanh(c), carry), carry

        return lax.scan(turn, x[0], x)

    closed = jax.make_jaxpr(f)(jnp.ones((7, 3)))
    drawing = draw(read(closed, shared=False))
    boxes = drawing.boxes
    (scan,) = [i for i, box in enumerate(boxes) if box.name == "scan" and box.parent < 0]
    inner = {box.name: box for box in boxes if box.what in (EQUATION, AROUND) and box.runs > 1}
    assert boxes[scan].runs == 1
    assert inner["cond"].runs == inner["sin"].runs == 7
    assert inner["tanh"].runs == 7 * 5
    assert [box.name for box in boxes if box.what == BODY][:2] == ["branch 0", "branch 1"]
    for box in boxes:
        assert all(math.isfinite(number) for number in box.corner + box.size)
        if box.parent >= 0:
            around = boxes[box.parent]
            for here, size, outer, whole in zip(box.corner, box.size, around.corner, around.size, strict=True):
                assert outer <= here <= here + size <= outer + whole


# ---- the page as text


def helper(x):
    return jnp.tanh(x @ x)  # the helper's line


SECRET = "a line next to others that no equation comes from"


def twice(x):
    return helper(x).sum(), (2.0 * helper(x)).sum(), jnp.exp(x).sum()


def made(name="twice", messages=("m", "m", "m"), places=None):
    """A report with three findings: dearest first by share, not by name, not by operations."""
    fn = twice
    if name == HOSTILE:
        code = twice.__code__.replace(co_filename=f"/tmp/{HOSTILE}.py", co_name=HOSTILE, co_qualname=HOSTILE)
        fn = types.FunctionType(code, globals())
    graph = read(jax.make_jaxpr(fn)(jnp.ones((6, 6))), shared=False)
    whole = total(map(cost, graph.traced))
    tanh = [node for node in graph.traced if node.name == "tanh"]
    (exp,) = [node for node in graph.traced if node.name == "exp"]
    dots = [node for node in graph.traced if node.name == "dot_general"]
    found = (
        finding(TWICE, [Work(tanh[0], 1.0, 0.0), Work(tanh[1], 1.0, 1.0)], whole, messages[0], "Do it once."),
        finding(UNUSED, [Work(exp, 1.0, 1.0)], whole, messages[1], "Do not.", saved=Cost(flops=36)),
        finding(WRONG_MODE, [Work(dots[0], 1.0, 1.0)], whole, messages[2], "Use reverse.", factor=3.0,
                saved=Cost(flops=9000, bytes=5), places=places),
    )  # fmt: skip
    found = tuple(sorted(found, key=lambda one: -one.share))
    lines = ((Place(__file__, 1, HOSTILE), 0.5 * whole),) if name == HOSTILE else ()
    return Report(name, found, whole, None, 0.5 * whole, lines, graph)


class Scripts(HTMLParser):
    """The elements of a page, and the contents of its scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts, self.inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


def test_the_page_holds_the_lines_of_equations_and_no_other():
    page = page_html(made())
    data = json.loads(Scripts(page).scripts[0])
    assert {place[3] for place in data["places"]} == {
        "return jnp.tanh(x @ x)  # the helper's line",
        "return helper(x).sum(), (2.0 * helper(x)).sum(), jnp.exp(x).sum()",
    }
    assert SECRET not in page


def test_the_page_needs_no_network_and_no_other_file():
    page = Scripts(page_html(made()))
    assert [attrs for tag, attrs in page.tags if tag == "link"] == [{"rel": "icon", "href": "data:,"}]
    assert not [attrs for _, attrs in page.tags if "src" in attrs]
    (policy,) = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert not re.search(r"https?:|url\(|@import", page_html(made()))


@pytest.mark.parametrize("text", [page_html, summary_html])
def test_hostile_names_stay_text(text):
    place = Place(f"/tmp/{HOSTILE}\udcff.py", 3, HOSTILE)
    tame, hostile = text(made()), text(made(HOSTILE, [HOSTILE] * 3, [place]))
    assert "window.harmed" in hostile
    for tag in ("script", "img", "td", "tr", "style"):
        assert [found for found, _ in Scripts(hostile).tags].count(tag) == hostile.count(f"<{tag}")
        assert tame.count(f"<{tag}") == hostile.count(f"<{tag}")
    assert not [attrs for _, attrs in Scripts(hostile).tags if "onerror" in attrs]
    hostile.encode("utf-8")


def test_the_summary_is_a_table_without_script():
    tags = [tag for tag, _ in Scripts(summary_html(made())).tags]
    assert "script" not in tags
    assert tags.count("tr") == 4
    assert "nothing found" in summary_html(Report("f", (), Cost(), None, None, (), Graph(shared=False)))


def test_shares_are_of_the_whole_program():
    """All equations together are the program, and those in a loop times its turns, with the turns, are the loop."""

    def f(x):
        return lax.scan(lambda c, _: (jnp.tanh(c) + 2.0, None), x, None, length=9)[0].sum()

    closed = jax.make_jaxpr(f)(jnp.ones((31, 40)))
    graph = read(closed, shared=False)
    whole = total(map(cost, graph.traced))
    columns = json.loads(Scripts(page_html(Report("f", (), whole, None, None, (), graph))).scripts[0])["boxes"]
    (scan,) = [i for i, what in enumerate(columns["what"]) if what == AROUND]
    shares = dict.fromkeys(columns["parent"], 0.0)
    for parent, share in zip(columns["parent"], columns["share"], strict=True):
        shares[parent] += share
    assert shares[-1] == pytest.approx(1, rel=1e-3)
    turning = 9 * TURN / whole.time
    assert shares[scan] + turning == pytest.approx(columns["share"][scan], rel=1e-3)
    assert 0.01 < shares[scan] < 0.99


def test_to_html_writes_the_page_of_a_report(tmp_path):
    made = report(twice)(jnp.ones((64, 64)))
    made.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    data = json.loads(Scripts(page).scripts[0])
    names = [data["names"][i] for i in data["boxes"]["name"]]
    found = [(data["findings"][i], one.kind) for i, one in enumerate(made.findings)]
    (repeated,) = [one for one, kind in found if kind == TWICE]
    assert sorted(names[i] for i in repeated["spare"]) == ["dot_general", "tanh"]
    assert "computed twice" in made._repr_html_()


def test_places_are_file_names_as_in_the_printed_report():
    page = Scripts(page_html(made()))
    shown = re.sub(r"<script.*?</script>|<[^>]*>", "", page_html(made()), flags=re.DOTALL)
    assert re.search(r"test_page\.py:\d+ \(", shown)
    assert str(Path(__file__).parent) not in shown
    titles = [attrs["title"] for tag, attrs in page.tags if tag == "td" and "title" in attrs]
    assert titles == [__file__] * 3


def test_inputs_are_named_by_argument_and_path():
    def f(params, x, power=2, *, scale):
        return jnp.tanh(x @ params["w"] + params["b"][0]) ** power * scale

    params = {"w": jnp.ones((4, 3)), "b": [jnp.ones(3)]}
    found = report(f)(params, jnp.ones((5, 4)), scale=jnp.ones(3))
    data = json.loads(Scripts(page_html(found)).scripts[0])
    boxes = data["boxes"]
    leaves = {
        data["names"][name]: [data["types"][each] for each in types]
        for what, name, types in zip(boxes["what"], boxes["name"], boxes["types"], strict=True)
        if what == LEAF
    }
    assert leaves == {
        "params['b'][0]": ["f32[3]"], "params['w']": ["f32[4,3]"], "x": ["f32[5,4]"], "scale": ["f32[3]"],
    }  # fmt: skip


def test_every_kind_has_a_colour_in_both_schemes():
    page = page_html(made())
    for i in range(len(KINDS)):
        assert len(re.findall(rf"--k{i}: #[0-9a-f]{{6}};", page)) == 2
        assert f".k{i} {{ --kind: var(--k{i}) }}" in page


# ---- the page in a browser


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with chromedriver is installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for option in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1400,900"):
        options.add_argument(f"--{option}")
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


def open_page(browser, path: Path, made: Report):
    path.write_text(page_html(made), encoding="utf-8")
    browser.get(path.as_uri())
    return wait(browser, "return performance.getEntriesByName('painted').length > 0")


def wait(browser, script, *args):
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 30).until(lambda b: b.execute_script(script, *args))


def point(browser, box, click=False):
    from selenium.webdriver.common.action_chains import ActionChains

    actions = ActionChains(browser)
    pointer = actions.w3c_actions.pointer_action
    pointer.move_to_location(*map(round, browser.execute_script("return view.at(arguments[0])", box)))
    if click:
        pointer.click()
    actions.perform()


def element(browser, selector):
    return browser.find_element("css selector", selector)


def kinds_shown(browser):
    rows = browser.find_elements("css selector", "tbody.finding")
    return [KINDS[int(row.get_attribute("data-kind"))] for row in rows if row.is_displayed()]


def boxes(browser, name):
    return browser.execute_script("return view.boxes(arguments[0])", name)


def state(browser):
    return browser.execute_script("return view.state")


def colour(browser, x, y):
    """What the canvas shows at a point."""
    script = "return [...document.querySelector('canvas').getContext('2d').getImageData(...arguments, 1, 1).data]"
    return browser.execute_script(script, round(x), round(y))[:3]


def colour_of(browser, box):
    """What the canvas shows of a box, beside its text."""
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    x, y = browser.execute_script("return view.at(arguments[0])", box)
    frame = element(browser, "canvas").rect
    return colour(browser, x - frame["x"], y - frame["y"] - 8 * state(browser)["scale"])


def colour_of_kind(browser, kind):
    script = "return getComputedStyle(document.documentElement).getPropertyValue(arguments[0]).trim()"
    return list(bytes.fromhex(browser.execute_script(script, f"--k{KINDS.index(kind)}")[1:]))


def test_what_need_not_be_computed_has_the_colour_of_its_finding(browser, tmp_path):
    open_page(browser, tmp_path / "page.html", made())
    (first, second), (exp,), sums = (boxes(browser, name) for name in ("tanh", "exp", "reduce_sum"))
    red = colour_of_kind(browser, TWICE)
    plain = colour_of(browser, sums[0])
    assert colour_of(browser, second) == red
    assert colour_of(browser, exp) == colour_of_kind(browser, UNUSED)
    assert colour_of(browser, first) == plain  # the one that is needed has a rim of the colour
    element(browser, f".kind[data-kind='{KINDS.index(UNUSED)}']").click()
    assert colour_of(browser, exp) == plain
    element(browser, f".kind[data-kind='{KINDS.index(UNUSED)}']").click()
    element(browser, f"tbody[data-kind='{KINDS.index(TWICE)}'] td").click()
    assert colour_of(browser, second) == red
    assert colour_of(browser, exp) == colour_of(browser, sums[0]) != plain  # the others are dimmed, whatever they are


def test_hovering_shows_the_shapes_and_the_cost(browser, tmp_path):
    open_page(browser, tmp_path / "page.html", made())
    assert not element(browser, "#tip").is_displayed()
    point(browser, boxes(browser, "tanh")[1])
    tip = element(browser, "#tip").text
    assert tip.splitlines()[0] == "tanh"
    assert "f32[6,6] → f32[6,6]" in tip
    assert "36 operations" in tip
    assert "runs once" in tip
    assert "test_page.py" in tip
    assert "(helper)" in tip
    assert "computed twice" in tip
    point(browser, boxes(browser, "exp")[0])
    assert element(browser, "#tip").text.splitlines()[0] == "exp"


def test_clicking_shows_the_source_line(browser, tmp_path):
    open_page(browser, tmp_path / "page.html", made())
    point(browser, boxes(browser, "tanh")[0], click=True)
    assert element(browser, "#about h2").text == "tanh"
    assert element(browser, "#about pre").text == "return jnp.tanh(x @ x)  # the helper's line"
    where = element(browser, "#about .place")
    assert re.fullmatch(r"test_page\.py:\d+ \(helper\)", where.text)
    assert re.fullmatch(re.escape(__file__) + r":\d+", where.get_attribute("title"))
    (dot, _) = boxes(browser, "dot_general")
    reads = [each for each in browser.find_elements("css selector", "#about .link") if "dot_general" in each.text]
    reads[0].click()
    assert state(browser)["chosen"] == dot


def test_clicking_a_finding_highlights_its_equations(browser, tmp_path):
    open_page(browser, tmp_path / "page.html", made())
    for _ in range(6):
        element(browser, "[data-act=out]").click()
    before = state(browser)
    assert before["highlighted"] == []
    element(browser, f"tbody[data-kind='{KINDS.index(TWICE)}'] td").click()
    after = state(browser)
    assert sorted(after["highlighted"]) == boxes(browser, "tanh")
    assert after["scale"] > before["scale"]  # and they are brought near
    point(browser, boxes(browser, "tanh")[1])
    assert state(browser)["over"] == boxes(browser, "tanh")[1]
    element(browser, f"tbody[data-kind='{KINDS.index(TWICE)}'] td").click()
    assert state(browser)["highlighted"] == []


def test_clicking_what_xla_added_highlights_the_equations_it_repeats(browser, tmp_path, optimised):
    def f(x):
        h = jnp.sin(x)
        return jnp.sum(h * h), h * jnp.cos(x), jnp.cumsum(h), h[::-1] * 2

    here = report(f)(jnp.ones(1000))
    assert [one.kind for one in here.findings] == [ADDED]
    open_page(browser, tmp_path / "page.html", here)
    element(browser, "tbody.finding td").click()
    assert state(browser)["highlighted"] == boxes(browser, "sin")


def test_clicking_a_finding_without_equations_says_why_none_is_marked(browser, tmp_path):
    here = made()
    lost = finding(ADDED, [], here.traced, "XLA", "None.", saved=here.traced, places=[Place("other.py", 3, "f")])
    open_page(browser, tmp_path / "page.html", dataclasses.replace(here, findings=(lost, *here.findings)))
    (_, second), sums = boxes(browser, "tanh"), boxes(browser, "reduce_sum")
    element(browser, f"tbody[data-kind='{KINDS.index(ADDED)}'] td").click()
    assert state(browser)["highlighted"] == []
    assert "No equation of the program is marked for this finding" in element(browser, "#about").text
    # Nothing is dimmed for it.
    assert colour_of(browser, second) == colour_of_kind(browser, TWICE)
    assert colour_of(browser, sums[0]) != colour_of(browser, second)


def test_sorting_by_every_column(browser, tmp_path):
    here = made()
    open_page(browser, tmp_path / "page.html", here)
    columns = [
        lambda one: one.kind,
        lambda one: str(one.places[0]),
        lambda one: one.operations,
        lambda one: one.cost.bytes,
        lambda one: one.share,
        lambda one: one.xla,
    ]
    assert kinds_shown(browser) == [one.kind for one in here.findings]
    heads = browser.find_elements("css selector", "th")
    for head, key in zip(heads, columns, strict=True):
        orders = []
        for _ in range(2):
            head.find_element("css selector", "button").click()
            values = [next(key(one) for one in here.findings if one.kind == kind) for kind in kinds_shown(browser)]
            direction = head.get_attribute("aria-sort")
            assert values == sorted(values, reverse=direction == "descending")
            orders.append(direction)
        assert sorted(orders) == ["ascending", "descending"]
        assert [other.get_attribute("aria-sort") for other in heads].count(None) == 5


def test_filtering_by_text_and_by_kind(browser, tmp_path):
    here = made(messages=("the Helper's product", "an exponential", "in reverse"))
    open_page(browser, tmp_path / "page.html", here)
    box = element(browser, "#filter")
    box.send_keys("helper's")
    assert kinds_shown(browser) == [TWICE]
    box.clear()
    box.send_keys("nothing has this")
    assert kinds_shown(browser) == []
    assert element(browser, "#findings .none").is_displayed()
    box.clear()
    box.send_keys(" ")
    assert sorted(kinds_shown(browser)) == sorted(one.kind for one in here.findings)
    button = element(browser, f".kind[data-kind='{KINDS.index(UNUSED)}']")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert UNUSED not in kinds_shown(browser)
    assert len(kinds_shown(browser)) == 2
    button.click()
    assert len(kinds_shown(browser)) == 3


def test_zooming_and_panning(browser, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains

    open_page(browser, tmp_path / "page.html", made())
    canvas, before = element(browser, "canvas"), state(browser)
    element(browser, "[data-act=in]").click()
    near = state(browser)
    assert near["scale"] == pytest.approx(1.4 * before["scale"])
    ActionChains(browser).drag_and_drop_by_offset(canvas, 70, -40).perform()
    moved = state(browser)
    assert (near["left"] - moved["left"], near["top"] - moved["top"]) == pytest.approx(
        (70 / near["scale"], -40 / near["scale"]), abs=0.01
    )
    element(browser, "[data-act=fit]").click()
    assert state(browser)["scale"] == pytest.approx(before["scale"])


def test_colours_follow_the_scheme_of_the_system(browser, tmp_path):
    path = tmp_path / "page.html"
    open_page(browser, path, made())
    seen = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        wait(browser, "return matchMedia(`(prefers-color-scheme: ${arguments[0]})`).matches", scheme)
        browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        seen[scheme] = colour(browser, 1, 1)[0]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert seen["dark"] < 60 < 200 < seen["light"]


def test_no_script_of_a_name_runs_and_nothing_is_fetched(browser, tmp_path):
    browser.get_log("browser")
    open_page(browser, tmp_path / "page.html", made(HOSTILE, [HOSTILE] * 3, [Place(f"/tmp/{HOSTILE}.py", 3, HOSTILE)]))
    for box in boxes(browser, "dot_general"):
        point(browser, box, click=True)
    assert browser.execute_script("return window.harmed === undefined")
    assert "onerror" in element(browser, "h1").text
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert browser.get_log("browser") == []


def large(count):
    """A program of `count` equations that read each other, and findings on many of them."""
    r = random.Random(0)
    graph = Graph(shared=False)
    values = [graph.input(jax.core.ShapedArray((37, 53), np.dtype("float32")))]
    for i in range(count):
        chosen = [values[max(0, len(values) - 1 - int(r.expovariate(0.05)))] for _ in range(2)]
        primitive, operands = (lax.add_p, chosen) if i % 3 else (lax.sin_p, chosen[:1])
        values += graph.add(primitive, operands, {}, [values[0].aval])
    graph.outputs = [values[-1]]
    whole = total(map(cost, graph.traced))
    found = [
        finding(KINDS[k % len(KINDS)], [Work(node, 1.0, float(i % 2)) for i, node in enumerate(graph.traced[k::97])],
                whole, f"message {k}", "Do not.")
        for k in range(60)
    ]  # fmt: skip
    return Report("large", tuple(sorted(found, key=lambda one: -one.cost.time)), whole, None, None, (), graph)


def test_two_thousand_equations_are_painted_within_two_seconds(browser, tmp_path):
    here, times = large(2000), []
    for _ in range(3):
        open_page(browser, tmp_path / "page.html", here)
        wait(browser, "return performance.getEntriesByName('first-contentful-paint').length > 0")
        times.append(
            browser.execute_script(
                "return Math.max(...['first-contentful-paint', 'painted']"
                ".map(name => performance.getEntriesByName(name)[0].startTime))"
            )
        )
    assert len(boxes(browser, "sin")) == 667
    assert min(times) < 2000, times


def test_twenty_thousand_equations_open(browser, tmp_path):
    small, here = len(page_html(large(2000))), large(20000)
    open_page(browser, tmp_path / "page.html", here)
    assert (tmp_path / "page.html").stat().st_size < 12 * small
    assert len(boxes(browser, "sin")) == 6667
    element(browser, "[data-act=fit]").click()
    element(browser, "tbody.finding td").click()
    assert len(state(browser)["highlighted"]) > 200
    point(browser, state(browser)["highlighted"][0])
    assert state(browser)["over"] == state(browser)["highlighted"][0]
