"""The engine's commands: models, train, segment, evaluate. The floor above puts them into `refseg` with its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from RefSegLib.bootstrap_cli import bootstrap_command
from RefSegLib.errors import BadInput
from RefSegLib.jobs import estimates_of
from RefSegLib.models.importing.files import read_spec
from RefSegLib.models.spec import SegmenterSpec
from RefSegLib.models.store import ModelStore, ModelVersion
from RefSegLib.models_cli import Store, load_version, models
from RefSegLib.pretrain_cli import pretrain_command
from RefSegLib.recipe_cli import recipe_command
from RefSegLib.terminal import console, shown_progress, write_report
from RefSegLib.volume.io import case_name, image_files, read_image, write_image, write_labels

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(models, name="models")
app.command("bootstrap")(bootstrap_command)
app.command("pretrain")(pretrain_command)
app.command("recipe")(recipe_command)

# Formats that hold fractions, and formats of flat images.
FRACTIONS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".tif", ".tiff")
FLAT = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}

ModelName = Annotated[str, typer.Option("--model", help="NAME or NAME@VERSION; without a version, the active one.")]
Images = Annotated[Path, typer.Option("--images", help="Folder of images.")]
Labels = Annotated[Path, typer.Option("--labels", help="Folder of masks with the same names.")]
Report = Annotated[Path | None, typer.Option("--report", help="Write what was done and found as JSON.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]


@app.command()
def train(
    spec: Annotated[Path, typer.Option("--spec", help="What the model expects and gives (JSON).")],
    images: Images,
    labels: Annotated[
        list[Path],
        typer.Option(
            "--labels",
            "--masks",
            help="Folder of masks with the same names; with --noisy repeated, or with a folder for each rater inside.",
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="Under which name the new version is stored.")],
    init: Annotated[
        str | None,
        typer.Option("--init", help="Start from this version, or from what refseg pretrain made: its name or file."),
    ] = None,
    reconstruction: Annotated[
        bool, typer.Option("--reconstruction", help="The encoder also learns to draw the image; nothing of it is kept.")
    ] = False,
    noisy: Annotated[
        bool, typer.Option("--noisy", help="Masks may be wrong: each is believed as far as the network finds it right.")
    ] = False,
    epochs: Annotated[int, typer.Option("--epochs", min=1)] = 120,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    store: Store = None,
    report: Report = None,
) -> None:
    """Train a segmenter and its synthesizer; the new version is active if it is the first of its name."""
    from RefSegLib.pretraining.pretrained import find_pretrained, read_pretrained
    from RefSegLib.training.report import report_folder

    place = ModelStore(store)
    wanted = read_spec(spec).model_copy(update={"name": name})
    wanted = SegmenterSpec.model_validate(wanted.model_dump())  # the name has been replaced: check it
    file = None if init is None else find_pretrained(place.home, init)
    start = None if init is None else load_version(place, init) if file is None else read_pretrained(file)
    if not noisy and len(labels) > 1:
        raise BadInput("Masks of several raters need --noisy, which weighs them against each other.")
    if noisy and reconstruction:
        raise BadInput("--noisy and --reconstruction are two ways to train; choose one.")
    options = {"init": start, "epochs": epochs, "seed": seed}
    with shown_progress("Training", resumes=True) as progress:
        if noisy:
            from RefSegLib.noisy.raters import rated_cases
            from RefSegLib.noisy.train_noisy import train_noisy

            version = train_noisy(wanted, rated_cases(images, labels), place, progress=progress, **options)
        else:
            from RefSegLib.training.cases import pair_cases
            from RefSegLib.training.train import train as run

            cases = pair_cases(images, labels[0])
            version = run(wanted, cases, place, reconstruction=reconstruction, progress=progress, **options)
    first = place.versions(name) == [version.version]
    if first:
        place.activate(name, version.version)
    write_report(version.manifest.model_dump(mode="json"), report)
    console.print(f"{name}@{version.version} was trained{' and is active' if first else ''}.")
    console.print_json(json.dumps(version.manifest.scores))
    page = report_folder(place, version) / "report.html"
    if not noisy:
        console.print(f"Curves and pictures: {page}", highlight=False, markup=False, soft_wrap=True)
    else:
        counts = version.manifest.settings
        console.print(
            f"{counts['suspected']} of the {counts['masks']} masks it learned from may be wrong; see {page}\n"
            "The scores are against masks that may be wrong themselves.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


@app.command("train-synthesizer")
def train_synthesizer(
    model: ModelName,
    images: Images,
    labels: Labels,
    epochs: Annotated[int, typer.Option("--epochs", min=1)] = 40,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    store: Store = None,
    report: Report = None,
) -> None:
    """Give any model reflection: a new version with the same segmenter and a synthesizer, active if it is the first."""
    from RefSegLib.training.cases import pair_cases
    from RefSegLib.training.synthesizer import add_synthesizer

    place = ModelStore(store)
    start = load_version(place, model)
    with shown_progress("Training") as progress:
        cases = pair_cases(images, labels)
        version = add_synthesizer(start, cases, place, epochs=epochs, seed=seed, progress=progress)
    _tell_added(place, version, version.manifest.scores, report)


@app.command("calibrate")
def calibrate_reflection(
    model: ModelName,
    images: Images,
    labels: Labels,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    store: Store = None,
    report: Report = None,
) -> None:
    """Teach reflection about a model anew, on validation patients; a new version with the same networks."""
    from RefSegLib.training.calibrate import recalibrate
    from RefSegLib.training.cases import pair_cases

    place = ModelStore(store)
    start = load_version(place, model)
    with shown_progress("Calibrating") as progress:
        version = recalibrate(start, pair_cases(images, labels), place, seed=seed, progress=progress)
    _tell_added(place, version, version.manifest.reflection["report"], report)


def _tell_added(place: ModelStore, version: ModelVersion, found: dict[str, Any], report: Path | None) -> None:
    """What became of a model: its new version, whether that is active now, and what was found about it."""
    write_report(version.manifest.model_dump(mode="json"), report)
    active = place.active(version.name) == version.version
    console.print(f"{version.name}@{version.version} was added{' and is active' if active else ''}.")
    console.print_json(json.dumps(found))


@app.command()
def segment(
    images: Annotated[list[Path], typer.Argument(help="Image files, DICOM folders, or folders of image files.")],
    model: ModelName,
    out: Annotated[Path, typer.Option("--out", help="A file for one image, a folder for several.")],
    reflect: Annotated[
        bool | None, typer.Option("--reflect/--no-reflect", help="Default: where the model can.")
    ] = None,
    roi: Annotated[
        tuple[int, int, int, int, int, int] | None,
        typer.Option("--roi", help="Box of voxels I0 J0 K0 I1 J1 K1, the upper ones exclusive."),
    ] = None,
    suspect: Annotated[
        Path | None,
        typer.Option("--suspect", help="Write where masks may be wrong (0 to 1): a file, or a folder for several."),
    ] = None,
    device: Device = "auto",
    store: Store = None,
    report: Report = None,
    progress_json: Annotated[bool, typer.Option("--progress-json", help="Progress as JSON lines.")] = False,
) -> None:
    """Segment images; each mask comes back on the grid of its image."""
    files = expand(images)
    targets = _targets(files, out, _mask_ending)
    maps = [None] * len(files) if suspect is None else _suspect_targets(files, suspect, reflect)
    _check_apart([*files, *targets, *filter(None, maps)])
    version = load_version(ModelStore(store), model)
    from RefSegLib.engine import Engine, suspect_map  # torch: only once all that was given is known to be right

    box = None if roi is None else (roi[2], roi[1], roi[0], roi[5], roi[4], roi[3])
    done: list[dict[str, Any]] = []
    with shown_progress("Segmenting", as_json=progress_json) as progress:
        engine = Engine(version, device)
        for number, (file, target, place) in enumerate(zip(files, targets, maps, strict=True)):
            step = progress.part(number / len(files), (number + 1) / len(files))
            started = time.perf_counter()
            result = engine.segment(read_image(file), roi=box, reflect=reflect, progress=step)
            write_labels(result.labels, target, result.names)
            doubt = None if place is None else suspect_map(result)
            if doubt is not None:
                write_image(doubt, place)
            seconds = round(time.perf_counter() - started, 3)
            entry = {"image": file.name, "out": str(target), "suspect": None if doubt is None else str(place)}
            done.append(entry | {"seconds": seconds} | engine.describe(result))
    write_report({"model": version.name, "version": version.version, "images": done}, report)
    if not progress_json:
        for entry in done:
            console.print(f"{entry['image']} -> {entry['out']}  ({entry['seconds']:.1f} s)", highlight=False)
            for region in entry["regions"]:
                if region["said"]:
                    console.print(f"  {region['side'] or 'image'}: {region['said']}", highlight=False, soft_wrap=True)
            for estimate in estimates_of(entry):
                said = f"  {estimate.name}: estimated Dice {estimate}"
                console.print(said, highlight=False, markup=False, soft_wrap=True)
    without = [entry for entry in done if entry["suspect"] is None]
    if suspect is not None and without:
        why = "; ".join(sorted({r["said"] for entry in without for r in entry["regions"]} - {""}))
        raise BadInput(
            f"There is no map of where the mask of {', '.join(entry['image'] for entry in without)} may be wrong, "
            f"because nothing was reflected on: {why or f'model {version.name!r} has no synthesizer.'} "
            "The masks were written."
        )


def expand(paths: list[Path]) -> list[Path]:
    """Files as they are; a folder of image files as those files; any other folder is a DICOM series."""
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise BadInput(f"There is no '{path}'.")
        inside = image_files(path) if path.is_dir() else []
        files += inside or [path]
    return files


def _targets(files: list[Path], out: Path, ending: Callable[[Path], str]) -> list[Path]:
    """Where each result goes: the named file for one image, else a file of the image's name in the folder `out`."""
    if len(files) == 1 and out.suffix and not out.is_dir():
        return [out]
    if out.is_file() or out.suffix in {".nrrd", ".gz", ".nii", ".mha", ".png"}:
        raise BadInput(f"'{out}' is one file, but there are {len(files)} images; name a folder.")
    names = [case_name(file) for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"Several images are called '{twice[0]}'; segment them into different folders.")
    return [out / f"{name}{ending(file)}" for name, file in zip(names, files, strict=True)]


