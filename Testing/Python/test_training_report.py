"""The page a training leaves: text stays text, pictures are really in it, and nothing is asked of a network."""

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from RefSegLib.errors import BadInput
from RefSegLib.training.report import Report, _ticks


def written(report, folder) -> str:
    return report.write(folder / "deep" / "inside").read_text(encoding="utf-8")


def test_text_is_never_taken_as_html(tmp_path):
    report = Report("<b>a & b</b>")
    report.text("<script>alert(1)</script>")
    report.table(["<i>case</i>"], [["<img src=x>"]])
    report.curve("<u>", "x", "y", {'"<line>"': ([0, 1], [0, 1])})
    report.pictures("<caption>", [('" onload="', np.zeros((3, 3)), [])])
    page = written(report, tmp_path)
    tags = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.add(tag)
            assert not {name for name, _ in attrs} & {"onload", "onerror"}

    Tags().feed(page)
    assert not tags & {"script", "i", "u", "caption", "line"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_page_asks_nothing_of_a_network_and_follows_light_and_dark(tmp_path):
    report = Report("Training")
    report.pictures("one", [("a", np.eye(4), [])])
    page = written(report, tmp_path)
    assert "http" not in page and "<link" not in page
    assert "prefers-color-scheme: dark" in page


def test_a_picture_shows_the_image_and_the_outline_of_its_mask(tmp_path):
    image, mask = np.zeros((10, 20)), np.zeros((10, 20), bool)
    image[:, 10:] = 7.0
    mask[2:8, 2:8] = True
    report = Report("Training")
    report.pictures("masks", [("case", image, [(mask, "#ff0000")])])
    encoded = re.search(r"base64,([^\"]+)", written(report, tmp_path)).group(1)
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert shown.shape == (110, 220, 3)
    assert shown[5, 5].tolist() == [0, 0, 0] and shown[5, 215].tolist() == [255, 255, 255]
    assert shown[55, 22].tolist() == [255, 0, 0]  # on the outline
    assert shown[55, 55, 0] > 40 and shown[55, 55, 1] == 0  # tinted inside


def test_curves_bear_single_points_missing_numbers_and_nothing_at_all(tmp_path):
    report = Report("Training")
    report.curve("Loss", "epoch", "loss", {"a": ([1], [0.5]), "b": ([1, 2, 3], [1.0, float("nan"), float("inf")])})
    report.curve("Empty", "epoch", "loss", {"a": ([], [])})
    page = written(report, tmp_path)
    assert page.count("<svg") == 1 and "Nothing was recorded." in page
    assert "nan" not in page and "inf" not in page.replace("information", "")


@pytest.mark.parametrize(("low", "high"), [(3, 60), (-0.2148, 0.7254), (0.2336, 0.8346), (0.5, 1.5), (1e-9, 3e-9)])
def test_axes_have_round_numbers_inside_what_is_shown(low, high):
    ticks = _ticks(low, high)
    assert 2 <= len(ticks) <= 6 and low <= ticks[0] + 1e-12 and ticks[-1] <= high + 1e-12
    assert all(float(f"{value:.2g}") == pytest.approx(value) for value in ticks)


def test_the_legend_covers_no_curve(tmp_path):
    report = Report("Training")
    report.curve("Dice", "epoch", "Dice", {"validation": ([1, 2], [0.1, 0.9])})
    page = written(report, tmp_path)
    assert page.index("validation</span>") < page.index("<svg") and "validation" not in page[page.index("<svg") :]


def test_what_cannot_be_shown_is_said(tmp_path):
    report = Report("Training")
    with pytest.raises(BadInput, match="entries"):
        report.table(["a", "b"], [[1]])
    with pytest.raises(BadInput, match="neither gray nor color"):
        report.pictures("x", [("volume", np.zeros((2, 3, 4)), [])])
    with pytest.raises(BadInput, match="another size"):
        report.pictures("x", [("a", np.zeros((4, 4)), [(np.zeros((3, 3), bool), "#00ff00")])])
