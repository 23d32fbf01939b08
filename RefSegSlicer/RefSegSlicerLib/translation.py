"""Words for people in their language: `tr` is Slicer's, and gives the text as it is where there is no translation."""

try:
    # The function itself, as it looks up a text under the name of the file that calls it.
    from slicer.i18n import tr
except ModuleNotFoundError:  # slicer-core alone, below other front ends

    def tr(text):
        """The text as it is."""
        return text


__all__ = ["tr"]
