"""What every panel must be, whatever is on it: explained, translatable, reachable by keyboard, small, in any theme."""

from slicer_standin.fixtures import picture  # isort: skip  # starts the stand-in, which the others need

import ast
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import slicer
from both_panels import MODULES, ROOT, TEXTS, OpenedPanel, is_operated, ui_files, ui_widgets
from RefSegLib import errors
from RefSegSlicerLib import settings

pytest_plugins = ("slicer_standin.fixtures", "both_panels")
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")

SMALL = (1280, 720)
PANEL_WIDTH = 420
FIRST_SCREEN = 560  # of 720 pixels: Slicer has menus and a data probe, too
PRIMARY = {"RefSegSlicer": "segmentButton", "InteractiveLearning": "startButton"}
CODE = [
    *(ROOT / "RefSegSlicer").glob("*.py"),
    *(ROOT / "InteractiveLearning").glob("*.py"),
    *(ROOT / "RefSegSlicer" / "RefSegSlicerLib").glob("*.py"),
    *(ROOT / "InteractiveLearning" / "InteractiveLearningSlicerLib").glob("*.py"),
]
# Attributes and functions whose strings people read.
READ = {*TEXTS, "_message", "format"} - {"suffix", "prefix"}
TELLING = {"say", "_say", "setText", "setToolTip", "setTitle", "setPlaceholderText", "showStatusMessage"}
ERRORS = {
    name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.RefSegError)
}
each_file = pytest.mark.parametrize("file", ui_files(), ids=lambda file: file.stem)
each_source = pytest.mark.parametrize("source", CODE, ids=lambda file: f"{file.parent.name}/{file.name}")


@pytest.fixture(params=MODULES)
def a_panel(request, an_empty_scene, a_served_home):
    """Each of the panels."""
    slicer.app.settings().setValue(settings.STORE_KEY, str(a_served_home))
    panel = OpenedPanel(request.param, an_empty_scene)
    yield panel
    panel.close()
    slicer.app.settings().clear()


# What is told


@each_file
def test_every_control_is_explained_where_it_is_made(file):
    for widget in ui_widgets(file):
        told = [p.findtext("string") or "" for p in widget.findall("property") if p.get("name") == "toolTip"]
        if is_operated(widget.get("class")):
            assert told and re.search(r"\w{2,}.*[.?]$", told[0], re.S), f"{widget.get('name')} has no tooltip"


def test_every_control_is_explained_in_every_state_and_says_why_it_cannot_be_used(a_panel):
    enabled, disabled = {}, {}
    for state in a_panel.states():
        a_panel.unfold()
        for name, widget in a_panel.operated().items():
            assert widget.toolTip.strip(), f"{state}: {name} has no tooltip"
            if widget.isEnabledTo(a_panel.parent):
                enabled.setdefault(name, set()).add(widget.toolTip)
            elif widget.isVisibleTo(a_panel.parent) and not _section_says_why(widget, a_panel.parent):
                disabled.setdefault(name, {}).setdefault(widget.toolTip, state)
    wrong = [
        (name, tip, disabled[name][tip]) for name in disabled for tip in enabled.get(name, set()) & {*disabled[name]}
    ]
    assert not wrong, f"disabled with the tooltip that they have when they can be used: {wrong}"
    in_file = {
        widget.get("name"): prop.findtext("string")
        for file in ui_files()
        for widget in ui_widgets(file)
        for prop in widget.findall("property")
        if prop.get("name") == "toolTip"
    }
    never = [name for name in disabled if name not in enabled and in_file.get(name) in disabled[name]]
    silent = [
        name
        for name in never
        if not re.search(r"first|no |not |only|choose|select|open|press|write|nothing", in_file[name], re.I)
    ]
    assert not silent, f"never usable here, and the tooltip does not say why: {silent}"


def _section_says_why(widget, panel):
    """Whether what a disabled widget is in is disabled, and tells why."""
    around = widget.parentWidget()
    while around is not None and around is not panel:
        if not around.isEnabledTo(around.parentWidget()) and around.toolTip.strip():
            return True
        around = around.parentWidget()
    return False


@each_file
def test_what_people_read_in_a_panel_is_translatable_and_names_for_code_are_not(file):
    for widget in ui_widgets(file):
        for prop in [*widget.findall("property"), *widget.findall("item/property")]:
            said = prop.find("string")
            if said is None:
                said = prop.find("stringlist")
            if said is None:
                continue
            readable = prop.get("name") in TEXTS and not (said.text or "").startswith("https://")
            assert (said.get("notr") == "true") != readable, f"{widget.get('name')}.{prop.get('name')}: notr"


