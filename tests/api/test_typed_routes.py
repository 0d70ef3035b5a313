import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from api.replies import ARROW
from store.atlas import Atlas
from store.head_attention import read_attention
from tests.api.small_app import POINTS, build_mapped_atlas, error_of, get_rows, running_app

HEAD = "/v1/models/tiny/layers/0/heads/0"
TABLES = (
    "/v1/schema",
    "/v1/models",
    "/v1/heads",
    "/v1/maps",
    "/v1/maps/m0/points",
    "/v1/models/tiny/sequences",
    "/v1/models/tiny/sequences/0",
    "/v1/models/tiny/sequences/0/tokens",
    f"{HEAD}/mean_attention",
    "/v1/models/tiny/layers/0/attention?sequence_id=0",
    f"{HEAD}/nearest_keys?sequence_id=0&position=1",
    f"{HEAD}/nearest_queries?sequence_id=0&position=1",
    "/v1/models/tiny/tokens/search?text=t1",
    "/v1/models/tiny/tokens/count?text=t&match=prefix",
)
DOCUMENTS = ("/v1", f"{HEAD}/attention?sequence_id=0", "/v1/models/tiny/matrix?method=pca")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_mapped_atlas(tmp_path_factory.mktemp("atlas"))


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[TestClient]:
    with running_app(root) as client:
        yield client


def get_arrow(client: TestClient, url: str) -> pa.Table:
    reply = client.get(url, headers={"Accept": ARROW})
    assert (reply.status_code, reply.headers["content-type"]) == (200, ARROW), reply.text
    return pa.ipc.open_stream(reply.content).read_all()


@pytest.mark.parametrize("url", TABLES)
def test_every_table_comes_as_json_and_as_arrow(client: TestClient, url: str) -> None:
    reply, table = client.get(url), get_arrow(client, url)
    said = reply.json()
    assert said["n_rows"] == len(said["rows"]) == table.num_rows == int(reply.headers["x-rows"]) > 0
    assert said["version"] == reply.headers["x-atlas-version"]
    assert [list(row) for row in said["rows"]] == [table.column_names] * table.num_rows
    assert reply.headers["etag"] == f'W/"{said["version"]}"'
    assert "Accept, Accept-Encoding" in reply.headers["vary"]


@pytest.mark.parametrize("url", DOCUMENTS)
def test_every_document_comes_as_json_and_as_arrow(client: TestClient, url: str) -> None:
    said, table = client.get(url).json(), get_arrow(client, url)
    assert (list(said), table.num_rows) == (table.column_names, 1)


