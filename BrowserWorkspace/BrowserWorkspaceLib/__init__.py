"""The browser workspace: both modules' work on a web page, on Slicer's own core (trame-slicer)."""