def _texts_of(node):
    """Literals with words in them that a value is made of, but not what is handed to `_` or looked up by."""
    if isinstance(node, ast.Constant):
        return [node] if isinstance(node.value, str) and re.search(r"[A-Za-z]{2}", node.value) else []
    if isinstance(node, ast.JoinedStr):
        return [part for value in node.values if isinstance(value, ast.Constant) for part in _texts_of(value)]
    if isinstance(node, ast.IfExp):
        return _texts_of(node.body) + _texts_of(node.orelse)
    if isinstance(node, ast.BoolOp):
        return [text for value in node.values for text in _texts_of(value)]
    if isinstance(node, ast.BinOp):
        return _texts_of(node.left) + _texts_of(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("format", "join"):
        return _texts_of(node.func.value)
    return []


@each_source
def test_every_sentence_of_the_code_can_be_translated(source):
    for node in ast.walk(ast.parse(source.read_text())):
        values = []
        if isinstance(node, ast.Assign):
            told = [t.attr for t in node.targets if isinstance(t, ast.Attribute)]
            values = [node.value] if READ & {*told} else []
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "_":
                (given,) = node.args
                assert isinstance(given, ast.Constant), f"{source.name}:{node.lineno}: _() of what is no plain string"
                continue
            values = node.args if name in TELLING | ERRORS else []
        for value in values:
            for text in _texts_of(value):
                pytest.fail(f"{source.name}:{node.lineno}: {text.value!r} cannot be translated")


@each_source
def test_no_sentence_stands_anywhere_but_where_it_is_translated(source):
    tree = ast.parse(source.read_text())
    known = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):  # a docstring
            known.add(node.value)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("_", "translate"):
            known.update(node.args)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in known:
            told = re.search(r"[A-Za-z]{2} .*[.?!:]$", node.value.strip(), re.S)
            assert not told, f"{source.name}:{node.lineno}: {node.value!r} cannot be translated"


def test_what_translates_is_slicers_own_function():
    """It looks at who calls it. In a process of its own: here, others may have been first without Slicer's layer."""
    code = (
        "import slicer_standin.fixtures, slicer; from RefSegSlicerLib import translation; "
        "assert translation.tr is slicer.i18n.tr"
    )
    folders = (ROOT / "Testing", ROOT / "RefSegSlicer", ROOT / "InteractiveLearning")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)


@each_source
def test_the_word_for_translating_is_hidden_by_no_other_name(source):
    tree = ast.parse(source.read_text())
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    homes = {node.module for node in froms for name in node.names if name.asname == "_"}
    assert homes <= ({"RefSegSlicerLib.translation"} if source.parent.name.endswith("SlicerLib") else {"slicer.i18n"})
    for function in ast.walk(tree):
        if homes and isinstance(function, ast.FunctionDef | ast.Lambda):
            parts = list(ast.walk(function))
            calls = any(isinstance(p, ast.Call) and getattr(p.func, "id", "") == "_" for p in parts)
            hides = any(isinstance(p, ast.Name) and p.id == "_" and isinstance(p.ctx, ast.Store) for p in parts)
            assert not (calls and hides), f"{source.name}:{function.lineno}: _ is something else here"


# How it is reached


def test_the_tab_key_reaches_every_control_that_can_be_used(a_panel):
    import qt

    for state in a_panel.states():
        a_panel.unfold()
        a_panel.parent.show()
        a_panel.parent.activateWindow()
        slicer.app.processEvents()
        operated = a_panel.operated()
        usable = {name for name, w in operated.items() if w.isVisible() and w.isEnabled() and _takes_tab(w)}
        # The arrow keys lead from the chosen one of several to the others.
        usable -= {
            name for name in usable if isinstance(operated[name], qt.QRadioButton) and not operated[name].checked
        }
        assert len(usable) > 3
        seen = []
        while not seen or seen.count(seen[-1]) < 2:
            qt.QWidget.focusNextPrevChild(a_panel.parent, True)
            seen.append(qt.QApplication.focusWidget())
        reached = {name for name in usable if any(_is_or_holds(operated[name], widget) for widget in seen)}
        assert usable == reached, f"{state}: Tab does not reach {sorted(usable - reached)}"
    a_panel.parent.hide()


def _takes_tab(widget):
    import qt

    return any(w.focusPolicy & qt.Qt.TabFocus for w in [widget, *widget.findChildren(qt.QWidget)])


def _is_or_holds(widget, focused):
    return focused is widget or widget.isAncestorOf(focused)


