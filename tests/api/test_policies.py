"""Policy over HTTP: told beforehand, and shown with every question."""

from tests.api.conftest import Api

EXPLAIN = "/v1/policies/explain"
STEPS = [
    {"key": "r", "type": "read_file", "input": {"path": "a.txt"}},
    {"key": "e", "type": "edit_file", "input": {"path": "a.txt", "content": ""}},
]


def test_a_plan_is_explained_by_the_rules_in_force(api: Api) -> None:
    told = api.post(EXPLAIN, {"steps": STEPS, "labels": {"team": "core"}})
    assert (told["policy_version"], told["allowed"], told["asked"], told["denied"]) == ("builtin-1", 1, 1, 0)
    assert [(step["key"], step["verdict"], step["rules"]) for step in told["steps"]] == [
        ("r", "allow", ["default:read_file"]),
        ("e", "ask", ["default:edit_file"]),
    ]
    assert api.post(EXPLAIN, {"plan": {"goal": "g", "steps": STEPS}})["asked"] == 1


def test_a_faulty_plan_is_told_by_field(api: Api) -> None:
    answer = api.post(EXPLAIN, {"steps": [{"type": "read_file", "input": {}}]}, expect=422)
    assert [one["field"] for one in answer["errors"]] == ["steps[0].input.path"]
    assert api.post(EXPLAIN, {}, expect=422)["errors"][0]["field"] == "plan"
    assert api.post(EXPLAIN, {"steps": STEPS, "policy": {}}, expect=422)["errors"][0]["field"] == "policy"


def test_a_question_shows_the_rule_and_the_version_it_stands_on(alone: Api) -> None:
    _, step = alone.asking()
    approval = alone.get(f"/v1/agent-runs/{step['run_id']}/steps/{step['id']}")["approval"]
    assert (approval["policy_version"], approval["matched_rules"]) == ("builtin-1", ["default:edit_file"])
    assert approval["rendering"]["policy"] == {"rules": ["default:edit_file"], "version": "builtin-1"}


def test_a_policy_that_is_sent_counts_at_once_and_is_kept(alone: Api) -> None:
    deny = {"name": "no-edits", "match": {"executor": "edit_file"}, "verdict": "deny"}
    body = {"policy": {"version": 1, "rules": [deny]}, "replaces": "builtin-1"}
    assert alone.post("/v1/policies", body, expect=401)["type"].endswith("local_secret_required")
    applied = alone.post("/v1/policies", body, expect=201, **alone.secret)
    assert (applied["current"], applied["source"], applied["created_by"]) == (True, "api", "local")
    assert alone.get("/v1/policies/current") == alone.get(f"/v1/policies/{applied['version'][:10]}") == applied
    assert alone.get("/v1/policies")["items"] == [{k: v for k, v in applied.items() if k != "document"}]
    assert alone.get("/health")["policy"] == {"version": applied["version"], "source": "api", "error": None}
    assert alone.post(EXPLAIN, {"steps": STEPS})["denied"] == 1
    run = alone.run([STEPS[1]], start=True)
    failed = alone.until(f"/v1/agent-runs/{run['id']}", lambda run: run["status"] == "failed")
    assert failed["steps"][0]["error"]["code"] == "denied"
    again = alone.post("/v1/policies", body | {"replaces": "0" * 64}, **alone.secret, expect=201)
    assert again["version"] == applied["version"]


def test_a_faulty_policy_is_refused_by_field_and_none_is_invented(quiet: Api) -> None:
    faulty = {"policy": {"version": 1, "rules": [{"name": "r", "match": {"path": "x"}, "verdict": "deny"}]}}
    answer = quiet.post("/v1/policies", faulty, expect=422, **quiet.secret)
    assert [one["field"] for one in answer["errors"]] == ["policy.rules[0].match.path"]
    assert quiet.get("/v1/policies") == {"items": [], "next_cursor": None}
    assert quiet.get("/v1/policies/builtin-1")["document"] == {"version": 1, "rules": []}
    for name in ("0" * 64, "nothing", "a" * 7):
        assert quiet.client.get(f"/v1/policies/{name}").status_code == 404
    assert quiet.client.get("/v1/policies", params={"cursor": "x"}).status_code == 422
