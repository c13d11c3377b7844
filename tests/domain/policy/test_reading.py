"""A policy file that is wrong anywhere counts nowhere, and says where."""

from typing import Any

import pytest

from stepgate.domain.errors import InvalidPolicy
from stepgate.domain.policy.reading import policy_of, read_policy

TYPES = ("read_file", "edit_file", "run_command")


def refused(raw: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidPolicy) as caught:
        policy_of(raw, TYPES)
    assert caught.value.reason_code == "invalid_policy"
    return [(problem.field, problem.message) for problem in caught.value.problems]


def document(**rule: Any) -> dict[str, Any]:
    return {"version": 1, "rules": [{"name": "r", "match": {}, "verdict": "ask", **rule}]}


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"rules": []}, "version"),
        ({"version": 2, "rules": []}, "version"),
        ({"version": 1}, "rules"),
        ({"version": 1, "rules": [], "default": "allow"}, "default"),
        (document(name="A b"), "rules[0].name"),
        (document(verdict="maybe"), "rules[0].verdict"),
        (document(verdict=None), "rules[0].verdict"),
        (document(match=None), "rules[0].match"),
        (document(match={"path": "a"}), "rules[0].match.path"),
        (document(match={"paths": []}), "rules[0].match.paths"),
        (document(match={"paths": ["/etc"]}), "rules[0].match.paths[0]"),
        (document(match={"touches": ["a", "../b"]}), "rules[0].match.touches[1]"),
        (document(match={"argv": []}), "rules[0].match.argv"),
        (document(match={"argv": ["git", 1]}), "rules[0].match.argv[1]"),
        (document(match={"argv": [{"glob": "a", "one_of": ["b"]}]}), "rules[0].match.argv[0]"),
        (document(match={"argv": ["git"], "rest": "some"}), "rules[0].match.rest"),
        (document(match={"rest": "any"}), "rules[0].match"),
        (document(match={"executable": "git"}), "rules[0].match.executable[0]"),
        (document(match={"executor": "run_comand"}), "rules[0].match.executor[0]"),
        (document(match={"sandbox_level": "full"}), "rules[0].match.sandbox_level[0]"),
        (document(match={"files_over": -1}), "rules[0].match.files_over"),
        (document(match={"labels": {"a": 1}}), "rules[0].match.labels.a"),
        (document(approvals={"preview": "yes"}), "rules[0].approvals.preview"),
        (document(approvals={"expires": "soon"}), "rules[0].approvals.expires"),
        (document(approvals={"count": 0}), "rules[0].approvals.count"),
        (document(verdict="deny", approvals={}), "rules[0]"),
        (document(verdict="allow", match={"files_over": 3}), "rules[0]"),
        (document(examples={"match": [{"path": "a"}]}), "rules[0].examples.match[0].executor"),
        (
            document(examples={"match": [{"executor": "x", "argv": ["a"], "command": "b"}]}),
            "rules[0].examples.match[0]",
        ),
        (document(examples={"match": [{"executor": "x", "path": "a/../b"}]}), "rules[0].examples.match[0].path"),
    ],
)
def test_a_fault_is_named_by_its_field(raw: Any, field: str) -> None:
    assert [found for found, _ in refused(raw)] == [field]


def test_all_faults_are_told_at_once() -> None:
    raw = {"version": 3, "rules": [{"name": "a", "match": {"x": 1}, "verdict": "ask"}, {"name": "b", "verdict": "ask"}]}
    assert [field for field, _ in refused(raw)] == ["version", "rules[0].match.x", "rules[1].match"]


def test_two_rules_of_one_name_are_refused() -> None:
    one = {"name": "r", "match": {}, "verdict": "ask"}
    assert refused({"version": 1, "rules": [one, one]}) == [("rules[1].name", "two rules are named r")]


def test_an_example_that_fails_names_the_rule_and_itself() -> None:
    deny = document(
        verdict="deny",
        match={"paths": ["secrets/**"]},
        examples={
            "match": [{"executor": "edit_file", "path": "secrets/a"}, {"executor": "edit_file", "path": "src/a"}],
            "not_match": [{"executor": "read_file", "path": "secrets/b"}],
        },
    )
    assert refused(deny) == [
        ("rules[0].examples.match[1]", "the rule r does not match this example"),
        ("rules[0].examples.not_match[0]", "the rule r matches this example"),
    ]


def test_an_example_shows_why_words_do_not_allow_it() -> None:
    allow = document(
        verdict="allow",
        match={"argv": ["env"], "rest": "any"},
        examples={"match": [{"executor": "x", "argv": ["env"]}]},
    )
    with pytest.raises(InvalidPolicy) as caught:
        policy_of(allow)
    assert caught.value.problems[0].fix == "no rule about words allows it: env runs other programs"


def test_examples_that_hold_are_accepted() -> None:
    rules = document(
        match={"touches": ["src/**"]},
        examples={
            "match": [{"executor": "run_command", "argv": ["x"], "touches": ["src/a"]}],
            "not_match": [
                {"executor": "run_command", "argv": ["x"]},
                {"executor": "run_command", "argv": ["x"], "deletes": ["docs/a"]},
            ],
        },
    )
    assert len(policy_of(rules, TYPES).rules) == 1


def test_the_version_is_that_of_the_content_and_not_of_its_writing() -> None:
    yaml = "version: 1\nrules:\n- {name: a, match: {executor: read_file}, verdict: deny}\n"
    json = '{"rules":[{"verdict":"deny","match":{"executor":["read_file"]},"name":"a"}],"version":1}'
    other = yaml.replace("deny", "ask")
    assert read_policy(yaml, "p").version == read_policy(json, "q").version
    assert read_policy(yaml, "p").version != read_policy(other, "p").version
    assert len(read_policy(yaml, "p").version) == 64


@pytest.mark.parametrize("text", ["[1]", "a: [", "version: 1\nversion: 1\nrules: []", "\xff"])
def test_what_is_no_mapping_is_refused_by_its_place(text: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        read_policy(text, "policy.yaml")
    assert "policy.yaml" in str(caught.value)
    assert "plan" not in str(caught.value)
