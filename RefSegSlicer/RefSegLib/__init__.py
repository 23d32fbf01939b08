"""The engine: reading, inference, training, reflection. Knows neither Slicer nor Qt; torch only to run networks."""
