"""@parameterNodeWrapper for the types the modules use: bool, str and nodes, stored as Slicer stores them."""

import typing

import slicer
import vtk

__all__ = ["parameterNodeWrapper"]


class _Parameter:
    def __init__(self, name, kind, default):
        self.name, self.kind = name, kind
        self.is_node = issubclass(kind, slicer.vtkMRMLNode)
        if not self.is_node and kind not in (bool, str):
            raise TypeError(f"the stand-in does not know parameters of type {kind.__name__}")
        self.default = default if default is not None or self.is_node else kind()

    def read(self, wrapper):
        if self.is_node:
            return wrapper.parameterNode.GetNodeReference(self.name)
        text = wrapper.parameterNode.GetParameter(self.name)
        return text == "True" if self.kind is bool else text

    def write(self, wrapper, value):
        if not (isinstance(value, self.kind) or (self.is_node and value is None)):
            raise TypeError(f"{self.name} must be {self.kind.__name__}, is {type(value).__name__}")
        if self.is_node:
            wrapper.parameterNode.SetParameter(self.name, "")
            wrapper.parameterNode.SetNodeReferenceID(self.name, None if value is None else value.GetID())
        else:
            wrapper.parameterNode.SetParameter(self.name, str(value))


def _ends(widget, parameter):
    """(read, write, signal) of a widget bound to a parameter."""
    if parameter.is_node:
        return widget.currentNode, widget.setCurrentNode, widget.currentNodeChanged
    name, signal = ("checked", "toggled") if parameter.kind is bool else ("text", "textChanged")
    return lambda: getattr(widget, name), lambda value: setattr(widget, name, value), getattr(widget, signal)


class _Wrapper:
    def __init__(self, parameterNode, prefix=None):
        self.parameterNode = parameterNode
        self._connected, self._writing = {}, False
        for parameter in self.allParameters.values():
            if not parameterNode.HasParameter(parameter.name):
                parameter.write(self, parameter.default)

    def connectGui(self, ui):
        named = {w.property("SlicerParameterName"): w for w in vars(ui).values() if hasattr(w, "property")}
        named.pop(None, None)
        unknown = set(named) - set(self.allParameters)
        if unknown:
            raise ValueError(f"Cannot find a param with the given name: {sorted(unknown)}")
        ends = {name: _ends(widget, self.allParameters[name]) for name, widget in named.items()}

        def show(*_):
            if not self._writing:
                self._writing = True
                try:
                    for name, (_, write, _signal) in ends.items():
                        write(getattr(self, name))
                finally:
                    self._writing = False

        slots = []
        for name, (read, _, signal) in ends.items():

            def changed(*_, name=name, read=read):
                if not self._writing:
                    setattr(self, name, read())

            slots.append((signal, changed))
        show()
        for signal, changed in slots:
            signal.connect(changed)
        tag = len(self._connected)
        self._connected[tag] = slots, self.AddObserver(vtk.vtkCommand.ModifiedEvent, show)
        return tag

    def disconnectGui(self, tag):
        slots, observer = self._connected.pop(tag)
        for signal, changed in slots:
            signal.disconnect(changed)
        self.RemoveObserver(observer)

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)


def parameterNodeWrapper(kind):
    parameters = {
        name: _Parameter(name, hint, getattr(kind, name, None)) for name, hint in typing.get_type_hints(kind).items()
    }
    members = {name: property(p.read, p.write) for name, p in parameters.items()}
    members |= {"allParameters": parameters, "__doc__": kind.__doc__, "__module__": kind.__module__}
    return type(kind.__name__, (_Wrapper,), members)
