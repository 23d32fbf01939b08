"""Curves as MRML plots: a chart with its series and their tables, found again by an attribute and updated in place.

They say what a panel knows anyway, so they are neither saved with the scene nor offered by the selectors of others.
"""

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

KEY = "RefSeg.Plot"  # attribute of all nodes of a plot
SERIES = "RefSeg.Plot.Series"  # attribute of a series and its table: the name of the series


def showPlot(scene, key, title, xTitle, yTitle, series, points=()):
    """Make the plot `key`, or bring it up to date; returns its vtkMRMLPlotChartNode.

    series: name -> (x, y), or (x, y, labels) with a text per point that Slicer shows when the mouse is on it; x and y
    are numbers, as many of each (ValueError otherwise). points: names of the series drawn as points without lines.
    Colors and lines that a person has given to a series stay as they are.
    """
    for name, values in series.items():
        if len({len(part) for part in values}) != 1:
            raise ValueError(f"the parts of the series '{name}' differ in length")
    chart = plotOf(scene, key) or _made(scene, "vtkMRMLPlotChartNode", title, key)
    modified = chart.StartModify()
    try:
        chart.SetTitle(title)
        chart.SetXAxisTitle(xTitle)
        chart.SetYAxisTitle(yTitle)
        chart.SetLegendVisibility(len(series) > 1)
        for node in _nodes(scene, "vtkMRMLPlotSeriesNode", key):
            if node.GetAttribute(SERIES) not in series:
                chart.RemovePlotSeriesNodeID(node.GetID())
                _remove(scene, node)
        for name, values in series.items():
            node = _found(scene, "vtkMRMLPlotSeriesNode", key, name) or _newSeries(scene, key, name, name in points)
            _fill(node, *values)
            if not chart.HasPlotSeriesNodeID(node.GetID()):
                chart.AddAndObservePlotSeriesNodeID(node.GetID())
    finally:
        chart.EndModify(modified)
    return chart


def plotOf(scene, key):
    """The chart node of a plot; None if there is none."""
    return _found(scene, "vtkMRMLPlotChartNode", key)


def removePlot(scene, key):
    """Remove all nodes of a plot; nothing happens where there is none."""
    for node in _nodes(scene, "vtkMRMLPlotSeriesNode", key):
        _remove(scene, node)
    for node in _nodes(scene, "vtkMRMLPlotChartNode", key):
        scene.RemoveNode(node)


def reveal(chart):
    """Show a chart in the layout, which gets a view of plots if it has none; without an application nothing happens."""
    plots = getattr(slicer.modules, "plots", None)
    if plots is not None:
        plots.logic().ShowChartInLayout(chart)


def _nodes(scene, className, key):
    found = slicer.util.getNodesByClass(className, scene)
    return [node for node in found if node.GetAttribute(KEY) == key]


def _found(scene, className, key, name=None):
    nodes = _nodes(scene, className, key)
    return next((node for node in nodes if name is None or node.GetAttribute(SERIES) == name), None)


def _made(scene, className, name, key, series=None):
    node = scene.CreateNodeByClass(className)
    node.UnRegister(None)
    node.SetName(name)
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    node.SetAttribute(KEY, key)
    node.SetAttribute(SERIES, series)
    return scene.AddNode(node)


def _newSeries(scene, key, name, asPoints):
    node = _made(scene, "vtkMRMLPlotSeriesNode", name, key, name)
    node.SetUniqueColor()
    node.SetPlotType(node.PlotTypeScatter)
    node.SetMarkerStyle(node.MarkerStyleCircle)
    node.SetLineStyle(node.LineStyleNone if asPoints else node.LineStyleSolid)
    node.SetAndObserveTableNodeID(_made(scene, "vtkMRMLTableNode", name, key, name).GetID())
    return node


def _fill(node, x, y, labels=None):
    """The columns of a series' table. Series of one plot differ in length, so each has a table of its own."""
    table = vtk.vtkTable()
    for title, values in (("x", x), ("y", y)):
        column = numpy_to_vtk(np.asarray(values, float), deep=True)
        column.SetName(title)
        table.AddColumn(column)
    if labels is not None:
        column = vtk.vtkStringArray()
        column.SetName("label")
        for text in labels:
            column.InsertNextValue(text)
        table.AddColumn(column)
    node.GetTableNode().SetAndObserveTable(table)
    node.SetXColumnName("x")
    node.SetYColumnName("y")
    node.SetLabelColumnName("label" if labels is not None else "")


def _remove(scene, node):
    table = node.GetTableNode()
    scene.RemoveNode(node)
    if table is not None:
        scene.RemoveNode(table)
