"""What Mosaic's protocol asks, and how its JSON is read: over HTTP, a socket or in a session.

Apart from the doors, of which `mosaic_routes` and `mosaic_socket` answer over the atlas, and
`embedding_atlas_routes` over a session's table.
"""

from typing import Any, Literal, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from api.jobs import Format

EXAMPLE: dict[str, JsonValue] = {"type": "arrow", "sql": "SELECT layer, head FROM maps"}

Kind = Literal["arrow", "json", "exec"]

FORMATS: dict[Kind, Format] = {"arrow": "arrow", "json": "json", "exec": "arrow"}
"""In which a worker answers; the answer of `exec` is dropped."""

Asked = TypeVar("Asked", bound=BaseModel)


class MosaicRequest(BaseModel):
    """What a client asks; the further fields that clients send say nothing to a reader."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    type: Kind = Field(
        description="Form of the answer: an Arrow stream, an array of rows, or none."
    )
    sql: str = Field(description="One SELECT, or DESCRIBE, SHOW TABLES, SUMMARIZE, EXPLAIN.")


def read_request(text: str | bytes) -> MosaicRequest:
    """The request that a client's JSON holds; raises as `read_json` does."""
    return read_json(MosaicRequest, text)


def read_json(model: type[Asked], text: str | bytes) -> Asked:
    """What a request's JSON holds, whatever its media type says: clients name none.

    Raises:
        RequestValidationError: it is no JSON, or no such request.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise _to_mistakes(error) from None


def check_fields(given: dict[str, Any]) -> MosaicRequest:
    """The request that fields of a URL make.

    Raises:
        RequestValidationError: they make none.
    """
    try:
        return MosaicRequest.model_validate(given)
    except ValidationError as error:
        raise _to_mistakes(error) from None


def _to_mistakes(error: ValidationError) -> RequestValidationError:
    """What is wrong with a request, without the values that it was sent."""
    mistakes = error.errors(include_url=False, include_context=False, include_input=False)
    return RequestValidationError(
        [{**mistake, "loc": ("request", *mistake["loc"])} for mistake in mistakes]
    )
