"""What the modules do once Slicer is up, and not before: nobody waits for it when Slicer starts."""


def register():
    """Add the page of the settings, where there is a main window, and offer the sample images."""
    from RefSegSlicerLib import sample_data, settings_page

    settings_page.addPage()
    sample_data.register()
