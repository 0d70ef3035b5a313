"""What Embedding Atlas asks of a session over a real process, and the answers that it reads."""

from collections.abc import Iterator
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from tests.api.fake_viewer import PAGE
from tests.api.small_app import POINTS, error_of
from tests.api.viewer_client import COLOUR, COUNT, ask, open_session, rows_of, viewer_client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with viewer_client(tmp_path_factory.mktemp("viewer")) as made:
        yield made


@pytest.fixture(scope="module")
def session(client: TestClient) -> str:
    """One that all tests share, which leave its table as it is but for colours."""
    return open_session(client)


def test_the_metadata_name_columns_of_the_table(client: TestClient, session: str) -> None:
    said = client.get(f"{session}data/metadata.json").json()
    assert said["database"] == {"type": "rest"}
    data = said["props"]["data"]
    columns = {row["column_name"] for row in rows_of(client, session, f"DESCRIBE {data['table']}")}
    named = {data["id"], data["text"], data["neighbors"], *data["projection"].values()}
    assert named <= columns


def test_the_page_of_the_viewer_opens_under_its_policy(client: TestClient, session: str) -> None:
    reply = client.get(session)
    assert reply.content == PAGE
    policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    script = client.get(f"{session}assets/index.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert "immutable" in script.headers["cache-control"]
    assert client.get(f"{session}assets/a.wasm").headers["content-type"] == "application/wasm"


def test_an_address_without_its_slash_leads_to_the_page(client: TestClient, session: str) -> None:
    reply = client.get(session.rstrip("/"), follow_redirects=False)
    assert reply.headers["location"] == session.rstrip("/").rpartition("/")[2] + "/"


def test_an_address_leads_to_no_other_host(client: TestClient) -> None:
    reply = client.get("/atlas/s/https:evil.example", follow_redirects=False)
    assert (reply.status_code, reply.headers.get("location")) == (410, None)


@pytest.mark.parametrize(
    "path",
    ["%2e%2e/about/METADATA", "..%2f..%2fsecret.csv", "%2fetc/passwd", "none", "a%00b", "assets"],
)
def test_no_file_beside_the_site_is_given(client: TestClient, session: str, path: str) -> None:
    reply = client.get(f"{session}{path}")
    assert reply.status_code in (400, 404)
    assert b"canary" not in reply.content


def test_a_query_answers_in_each_form(client: TestClient, session: str) -> None:
    sql = "SELECT x::FLOAT AS x, y::FLOAT AS y FROM dataset ORDER BY id"
    table = pa.ipc.open_stream(ask(client, session, sql, "arrow").content).read_all()
    assert table.num_rows == POINTS
    assert table.to_pylist() == rows_of(client, session, sql)
    assert ask(client, session, sql, "exec").json() == {}
    query = '{"type":"json","sql":"SELECT count(*) AS n FROM dataset","persist":true}'
    assert client.get(f"{session}data/query", params={"query": query}).json() == [{"n": POINTS}]


def test_neighbours_of_a_point_are_of_the_other_kind(client: TestClient, session: str) -> None:
    (found,) = rows_of(client, session, 'SELECT "neighbors" AS "knn" FROM "dataset" WHERE "id" = 3')
    ids, distances = found["knn"]["ids"], found["knn"]["distances"]
    assert len(ids) == 10
    assert distances == sorted(distances)
    listed = ", ".join(map(str, [3, *ids]))
    kinds = rows_of(client, session, f"SELECT id, kind FROM dataset WHERE id IN [{listed}]")
    assert {row["kind"] for row in kinds if row["id"] == 3}.isdisjoint(
        row["kind"] for row in kinds if row["id"] != 3
    )


def test_a_colour_by_is_written_and_read(client: TestClient, session: str) -> None:
    for _ in range(2):
        assert ask(client, session, COLOUR, "exec").json() == {}
    assert rows_of(client, session, COUNT) == [
        {"index": 1, "count": 15},
        {"index": 2, "count": 15},
    ]


def test_a_selection_comes_as_a_file(client: TestClient, session: str) -> None:
    def save(format: str, predicate: str | None = "id < 4 -- few") -> bytes:
        asked = {"predicate": predicate, "format": format}
        reply = client.post(f"{session}data/selection", json=asked)
        assert reply.status_code == 200, reply.text
        return bytes(reply.content)

    assert pq.read_table(BytesIO(save("parquet"))).num_rows == 4
    assert pq.read_table(BytesIO(save("parquet", None))).num_rows == POINTS
    assert len(save("jsonl").splitlines()) == 4
    assert save("json").startswith(b"[")
    assert save("csv").count(b'"{""ids"":') == 4


def test_the_whole_table_comes_as_parquet(client: TestClient, session: str) -> None:
    url = f"{session}data/dataset.parquet"
    reply = client.get(url)
    assert pq.read_table(BytesIO(reply.content)).num_rows == POINTS
    assert client.head(url).headers["content-length"] == str(len(reply.content))


def test_notes_of_the_viewer_are_kept_and_bounded(client: TestClient, session: str) -> None:
    url = f"{session}data/cache"
    assert client.get(f"{url}/a").status_code == 404
    assert client.post(f"{url}/a", json={"b": [1]}).status_code == 200
    assert client.get(f"{url}/a").json() == {"b": [1]}
    assert client.post(f"{url}/a", content=b"{").status_code == 400
    assert client.post(f"{url}/{'n' * 201}", json=1).status_code == 400
    for number in range(12):
        client.post(f"{url}/n{number}", json="x" * 900_000)
    kept = [client.get(f"{url}/n{number}").status_code for number in range(12)]
    assert kept == [404] * 4 + [200] * 8


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"type":"arrow"}', b'{"type":"sql","sql":"SELECT 1"}', b"\xff"]
)
def test_a_request_that_is_none_is_refused(client: TestClient, session: str, body: bytes) -> None:
    reply = client.post(f"{session}data/query", content=body)
    assert error_of(reply)[:2] == (400, "bad_request")
