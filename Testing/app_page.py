"""A person at the browser workspace: what they press, where they click, what they are told."""

import io
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from browser import picture
from PIL import Image
from playwright.sync_api import expect

WAIT_MS = 60_000
VIEWS = {"axial": 0, "3d": 1, "coronal": 2, "sagittal": 3}  # from left to right, and from top to bottom


class AppPage:
    """page: of playwright, at a workspace that is shown."""

    def __init__(self, page):
        self.page = page
        page.set_default_timeout(WAIT_MS)
        page.wait_for_selector(".refseg-sample")

    def tab(self, name):
        """Turn to a panel."""
        self.page.locator(f".tab-{name}").click()
        self.page.locator(f".panel-{name}").wait_for() if name != "edit" else None

    def press(self, name):
        """Press a button once it can be pressed."""
        button = self.page.locator(f".refseg-{name}")
        expect(button).to_be_enabled(timeout=WAIT_MS)
        button.click()

    def title(self, name):
        """What a control says of itself: what it does, or why it cannot be used."""
        return self.page.locator(f".refseg-{name}").locator("xpath=..").get_attribute("title")

    def until_title(self, name, text):
        """Until a control says something of itself. text: a regular expression."""
        control = self.page.locator(f".refseg-{name}").locator("xpath=..")
        try:
            expect(control).to_have_attribute("title", re.compile(text), timeout=WAIT_MS)
        except AssertionError as error:
            picture(self.page, "app-failed")
            notice = self.page.locator(".refseg-notice").all_inner_texts()
            raise AssertionError(f"{self.title(name)!r} is not {text!r}; told: {notice}") from error

    def told(self, text, kind="info"):
        """Until the page says a sentence with `text` in it (kind: info, success, warning or error); returns it all."""
        return self.page.wait_for_function(  # in one go: the next sentence may take its place at once
            """([kind, text]) => {
                const told = [...document.querySelectorAll(`.refseg-notice.text-${kind}`)];
                return told.filter((e) => e.offsetParent).map((e) => e.innerText).find((said) => said.includes(text));
            }""",
            arg=[kind, text],
        ).json_value()

    def click_first(self):
        """Start a session in `correct` with the model's segments, and click in the middle of the first one."""
        self.tab("correct")
        self.press("add-segments")
        self.press("start")
        self.told("bright")
        self.press("tool-points")
        self.click("axial", 0.5, 0.5)
        self.until_title("undo", "Undo positive click for bright")

    def open(self, *paths):
        """Choose files in the file chooser."""
        self.page.locator("input[type=file]").first.set_input_files([str(path) for path in paths])

    def place(self, view, right=0.5, down=0.5):
        """Where on the page a place of a view is: fractions of its width and height."""
        boxes = [element.bounding_box() for element in self.page.locator(".refseg-views img").all()]
        box = sorted(boxes, key=lambda found: (found["x"], found["y"]))[VIEWS[view]]
        return box["x"] + right * box["width"], box["y"] + down * box["height"]

    def click(self, view, right=0.5, down=0.5, times=1):
        """Click in a view, as slowly as people do: the page sends 100 events a second to the server, and no more."""
        x, y = self.place(view, right, down)
        self.page.mouse.move(x, y, steps=3)
        for count in range(1, times + 1):
            self.page.wait_for_timeout(90)
            self.page.mouse.down(click_count=count)
            self.page.wait_for_timeout(50)
            self.page.mouse.up(click_count=count)
        self.page.wait_for_timeout(90)

    def drag(self, view, places):
        """Press the left button in a view, move along places (right, down), and let go."""
        first, *rest = [self.place(view, *place) for place in places]
        self.page.mouse.move(*first)
        self.page.wait_for_timeout(90)
        self.page.mouse.down()
        for place in rest:
            self.page.wait_for_timeout(60)
            self.page.mouse.move(*place, steps=5)
        self.page.wait_for_timeout(90)
        self.page.mouse.up()

    def choose(self, name, text):
        """Choose an entry of a selector."""
        self.page.locator(f".refseg-{name} .v-field").click()
        self.page.locator(".v-overlay--active .v-list-item").get_by_text(text, exact=True).click()

    def fill(self, name, text):
        """Write into a field."""
        self.page.locator(f".refseg-{name} input").fill(str(text))

    def offset(self, view):
        """Where the slice of a view is, in mm (R, A or S, or their opposites, as its slider counts)."""
        return float(self.of_view(".v-slider-thumb", view).get_attribute("aria-valuenow"))

    def until_offset(self, view, there, seconds=60):
        """Until the slice of a view is somewhere. there: from mm to a truth."""
        for _ in range(10 * seconds):
            if there(self.offset(view)):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"the {view} slice is at {self.offset(view)} mm")

    def pixels(self, view):
        """What a view shows now: (rows, columns, RGB), 0..255."""
        shown = Image.open(io.BytesIO(self.of_view("img", view).screenshot())).convert("RGB")
        return np.asarray(shown).astype(int)

    def small_picture(self, name):
        """A picture of the page on a small screen; it stays that small."""
        self.page.set_viewport_size({"width": 1280, "height": 720})
        self.page.wait_for_timeout(2000)  # views draw finely once nothing moves
        picture(self.page, name)

    def of_view(self, selector, view):
        """The one of the elements that lies in a view."""
        boxes = [element.bounding_box() for element in self.page.locator(".refseg-views img").all()]
        box = sorted(boxes, key=lambda found: (found["x"], found["y"]))[VIEWS[view]]

        def inside(element):
            place = element.bounding_box()
            x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
            return 0 <= x - box["x"] <= box["width"] and 0 <= y - box["y"] <= box["height"]

        (found,) = filter(inside, self.page.locator(f".refseg-views {selector}").all())
        return found

    def save(self, name, folder) -> Path:
        """Download a file with one of the buttons of the panel Save; that panel is shown."""
        with self.page.expect_download() as download:
            self.press(f"save-{name}")
        path = Path(folder) / download.value.suggested_filename
        download.value.save_as(path)
        return path

    @contextmanager
    def frames(self, view):
        """Notes when (milliseconds from the start of the block) the view showed new frames; the list it gives is
        filled afterwards."""
        number = sorted(
            enumerate(element.bounding_box() for element in self.page.locator(".refseg-views img").all()),
            key=lambda found: (found[1]["x"], found[1]["y"]),
        )[VIEWS[view]][0]
        self.page.evaluate(
            """(number) => {
                const image = document.querySelectorAll('.refseg-views img')[number];
                window.frames_ = [];
                if (window.watched_ !== image) {
                    window.watched_ = image;
                    image.addEventListener('load', () => window.frames_.push(performance.now() - window.start_));
                }
                window.start_ = performance.now();
            }""",
            number,
        )
        times = []
        yield times
        times.extend(np.round(self.page.evaluate("window.frames_"), 1).tolist())
