"""The command `refseg serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from RefSegLib.cli import Device
from RefSegLib.errors import RefSegError
from RefSegLib.models.store import ModelStore
from RefSegLib.models_cli import Store


def serve_command(
    host: Annotated[str, typer.Option("--host", help="Address to listen at; others than loopback need TLS.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 0,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its private key, PEM.")] = None,
    executor: Annotated[str, typer.Option("--executor", help="local, ray, or ray://HOST:PORT.")] = "local",
    local: Annotated[
        bool, typer.Option("--local", help="For programs of this machine: ends when none needs it any more.")
    ] = False,
    worklist: Annotated[
        Path | None, typer.Option("--worklist", help="Folder of images (files, DICOM series) to be annotated.")
    ] = None,
    device: Device = "auto",
    store: Store = None,
) -> None:
    """Serve segmentation, annotation and learning to the modules and to browsers."""
    try:
        from InteractiveLearningLib.service.serve import serve
    except ModuleNotFoundError as error:
        raise RefSegError(f"The service needs {error.name}: pip install 'refseg[service]'.") from error

    serve(
        ModelStore(store).home,
        host=host,
        port=port,
        certificate=tls_cert,
        key=tls_key,
        device=device,
        executor=executor,
        local=local,
        worklist=worklist,
    )
