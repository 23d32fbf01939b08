"""What both Slicer modules share: the border between MRML and the engine's values, and installing what is missing."""
