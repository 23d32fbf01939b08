"""refseg recipe: which way to a model of one's own fits what a site has, and its exact commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from RefSegLib.errors import BadInput
from RefSegLib.terminal import console

Quality = Literal["good", "mixed", "bad"]

FEW = 0.5  # share of images with masks below which those without are worth learning from
FEWEST = 12  # images below which none of them may fall to validation
DOCUMENT = "docs/recipes.md"


@dataclass(frozen=True)
class Site:
    """What there is. images; masks: how many of them have one; quality: of the masks; raters: people who outlined the
    same images; shape: an ellipse describes the structure; others: masks of the same structure in other images."""

    images: int
    masks: int
    quality: Quality = "good"
    raters: int = 1
    shape: bool = False
    others: bool = False


@dataclass(frozen=True)
class Advice:
    """recipe: its title in docs/recipes.md, "" for none; why, and the commands in order."""

    recipe: str
    why: str
    commands: tuple[str, ...]


def advise(site: Site) -> Advice:
    """The recipe that fits. Raises BadInput for numbers that cannot be."""
    if site.images < 1 or not 0 <= site.masks <= site.images or site.raters < 1:
        raise BadInput(
            f"{site.images} images of which {site.masks} have masks, by {site.raters} raters: that cannot be. "
            "Count the images, and those of them that have a mask."
        )
    if site.quality not in ("good", "mixed", "bad"):
        raise BadInput(f"Masks are good, mixed or bad, not '{site.quality}'.")
    train = "refseg train --spec SPEC.json --images IMAGES --labels MASKS --name NAME"
    if site.masks == 0:
        return _without_masks(site)
    if site.masks < FEWEST:
        return Advice(
            "",
            f"{site.masks} masks are too few to train on and to check with; outline about {FEWEST} to 20 first. "
            "Interactive Learning proposes them, the more the better it gets.",
            ("refseg app",),
        )
    several = site.raters > 1
    doubtful = several or site.quality != "good"
    noisy = f"{train} --noisy"
    many = site.masks < FEW * site.images
    pretrain = "refseg pretrain --spec SPEC.json --images ALL_IMAGES --name NAME-start"
    if doubtful:
        people = "Several people's masks are weighed against each other" if several else "Masks are believed as far as"
        rest = " (put them into MASKS/RATER/, one folder each)." if several else " the network finds them right."
        look = "the report names the masks to look at again"
        return Advice("Bad labels: train --noisy", f"{people}{rest} Afterwards {look}.", (noisy,))
    if many:
        return Advice(
            "Few labels: pretrain, then train",
            f"{site.images - site.masks} images without masks teach the encoder before the {site.masks} with masks. "
            "Measured, that is worth half a point beside the augmentation of training: the second command without "
            "--init and --reconstruction does nearly as well.",
            (pretrain, f"{train} --init NAME-start --reconstruction"),
        )
    return Advice("", "Enough good masks: plain training is all it takes.", (train,))


def _without_masks(site: Site) -> Advice:
    title = "No labels: bootstrap"
    if site.others:
        why = "Masks of other images, even of another hospital, tell what the structure looks like."
        return Advice(title, why, ("refseg bootstrap --images IMAGES --masks OTHER_MASKS --name NAME",))
    if site.shape:
        why = "An ellipse with the right range of sizes stands in for masks."
        return Advice(title, why, ("refseg bootstrap --images IMAGES --shape ellipse:PRIOR.json --name NAME",))
    return Advice(
        "",
        "Without masks and without a known shape nothing tells what is looked for. "
        f"Outline about {FEWEST} to 20 images by hand, or find masks of the same structure elsewhere.",
        ("refseg app",),
    )


def recipe_command(
    images: Annotated[int | None, typer.Option("--images", min=1, help="How many images there are.")] = None,
    masks: Annotated[int | None, typer.Option("--masks", min=0, help="How many of them have a mask.")] = None,
    quality: Annotated[str | None, typer.Option("--quality", help="Of the masks: good, mixed or bad.")] = None,
    raters: Annotated[int | None, typer.Option("--raters", min=1, help="People who outlined the same images.")] = None,
    shape: Annotated[
        bool | None, typer.Option("--shape/--no-shape", help="The structure is about an ellipse of known sizes.")
    ] = None,
    others: Annotated[
        bool | None, typer.Option("--others/--no-others", help="There are masks of it in other images.")
    ] = None,
) -> None:
    """Which way of training fits, and its commands. Asks for what is not given, where somebody can answer."""
    images = _asked(images, "How many images are there", _number(1))
    masks = _asked(masks, "How many of them have a mask", _number(0, images))
    if masks:
        quality = _asked(quality, "Are the masks good, mixed or bad", _one_of("good", "mixed", "bad"), "good")
        raters = _asked(raters, "How many people outlined the same images", _number(1), 1)
    else:
        others = _asked(others, "Are there masks of the structure in other images", None, False)
        if not others:
            shape = _asked(shape, "Is the structure about an ellipse of known sizes", None, False)
    found = advise(Site(images, masks, quality or "good", raters or 1, bool(shape), bool(others)))
    lines = [found.why, "", *(f"  {command}" for command in found.commands)]
    if found.recipe:
        lines = [found.recipe, "", *lines, "", f"More in {DOCUMENT}."]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _asked(given: Any, question: str, reading: Callable[[str], Any] | None, default: Any = None) -> Any:
    """What was given; else what somebody at the terminal answers, asked again until `reading` takes it (None: yes or
    no); else the default, if there is one."""
    if given is not None:
        return given
    if sys.stdin.isatty():
        if reading is None:
            return typer.confirm(f"{question}?", default=default)
        return typer.prompt(question, default, value_proc=reading)
    if default is None:
        raise BadInput(f"{question}? Nobody is there to ask; say it as an option (refseg recipe --help).")
    return default


def _number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Reads whole numbers in a range."""

    def reading(answer: str) -> int:
        if not (answer := str(answer).strip()).isdecimal() or int(answer) < least or (most and int(answer) > most):
            raise typer.BadParameter(f"Say a number from {least}{f' to {most}' if most else ' on'}.")
        return int(answer)

    return reading


def _one_of(*words: str) -> Callable[[str], str]:
    """Reads one of some words, however it is written."""

    def reading(answer: str) -> str:
        if (word := answer.strip().lower()) not in words:
            raise typer.BadParameter(f"Say {', '.join(words[:-1])} or {words[-1]}.")
        return word

    return reading