@pytest.mark.parametrize("url", [*TABLES, *DOCUMENTS])
def test_every_read_honours_if_none_match_and_refuses_other_forms(
    client: TestClient, url: str
) -> None:
    etag = client.get(url).headers["etag"]
    unchanged = client.get(url, headers={"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["etag"] == etag
    refused = client.get(url, headers={"Accept": "text/html"})
    assert error_of(refused)[:2] == (406, "not_acceptable")


@pytest.mark.parametrize(
    "url",
    [
        "/v1/heads",
        "/v1/maps/m0/points",
        "/v1/maps/m0/points?filter=kind:=:key",
        "/v1/models/tiny/sequences",
        "/v1/models/tiny/tokens/search?text=t&match=prefix",
    ],
)
def test_pages_one_after_the_other_hold_every_row_once(client: TestClient, url: str) -> None:
    whole = get_rows(client, url)
    found, follow = [], f"{url}{'&' if '?' in url else '?'}limit=4"
    while follow:
        reply = client.get(follow)
        found += reply.json()["rows"]
        link = reply.headers.get("link", "")
        cursor = reply.headers.get("x-next-cursor")
        assert reply.json()["next"] == cursor
        assert bool(link) == bool(cursor)
        follow = f"{url.partition('?')[0]}{link[1 : link.index('>')]}" if link else ""
    assert found == whole


def test_a_page_that_ends_with_the_rows_has_no_next(client: TestClient) -> None:
    said = client.get(f"/v1/maps/m0/points?limit={POINTS}").json()
    assert (said["n_rows"], said["next"]) == (POINTS, None)


def test_heads_are_filtered_and_sorted(client: TestClient) -> None:
    rows = get_rows(client, "/v1/heads?model=tiny&filter=head:<:2&filter=layer:in:1&sort=-head")
    assert [(row["layer"], row["head"]) for row in rows] == [(1, 1), (1, 0)]


def test_maps_show_parts_that_are_not_drawn_only_when_asked(client: TestClient) -> None:
    urls = ("/v1/maps?filter=score_spearman:<:0", "/v1/maps?every_part=true&sort=-head")
    drawn, every = (get_rows(client, url) for url in urls)
    assert [row["map_id"] for row in drawn] == ["m0", "m1", "m2", "m3"]
    assert [row["map_id"] for row in every] == ["m3", "m2", "m1", "m0"]


def test_points_come_with_chosen_columns_in_a_box_by_rank(client: TestClient) -> None:
    url = "/v1/maps/m0/points?columns=rank,x,token,kind&box=0,9.5,-100,0&filter=kind:=:key"
    rows = get_rows(client, url)
    assert list(rows[0]) == ["rank", "x", "token", "kind"]
    assert {row["kind"] for row in rows} == {"key"}
    assert all(row["x"] <= 9.5 and row["token"].startswith("t") for row in rows)
    few = get_rows(client, "/v1/maps/m0/points?max_points=7")
    assert [row["rank"] for row in few] == list(range(7))


def test_the_matrix_holds_the_points_of_every_map(client: TestClient, root: Path) -> None:
    said = client.get("/v1/models/tiny/matrix?method=pca&max_points=10").json()
    assert (said["n_points"], len(said["tokens"]), len(said["heads"])) == (10, 10, 8)
    head = said["heads"][2]
    steps = np.frombuffer(base64.b64decode(head["points"]), "<u2").reshape(10, 2)
    low, high = np.array(head["low"]), np.array(head["high"])
    found = low + steps / 65_535 * (high - low)
    names = ("kind", "sequence_id", "position")
    points = {
        tuple(row[name] for name in names): (row["x"], row["y"])
        for row in get_rows(client, "/v1/maps/m2/points")
    }
    expected = [points[tuple(token[name] for name in names)] for token in said["tokens"]]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert said["heads"][7]["points"] is None and said["heads"][7]["missing"]


def test_attention_is_what_the_store_computes(client: TestClient, root: Path) -> None:
    url = f"{HEAD}/attention?sequence_id=0&weight=value_norm&hidden=1,3&hide_special=true"
    said = client.get(url).json()
    with Atlas(str(root)) as atlas:
        expected = read_attention(atlas, "tiny", 0, 0, 0, "value_norm", [1, 3], True)
    np.testing.assert_array_equal(said["weights"], expected.weights)
    assert said["keys"] == expected.keys.to_pylist()
    weights = get_arrow(client, url)["weights"][0].as_py()
    np.testing.assert_array_equal(weights, expected.weights)


def test_attention_comes_in_pieces_that_make_the_whole(client: TestClient) -> None:
    url = f"{HEAD}/attention?sequence_id=0&hidden=1"
    whole = client.get(url).json()
    pieces = [client.get(f"{url}&first_query={n}&n_queries=2").json() for n in (0, 2, 4, 6)]
    assert [len(piece["weights"]) for piece in pieces] == [2, 2, 1, 0]
    assert [row for piece in pieces for row in piece["queries"]] == whole["queries"]
    assert all(piece["keys"] == whole["keys"] for piece in pieces)
    rows = [row for piece in pieces for row in piece["weights"]]
    np.testing.assert_allclose(rows, whole["weights"], atol=1e-14)


def test_attention_that_no_reply_could_hold_is_refused_with_the_piece_that_fits(
    root: Path,
) -> None:
    url = f"{HEAD}/attention?sequence_id=0"
    with running_app(root, max_bytes=128) as client:
        status, kind, message = error_of(client.get(url))
        assert (status, kind) == (413, "over_limit")
        assert "5 queries to 5 keys" in message and "at most 3 of its queries" in message
        assert client.get(f"{url}&first_query=1&n_queries=3").status_code == 200
    with running_app(root, max_bytes=32) as client:
        assert "ask SQL" in error_of(client.get(f"{url}&n_queries=1"))[2]


def test_pictures_of_a_layer_are_the_attention_of_each_head(client: TestClient) -> None:
    url = "/v1/models/tiny/layers/0/attention?sequence_id=0"
    rows = get_rows(client, url)
    assert [row["head"] for row in rows] == [0, 1, 2, 3]
    for row in rows:
        whole = client.get(f"/v1/models/tiny/layers/0/heads/{row['head']}/attention?sequence_id=0")
        cells = np.frombuffer(base64.b64decode(row["weights"]), np.uint8)
        expected = np.rint(255 * np.array(whole.json()["weights"]))
        np.testing.assert_array_equal(cells.reshape(row["n_rows"], row["n_columns"]), expected)
    table = get_arrow(client, f"{url}&max_side=2")
    assert table["n_rows"].to_pylist() == [2] * 4 and table.schema.field("weights").type == "binary"


def test_pictures_over_the_limit_are_refused_with_it(root: Path) -> None:
    with running_app(root, scan_bytes=100) as client:
        refused = client.get("/v1/models/tiny/layers/0/attention?sequence_id=0")
    assert error_of(refused)[:2] == (413, "over_limit")
    assert "4 heads over 5 queries and 5 keys is 800 bytes, allowed are 100" in refused.text


def test_norms_come_where_asked_and_texts_once_where_asked(client: TestClient, root: Path) -> None:
    url = "/v1/maps/m0/points?columns=kind,token,norm"
    rows, table = get_rows(client, f"{url}&dictionary=true"), get_arrow(client, url)
    coded = get_arrow(client, f"{url}&dictionary=true")
    assert coded.schema.field("token").type == pa.dictionary(pa.int32(), pa.string())
    decoded = pa.table(
        [
            column.cast(field.type)
            for column, field in zip(coded.columns, table.schema, strict=True)
        ],
        schema=table.schema,
    )
    assert decoded.equals(table)
    np.testing.assert_allclose([row["norm"] for row in rows], table["norm"], rtol=1e-6)
    assert [row["token"] for row in rows] == table["token"].to_pylist()
    assert error_of(client.get("/v1/maps/m0/points?filter=norm:>:1"))[:2] == (400, "bad_query")
    with running_app(root, scan_bytes=10) as small:
        # Kept norms are given whatever the limit; this map's were not asked for.
        refused = small.get("/v1/maps/m1/points?columns=norm")
        assert error_of(refused)[:2] == (413, "over_limit")
        assert small.get("/v1/maps/m1/points").status_code == 200


def test_sequences_are_searched_filtered_sorted_and_counted(client: TestClient) -> None:
    url = "/v1/models/tiny/sequences"
    said = client.get(f"{url}?limit=2")
    whole = get_rows(client, url)
    assert said.json()["n_matches"] == len(whole) == int(said.headers["x-total-rows"])
    asked = f"{url}?contains=GR%C3%BC&filter=n_tokens:>:3&sort=-n_tokens&token=t1&limit=1"
    found, follow = [], asked
    expected = sorted(
        (r for r in whole if r["n_tokens"] > 3), key=lambda r: (-r["n_tokens"], r["sequence_id"])
    )
    while follow:
        reply = client.get(follow)
        found += reply.json()["rows"]
        assert reply.json()["n_matches"] == len(expected) > 1
        link = reply.headers.get("link", "")
        follow = f"{url}{link[1 : link.index('>')]}" if link else ""
    assert found == expected


def test_a_search_of_sequences_over_the_limit_is_refused(root: Path) -> None:
    with running_app(root, scan_bytes=10) as client:
        for asked in ("contains=x", "token=t1"):
            refused = client.get(f"/v1/models/tiny/sequences?{asked}")
            assert error_of(refused)[:2] == (413, "over_limit")
            assert "SQL" in error_of(refused)[2]
        assert client.get("/v1/models/tiny/sequences?sort=-row").status_code == 200


def test_a_scan_over_the_limit_is_refused_with_the_limit(root: Path) -> None:
    with running_app(root, scan_bytes=10) as client:
        reply = client.get(f"{HEAD}/nearest_keys?sequence_id=0&position=1")
    assert error_of(reply)[:2] == (413, "over_limit")
    assert "10" in error_of(reply)[2]


def test_nearest_are_as_many_as_asked_best_first(client: TestClient) -> None:
    rows = get_rows(client, f"{HEAD}/nearest_keys?sequence_id=0&position=1&k=5")
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True) and len(scores) == 5


def test_a_sequence_shows_its_text_and_not_its_image(client: TestClient) -> None:
    (row,) = get_rows(client, "/v1/models/tiny/sequences/0")
    assert (row["text"], row["labels"]) == ("grüße", {"class": "cat"})
    assert "image" not in row


def test_a_text_has_no_image(client: TestClient) -> None:
    url = "/v1/models/tiny/sequences/0/image"
    assert error_of(client.get(url))[2] == "sequence 0 of tiny is text and has no image"
    assert client.get(url, headers={"Accept": "application/json"}).status_code == 406


def test_an_image_comes_as_png(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    row = pa.table({"image": pa.array([b"\x89PNG" + b"x" * 5_000], pa.binary())})
    monkeypatch.setattr("api.sequence_routes.read_sequence", lambda *_: row)
    reply = client.get("/v1/models/tiny/sequences/0/image", headers={"Accept": "image/*"})
    assert reply.headers["content-type"] == "image/png"
    assert reply.content == row["image"][0].as_py()


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("/v1/models/nope/sequences", 404, "nearest: tiny"),
        ("/v1/maps/nope/points", 404, "nope"),
        ("/v1/models/tiny/sequences/99", 404, "no sequence 99"),
        ("/v1/models/tiny/sequences/99/tokens", 404, "no sequence 99"),
        ("/v1/models/tiny/layers/9/heads/0/attention?sequence_id=0", 404, "layers 0, 1"),
        ("/v1/heads?filter=entropi:<:1", 400, "nearest"),
        ("/v1/heads?filter=head:like:1", 400, "operator"),
        ("/v1/heads?filter=head", 400, "column:operator:value"),
        ("/v1/heads?sort=nope", 400, "no column 'nope'"),
        ("/v1/heads?limit=0", 400, "query.limit"),
        ("/v1/heads?limit=1000001", 400, "query.limit"),
        ("/v1/heads?cursor=xyz", 400, "no such cursor"),
        ("/v1/maps/m0/points?box=1,2,3", 400, "x0,x1,y0,y1"),
        ("/v1/maps/m0/points?box=1,a,2,3", 400, "x0,x1,y0,y1"),
        ("/v1/maps/m0/points?columns=nope", 400, "no column 'nope'"),
        ("/v1/models/tiny/matrix?method=umap", 404, "no umap map"),
        ("/v1/models/tiny/matrix", 400, "query.method"),
        (f"{HEAD}/attention?sequence_id=0&hidden=a", 400, "positions between commas"),
        (f"{HEAD}/attention?sequence_id=0&hidden=77", 400, "77"),
        (f"{HEAD}/attention?sequence_id=-1", 400, "query.sequence_id"),
        ("/v1/models/tiny/tokens/search?text=", 400, "query.text"),
        ("/v1/nope", 404, "/v1 lists where to go"),
    ],
)
def test_wrong_requests_are_told_what_to_do(
    client: TestClient, url: str, status: int, said: str
) -> None:
    found, _, message = error_of(client.get(url))
    assert found == status
    assert said in message


