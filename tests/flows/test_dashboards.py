import io

import pytest
from rich.console import Console

from flows.dashboards import list_dashboards, show_dashboards


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_UI_URL", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_is_said_of_pages_that_are_not_known() -> None:
    file = io.StringIO()
    show_dashboards(Console(file=file))
    assert (list_dashboards(), file.getvalue()) == ({}, "")


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"PREFECT_API_URL": "http://127.0.0.1:4200/api"}, {"Prefect": "http://127.0.0.1:4200"}),
        ({"PREFECT_API_URL": "http://p:4200/api/"}, {"Prefect": "http://p:4200"}),
        (
            {"PREFECT_API_URL": "http://p:4200/api", "PREFECT_UI_URL": "https://prefect.example"},
            {"Prefect": "https://prefect.example"},
        ),
        ({"PREFECT_API_URL": "https://me:secret@p/api"}, {"Prefect": "https://p"}),
        ({"PREFECT_API_URL": "https://api.prefect.cloud/api/accounts/a/workspaces/w"}, {}),
        ({"RAY_API_SERVER_ADDRESS": "http://head:8265"}, {"Ray": "http://head:8265"}),
        ({"RAY_API_SERVER_ADDRESS": "head:8265"}, {"Ray": "http://head:8265"}),
    ],
)
def test_pages_follow_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], found: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert list_dashboards() == found


def test_what_ray_itself_says_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://old:8265")
    file = io.StringIO()
    show_dashboards(Console(file=file), "127.0.0.1:8265")
    assert file.getvalue() == "Ray: http://127.0.0.1:8265\n"
