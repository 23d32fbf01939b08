"""The models of a store as people choose among them, for a list here or over the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from RefSegLib.errors import RefSegError
from RefSegLib.models.manifest import Manifest
from RefSegLib.models.spec import Label
from RefSegLib.models.store import ModelStore
from RefSegLib.progress import SILENT, Progress

from InteractiveLearningLib.accepting import named_values


@dataclass(frozen=True)
class Model:
    """A model and its version in use. named: label values by the names its segments carry, left and right among them;
    card: Markdown; reflects: it can judge its own result; versions: oldest first."""

    name: str
    version: str
    description: str
    labels: tuple[Label, ...]
    named: dict[str, int]
    card: str
    reflects: bool
    versions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As it travels, see from_dict."""
        labels = [label.model_dump(mode="json") for label in self.labels]
        about = {"name": self.name, "active": self.version, "description": self.description, "labels": labels}
        about |= {"named": self.named, "card": self.card, "reflects": self.reflects}
        return about | {"versions": list(self.versions)}

    @staticmethod
    def from_dict(told: Mapping[str, Any]) -> Model:
        """As a server tells it; earlier servers tell neither names of both sides, nor card, nor whether it reflects.

        Raises KeyError, TypeError or ValueError for what is no model.
        """
        labels = tuple(Label.model_validate(label) for label in told["labels"])
        named = told.get("named") or {label.name: label.value for label in labels}
        return Model(
            str(told["name"]),
            str(told["active"]),
            str(told["description"]),
            labels,
            {str(name): int(value) for name, value in named.items()},
            str(told.get("card", "")),
            bool(told.get("reflects", False)),
            tuple(str(version) for version in told["versions"]),
        )


@dataclass(frozen=True)
class Listing:
    """models: those that can be used; broken: a sentence on each of the others."""

    models: tuple[Model, ...] = ()
    broken: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As it travels."""
        return {"models": [model.to_dict() for model in self.models], "broken": list(self.broken)}

    @staticmethod
    def from_dict(told: Mapping[str, Any]) -> Listing:
        """As a server tells it. Raises KeyError, TypeError or ValueError for what is no list of models."""
        models = tuple(Model.from_dict(model) for model in told["models"])
        return Listing(models, tuple(str(sentence) for sentence in told.get("broken", ())))


def list_models(store: ModelStore, progress: Progress = SILENT) -> Listing:
    """The models of a store, by name. Reads no weights; one that cannot be used hides no other. Raises Cancelled."""
    models, broken = [], []
    for name in store.names():
        progress(0.0, "Looking for models")
        try:
            models.append(_model(store, name))
        except RefSegError as error:
            broken.append(f"The model '{name}' cannot be used. {error}")
    return Listing(tuple(models), tuple(broken))


def _model(store: ModelStore, name: str) -> Model:
    manifest = store.manifest(name)
    spec = manifest.spec
    return Model(
        name,
        manifest.version,
        spec.description,
        spec.labels,
        named_values(spec),
        "\n\n".join(part for part in (store.card(name).strip(), _about(manifest)) if part),
        "synthesizer.safetensors" in manifest.files,
        tuple(store.versions(name)),
    )


def _about(manifest: Manifest) -> str:
    """What is known of the version in use: the card of a model that has no other, and what others cannot know."""
    spec = manifest.spec
    lines = [
        f"## Version {manifest.version}",
        f"* Made {manifest.created[:10]}" + (f" from {manifest.parent}" if manifest.parent else ""),
        f"* Finds {_listed(label.name for label in spec.labels)}",
        f"* Sees {spec.dimensions}D images: {_listed(spec.channels)}",
    ]
    patients = _at(manifest.data, "patients", "train")
    if patients is not None:
        lines.append(f"* Learned from {patients} patients")
    for side in ("test", "validation"):
        mean = _at(manifest.scores, side, "mean", "dice")
        if mean is not None:
            each = [(label.name, _at(manifest.scores, side, label.name, "dice")) for label in spec.labels]
            told = ", ".join(f"{name} {dice:.3f}" for name, dice in each if dice is not None)
            lines.append(f"* Mean Dice on {side} patients {mean:.3f}" + (f" ({told})" if told else ""))
            break
    return "\n".join(lines)


def _at(free: Any, *keys: str) -> float | int | None:
    """The number under these keys of what is written freely; None if there is none."""
    for key in keys:
        free = free.get(key) if isinstance(free, Mapping) else None
    return free if isinstance(free, int | float) and not isinstance(free, bool) else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