def _mask_ending(file: Path) -> str:
    """Masks in the format of their images; where that format cannot carry names and colors, as Slicer saves them."""
    if file.name.endswith((".nii", ".nii.gz")):
        return ".nii.gz"
    return ".png" if file.suffix.lower() in FLAT else ".seg.nrrd"


def _suspect_targets(files: list[Path], place: Path, reflect: bool | None) -> list[Path]:
    """Where each map of what may be wrong goes; its name differs from that of the mask."""
    if reflect is False:
        raise BadInput("Where a mask may be wrong is found by reflecting: leave out --no-reflect, or --suspect.")
    targets = _targets(files, place, lambda file: f"_suspect{_map_ending(file)}")
    for target in targets:
        if target.name.lower().endswith(".seg.nrrd") or not target.name.lower().endswith(FRACTIONS):
            raise BadInput(f"'{target}' cannot hold a map of fractions. Name a file of {', '.join(FRACTIONS)}.")
    return targets


def _map_ending(file: Path) -> str:
    """As the mask's format, but for fractions."""
    return {".nii.gz": ".nii.gz", ".png": ".tif", ".seg.nrrd": ".nrrd"}[_mask_ending(file)]


def _check_apart(paths: list[Path]) -> None:
    """Raise BadInput if two of the files read and written are the same, so that nothing is written over another."""
    places = [path.resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise BadInput(f"'{path}' is both read and written, or written twice. Choose another place for results.")


@app.command()
def evaluate(
    model: ModelName,
    images: Images,
    labels: Labels,
    methods: Annotated[
        str, typer.Option("--methods", help="Comma separated: none, bn, tent, intent, consistency, reflect.")
    ] = "none",
    shift: Annotated[list[str] | None, typer.Option("--shift", help="NAME:SEVERITY, may be repeated.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only patients of train, validation or test.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many cases.")] = None,
    device: Device = "auto",
    store: Store = None,
    report: Report = None,
) -> None:
    """Compare masks with the truth, clean and under named shifts, by reflection and other ways to adapt to an image."""
    from RefSegLib.engine import Engine
    from RefSegLib.evaluation import evaluate as run
    from RefSegLib.quality.shifts import parse
    from RefSegLib.training.cases import pair_cases

    engine = Engine(load_version(ModelStore(store), model), device)
    shifts = [parse(text) for text in shift or []]
    cases = pair_cases(images, labels)
    if split is not None:
        cases = [case for case in cases if case.role == split]
        if not cases:
            raise BadInput(f"None of the cases belongs to '{split}'; splits are train, validation and test.")
    with shown_progress("Evaluating") as progress:
        result = run(
            engine.segmenter,
            engine.synthesizer,
            engine.settings,
            cases,
            methods=tuple(method.strip() for method in methods.split(",")),
            shifts=shifts,
            limit=limit,
            progress=progress,
        )
    write_report(result, report)
    console.print_json(json.dumps(result["summary"]))
    for method, reason in result["summary"]["skipped"].items():
        console.print(f"{method} was left out. {reason}", highlight=False, soft_wrap=True)
