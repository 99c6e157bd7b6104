"""What `up` plans, as the text that a person reads."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.engine.simulated import Behaviour
from orchestrator.planning.actions import CreateNetwork
from orchestrator.planning.errors import (
    DependencyCycle,
    MissingExternal,
    ServiceDisabled,
    TooManyReplicas,
    UnknownService,
)
from specs.project import Project

Stack = Callable[..., Project]
MakeWorld = Callable[..., Any]

HEALTHY = Behaviour(health="healthy")
CHECK = {"test": ["CMD", "true"]}


def lines(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def changed(project: Project, **services: dict[str, Any]) -> Project:
    """The project with some attributes of some services replaced."""
    document = copy.deepcopy(project.canonical())
    for name, attributes in services.items():
        document["services"][name].update(attributes)
    return Project.from_canonical(document)


def test_an_empty_host_gets_everything_in_one_graph(stack: Stack, world: MakeWorld) -> None:
    project = stack(
        {
            "web": {
                "build": {"context": "/srv"},
                "depends_on": {"db": {"condition": "service_healthy"}},
            },
            "db": {
                "healthcheck": CHECK,
                "volumes": [{"type": "volume", "source": "data", "target": "/data"}],
            },
        },
        volumes={"data": {"name": "shop_data"}},
    )
    assert world(db=HEALTHY).plan(project).text() == lines("""
        #1 build image shop-web: not built yet
        #2 create network shop_default (after #1): does not exist
        #3 create volume shop_data: does not exist
        #4 create container shop-db-1 (after #2, #3): does not exist
        #5 start container shop-db-1 (after #4): created
        #6 create container shop-web-1 (after #1, #2): does not exist
        #7 wait for container shop-db-1 to be healthy (after #5): a dependent needs service_healthy
        #8 start container shop-web-1 (after #6, #7): created
    """)


def test_a_second_up_has_nothing_to_do(stack: Stack, world: MakeWorld) -> None:
    project = stack(
        {
            "web": {"depends_on": {"db": {"condition": "service_healthy"}}},
            "db": {"healthcheck": CHECK},
        }
    )
    host = world(db=HEALTHY)
    host.up(project, wait=True)
    again = host.plan(project, wait=True)
    assert again.empty
    assert again.text() == "shop: nothing to do"


def test_a_changed_field_recreates_its_service_alone_and_is_named(
    stack: Stack, world: MakeWorld
) -> None:
    project = stack({"web": {"depends_on": {"db": {}}}, "db": {"environment": {"MODE": "a"}}})
    host = world()
    host.up(project)
    plan = host.plan(changed(project, db={"environment": {"MODE": "b"}}))
    assert plan.text() == lines("""
        #1 stop container shop-db-1: differs (environment.MODE: a → b)
        #2 remove container shop-db-1 (after #1): stopped
        #3 create container shop-db-1 (after #2): recreated
        #4 start container shop-db-1 (after #3): created
    """)


def test_the_value_of_a_password_is_not_printed(stack: Stack, world: MakeWorld) -> None:
    project = stack({"db": {"environment": {"DB_PASSWORD": "old"}}})
    host = world()
    host.up(project)
    plan = host.plan(changed(project, db={"environment": {"DB_PASSWORD": "hunter2"}}))
    assert "environment.DB_PASSWORD: changed" in plan.text()
    assert "hunter2" not in str(plan.to_json())


def test_labels_change_in_place(stack: Stack, world: MakeWorld) -> None:
    project = stack({"web": {}})
    host = world()
    host.up(project)
    plan = host.plan(changed(project, web={"labels": {"tier": "front"}, "restart": "always"}))
    assert plan.text() == (
        "#1 update container shop-web-1: "
        "differs (labels.tier: not set → front; restart: not set → always)"
    )


def test_a_dependent_with_restart_stops_first_and_starts_last(
    stack: Stack, world: MakeWorld
) -> None:
    project = stack({"web": {"depends_on": {"db": {"restart": True}}}, "db": {}})
    host = world()
    host.up(project)
    plan = host.plan(changed(project, db={"user": "7"}))
    why = "depends on db with restart: true, which is recreated"
    assert plan.text() == lines(f"""
        #1 stop container shop-web-1: {why}
        #2 stop container shop-db-1 (after #1): differs (user: not set → 7)
        #3 remove container shop-db-1 (after #2): stopped
        #4 create container shop-db-1 (after #3): recreated
        #5 start container shop-db-1 (after #4): created
        #6 start container shop-web-1 (after #1, #5): {why}
    """)


def test_dependents_that_run_restart_with_a_service_that_is_forced_alone(
    stack: Stack, world: MakeWorld
) -> None:
    project = stack(
        {
            "db": {},
            "api": {"depends_on": {"db": {"restart": True}}},
            "web": {"depends_on": {"api": {"restart": True}}},
            "idle": {"depends_on": {"db": {"restart": True}}},
            "other": {"depends_on": {"db": {}}},
        }
    )
    host = world()
    host.up(project, services=("web", "other"))
    wish: dict[str, Any] = {"services": ("db",), "recreate": "force", "dependencies": False}
    alone = [
        "stop container shop-db-1",
        "remove container shop-db-1",
        "create container shop-db-1",
        "start container shop-db-1",
    ]
    assert [step.action.text() for step in host.plan(project, **wish).steps] == alone
    assert [step.action.text() for step in host.plan(project, **wish, dependents=True).steps] == [
        "stop container shop-web-1",
        "stop container shop-api-1",
        *alone,
        "start container shop-api-1",
        "start container shop-web-1",
    ]


def test_what_restarts_for_a_dependency_takes_its_own_dependents_along(
    stack: Stack, world: MakeWorld
) -> None:
    project = stack(
        {
            "api": {"depends_on": {"db": {"restart": True}}},
            "web": {"depends_on": {"api": {"restart": True}}},
            "db": {},
        }
    )
    host = world()
    host.up(project)
    plan = host.plan(changed(project, db={"user": "7"}))
    assert plan.steps[0].action.text() == "stop container shop-web-1"
    why = "depends on api with restart: true, which is restarted"
    assert str(plan.steps[0].action.cause) == why
    assert plan.steps[-1].action.text() == "start container shop-web-1"


def test_a_service_in_anothers_network_namespace_is_recreated_with_it(
    stack: Stack, world: MakeWorld
) -> None:
    project = stack(
        {
            "app": {},
            "proxy": {
                "network_mode": "service:app",
                "depends_on": {"app": {"restart": True}},
            },
        }
    )
    host = world()
    host.up(project)
    plan = host.plan(changed(project, app={"user": "7"}))
    assert "#1 stop container shop-proxy-1: shares the network of app, which is recreated" in (
        plan.text()
    )
    assert host.execute(plan).ok
    assert host.plan(changed(project, app={"user": "7"})).empty


def test_a_one_shot_that_completed_is_not_run_again(stack: Stack, world: MakeWorld) -> None:
    project = stack(
        {
            "web": {"depends_on": {"migrate": {"condition": "service_completed_successfully"}}},
            "migrate": {},
        }
    )
    host = world(migrate=Behaviour(exit_code=0))
    host.up(project, wait=True)
    assert host.plan(project, wait=True).empty
    assert "create container shop-migrate-1" in host.plan(project, recreate="force").text()


def test_a_one_shot_that_failed_is_run_again(stack: Stack, world: MakeWorld) -> None:
    project = stack({"migrate": {}})
    host = world(migrate=Behaviour(exit_code=3))
    host.up(project)
    assert host.plan(project).text() == "#1 start container shop-migrate-1: exited with 3"


def test_what_was_stopped_is_started_again(stack: Stack, world: MakeWorld) -> None:
    project = stack({"web": {}})
    host = world()
    host.up(project)
    stopped = host.backend.containers["shop-web-1"]
    host.backend.containers["shop-web-1"] = dataclasses.replace(
        stopped, status="exited", exit_code=0, intent="stopped"
    )
    assert host.plan(project).text() == "#1 start container shop-web-1: was stopped"


def test_scaling_up_takes_the_lowest_free_numbers(stack: Stack, world: MakeWorld) -> None:
    project = stack({"web": {}})
    host = world()
    host.up(project)
    plan = host.plan(project, scale={"web": 3})
    created = [s.action.name for s in plan.steps if s.action.verb == "create"]
    assert created == ["shop-web-2", "shop-web-3"]


def test_scaling_down_removes_outdated_replicas_before_high_numbers(
    stack: Stack, world: MakeWorld
) -> None:
    project = stack({"web": {"scale": 3}})
    host = world()
    host.up(project)
    container = host.backend.containers["shop-web-2"]
    service = {**container.spec["service"], "user": "old"}
    host.backend.containers["shop-web-2"] = dataclasses.replace(
        container, spec={**container.spec, "service": service}
    )
    plan = host.plan(project, scale={"web": 2})
    assert plan.text() == lines("""
        #1 stop container shop-web-2: 2 of 3 replicas are wanted
        #2 remove container shop-web-2 (after #1): stopped
    """)


def test_orphans_stay_and_are_named_unless_they_are_to_go(stack: Stack, world: MakeWorld) -> None:
    host = world()
    host.up(stack({"web": {}, "old": {}}))
    project = stack({"web": {}})
    plan = host.plan(project)
    assert plan.empty
    assert plan.notes == (
        "orphans, whose services are not in the project: shop-old-1; --remove-orphans removes them",
    )
    assert host.plan(project, ignore_orphans=True).notes == ()
    assert host.plan(project, remove_orphans=True).text() == lines("""
        #1 stop container shop-old-1: the project has no service old
        #2 remove container shop-old-1 (after #1): stopped
    """)


def test_containers_of_another_file_are_never_taken_for_orphans(
    stack: Stack, world: MakeWorld
) -> None:
    host = world()
    host.up(stack({"other": {}}))
    document = stack({"web": {}}).canonical()
    document["config_files"] = ["/srv/shop/second.yaml"]
    plan = host.plan(Project.from_canonical(document), remove_orphans=True)
    assert not any(step.action.verb in ("stop", "remove") for step in plan.steps)
    assert plan.notes == ("left alone, as they come from other files: shop-other-1",)


def test_a_network_that_differs_is_made_again_between_its_containers(
    stack: Stack, world: MakeWorld
) -> None:
    host = world()
    host.up(stack({"web": {}}))
    project = stack({"web": {}}, networks={"default": {"name": "shop_default", "internal": True}})
    why = "network shop_default is recreated (internal: not set → true)"
    assert host.plan(project).text() == lines(f"""
        #1 stop container shop-web-1: {why}
        #2 remove container shop-web-1 (after #1): stopped
        #3 remove network shop_default (after #2): recreated (internal: not set → true)
        #4 create network shop_default (after #3): removed
        #5 create container shop-web-1 (after #2, #4): recreated
        #6 start container shop-web-1 (after #5): created
    """)


def test_a_new_network_is_told_how_many_containers_are_to_be_on_it(
    stack: Stack, world: MakeWorld
) -> None:
    project = stack(
        {
            "web": {"scale": 200, "networks": {"default": {}, "back": {}}},
            "job": {"deploy": {"replicas": 50}},
            "lone": {"network_mode": "none"},
        },
        networks={"default": {"name": "shop_default"}, "back": {"name": "shop_back"}},
    )
    plan = world().plan(project, services=("job", "web"), scale={"web": 300})
    made = [step.action for step in plan.steps if isinstance(step.action, CreateNetwork)]
    assert {a.name: a.endpoints for a in made} == {"shop_default": 350, "shop_back": 300}


def test_a_volume_that_differs_keeps_its_data(stack: Stack, world: MakeWorld) -> None:
    service = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
    host = world()
    host.up(stack({"db": dict(service)}, volumes={"data": {"name": "shop_data"}}))
    project = stack(
        {"db": dict(service)},
        volumes={"data": {"name": "shop_data", "driver_opts": {"type": "tmpfs"}}},
    )
    plan = host.plan(project)
    assert plan.empty
    assert "it is kept with its data" in plan.notes[0]


def test_a_changed_secret_recreates_who_uses_it(stack: Stack, world: MakeWorld) -> None:
    def with_digest(digest: str) -> Project:
        return stack(
            {"web": {"secrets": [{"source": "key"}]}, "other": {}},
            secrets={"key": {"name": "shop_key", "file": "/srv/key", "digest": digest}},
        )

    host = world()
    host.up(with_digest("sha256:1111"))
    plan = host.plan(with_digest("sha256:2222"))
    assert {step.action.name for step in plan.steps} == {"shop-web-1"}
    assert "secrets.key content: 1111 → 2222" in plan.text()


def test_a_new_image_behind_the_same_name_recreates(stack: Stack, world: MakeWorld) -> None:
    project = stack({"web": {}})
    host = world()
    host.up(project)
    host.backend.images["app"] = "sha256:b2"
    assert "differs (image id: a1 → b2)" in host.plan(project).text()


def test_a_missing_image_keeps_everything_from_being_made_before_it(
    stack: Stack, world: MakeWorld
) -> None:
    project = stack({"web": {"image": "nowhere"}, "db": {}})
    assert world().plan(project).text() == lines("""
        #1 pull image nowhere: not in the image store
        #2 create network shop_default (after #1): does not exist
        #3 create container shop-db-1 (after #2): does not exist
        #4 start container shop-db-1 (after #3): created
        #5 create container shop-web-1 (after #1, #2): does not exist
        #6 start container shop-web-1 (after #5): created
    """)


def test_a_run_that_waits_waits_for_the_end_of_a_job_that_others_need(
    stack: Stack, world: MakeWorld
) -> None:
    job = {"job": {"condition": "service_completed_successfully"}}
    services: dict[str, dict[str, Any]] = {"job": {}, "web": {"depends_on": job}}
    host = world(job=Behaviour(exit_code=0))
    host.up(stack(services), wait=True)
    services["job"]["environment"] = {"RELEASE": "2"}
    plan = host.plan(stack(services), wait=True)
    assert plan.steps[-1].action.text() == "wait for container shop-job-1 to be completed"


def test_a_dependency_that_is_not_required_is_waited_for_but_may_fail(
    stack: Stack, world: MakeWorld
) -> None:
    project = stack({"web": {"depends_on": {"db": {"required": False}}}, "db": {}})
    assert "#5 start container shop-web-1 (after #4; once ended #3): created" in (
        world().plan(project).text()
    )


def test_named_services_bring_what_they_need(stack: Stack, world: MakeWorld) -> None:
    project = stack({"web": {"depends_on": {"db": {}}}, "db": {}, "mail": {}})
    names = {s.action.name for s in world().plan(project, services=("web",)).steps}
    assert names == {"shop_default", "shop-web-1", "shop-db-1"}
    alone = world().plan(project, services=("web",), dependencies=False)
    assert {s.action.name for s in alone.steps} == {"shop_default", "shop-web-1"}


def test_without_start_nothing_is_started(stack: Stack, world: MakeWorld) -> None:
    project = stack({"web": {"depends_on": {"db": {"condition": "service_healthy"}}}, "db": {}})
    assert {s.action.verb for s in world().plan(project, start=False).steps} == {"create"}


def test_no_recreate_keeps_what_differs_and_says_so(stack: Stack, world: MakeWorld) -> None:
    project = stack({"web": {}})
    host = world()
    host.up(project)
    plan = host.plan(changed(project, web={"user": "7"}), recreate="never")
    assert plan.empty
    assert "container shop-web-1 differs (user: not set → 7); it is kept" in plan.notes[0]


def test_anonymous_volumes_pass_to_the_container_that_replaces(
    stack: Stack, world: MakeWorld
) -> None:
    project = stack({"db": {}})
    host = world()
    host.up(project)
    container = host.backend.containers["shop-db-1"]
    host.backend.containers["shop-db-1"] = dataclasses.replace(
        container, anonymous={"/data": "abc"}
    )
    kept = host.plan(project, recreate="force").steps[2].action
    renewed = host.plan(project, recreate="force", renew_volumes=True).steps[2].action
    assert (kept.anonymous, renewed.anonymous) == ({"/data": "abc"}, {})


@pytest.mark.parametrize(
    ("services", "path"),
    [
        ({"a": ["b"], "b": ["a"]}, ("a", "b", "a")),
        ({"web": ["db"], "db": ["cache"], "cache": ["web"]}, ("cache", "web", "db", "cache")),
    ],
)
def test_a_cycle_is_named_by_its_path(
    stack: Stack, world: MakeWorld, services: dict[str, list[str]], path: tuple[str, ...]
) -> None:
    project = stack({n: {"depends_on": {d: {} for d in needs}} for n, needs in services.items()})
    with pytest.raises(DependencyCycle) as caught:
        world().plan(project)
    assert caught.value.path == path
    assert " → ".join(path) in str(caught.value)


def test_an_unknown_service_is_named_with_what_may_be_meant(stack: Stack, world: MakeWorld) -> None:
    with pytest.raises(UnknownService) as caught:
        world().plan(stack({"worker": {}}), services=("wroker",))
    assert str(caught.value) == "no such service: wroker"
    assert caught.value.hint == "did you mean worker"


def test_an_external_network_must_exist(stack: Stack, world: MakeWorld) -> None:
    project = stack({"web": {}}, networks={"default": {"name": "lan", "external": True}})
    with pytest.raises(MissingExternal, match="external network does not exist: lan"):
        world().plan(project)


def test_a_dependency_without_active_profile_is_an_error(stack: Stack, world: MakeWorld) -> None:
    project = stack({"web": {"depends_on": {"debug": {}}}})
    with pytest.raises(ServiceDisabled, match="web depends on debug"):
        world().plan(project)


def test_a_container_that_is_lost_is_made_again(stack: Stack, world: MakeWorld) -> None:
    project = stack({"web": {}})
    host = world()
    host.up(project)
    container = host.backend.containers["shop-web-1"]
    host.backend.containers["shop-web-1"] = dataclasses.replace(
        container, status="created", lost=True
    )
    assert host.plan(project).text() == lines("""
        #1 remove container shop-web-1: it is on record, but not on this host
        #2 create container shop-web-1 (after #1): recreated
        #3 start container shop-web-1 (after #2): created
    """)


def test_what_has_departed_goes_whatever_file_it_came_from(stack: Stack, world: MakeWorld) -> None:
    host = world()
    host.up(stack({"other": {}, "foreign": {}}))
    document = stack({"web": {}}).canonical()
    document["config_files"] = ["/srv/shop/second.yaml"]
    plan = host.plan(Project.from_canonical(document), departed=frozenset({"other"}))
    assert "remove container shop-other-1" in plan.text()
    assert "remove container shop-foreign-1" not in plan.text()


def test_a_service_waits_until_the_one_that_leaves_has_given_up_its_port(
    stack: Stack, world: MakeWorld
) -> None:
    ports = [{"target": 80, "published": "8080", "protocol": "tcp"}]
    host = world()
    host.up(stack({"old": {"ports": ports}}))
    plan = host.plan(stack({"new": {"ports": ports}}), departed=frozenset({"old"}))
    assert plan.text() == lines("""
        #1 stop container shop-old-1: the project has no service old
        #2 remove container shop-old-1 (after #1): stopped
        #3 create container shop-new-1 (after #2): does not exist
        #4 start container shop-new-1 (after #3): created
    """)


def test_what_no_service_uses_is_made_if_asked(stack: Stack, world: MakeWorld) -> None:
    project = stack(
        {"web": {}},
        networks={"default": {"name": "shop_default"}, "spare": {"name": "shop_spare"}},
        volumes={"shelf": {"name": "shop_shelf"}},
    )
    host = world()
    host.up(project)
    assert set(host.backend.networks) == {"shop_default"} and not host.backend.volumes
    host.up(project, all_resources=True)
    assert set(host.backend.networks) == {"shop_default", "shop_spare"}
    assert set(host.backend.volumes) == {"shop_shelf"}
    assert host.plan(project, all_resources=True).empty


def test_a_scale_that_no_host_can_have_is_refused_before_it_is_planned(
    stack: Stack, world: MakeWorld
) -> None:
    project = stack({"web": {"scale": 2_000_000_000}})
    with pytest.raises(TooManyReplicas, match="asks for 2,000,000,000 containers"):
        world().plan(project)
