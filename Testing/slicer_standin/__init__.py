"""Slicer's application layer on slicer-core and PySide6, so that the modules' own files run in ordinary tests.

application   slicer.app, slicer.modules and the scene; opens a module as Slicer does
qt, ctk, qmrml   PythonQt's way of calling Qt, and the few CTK and MRML widgets the panels use
layer/        the Python files of Slicer itself that slicer-core lacks: module base classes, parameter nodes, ...
fixtures      what tests of modules share

Not played: slice and 3D views, mouse, Segment Editor, popups, PythonQt's ownership of objects, translations.
"""
