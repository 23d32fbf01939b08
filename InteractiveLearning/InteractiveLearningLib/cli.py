"""The `refseg` command: the engine's commands together with those of interaction and learning."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from RefSegLib.cli import Device, Images, Labels, ModelName, Report, Store, app, load_version
from RefSegLib.errors import Cancelled, RefSegError
from RefSegLib.models.store import ModelStore
from RefSegLib.models_cli import models
from RefSegLib.terminal import console, errors, shown_progress, write_report

from InteractiveLearningLib.replay_cli import replay
from InteractiveLearningLib.reviews_cli import review_command
from InteractiveLearningLib.service.serve_cli import serve_command
from InteractiveLearningLib.service.service_cli import audit, users

app.add_typer(users, name="users")
app.add_typer(audit, name="audit")
app.add_typer(replay, name="replay")
app.command("serve")(serve_command)
models.command("review")(review_command)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the report and the masks.")] = Path("demo-output"),
    image: Annotated[
        Path | None, typer.Option("--image", help="A T1 head of your own instead of the templates.")
    ] = None,
    store: Store = None,
) -> None:
    """Show the whole loop on real heads: segment, reflect, correct, accept, learn, publish, segment again."""
    from InteractiveLearningLib.demo.run import run_demo

    run_demo(out, image, store)


@app.command()
def annotate(
    model: ModelName,
    images: Images,
    labels: Labels,
    cases: Annotated[int | None, typer.Option("--cases", min=1, help="How many cases.")] = None,
    prompts: Annotated[str, typer.Option("--prompts", help="clicks or slices.")] = "clicks",
    budget: Annotated[int, typer.Option("--budget", min=1, help="Interactions per case.")] = 10,
    device: Device = "auto",
    store: Store = None,
    report: Report = None,
) -> None:
    """A robot annotator corrects the model's masks; reports the Dice after every interaction."""
    from RefSegLib.training.cases import pair_cases

    from InteractiveLearningLib.annotation import annotate_cases

    version = load_version(ModelStore(store), model)
    with shown_progress("Annotating") as progress:
        chosen = pair_cases(images, labels)[:cases]
        result = annotate_cases(version, chosen, prompts=prompts, budget=budget, device=device, progress=progress)
    write_report(result, report)
    console.print_json(json.dumps(result["summary"]))


@app.command()
def stream(
    model: ModelName,
    images: Images,
    labels: Labels,
    order: Annotated[str, typer.Option("--order", help="A file with one case name a line, or hash.")] = "hash",
    cases: Annotated[int | None, typer.Option("--cases", min=1, help="How many cases.")] = None,
    budget: Annotated[int, typer.Option("--budget", min=1, help="Slices or clicks per case.")] = 3,
    store: Store = None,
    report: Report = None,
) -> None:
    """Case after case: segment, annotate, accept, learn, publish what is better."""
    from RefSegLib.training.cases import pair_cases

    from InteractiveLearningLib.stream import run_stream

    place = ModelStore(store)
    version = load_version(place, model)
    with shown_progress("Learning from a stream") as progress:
        chosen = pair_cases(images, labels)
        result = run_stream(place, version.name, chosen, order=order, limit=cases, budget=budget, progress=progress)
    write_report(result, report)
    console.print_json(json.dumps(result["summary"]))


def main() -> None:
    """Run a command. Exit code 0 only when all went well; 2, with one clear line, for what the user can put right."""
    try:
        app()
    except Cancelled as stop:
        errors.print(str(stop))
        sys.exit(130)
    except RefSegError as problem:
        errors.print(f"Error: {problem}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("Stopped.")
        sys.exit(130)


if __name__ == "__main__":
    main()
