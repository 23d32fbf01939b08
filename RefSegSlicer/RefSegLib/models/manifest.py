"""What is written down about a model version."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import to_jsonable_python

from RefSegLib.models.spec import SegmenterSpec


class FileRecord(BaseModel):
    """A file of a version: its sha256 in hexadecimal and its size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class Manifest(BaseModel):
    """model.json: where a version comes from, what it can do, and what its files must be.

    parent: NAME@VERSION it was trained on from; data: fingerprint and split of what it learned; settings: how;
    scores: validation and test; reflection: settings calibrated for this version. The last four are free: numbers
    and arrays of numpy in them become plain ones, so that no result of hours of training is lost to a type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
    created: str
    spec: SegmenterSpec
    parent: str | None = None
    data: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    reflection: dict[str, Any] = {}
    files: dict[Literal["segmenter.safetensors", "segmenter.torchscript", "synthesizer.safetensors"], FileRecord]

    @field_validator("data", "settings", "scores", "reflection", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return to_jsonable_python(value, inf_nan_mode="null", fallback=lambda other: other.tolist())

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if self.name != self.spec.name:
            raise ValueError(f"the model is called '{self.name}' and its specification '{self.spec.name}'")
        if ("segmenter.torchscript" in self.files) != (self.spec.network.name == "torchscript"):
            raise ValueError("a TorchScript file belongs to a network called torchscript, and to no other")
        return self
