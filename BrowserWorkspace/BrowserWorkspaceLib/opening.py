"""Images and masks into the workspace: from the browser, from a folder of this computer, or the demonstration's.

Files are read by the engine in a thread; what cannot be read is told in a sentence, and what was open before stays.
"""

import shutil
import tempfile
from pathlib import Path

from InteractiveLearningSlicerLib.volumes import Image
from RefSegLib.errors import BadInput
from RefSegLib.jobs import Job, Signal
from RefSegSlicerLib.translation import tr as _

from BrowserWorkspaceLib import segmentation_file

MASK = ".seg.nrrd"
HEADERS = (".mhd", ".nhdr", ".hdr")  # the voxels lie in a file beside these
VOLUMES = (".nrrd", ".nii", ".nii.gz", ".mha")  # each an image by itself
SCENES, TRANSFORMS = (".mrb", ".mrml"), (".h5", ".tfm", ".xfm")
SAMPLE = "MNI152"


class Opening:
    """What is being opened. Event loop's thread only; somebody has to call `poll`.

    opened(image, name): the Image of volumes.py, ready to become a node; masked(Snapshot, name): segments of a file;
    failed(RefSegError).
    """

    def __init__(self):
        self.opened, self.masked, self.failed = Signal(), Signal(), Signal()
        self._job = self._folder = None

    @property
    def busy(self) -> bool:
        """Whether something is being read."""
        return self._job is not None

    def uploaded(self, files) -> None:
        """Open what the browser has sent: dicts with name and content (bytes). Raises BadInput while busy."""
        self._check()
        self._folder = Path(tempfile.mkdtemp(prefix="refseg-"))
        contents = {}
        for number, file in enumerate(files):
            # Names are the sender's: no folders, and files of one name from several folders stay apart.
            name = str(file.get("name") or "image").replace("\\", "/").rsplit("/", 1)[-1].lstrip(".") or "image"
            place = self._folder / name
            contents[self._folder / f"{number} {name}" if place in contents else place] = file.get("content") or b""
        self._open(list(contents), contents)

    def files(self, paths) -> None:
        """Open files, or one folder of DICOM files, that lie on this computer. Raises BadInput while busy."""
        self._check()
        self._open([Path(path) for path in paths])

    def folder(self, path, series="", below=None) -> None:
        """Open one DICOM series in a folder. below: the only folder people may open folders of. Raises BadInput."""
        self._check()
        if not str(path).strip():
            raise BadInput(_("Write the folder of the DICOM files as this computer knows it."))
        place = folder_below(path, below)
        self._read(place, place.name, series.strip() or None)

    def sample(self) -> None:
        """Open a head of the demonstration. Raises BadInput while busy, or if it is not installed."""
        self._check()
        from InteractiveLearningLib.demo.heads import TEMPLATES, atlas_folder

        self._read(atlas_folder() / TEMPLATES[SAMPLE], SAMPLE)

    def poll(self) -> None:
        """Tell what has been read."""
        if self._job is not None:
            self._job.poll()

    def close(self) -> None:
        """Read nothing more."""
        if self._job is not None:
            self._job.cancel()
        self._over()

    def _check(self):
        if self._job is not None:
            raise BadInput(_("Another image is being opened. Wait until it is there."))

    def _open(self, paths, contents=()):
        """contents: what is to be written to the paths before they are read."""
        masks = [path for path in paths if path.name.lower().endswith(MASK)]
        rest = [path for path in paths if path not in masks]
        try:
            _check_kinds(rest)
            if len(masks) > 1 or (masks and rest):
                raise BadInput(_("Open the image first, and then one mask (.seg.nrrd)."))
            headers = [path for path in rest if path.suffix.lower() in HEADERS]
            if masks:
                self._begin(self.masked, masks[0].name, lambda: segmentation_file.read(masks[0]), contents)
            elif len(rest) == 1:
                self._read(rest[0], _name(rest[0]), contents=contents)
            elif len(headers) == 1:
                self._read(headers[0], _name(headers[0]), contents=contents)
            elif rest:
                self._read(rest[0].parent, _name(min(rest)), contents=contents)
            else:
                raise BadInput(_("There was nothing in it."))
        except BaseException:
            self._over()
            raise

    def _read(self, path, name, series=None, contents=()):
        def read():
            from RefSegLib.volume.io import read_image

            return Image(read_image(path, series))

        self._begin(self.opened, name, read, contents)

    def _begin(self, signal, name, read, contents):
        folder = self._folder

        def work(_report, _cancelled):
            try:
                for path in contents:
                    _write(contents[path], path)
                return read()
            except BadInput as error:
                raise BadInput(_told_of(error, folder)) from error

        job = self._job = Job(work)
        job.finished.connect(lambda found: self._told(signal, found, name))
        job.failed.connect(lambda error: self._told(self.failed, error))

    def _told(self, signal, *values):
        self._over()
        signal(*values)

    def _over(self):
        folder, self._folder, self._job = self._folder, None, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _check_kinds(paths) -> None:
    """Raise BadInput for what is known to be no image, and for several at once."""
    for path in paths:
        kind = path.suffix.lower()
        if kind in SCENES:
            text = _(
                "'{name}' is a scene of Slicer, and images and masks alone can be opened here. In Slicer, harden the "
                "transforms of the volume, so that it lies where the scene shows it, and save it as .nrrd."
            )
            raise BadInput(text.format(name=path.name))
        if kind in TRANSFORMS:
            text = _(
                "'{name}' is a transform, and images and masks alone can be opened here. In Slicer, apply it to the "
                "volume, harden it, and save the volume as .nrrd."
            )
            raise BadInput(text.format(name=path.name))
    volumes = [path.name for path in paths if path.name.lower().endswith(VOLUMES)]
    if volumes and len(paths) > 1:
        text = _("Open one image at a time. '{name}' is one by itself, and there were {count} files.")
        raise BadInput(text.format(name=volumes[0], count=len(paths)))


def _write(content, path: Path) -> None:
    """Write what a browser has sent: bytes, or parts of them."""
    with path.open("wb") as stream:
        for part in content if isinstance(content, list) else (content,):
            stream.write(part)


def _told_of(error, folder) -> str:
    """What was said of files that lie in a folder for a moment, as who has sent them knows them."""
    if folder is None:
        return str(error)
    told = str(error).replace(f"'{folder}'", _("what was sent")).replace(f"{folder}/", "")
    return told[:1].upper() + told[1:]


def folder_below(path, below=None) -> Path:
    """A folder of this computer that people have named. below: the only folder whose folders they may open, None: any.
    Raises BadInput if there is none."""
    written = str(path or "").strip()
    if not written:  # which Path would take for the folder that this process was started in
        raise BadInput(_("Write a folder first."))
    place = Path(written).expanduser()
    if below is not None:
        place = (Path(below) / place).resolve()
        if not place.is_relative_to(Path(below).resolve()):
            raise BadInput(_("Only folders below {folder} can be opened here.").format(folder=below))
    if not place.is_dir():
        raise BadInput(_("There is no folder '{path}' on this computer.").format(path=place))
    return place


def _name(path) -> str:
    """A file's name without what tells its format."""
    name = path.name
    for suffix in (".nii.gz", path.suffix):
        if suffix and name.lower().endswith(suffix.lower()):
            return name[: -len(suffix)] or name
    return name
