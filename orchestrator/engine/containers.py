"""The life of one container on this host: made, started, stopped, changed in place, removed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import secrets
import signal
from collections.abc import Mapping
from time import time

from bridge.errors import NetworkError
from orchestrator.engine import sharing
from orchestrator.engine.contents import read_contents
from orchestrator.engine.errors import EngineError
from orchestrator.engine.exits import ended, send_signal, settle
from orchestrator.engine.filesystem import (
    anonymous_name,
    anonymous_volumes,
    content_files,
)
from orchestrator.engine.host import Host
from orchestrator.engine.process import Process, effective_process, signal_number
from orchestrator.engine.records import ContainerRecord, EndpointRecord, ProcessRecord
from orchestrator.engine.sandboxes import network_files, open_sandbox, own_sandbox
from orchestrator.engine.shared_trees import shared_tree
from orchestrator.engine.stopping import ask_to_end, tell_killed
from orchestrator.engine.traffic import Traffic
from orchestrator.engine.translate import Surroundings, container_config
from orchestrator.planning import actions
from orchestrator.planning.blueprint import image_content, mounted_references
from orchestrator.planning.health import HealthState
from orchestrator.planning.observed import Spec
from runtime.container.containers import ContainerState
from runtime.errors import ContainerStartError, InvalidState, NotFound, RuntimeFault
from runtime.images.platforms import host_platform, runs_here
from runtime.images.store import Image

GRACE_AFTER_KILL = 10.0


class ContainerWork:
    """Performs the container actions; every method holds the container's transition."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.traffic = Traffic(host)

    async def create(self, action: actions.CreateContainer) -> None:
        """Record the container, put it on its networks, and hand it to the runtime; on failure
        nothing of it stays."""
        host = self._host
        async with host.transition(action.name):
            await self._clear_half_made(action.name)
            record = ContainerRecord(
                id=secrets.token_hex(32),
                name=action.name,
                project=action.project.name,
                service=action.service,
                number=action.number,
                source=tuple(action.project.config_files),
                spec=action.spec,
                image=action.image,
                image_id="",
                created_at=time(),
                oneoff="oneoff" in action.spec,
                role=action.role,
            )
            host.store.add_container(record)
            try:
                record = await asyncio.to_thread(self._make, record, action)
            except BaseException:
                await asyncio.to_thread(self.unmake, record, release=False)
                raise
            host.tell("create", record)

    def _make(self, record: ContainerRecord, action: actions.CreateContainer) -> ContainerRecord:
        host = self._host
        service = record.spec["service"]
        image = host.images.resolve(record.image)
        process = effective_process(service, image.config, record.name)
        volumes = anonymous_volumes(record.id, service, image.config.volumes, action.anonymous)
        contents = read_contents(action.project.contents(), {record.service: service})
        mounted = {
            target: host.images.resolve(action.mounted.get(target, reference))
            for target, reference in mounted_references(service).items()
        }
        # On record first, so that a crash leaves their names.
        updated = host.store.update_container(
            record.id,
            image_id=image.id,
            spec=_with_images(record.spec, {at: found.id for at, found in mounted.items()}),
            process=process_record(process),
            volumes=volumes,
        )
        record = updated or record
        for name in volumes.values():
            host.volumes.create(name, labels={"com.docker.compose.project": record.project})
        endpoints = open_sandbox(host, record)
        owner = sharing.network_owner(host, record)
        files = network_files(host, owner, endpoints or owner.endpoints)
        names = {*record.spec["volumes"].values(), *volumes.values()}
        paths = {name: host.volumes.get(name).mountpoint for name in sorted(names)}
        surroundings = Surroundings(
            layers=self._layers(image),
            anonymous=volumes,
            volume_paths=paths,
            volume_trees={name: shared_tree(host.root, path) for name, path in paths.items()},
            image_layers={at: self._layers(found) for at, found in mounted.items()},
            contents=contents,
            namespaces=sharing.namespaces(host, record),
            borrowed=sharing.borrowed(host, record),
            hostname=record.spec["service"].get("hostname") or files.hostname,
            hosts=files.hosts,
            resolv_conf=files.resolv_conf,
        )
        host.containers.create(
            container_config(
                id=record.id,
                spec=record.spec,
                process=process,
                surroundings=surroundings,
                labels=record.labels,
            )
        )
        made = host.store.update_container(record.id, endpoints=endpoints) or record
        if record.role == "current" and not record.oneoff:
            host.store.forget_inheritance(record.project, record.service, record.number)
        return made

    def _layers(self, image: Image) -> tuple[str, ...]:
        return tuple(str(path) for path in self._host.images.layer_paths(image))

    async def start(self, action: actions.StartContainer) -> None:
        async with self._host.transition(action.name):
            record = self._host.record(action.name)
            if not action.fresh and record.intent == "stopped":
                return  # somebody has stopped it since it was found to be due
            await self.run(record, fresh=action.fresh)

    async def run(self, record: ContainerRecord, *, fresh: bool) -> ContainerRecord:
        """Start the container's process; the caller holds its transition.

        `fresh` begins the count of restarts anew. Starting what runs is no error.
        """
        host = self._host
        due = {"hooks_due": bool(record.spec["service"].get("post_start"))} if fresh else {}
        # Before it runs, so that nobody takes the health of its last run for this one's.
        health = HealthState() if record.process.health else None
        host.store.update_container(record.id, intent="running", health=health, **due)
        try:
            state, endpoints, ports = await asyncio.to_thread(self._start, record)
        except (RuntimeFault, NetworkError, EngineError, OSError) as exc:
            exit_code = exc.exit_code if isinstance(exc, ContainerStartError) else None
            host.store.update_container(
                record.id,
                intent="stopped" if fresh else "running",
                restart_at=None,
                error=str(exc),
                exit_code=exit_code,
            )
            raise
        started = (state.started_at or 0) / 1e9
        counters = {"restarts": 0, "restart_delay": 0.0} if fresh else {}
        updated = host.store.update_container(
            record.id,
            started_at=started,
            finished_at=None,
            restart_at=None,
            exit_code=None,
            error="",
            endpoints=endpoints,
            ports=ports,
            health=health,
            **counters,
        )
        host.tell("start", updated or record)
        return updated or record

    def _start(
        self, record: ContainerRecord
    ) -> tuple[ContainerState, tuple[EndpointRecord, ...], tuple[object, ...]]:
        host = self._host
        sharing.follow_namespaces(host, record)
        endpoints = open_sandbox(host, record)
        if endpoints != record.endpoints:
            sharing.renew_hosts(host, dataclasses.replace(record, endpoints=endpoints))
        ports = self.traffic.publish(record)
        try:
            state = self._start_process(record)
        except BaseException:
            self.traffic.unpublish(record)
            raise
        return state, endpoints, ports

    def _start_process(self, record: ContainerRecord) -> ContainerState:
        containers = self._host.containers
        try:
            return containers.start(record.id)
        except InvalidState:
            return containers.get(record.id)
        except ContainerStartError as exc:
            if exc.errno == errno.ENOEXEC:
                exc.hint = self._foreign(record) or exc.hint
            if exc.step != "secret":
                raise
        # The runtime keeps secrets in memory alone, and that is gone after a reboot.
        self._give_secrets(record)
        return containers.start(record.id)

    def _foreign(self, record: ContainerRecord) -> str | None:
        """What to do about programs of another platform; None where they are of this one."""
        with contextlib.suppress(NotFound):
            made_for = self._host.images.resolve(record.image_id).config.platform
            if not runs_here(made_for):
                return (
                    f"the image is for {made_for}, this machine is {host_platform()}: register an "
                    "interpreter for it with the kernel (binfmt_misc, flag F), or take another "
                    "platform"
                )
        return None

    def _give_secrets(self, record: ContainerRecord) -> None:
        """Hand a container its secrets once more, from the project as it was last applied;
        raises EngineError where they are not the same any more."""
        project = self._host.store.project(record.project)
        if project is None:
            raise EngineError(f"container {record.name}: its secrets are gone", hint="run bay up")
        service = record.spec["service"]
        contents = read_contents(project.spec, {record.service: service})
        for key, content in contents.items():
            known = record.spec["contents"].get(key)
            if content.secret and known is not None and known != content.digest:
                raise EngineError(
                    f"container {record.name}: {key} is not what it was made with",
                    hint="bay up makes the container again with the new content",
                )
        given = {file.target: file for file in content_files(service, contents) if file.secret}
        config = self._host.containers.config(record.id)
        files = tuple(given.get(file.target, file) for file in config.files)
        self._host.containers.update(record.id, config.replace(files=files))

    async def stop(self, action: actions.StopContainer) -> None:
        """Ask it to end, and kill it after its grace; stopping what does not run is no error."""
        host = self._host
        async with host.transition(action.name):
            record = host.record(action.name)
            host.store.update_container(record.id, intent="stopped", restart_at=None)
            grace = record.process.stop_timeout if action.timeout is None else action.timeout
            asked = await ask_to_end(host, record, grace, action.deaf_timeout)
            if not asked.ended:
                await send_signal(host, record, signal.SIGKILL)
                if asked.grace > 0:
                    tell_killed(host, record, asked)
                if not await ended(host, record.id, GRACE_AFTER_KILL):
                    raise EngineError(
                        f"container {record.name} does not end, even by SIGKILL",
                        hint="a process of it may hang in the kernel; see dmesg",
                    )
            record = await self.rest(record)
            host.tell("stop", record)

    async def kill(self, action: actions.KillContainer) -> None:
        """Send a signal, at once: a stop that waits for the container's grace is not waited
        for, but ends with it."""
        host = self._host
        number = signal_number(action.signal)
        record = host.record(action.name)
        if number == signal.SIGKILL:
            host.store.update_container(record.id, intent="stopped", restart_at=None)
        await send_signal(host, record, number)
        if number == signal.SIGKILL and await ended(host, record.id, GRACE_AFTER_KILL):
            async with host.transition(action.name):
                if host.store.container(record.id) is not None:
                    await self.rest(record)

    async def remove(self, action: actions.RemoveContainer) -> None:
        """Remove a stopped container; one that is not on record is gone already."""
        host = self._host
        async with host.transition(action.name):
            record = host.store.container_named(action.name)
            if record is None:
                return
            if action.bequeath:
                # Before anything of it goes: a crash may leave no other trace.
                host.store.bequeath(record.id)
            await asyncio.to_thread(
                self.unmake, record, release=action.release, volumes=action.volumes
            )
            if action.release and record.role == "current" and not record.oneoff:
                host.store.forget_inheritance(record.project, record.service, record.number)
            host.tell("destroy", record)

    async def rest(self, record: ContainerRecord) -> ContainerRecord:
        """What follows the end of a container that stays down: its exit is recorded, its ports
        and its namespace are let go."""
        host = self._host
        state = await asyncio.to_thread(host.containers.get, record.id)
        settled = settle(host, host.store.container(record.id) or record, state)
        if state.status == "exited" and own_sandbox(record.spec["service"]):
            await asyncio.to_thread(self.traffic.retire, record, release=False)
        return settled

    async def _clear_half_made(self, name: str) -> None:
        """Remove the record that a crash left before the runtime knew the container, or after.

        Nobody takes over the anonymous volumes of a one-off, as init containers are.
        """
        record = self._host.store.container_named(name)
        if record is not None and not self._known(record.id):
            await asyncio.to_thread(self.unmake, record, release=False, volumes=record.oneoff)

    def _known(self, id: str) -> bool:
        try:
            self._host.containers.get(id)
        except NotFound:
            return False
        return True

    def unmake(self, record: ContainerRecord, *, release: bool, volumes: bool = False) -> None:
        """Remove all of a container; its record goes last, so that a crash in between leaves
        something to find the rest by. Blocking.

        Its anonymous volumes stay unless `volumes` takes them along; one that was made for a
        container which never ran, and is empty, goes in any case.
        """
        host = self._host
        if self._known(record.id):
            host.containers.delete(record.id)
        for target, name in record.volumes.items():
            vain = record.started_at is None and name == anonymous_name(record.id, target)
            with contextlib.suppress(NotFound, FileNotFoundError):
                if volumes or (vain and not os.listdir(host.volumes.get(name).mountpoint)):
                    host.volumes.remove(name)
        self.traffic.retire(record, release=release)
        host.store.remove_container(record.id)


def _with_images(spec: Spec, ids: Mapping[str, str]) -> Spec:
    """The blueprint with the ids of the images that are really mounted, by target."""
    if not ids:
        return spec
    mounted = {image_content(target): id for target, id in ids.items()}
    return {**spec, "contents": {**spec["contents"], **mounted}}


def process_record(process: Process) -> ProcessRecord:
    return ProcessRecord(
        command=process.argv,
        health=process.health,
        shell=process.shell,
        stop_signal=process.stop_signal,
        stop_timeout=process.stop_timeout,
    )
