"""Which recipe fits what a site has, as a person asks for it."""

import io
import shlex
import sys

import numpy as np
import pytest
from InteractiveLearningLib import cli
from RefSegLib.errors import BadInput
from RefSegLib.models.store import ModelStore
from RefSegLib.recipe_cli import Site, advise
from RefSegLib.volume.grid import Grid
from RefSegLib.volume.io import write_image, write_labels
from RefSegLib.volume.volume import LabelMap, Volume

SPEC = """{"name": "disc", "dimensions": 2, "channels": ["gray"], "patch": [1, 32, 32], "aligned": false,
"labels": [{"value": 1, "name": "disc", "color": [1, 0, 0]}], "spacing": [0, 0, 0],
"network": {"name": "unet", "arguments": {"filters": [6, 8, 12]}}}"""


@pytest.mark.parametrize(
    ("site", "recipe", "words"),
    [
        (Site(200, 30), "Few labels", ("pretrain", "--reconstruction")),
        (Site(200, 180), "", ("refseg train",)),
        (Site(200, 180, "mixed"), "Bad labels", ("--noisy",)),
        (Site(60, 60, raters=3), "Bad labels", ("--noisy",)),
        (Site(200, 30, "bad"), "Bad labels", ("--noisy",)),
        (Site(200, 0, others=True), "No labels", ("bootstrap", "--masks")),
        (Site(200, 0, shape=True), "No labels", ("bootstrap", "--shape")),
        (Site(200, 0), "", ("refseg app",)),
        (Site(200, 4), "", ("refseg app",)),
    ],
)
def test_what_a_site_has_decides(site, recipe, words):
    found = advise(site)
    assert found.recipe.startswith(recipe) and bool(found.recipe) == bool(recipe)
    assert all(word in " ".join(found.commands) for word in words)
    assert found.why


def test_only_doubtful_masks_are_doubted():
    assert "--noisy" not in " ".join(advise(Site(100, 100)).commands)


@pytest.mark.parametrize("site", [Site(10, 11), Site(0, 0), Site(5, 5, raters=0), Site(50, 50, "fine")])
def test_numbers_that_cannot_be_are_refused(site):
    with pytest.raises(BadInput):
        advise(site)


def refseg(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["refseg", "recipe", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_command_prints_the_commands_and_points_to_the_document(monkeypatch, capsys):
    assert refseg(monkeypatch, "--images", "80", "--masks", "80", "--quality", "mixed") == 0
    said = capsys.readouterr().out
    assert "--noisy" in said and "docs/recipes.md" in said


def test_where_nobody_can_be_asked_it_says_which_option_is_missing(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: PTH123, SIM115
    assert refseg(monkeypatch, "--images", "80") == 2
    assert "mask" in capsys.readouterr().err


def test_every_recipe_named_is_a_heading_of_the_document():
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    for site in (Site(200, 30), Site(200, 180, "bad"), Site(200, 0, shape=True)):
        assert f"## {advise(site).recipe}\n" in text


EVERY_SITE = [
    Site(200, masks, quality, raters, shape, others)
    for masks in (0, 4, 30, 180)
    for quality in ("good", "mixed", "bad")
    for raters in (1, 3)
    for shape in (False, True)
    for others in (False, True)
]


def test_every_command_of_every_site_is_understood():
    """Options and the kinds of their values, as the command itself reads them; nothing is run."""
    import BrowserWorkspaceLib.app_cli  # noqa: F401 (the floor above adds its own)
    import typer.main

    commands = typer.main.get_command(cli.app).commands
    for line in {line for site in EVERY_SITE for line in advise(site).commands}:
        program, name, *words = shlex.split(line)
        assert program == "refseg"
        commands[name].make_context(name, words)  # raises where an option is unknown or missing


def test_the_commands_run_as_they_are_printed(monkeypatch, tmp_path):
    """Each recipe with masks, on small discs and for one epoch: what the second command needs the first one makes."""
    discs(tmp_path)
    (tmp_path / "SPEC.json").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REFSEG_HOME", str(tmp_path / "home"))
    sites = (Site(200, 30), Site(200, 180, "mixed"))
    for number, site in enumerate(sites):
        for line in advise(site).commands:
            words = shlex.split(line.replace("NAME", f"disc{number}").replace("ALL_IMAGES", "IMAGES"))
            monkeypatch.setattr(sys, "argv", [*words, "--epochs", "1"])
            try:
                cli.main()
            except SystemExit as stop:
                assert not stop.code, line
    assert set(ModelStore(tmp_path / "home").names()) >= {f"disc{number}" for number in range(len(sites))}


def discs(folder):
    """Sixteen bright discs in noise, as files, and their masks."""
    grid = Grid((1, 32, 32))
    for seed in range(16):
        rng = np.random.default_rng(seed)
        mask = np.linalg.norm(np.stack(np.mgrid[:32, :32], -1) - rng.uniform(12, 20, 2), axis=-1) < 7
        image = (mask * 100 + rng.normal(0, 10, mask.shape) + 40)[None].astype(np.float32)
        write_image(Volume(image, grid), folder / "IMAGES" / f"p{seed}.nii.gz")
        write_labels(LabelMap(mask[None].astype(np.uint16), grid), folder / "MASKS" / f"p{seed}.nii.gz")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["80", "eighty", "90", "60", "Mixed", "1"], ["Say a number from 0 to 80.", "--noisy"]),
        (["80", "80", "so so", "good", "1"], ["Say good, mixed or bad.", "Enough good masks"]),
        (["80", "0", "n", "y"], ["--shape"]),
    ],
)
def test_somebody_at_a_terminal_is_asked_again_until_the_answer_can_be(monkeypatch, capsys, answers, said):
    terminal = io.StringIO("".join(f"{answer}\n" for answer in answers))
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    assert refseg(monkeypatch) == 0
    heard = capsys.readouterr()
    assert all(words in heard.out + heard.err for words in said)
