"""What the modules do once Slicer is up, and not before: nobody waits for it when Slicer starts."""


def register():
    """Add the page of the settings, where there is a main window, offer the sample images, and see to scenes that are
    loaded."""
    import slicer

    from RefSegSlicerLib import before, sample_data, settings_page

    scene = slicer.mrmlScene
    scene.AddObserver(scene.EndImportEvent, lambda *_: before.showHidden(scene))
    settings_page.addPage()
    sample_data.register()
