"""The engine: reading, inference, training and reflection. It knows neither Slicer nor Qt; torch is imported only where a network runs."""
