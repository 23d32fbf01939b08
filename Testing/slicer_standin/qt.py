"""A flat `qt` module on PySide6 that is called the way PythonQt is.

* Every Q_PROPERTY is an attribute (`label.text`, `button.enabled = False`). Setters stay callable; getters do not:
  `label.text()` is a TypeError, as it is in Slicer.
* `object.connect("clicked(bool)", function)` and `disconnect`; `object.name` is the object name.
* QUiLoader knows the CTK and MRML stand-ins and makes the connections that hand the scene to selectors.
"""

import sys
import xml.etree.ElementTree as ElementTree

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

# PySide makes its types when they are asked for, so vars(module) is nearly empty; dir(module) and __all__ are not.
_TYPES = {
    name: getattr(module, name)
    for module in (QtCore, QtGui, QtWidgets)
    for name in getattr(module, "__all__", dir(module))
    if not name.startswith("_")
}
globals().update(_TYPES)

# C++ asks Python objects for these while it lays widgets out: they stay methods.
_VIRTUAL = {"sizeHint", "minimumSizeHint", "hasHeightForWidth"}


class _QtProperty:
    """One Q_PROPERTY of instances; on the class Qt's own attribute stays (QTimer.singleShot is both)."""

    def __init__(self, name, native):
        self._name, self._native = name, native

    def __get__(self, instance, owner=None):
        return self._native if instance is None else QtCore.QObject.property(instance, self._name)

    def __set__(self, instance, value):
        if not QtCore.QObject.setProperty(instance, self._name, value):
            raise AttributeError(f"can't set {type(instance).__name__}.{self._name} = {value!r}")


def _give_properties(kind):
    meta = kind.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        name = meta.property(index).name()
        if name not in _VIRTUAL:
            setattr(kind, name, _QtProperty(name, getattr(kind, name, None)))


for _kind in _TYPES.values():
    if isinstance(_kind, type) and issubclass(_kind, QtCore.QObject) and _kind is not QtCore.QObject:
        _give_properties(_kind)


def _bound(instance, signature):
    return getattr(instance, signature.split("(")[0])


class _Connect:
    """connect(signature, function) and connect(signature, receiver, slot signature); else as in PySide."""

    def __init__(self, instance, native, action):
        self._instance, self._native, self._action = instance, native, action

    def __call__(self, *arguments):
        if len(arguments) < 2 or not isinstance(arguments[0], str):
            return self._native(*arguments)
        target = arguments[1] if len(arguments) == 2 else _bound(arguments[1], arguments[2])
        getattr(_bound(self._instance, arguments[0]), self._action)(target)
        return True


# PySide answers `connect` in the getattr slot of the type, so an attribute of the class is never reached.
_native_getattribute = QtCore.QObject.__getattribute__


def _getattribute(self, key):
    value = _native_getattribute(self, key)
    return _Connect(self, value, key) if key in ("connect", "disconnect") else value


QtCore.QObject.__getattribute__ = _getattribute
_native_name = QtCore.QObject.objectName
for _name in ("name", "objectName"):
    setattr(QtCore.QObject, _name, property(_native_name, lambda self, value: self.setObjectName(value)))
QtCore.QObject.className = lambda self: self.metaObject().className()


class QUiLoader(QtUiTools.QUiLoader):
    """Loads .ui files with the stand-in widgets; refuses a custom widget that has none."""

    def createWidget(self, class_name, parent=None, name=""):
        kind = getattr(sys.modules["ctk"], class_name, None) or getattr(sys.modules["slicer"], class_name, None)
        if not (isinstance(kind, type) and issubclass(kind, QtWidgets.QWidget)):
            if class_name not in self.availableWidgets():
                self.missing.add(class_name)
            return super().createWidget(class_name, parent, name)
        widget = kind(parent)
        widget.setObjectName(name)
        return widget

    def load(self, device, parent=None):
        self.missing = set()
        root = ElementTree.fromstring(bytes(device.readAll()))
        wires = [
            [connection.findtext(tag) for tag in ("sender", "signal", "receiver", "slot")]
            for connection in root.iter("connection")
        ]
        for widget in root.iter("widget"):
            _take_flags(widget)
        for tag in ("connections", "customwidgets"):  # Qt's loader knows neither vtkMRMLScene* nor the stand-ins
            for block in root.findall(tag):
                root.remove(block)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        widget = super().load(buffer, parent)
        if self.missing:
            raise RuntimeError(f"no stand-in for {', '.join(sorted(self.missing))}")
        named = {child.name: child for child in [widget, *widget.findChildren(QtWidgets.QWidget)]}
        for sender, signal, receiver, slot in wires:
            _bound(named[sender], signal).connect(_bound(named[receiver], slot))
        return widget


def _take_flags(widget):
    """Flags of stand-in widgets, which Qt's loader cannot read: they must exist, and are left out."""
    kind = getattr(sys.modules["ctk"], widget.get("class"), None)
    for given in widget.findall("property") if kind is not None else ():
        if given.find("set") is not None:
            for flag in given.findtext("set").split("|"):
                getattr(kind, flag.rpartition("::")[2])
            widget.remove(given)
