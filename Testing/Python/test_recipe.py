"""Which recipe fits what a site has, as a person asks for it."""

import sys

import pytest
from InteractiveLearningLib import cli
from RefSegLib.errors import BadInput
from RefSegLib.recipe_cli import Site, advise


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


def test_every_command_named_is_one_that_refseg_knows():
    import typer.main

    known = set(typer.main.get_command(cli.app).commands)
    for site in (Site(200, 30), Site(200, 180, "bad"), Site(200, 0, shape=True)):
        assert {command.split()[1] for command in advise(site).commands} <= known
