"""Plots and what was done, as nodes of a scene: made, found again, brought up to date, left out of what is saved."""

from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from RefSegSlicerLib import plots, provenance

pytest_plugins = ("slicer_standin.fixtures",)
pytestmark = pytest.mark.usefixtures("an_empty_scene", "no_swallowed_exceptions")

TWO = {"loss": ([0, 1, 2], [0.9, 0.5, 0.3]), "validation": ([0, 2], [0.8, 0.4])}


def shown(chart):
    """What a plot view would draw: name of series -> x, y."""
    found = {}
    for number in range(chart.GetNumberOfPlotSeriesNodes()):
        series = chart.GetNthPlotSeriesNode(number)
        table = series.GetTableNode().GetTable()
        x, y = (table.GetColumnByName(name) for name in (series.GetXColumnName(), series.GetYColumnName()))
        found[series.GetName()] = [[c.GetValue(n) for n in range(c.GetNumberOfValues())] for c in (x, y)]
    return found


def test_a_plot_shows_series_of_different_lengths_and_lets_nobody_else_see_its_nodes(an_empty_scene):
    before = set(slicer.util.getNodesByClass("vtkMRMLNode"))
    chart = plots.showPlot(an_empty_scene, "learning", "Learning", "step", "loss", TWO, points=("validation",))
    assert (chart.GetTitle(), chart.GetXAxisTitle(), chart.GetYAxisTitle()) == ("Learning", "step", "loss")
    assert shown(chart) == {name: [list(map(float, part)) for part in values] for name, values in TWO.items()}
    lines = {node.GetName(): node.GetLineStyle() for node in slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")}
    assert lines["loss"] == slicer.vtkMRMLPlotSeriesNode.LineStyleSolid
    assert lines["validation"] == slicer.vtkMRMLPlotSeriesNode.LineStyleNone
    added = set(slicer.util.getNodesByClass("vtkMRMLNode")) - before
    assert len(added) == 5
    for node in added:
        assert node.GetHideFromEditors() and not node.GetSaveWithScene() and node.GetAttribute(plots.KEY) == "learning"


def test_a_plot_is_brought_up_to_date_in_place_and_keeps_what_a_person_made_of_it(an_empty_scene):
    chart = plots.showPlot(an_empty_scene, "learning", "Learning", "step", "loss", TWO)
    other = plots.showPlot(an_empty_scene, "other", "Other", "x", "y", {"loss": ([1], [1])})
    series = next(
        s for s in slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode") if chart.HasPlotSeriesNodeID(s.GetID())
    )
    series.SetColor(0.1, 0.2, 0.3)
    count = an_empty_scene.GetNumberOfNodes()
    more = {"loss": (np.arange(4), np.ones(4)), "new": ([1.5], [2.5], ["here"])}
    assert plots.showPlot(an_empty_scene, "learning", "Learning", "step", "loss", more) is chart
    assert shown(chart) == {"loss": [[0, 1, 2, 3], [1, 1, 1, 1]], "new": [[1.5], [2.5]]}
    assert series.GetName() == "loss" and np.allclose(series.GetColor(), (0.1, 0.2, 0.3))
    assert an_empty_scene.GetNumberOfNodes() == count
    assert shown(other) == {"loss": [[1], [1]]}
    (new,) = (s for s in slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode") if s.GetName() == "new")
    assert new.GetTableNode().GetTable().GetColumnByName(new.GetLabelColumnName()).GetValue(0) == "here"


def test_a_removed_plot_leaves_nothing_and_others_alone(an_empty_scene):
    other = plots.showPlot(an_empty_scene, "other", "Other", "x", "y", {"a": ([1], [1])})
    count = an_empty_scene.GetNumberOfNodes()
    plots.showPlot(an_empty_scene, "learning", "Learning", "step", "loss", TWO)
    plots.removePlot(an_empty_scene, "learning")
    plots.removePlot(an_empty_scene, "learning")
    assert an_empty_scene.GetNumberOfNodes() == count and shown(other) == {"a": [[1], [1]]}


def test_series_that_do_not_fit_are_refused_before_anything_is_made(an_empty_scene):
    count = an_empty_scene.GetNumberOfNodes()
    with pytest.raises(ValueError, match="'loss' differ in length"):
        plots.showPlot(an_empty_scene, "learning", "Learning", "step", "loss", {"loss": ([1, 2], [1])})
    assert an_empty_scene.GetNumberOfNodes() == count


def test_a_plot_is_shown_through_the_plots_module_where_there_is_one(an_empty_scene, monkeypatch):
    chart = plots.showPlot(an_empty_scene, "learning", "Learning", "step", "loss", TWO)
    plots.reveal(chart)
    asked = []
    logic = SimpleNamespace(ShowChartInLayout=asked.append)
    monkeypatch.setattr(slicer.modules, "plots", SimpleNamespace(logic=lambda: logic), raising=False)
    plots.reveal(chart)
    assert asked == [chart]


def test_what_was_done_stays_with_the_segmentation_in_a_saved_scene(an_empty_scene, tmp_path):
    node = an_empty_scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mask")
    done = {
        "model": "balls",
        "version": "3",
        "settings": {"reflect": True, "region": [0, 0, 0, 4, 5, 6]},
        "where": "ü & <",
    }
    assert provenance.stamped(node) is None and provenance.stamped(None) is None
    provenance.stamp(node, {"model": "old"})
    provenance.stamp(node, done)
    file = tmp_path / "scene.mrml"
    an_empty_scene.SetURL(str(file))
    assert an_empty_scene.Commit()
    an_empty_scene.Clear(0)
    an_empty_scene.SetURL(str(file))
    an_empty_scene.Import()
    (again,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert provenance.stamped(again) == done


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_what_cannot_be_read_says_nothing(an_empty_scene, text):
    node = an_empty_scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mask")
    node.SetAttribute(provenance.ATTRIBUTE, text)
    assert provenance.stamped(node) is None
