"""What a model read: sequences, images and tokens, and the search among tokens."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.parameters import Filters, Model, SequenceId, Sort, read_filters, shown_page
from api.reading import Paged, Whole
from api.replies import check_changed, choose_media_type, finish
from store.errors import NotInAtlasError
from store.search import Match, count_tokens, search_tokens
from store.sequence_search import Wanted, find_sequences
from store.sequences import list_sequences, read_sequence

router = APIRouter(prefix="/v1/models/{model}", tags=["sequences"])

PNG = "image/png"

SEQUENCE = {
    "model": "minilm",
    "corpus": "python",
    "sequence_id": 0,
    "row": 0,
    "n_tokens": 23,
    "text": "An identifier is a name.",
    "labels": {"chapter": "lexical analysis"},
}
FOUND = {"sequence_id": 0, "position": 3, "token": "python", "is_special": False}

Text = Annotated[str, Query(min_length=1, max_length=1_000, examples=["python"])]
How = Annotated[Match, Query(description="exact, prefix or substring of a token.")]
Case = Annotated[bool, Query(description="False takes A and a for the same.")]


@router.get(
    "/sequences",
    response_class=Response,
    summary="Sequences",
    responses=shown_page(SEQUENCE, n_matches=1),
)
def get_sequences(
    page: Paged,
    model: Model,
    corpus: str | None = None,
    contains: Annotated[
        str | None,
        Query(min_length=1, max_length=1_000, description="Anywhere in the text; A is a."),
    ] = None,
    token: Annotated[
        str | None,
        Query(min_length=1, max_length=1_000, description="A token that the sequence holds."),
    ] = None,
    filter: Filters = None,
    sort: Sort = None,
) -> Response:
    """Sequences without their images; `text` is cut to 200 characters.

    `filter` and `sort` take corpus, source, row, n_tokens, truncated, sequence_id and labels as
    `label.<name>`. `n_matches`, and X-Total-Rows, count the sequences of all pages.
    """
    wanted = Wanted(corpus, contains, token, tuple(read_filters(filter)), tuple(sort or ()))
    most = page.settings.scan_bytes
    return page.reply_matches(
        lambda limit, offset: find_sequences(page.atlas, model, wanted, limit, offset, most)
    )


@router.get(
    "/sequences/{sequence_id}",
    response_class=Response,
    summary="One sequence",
    responses=shown_page(SEQUENCE),
)
def get_sequence(reading: Whole, model: Model, sequence_id: SequenceId) -> Response:
    """One sequence with its whole text and its labels; the image has a URL of its own."""
    found = read_sequence(reading.atlas, model, sequence_id)
    return reading.reply_rows(found.drop_columns("image"))


@router.get(
    "/sequences/{sequence_id}/image",
    response_class=Response,
    summary="The image of a sequence",
    responses={200: {"content": {PNG: {}}}},
)
def get_image(request: Request, model: Model, sequence_id: SequenceId) -> Response:
    """The pixels that the model saw, as PNG."""
    choose_media_type(request, [PNG])
    version, atlas = request.app.state.service.current
    check_changed(request, version)
    image = read_sequence(atlas, model, sequence_id)["image"][0].as_py()
    if image is None:
        raise NotInAtlasError(f"sequence {sequence_id} of {model} is text and has no image")
    return finish(request, image, PNG, version)


@router.get(
    "/sequences/{sequence_id}/tokens",
    response_class=Response,
    summary="The tokens of a sequence",
    responses=shown_page(FOUND),
)
def get_tokens(page: Paged, model: Model, sequence_id: SequenceId) -> Response:
    """Every column of the tokens of a sequence, by position."""
    found = page.atlas.tokens(model, [sequence_id])
    if not found.num_rows:
        list_sequences(page.atlas, model, sequence_ids=[sequence_id])  # says if there is none
    return page.reply_slice(found)


@router.get(
    "/tokens/search",
    response_class=Response,
    summary="Where a token stands",
    responses=shown_page(FOUND),
)
def get_places(
    page: Paged, model: Model, text: Text, match: How = "exact", case: Case = True
) -> Response:
    """Every token that matches a text, by sequence and position."""
    return page.reply_page(
        lambda limit, offset: search_tokens(page.atlas, model, text, match, case, limit, offset)
    )


@router.get(
    "/tokens/count",
    response_class=Response,
    summary="How often tokens occur",
    responses=shown_page({"token": "python", "n": 118}),
)
def get_counts(
    page: Paged, model: Model, text: Text, match: How = "exact", case: Case = True
) -> Response:
    """The distinct tokens that match a text, most frequent first."""
    return page.reply_slice(count_tokens(page.atlas, model, text, match, case))