@each_file
def test_labels_with_a_mnemonic_name_a_control_and_no_mnemonic_is_there_twice(file):
    names = {widget.get("name") for widget in ui_widgets(file)}
    keys = []
    for widget in ui_widgets(file):
        values = {p.get("name"): p.findtext("string") or p.findtext("cstring") for p in widget.findall("property")}
        keys += re.findall(r"&([^& ])", (values.get("text") or "").lower())
        if widget.get("class") == "QLabel" and "buddy" in values:
            assert values["buddy"] in names
        elif widget.get("class") == "QLabel":
            assert not re.search(r"&[^& ]", values.get("text") or ""), f"{widget.get('name')} has no buddy"
    assert len(keys) == len(set(keys)), f"{file.name}: {sorted(key for key in keys if keys.count(key) > 1)}"


# How it looks


def test_a_panel_fits_beside_the_views_of_a_small_screen(a_panel):
    import ctk

    a_panel.parent.show()
    for state in a_panel.states():
        a_panel.parent.resize(PANEL_WIDTH, SMALL[1])
        slicer.app.processEvents()
        assert a_panel.parent.minimumSizeHint().width() <= PANEL_WIDTH, state
        for section in a_panel.parent.findChildren(ctk.ctkCollapsibleButton):
            assert section.mapTo(a_panel.parent, section.rect.topRight()).x() <= PANEL_WIDTH, (
                state,
                section.name,
            )
            if state == "start" and section.isVisible():
                assert section.mapTo(a_panel.parent, section.rect.topLeft()).y() <= SMALL[1] - 60, section.name
        if state == "start":
            button = getattr(a_panel.ui, PRIMARY[a_panel.module])
            place = button.mapTo(a_panel.parent, button.rect.bottomLeft())
            assert button.isVisible() and place.y() <= FIRST_SCREEN, f"{button.name} is {place.y()} pixels down"
    a_panel.unfold()
    assert a_panel.parent.minimumSizeHint().width() <= PANEL_WIDTH, "with every section open"
    a_panel.parent.hide()


def test_a_panel_looks_right_in_a_dark_theme(a_panel):
    import qt

    application = qt.QApplication.instance()
    light = application.palette()
    states = a_panel.states()
    next(states)
    picture(a_panel, f"hygiene-{a_panel.module}-light")
    application.setPalette(dark())
    try:
        for state in states:
            if state in ("volume", "clicked"):
                picture(a_panel, f"hygiene-{a_panel.module}-dark-{state}")
                shown = a_panel.parent.grab().toImage()
                corner = shown.pixelColor(1, shown.height() - 2).lightness()
                assert corner < 100, "something paints a background of its own"
                for name, widget in a_panel.operated().items():
                    colors = widget.palette
                    ink, paper = colors.color(qt.QPalette.WindowText), colors.color(qt.QPalette.Window)
                    assert abs(ink.lightness() - paper.lightness()) > 60, f"{name} cannot be read"
    finally:
        application.setPalette(light)


def dark():
    """Slicer's dark style, as far as a palette tells."""
    import qt

    palette = qt.QPalette()
    colors = {
        "Window": "#353535",
        "WindowText": "#ffffff",
        "Base": "#232323",
        "AlternateBase": "#353535",
        "Text": "#ffffff",
        "Button": "#353535",
        "ButtonText": "#ffffff",
        "ToolTipBase": "#353535",
        "ToolTipText": "#ffffff",
        "PlaceholderText": "#a0a0a0",
        "Highlight": "#2a82da",
        "HighlightedText": "#000000",
    }
    for role, color in colors.items():
        palette.setColor(getattr(qt.QPalette, role), qt.QColor(color))
    for role in ("WindowText", "Text", "ButtonText"):
        palette.setColor(qt.QPalette.Disabled, getattr(qt.QPalette, role), qt.QColor("#808080"))
    return palette


@each_file
def test_panels_bring_no_colors_fonts_or_styles_of_their_own(file):
    used = {p.get("name") for p in ElementTree.parse(file).getroot().iter("property")}
    assert not used & {"styleSheet", "palette", "font"}


@each_source
def test_code_brings_no_colors_or_styles_of_its_own(source):
    for node in ast.walk(ast.parse(source.read_text())):
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
        assert name not in ("styleSheet", "setStyleSheet", "QColor", "QPalette", "setPalette", "setForeground"), (
            f"{source.name}:{node.lineno}: {name}"
        )
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not re.search(r"<font|color:|style=", node.value), f"{source.name}:{node.lineno}"
