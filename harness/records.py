"""The base of every document that the judge writes: immutable, with nothing unknown in it."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Infinity and NaN travel as strings: JSON has no numbers for them."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")