def test_a_wrong_method_is_told_the_right_one(client: TestClient) -> None:
    reply = client.post("/v1/models")
    assert (reply.status_code, reply.headers["allow"]) == (405, "GET")


def test_openapi_shows_an_example_of_each_read(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    reads: dict[str, Any] = {
        path: methods["get"]
        for path, methods in described["paths"].items()
        if path.startswith("/v1") and "/sql" not in path and not path.endswith("/image")
    }
    assert len(reads) == len(TABLES) + len(DOCUMENTS)
    for path, read in reads.items():
        content = read["responses"]["200"]["content"]
        assert content["application/json"]["example"], path
        assert ARROW in content
        assert read["summary"] and read["description"]
    assert described["servers"] == [{"url": "."}]


@pytest.mark.parametrize("url", [*TABLES, *DOCUMENTS])
def test_examples_have_fields_that_replies_have(client: TestClient, url: str) -> None:
    described = client.get("/openapi.json").json()["paths"]
    path = url.partition("?")[0].replace("tiny", "{model}").replace("layers/0", "layers/{layer}")
    path = path.replace("heads/0", "heads/{head}").replace("sequences/0", "sequences/{sequence_id}")
    route = described[path.replace("maps/m0", "maps/{map_id}")]["get"]
    example = route["responses"]["200"]["content"]["application/json"]["example"]
    said = client.get(url).json()
    assert example.keys() == said.keys()
    if "rows" in said and path != "/v1/heads":  # whose measures this atlas lacks
        assert example["rows"][0].keys() <= said["rows"][0].keys()


def test_no_route_is_outside_the_description(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]
    assert {"/healthz", "/readyz", "/metrics", "/v1/sql", "/v1/sql/{id}"} <= described.keys()
    assert client.get("/docs").status_code == 404
