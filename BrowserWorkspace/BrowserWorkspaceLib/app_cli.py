"""The command `refseg app`, and `refseg` with all its commands."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer
from InteractiveLearningLib.cli import app, main
from RefSegLib.errors import BadInput, RefSegError
from RefSegLib.models.store import ModelStore
from RefSegLib.models_cli import Store
from RefSegLib.terminal import console


@app.command("app")
def app_command(
    volume: Annotated[
        Path | None, typer.Option("--volume", help="An image to open in a workspace that is still empty.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen at; others than loopback need TLS.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 8060,
    store: Store = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="The only folder whose DICOM folders the page opens. Without it: any; none for users with accounts.",
        ),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser of this computer.")] = True,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its private key, PEM.")] = None,
) -> None:
    """Work in the browser: segment, correct and learn without Slicer. Ends with Ctrl+C; what is open is kept."""
    if volume is not None and not volume.exists():
        raise BadInput(f"There is no image '{volume}'.")
    if images is not None and not images.is_dir():
        raise BadInput(f"There is no folder '{images}'.")
    try:
        if importlib.util.find_spec("trame_slicer") is None:  # found only: importing it takes seconds
            raise ModuleNotFoundError(name="trame-slicer")
        from BrowserWorkspaceLib.serving import serve
    except ModuleNotFoundError as error:
        raise RefSegError(f"The workspace needs {error.name}: pip install 'refseg[app,engine,service]'.") from error

    serve(
        ModelStore(store).home,
        host=host,
        port=port,
        certificate=tls_cert,
        key=tls_key,
        volume=None if volume is None else volume.resolve(),
        images=None if images is None else images.resolve(),
        tell=lambda line: console.print(line, highlight=False, soft_wrap=True, markup=False),
        browser=browser,
    )


if __name__ == "__main__":
    main()
