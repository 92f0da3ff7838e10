"""The base of every record that one stage hands to the next: frozen, strict, JSON in and out."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen value; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
