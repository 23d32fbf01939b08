"""The engine: reading, inference, training, reflection. Knows neither Slicer nor Qt; torch only to run networks."""

# Here and not in pyproject.toml: what Slicer installs is no Python distribution that could be asked.
__version__ = "0.1.0"
