"""Health checks: one loop per run of a container that has a check, beside its worker."""

import asyncio
import secrets

from labfleet_chassis.supervise import supervise
from labfleet_proto.containers import State
from labfleet_proto.errors import LabfleetError
from labfleet_proto.healthchecks import HealthCheck, Probe
from labfleet_proto.ids import ExecId
from labfleet_proto.runtime import CreateExec
from labfleet_runtime_agent.adapters import probes
from labfleet_runtime_agent.core import probing
from labfleet_runtime_agent.core.durations import in_go
from labfleet_runtime_agent.service.exec_process import oci_process
from labfleet_runtime_agent.service.live import Live


def watch(live: Live) -> None:
    """Check the run that has begun, or goes on after a restart of the agent, until it is over."""
    check, seen = live.record.spec.healthcheck, live.seen
    if check is not None and check.argv and seen is not None:
        run, exited, log = seen.run, live.exited, live.tools.log
        live.admission.spawn(
            "health", supervise("health", lambda: _watch(live, check, run, exited), log)
        )


async def _watch(live: Live, check: HealthCheck, run: int, exited: asyncio.Event) -> None:
    while True:
        seen = live.seen
        if seen is None or seen.run != run or seen.state is not State.RUNNING:
            return
        health = seen.health or probing.begun(None)
        age_ns = live.tools.clock.now_ns() - seen.started_at_ns
        try:
            async with asyncio.timeout(probing.pause_s(check, health, age_ns)):
                await exited.wait()
                return
        except TimeoutError:
            await _probe(live, check, run)


async def _probe(live: Live, check: HealthCheck, run: int) -> None:
    """Probe once, unless it is paused, and tell what came of it."""
    seen = live.seen
    if seen is None or seen.run != run or seen.state is not State.RUNNING or seen.is_paused:
        return
    probe = await _run(live, check)
    seen = live.seen
    if seen is None or seen.run != run or seen.state is not State.RUNNING:
        return  # it ended meanwhile: what the probe says is of no more use
    before = seen.health or probing.begun(None)
    health = probing.judged(check, before, probe, seen.started_at_ns)
    live.state.change(is_durable=False, health=health)
    if health.status is not before.status:
        await live.tools.emit(live.record, f"health_status: {health.status}")


async def _run(live: Live, check: HealthCheck) -> Probe:
    tools, record = live.tools, live.record
    exec_id = ExecId(record.id[:32] + secrets.token_hex(16))
    words = " ".join(check.argv)
    await tools.emit(record, f"exec_create: {words}", {"execID": exec_id})
    began_ns = tools.clock.now_ns()
    limit_s = probing.timeout_s(check)
    try:
        asked = CreateExec(exec=exec_id, container=record.id, argv=check.argv)
        process = await oci_process(record, live.first_process(), asked)
        await tools.emit(record, f"exec_start: {words}", {"execID": exec_id})
        command = probes.Command(f"probe-{exec_id[32:48]}", process, limit_s, probing.MOST_OUTPUT)
        groups = tools.cgroups.enter_files(record.id)
        said = await probes.run(tools.runtime, record.id, command, groups)
        code, output = _judged(said, limit_s)
    except LabfleetError as exc:
        code, output = -1, exc.message
    except OSError as exc:  # its bundle goes away while it ends
        code, output = -1, str(exc)
    about = {"execID": exec_id, "exitCode": str(code)}
    await tools.emit(record, "exec_die", about)
    now_ns = tools.clock.now_ns()
    return Probe(started_at_ns=began_ns, ended_at_ns=now_ns, exit_code=code, output=output)


def _judged(said: probes.Said, limit_s: float) -> tuple[int, str]:
    """Exit code and output in docker's words; -1 for what was not done or could not be run."""
    if said.exit_code is None:
        words = f"Health check exceeded timeout ({in_go(limit_s)})"
        return -1, f"{words}: {said.output}" if said.output else words
    if said.is_failure_of_crun:
        return -1, f"OCI runtime exec failed: {said.output}"
    return said.exit_code, said.output
