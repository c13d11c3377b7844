"""What every shape is made of."""

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Id = Annotated[str, Field(json_schema_extra={"format": "uuid"}, examples=["019a9f1e-6a3c-7c55-8d7e-3f0f5f0a9b10"])]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-01-31T12:00:00.000000Z"])]
Usd = Annotated[str, Field(pattern=r"^\d+(\.\d{1,12})?$", examples=["0.00125"])]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Mode = Literal["in_place", "isolated"]
T = TypeVar("T")


class View(BaseModel):
    """The base of every shape: immutable, and complete or not at all."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=True)


class Actor(View):
    """Who caused something."""

    id: str = Field(examples=["local"])
    kind: str = Field(description="person, service, agent or system")
    channel: str = Field(description="api, cli, console or worker")


class Page(View, Generic[T]):
    """One page of a list; `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None
