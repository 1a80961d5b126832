"""Every page for every scope: it renders, keeps to the policy, names its fields, and shows only what may be seen."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import delete

from fn3hw.service.api.app import POLICY
from fn3hw.service.api.shared import Parts
from fn3hw.service.models import Device, Job, JobFile, Network, Profile, Run, Search, Worker
from fn3hw.service.tokens import SCOPES

from .conftest import Browsers
from .reading import Reader
from .rows import OTHER, PROFILE, RUN, SEARCH, Shown, fill

PAGES = (
    "/",
    "/runs",
    f"/runs/{RUN}",
    f"/runs/{RUN}?search={OTHER}",
    f"/runs/{RUN}?search={SEARCH}&beside={OTHER}&latency_ms=0.03",
    f"/runs/{RUN}?latency_ms=0.000001",
    f"/runs/{RUN}?point=3",
    f"/searches/{SEARCH}/points/3",
    f"/searches/{SEARCH}/points/290",
    f"/searches/{SEARCH}/lookup?size_mib=1",
    f"/profiles/{PROFILE}",
    f"/profiles/{PROFILE}/curves",
    "/devices",
    "/devices/local",
    "/devices/pi5",
    "/devices/phone",
    "/jobs",
    "/jobs?state=failed",
    "/jobs?device=nothing",
    "/comparisons",
    *(f"/jobs/{job}" for job in ("train-1", "check-2", "profile-3", "search-4", "export-5", "compare-6", "export-7")),
    "/jobs/profile-3/now",
    "/comparisons/compare-6",
)


def test_every_page_for_every_scope(browsers: Browsers, shown: Shown) -> None:
    for address in PAGES:
        for scope in SCOPES:
            answer = browsers[scope].get(address)
            assert answer.status_code == 200, (address, scope, answer.text)
            assert answer.headers["content-security-policy"] == POLICY
            reader = Reader(answer.text)
            assert reader.problems() == [], (address, scope)
            forms = [form for form in reader.find("form", method="post") if form["action"] != "/logout"]
            assert not forms or scope != "read", address
            assert ("ssh pi@pi5.local" in answer.text) == (scope == "admin" and address in ("/devices", "/devices/pi5"))


def test_all_else_is_sent_to_the_login(browsers: Browsers, shown: Shown) -> None:
    for address in PAGES:
        answer = browsers["none"].get(address)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?next=%2F")
    assert browsers["none"].get("/static/pages.css").status_code == 200


@pytest.mark.parametrize("scope", SCOPES)
def test_an_empty_server_says_what_to_do_next(browsers: Browsers, scope: str) -> None:
    for address in ("/", "/runs", "/devices", "/devices/local", "/jobs", "/comparisons"):
        answer = browsers[scope].get(address)
        assert answer.status_code == 200
        assert Reader(answer.text).problems() == []
        assert 'class="empty"' in answer.text


def test_no_device_at_all(browsers: Browsers, parts: Parts) -> None:
    with parts.database.session() as session:
        session.execute(delete(Device))
    assert "Add one below" in browsers["admin"].get("/devices").text
    assert "An administrator can add one" in browsers["read"].get("/devices").text


def test_a_run_without_searches_leads_on(browsers: Browsers, parts: Parts, shown: Shown) -> None:
    with parts.database.session() as session:
        session.execute(delete(Search))
    page = browsers["submit"].get(f"/runs/{RUN}").text
    assert "start a search below" in page
    assert Reader(page).problems() == []


def test_a_network_without_a_run_can_be_profiled(browsers: Browsers, parts: Parts, shown: Shown) -> None:
    assert "without a run" not in browsers["submit"].get("/runs").text
    with parts.database.session() as session:
        session.execute(delete(Search))
        session.execute(delete(Run))
    page = browsers["submit"].get("/runs").text
    assert "Networks without a run" in page and "network-1" in page and Reader(page).problems() == []
    page = browsers["submit"].get("/").text
    assert '<option value="network-1"' in page and Reader(page).problems() == []
    assert browsers["read"].get(f"/profiles/{PROFILE}").status_code == 200


def test_hostile_names_are_text(browsers: Browsers, parts: Parts) -> None:
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}"
    shown = fill(parts, name=hostile)
    with parts.database.session() as session:
        for row in (*session.query(Job), *session.query(Network), *session.query(Worker)):
            for name in ("name", "log", "worker"):
                if isinstance(getattr(row, name, None), str) and not (name == "name" and isinstance(row, Worker)):
                    setattr(row, name, hostile[:60])
        for job in session.query(Job):
            job.parameters = {**job.parameters, "settings": {hostile: hostile}}
            job.error = {"message": hostile, "hint": hostile, "code": hostile}
            job.progress = {"progress": hostile, "done": 1, "total": 2, "seconds_left": 1, "note": hostile, "at": ""}
        device = session.get(Device, "pi5")
        assert device is not None
        device.command, device.verdict = hostile, "stable"
        device.health = {"findings": [{"what": hostile, "fix": hostile}], "device": {"cpu_model": hostile}}
    for address in PAGES:
        page = browsers["admin"].get(address).text
        reader = Reader(page)
        assert reader.problems() == [], address
        assert "<script>alert" not in page
        assert "49" not in reader.find("title")
        assert not reader.find("img", src="x")
    assert "<script>alert(1)</script>" in Reader(browsers["read"].get(f"/runs/{RUN}").text).text
    assert shown.jobs


def test_errors_are_pages_for_browsers_and_json_for_programs(browsers: Browsers, shown: Shown) -> None:
    for address in ("/runs/none", "/nothing", "/searches/none/points.json", f"/runs/{RUN}?search=none", "/profiles/x"):
        answer = browsers["read"].get(address)
        assert answer.status_code == 404, address
        assert Reader(answer.text).problems() == []
        assert "There is no" in answer.text or "nothing at this address" in answer.text or "no search" in answer.text
    wrong = browsers["read"].get(f"/runs/{RUN}?latency_ms=much")
    assert wrong.status_code == 422
    assert "positive number" in wrong.text
    for address in ("/v1/nothing", "/v1/runs/none"):
        assert browsers["read"].get(address).json()["error"]["code"] in ("not-found", "no-route")
    program = browsers["read"].get("/nothing", headers={"Accept": "application/json"})
    assert program.json()["error"]["code"] == "no-route"
    part = browsers["read"].get("/runs/none", headers={"HX-Request": "true", "Accept": "*/*"})
    assert "<html" not in part.text
    assert "There is no run" in part.text


def test_points_are_columns_in_the_order_of_the_atlas(browsers: Browsers, shown: Shown) -> None:
    answer = browsers["read"].get(f"/searches/{SEARCH}/points.json")
    assert answer.headers["content-encoding"] == "gzip"
    columns = answer.json()
    points = [*shown.atlas.points, *shown.atlas.dominated]
    assert columns["front"] == len(shown.atlas.points)
    assert len(columns["accuracy"]) == len(points)
    assert columns["costs"]["latency_ms"] == pytest.approx([point.latency_ms for point in points], rel=1e-5)
    assert columns["accuracy"] == pytest.approx([point.accuracy for point in points], rel=1e-5)
    again = browsers["read"].get(f"/searches/{SEARCH}/points.json", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    plain = browsers["read"].get(f"/searches/{SEARCH}/points.json", headers={"Accept-Encoding": "identity"})
    assert plain.json() == columns


def test_a_point_is_that_of_its_place(browsers: Browsers, shown: Shown) -> None:
    points = [*shown.atlas.points, *shown.atlas.dominated]
    for number in (0, 5, len(points) - 1):
        page = browsers["read"].get(f"/searches/{SEARCH}/points/{number}").text
        assert f'<code class="subnet" data-subnet>{points[number].subnet.id}</code>' in page
        assert len(Reader(page).find("meter")) == len(shown.profile.space)
    assert browsers["read"].get(f"/searches/{SEARCH}/points/{len(points)}").status_code == 404


def test_a_lookup_answers_as_the_api_does(browsers: Browsers, shown: Shown) -> None:
    for query in ("latency_ms=0.03", "size_mib=1", "latency_ms=0.04&peak_mib=70"):
        found = browsers["read"].get(f"/v1/atlases/{SEARCH}/lookup?{query}").json()["subnet"]
        page = browsers["read"].get(f"/searches/{SEARCH}/lookup?{query}", headers={"HX-Request": "true"}).text
        assert f">{found}</code>" in page
        assert "<html" not in page
    refused = browsers["read"].get(f"/searches/{SEARCH}/lookup?latency_ms=0.000001").text
    assert "No subnet meets this" in refused
    assert "Ask for latency_ms of at least" in refused


def test_an_export_of_a_point_is_asked_for_under_budgets_that_it_answers(browsers: Browsers, shown: Shown) -> None:
    for number in range(0, len(shown.atlas.points), 7):
        reader = Reader(browsers["submit"].get(f"/searches/{SEARCH}/points/{number}").text)
        names = ("latency_ms", "peak_mib", "size_mib")
        hidden = {
            one["name"]: float(one["value"]) for one in reader.find("input", type="hidden") if one["name"] in names
        }
        assert shown.atlas.lookup(**hidden).subnet == shown.atlas.points[number].subnet


def test_what_was_exported_is_shown_with_its_subnet(browsers: Browsers, parts: Parts, shown: Shown) -> None:
    with parts.database.session() as session:
        job = session.get(Job, shown.jobs["export"])
        assert job is not None and job.result is not None
        subnet, file = job.result["subnet"], session.get(JobFile, (job.id, "model.onnx"))
        assert file is not None
        digest = file.sha256
    number = [point.subnet.id for point in shown.atlas.points].index(subnet)
    page = browsers["read"].get(f"/searches/{SEARCH}/points/{number}").text
    assert "Measured:" in page
    assert f"/v1/artifacts/{digest}?name=model.onnx" in page


def test_curves_are_the_cost_model_s(browsers: Browsers, shown: Shown) -> None:
    from fn3hw.cost import fit_cost

    cost = fit_cost(shown.profile)
    found = browsers["read"].get(f"/profiles/{PROFILE}/curves.json").json()
    assert [gate["name"] for gate in found["gates"]] == [gate.name for gate in cost.space]
    for gate in found["gates"]:
        expected = cost.curve(gate["name"])
        assert gate["counts"] == list(expected.index)
        assert gate["latency_ms"] == pytest.approx(expected.to_list(), rel=1e-5)
        assert all(low <= high for low, high in zip(gate["latency_ms_low"], gate["latency_ms_high"], strict=True))


def test_a_comparison_has_its_methods(browsers: Browsers, shown: Shown) -> None:
    found = browsers["read"].get(f"/comparisons/{shown.jobs['compare']}/curves.json").json()["methods"]
    assert [one["name"] for one in found] == ["fn3hw", "random", "optuna-tpe", "evolution"]
    assert all(len(one["evaluations"]) == len(one["mean"]) > 10 for one in found)
    assert all(len(one["budgets"]["budget"]) == 10 for one in found)
    assert browsers["read"].get(f"/comparisons/{shown.jobs['train']}").status_code == 404


def test_jobs_are_paged_and_filtered(browsers: Browsers, parts: Parts, shown: Shown) -> None:
    with parts.database.session() as session:
        for number in range(70):
            job = session.get(Job, shown.jobs["search"])
            assert job is not None
            values = {name: getattr(job, name) for name in Job.__mapper__.columns.keys()}  # noqa: SIM118
            session.add(Job(**{**values, "id": f"many-{number:02}"}))
    seen, address = [], "/jobs?kind=search"
    while address:
        reader = Reader(browsers["read"].get(address).text)
        seen += [link["href"] for link in reader.find("a") if link.get("href", "").startswith("/jobs/")]
        address = next((link["href"] for link in reader.find("a", rel="next")), "")
    assert len(seen) == len(set(seen)) == 71


def test_rows_that_others_made_without_files_are_shown(browsers: Browsers, parts: Parts, shown: Shown) -> None:
    with parts.database.session() as session:
        session.execute(delete(JobFile))
        for profile in session.query(Profile):
            profile.summary = {}
        for run in session.query(Run):
            run.job_id = None
    for address in PAGES:
        assert browsers["read"].get(address).status_code == 200, address
    assert "There is no report" in browsers["read"].get("/comparisons/compare-6").text


def test_the_configuration_of_htmx_keeps_to_the_policy(browsers: Browsers) -> None:
    given = Reader(browsers["none"].get("/login").text).find("meta", name="htmx-config")[0]["content"]
    settings = json.loads(given)
    assert not settings["allowEval"] and not settings["includeIndicatorStyles"] and not settings["allowScriptTags"]
    assert settings["selfRequestsOnly"] and settings["historyCacheSize"] == 0
