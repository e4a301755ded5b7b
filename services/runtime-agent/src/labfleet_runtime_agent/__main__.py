"""Wires the runtime agent of one host."""

import asyncio
from pathlib import Path

from labfleet_chassis.data_port import DataPort
from labfleet_chassis.service import Chassis, run_service
from labfleet_proto import placement, runtime
from labfleet_proto.buckets import CONTAINERS, HOSTS, LAYER_COPIES, LEASES, OBSERVED
from labfleet_proto.builds import BUILD_CACHE, PRUNE_BUILDS
from labfleet_proto.hosts import HostRecord
from labfleet_proto.ids import HostId
from labfleet_proto.jobs import Job
from labfleet_proto.layers import FETCH_LAYERS
from labfleet_proto.message import Nothing
from labfleet_proto.resources import Resources
from labfleet_runtime_agent.adapters import cgroups, host_facts, orphans, processes
from labfleet_runtime_agent.adapters.blob_cache import BlobCache
from labfleet_runtime_agent.adapters.conmon import Runtime, sealed_copy
from labfleet_runtime_agent.adapters.group_lock import GroupLock, own_group
from labfleet_runtime_agent.adapters.layer_copies import LayerCopies
from labfleet_runtime_agent.adapters.layer_download import LayerDownload
from labfleet_runtime_agent.adapters.layer_store import LayerStore
from labfleet_runtime_agent.adapters.ledger import Ledger
from labfleet_runtime_agent.adapters.peers import Fleet, Peers
from labfleet_runtime_agent.adapters.snapshots import Snapshots
from labfleet_runtime_agent.adapters.store_blobs import StoreBlobs
from labfleet_runtime_agent.adapters.volume_store import VolumeStore
from labfleet_runtime_agent.core.uid_slots import UidSlots
from labfleet_runtime_agent.metrics import CAPACITY
from labfleet_runtime_agent.service import readiness, rotation
from labfleet_runtime_agent.service.admission import Admission
from labfleet_runtime_agent.service.agent import Agent
from labfleet_runtime_agent.service.builds import Builds
from labfleet_runtime_agent.service.eviction import Eviction
from labfleet_runtime_agent.service.fetching_ahead import FetchingAhead
from labfleet_runtime_agent.service.presence import Epoch, publish_host, renew_lease
from labfleet_runtime_agent.service.publisher import Publisher
from labfleet_runtime_agent.service.sizes import Sizes
from labfleet_runtime_agent.service.streams import Streams
from labfleet_runtime_agent.service.tools import Files, Tools
from labfleet_runtime_agent.service.uploads import Uploads
from labfleet_runtime_agent.settings import Settings

_STARTS_PER_CORE = 2
_PIDS_PER_HOST = 1 << 20


def capacity_of(settings: Settings) -> Resources:
    """What the host may give away: after its reserve, with the CPU overcommit."""
    memory = settings.memory_bytes or host_facts.memory_bytes()
    cores = settings.cpus or host_facts.cores()
    cores_left = max(cores - settings.reserve_cpus, cores / 2)
    return Resources(
        memory_bytes=max(memory - settings.reserve_memory_bytes, 0),
        cpu_millis=int(cores_left * settings.cpu_overcommit * 1000),
        pids=_PIDS_PER_HOST,
        containers=min(settings.most_containers, settings.uid_slots),
    )


async def build_layers(chassis: Chassis, settings: Settings, copies: LayerCopies) -> LayerStore:
    """Make the store of layers and its sources."""
    host, log = HostId(settings.host), chassis.log
    fleet = Fleet(
        me=host,
        hosts=await chassis.bus.bucket(HOSTS),
        leases=await chassis.bus.bucket(LEASES),
        key=bytes.fromhex(settings.data_key.get_secret_value()),
        clock=chassis.clock,
    )
    store = StoreBlobs(settings.registry_url, settings.fleet_secret.get_secret_value())
    peers = Peers(fleet, copies, settings.peer_silence_s, log)
    blobs = BlobCache(settings.state_dir, settings.blob_cache_bytes, processes.boot_id())
    return LayerStore(settings.state_dir, LayerDownload(store, peers, log), blobs, copies, log)


async def build_tools(
    chassis: Chassis, settings: Settings, host: HostId, copies: LayerCopies
) -> Tools:
    """Make everything the workers act through."""
    for path in (settings.state_dir, settings.run_dir):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o711)
    crun_root, bundles = settings.run_dir / "crun", settings.run_dir / "bundles"
    crun_root.mkdir(mode=0o700, exist_ok=True)
    bundles.mkdir(mode=0o711, exist_ok=True)
    observed = await chassis.bus.bucket(OBSERVED)
    return Tools(
        host=host,
        settings=settings,
        bus=chassis.bus,
        clock=chassis.clock,
        log=chassis.log,
        runtime=Runtime(crun_root, bundles, sealed_copy(Path(settings.runtime))),
        cgroups=cgroups.detect(settings.cgroup_parent),
        group_lock=GroupLock(own_group()),
        files=Files(
            await build_layers(chassis, settings, copies),
            Snapshots(settings.state_dir, settings.run_dir),
            UidSlots(settings.uid_base, settings.uid_slots),
            VolumeStore(settings.state_dir),
        ),
        ledger=Ledger(settings.state_dir, settings.run_dir),
        publisher=Publisher(observed, host, chassis.log),
        boot_id=processes.boot_id(),
        start_slots=asyncio.Semaphore(_STARTS_PER_CORE * host_facts.cores()),
    )


async def serve_jobs(chassis: Chassis, agent: Agent, streams: Streams, host: HostId) -> None:
    """Take jobs from now on."""

    async def check(_job: Job, _args: Nothing) -> runtime.AgentCheck:
        return runtime.AgentCheck(findings=tuple(await asyncio.to_thread(agent.findings)))

    bus = chassis.bus
    await bus.serve(placement.HOLD, agent.hold, host=host)
    await bus.serve(runtime.RECONCILE, agent.reconcile, host=host)
    await bus.serve(runtime.ADMIT_LIMITS, agent.admit_limits, host=host)
    await bus.serve(runtime.SIGNAL, agent.kill, host=host)
    await bus.serve(runtime.TOP, agent.top, host=host)
    await bus.serve(runtime.STATS, agent.stats, host=host)
    await bus.serve(runtime.STAT_PATH, agent.stat_path, host=host)
    await bus.serve(runtime.SIZES, Sizes(agent).sizes, host=host)
    await bus.serve(runtime.MEASURE_VOLUMES, agent.measure_volumes, host=host)
    await bus.serve(runtime.REMOVE_VOLUME, agent.remove_volume, host=host)
    await bus.serve(runtime.CREATE_EXEC, streams.execs.create, host=host)
    await bus.serve(runtime.START_EXEC, streams.execs.start, host=host)
    await bus.serve(runtime.INSPECT_EXEC, streams.execs.inspect, host=host)
    await bus.serve(runtime.RESIZE, streams.execs.resize, host=host)
    await bus.serve(runtime.CHECK_AGENT, check, host=host)


async def run(chassis: Chassis, settings: Settings) -> None:
    """Run until told to stop; containers live on."""
    host = HostId(settings.host)
    copies = LayerCopies(await chassis.bus.bucket(LAYER_COPIES), host, chassis.log)
    tools = await build_tools(chassis, settings, host, copies)
    layers = tools.files.layers
    chassis.loop("layer-copies", copies.keep)
    capacity = capacity_of(settings)
    for name, value in capacity.model_dump().items():
        CAPACITY.labels(name).set(value)
    admission = Admission(capacity, chassis.tasks, settings.state_dir, chassis.log)
    chassis.loop("publisher", tools.publisher.run)
    orphans.adopt()
    chassis.loop("orphans", orphans.Orphans().keep)
    builds = Builds(tools, admission)
    agent = Agent(tools, admission, await chassis.mirror(CONTAINERS))
    agent.recover()
    chassis.loop("rotation", lambda: rotation.keep(agent))
    chassis.loop("readiness", lambda: readiness.keep(tools))
    streams = Streams(agent, builds, Uploads(layers.blobs, copies, settings.peer_uploads))
    chassis.loop("eviction", Eviction(layers, agent.layers_in_use, settings, chassis.log).keep)
    admission.spawn("builds", builds.recover())
    port = DataPort(
        streams.serve,
        host=host,
        key=bytes.fromhex(settings.data_key.get_secret_value()),
        clock=chassis.clock,
        log=chassis.log,
    )
    async with port.listening(settings.address, settings.data_port) as number:
        record = HostRecord(
            id=host,
            address=settings.address,
            data_port=number,
            capacity=capacity,
            free=capacity,
            cores=int(settings.cpus or host_facts.cores()),
            total_memory_bytes=settings.memory_bytes or host_facts.memory_bytes(),
            labels=settings.labels,
            features=(tools.cgroups.feature, "class-lab"),
            kernel=host_facts.kernel(),
            operating_system=host_facts.operating_system(),
            runtime=await tools.runtime.version(),
            boot_id=tools.boot_id,
            updated_at_ns=chassis.clock.now_ns(),
        )
        await serve_jobs(chassis, agent, streams, host)
        await chassis.bus.serve(PRUNE_BUILDS, builds.prune, host=host)
        ahead = FetchingAhead(layers, chassis.tasks, chassis.log)
        await chassis.bus.serve(FETCH_LAYERS, ahead.fetch, host=host)
        await chassis.bus.serve(BUILD_CACHE, builds.cache, host=host)
        hosts, leases = await chassis.bus.bucket(HOSTS), await chassis.bus.bucket(LEASES)
        epoch = Epoch(settings.state_dir, tools.boot_id)
        chassis.loop("host", lambda: publish_host(hosts, record, admission, chassis.clock))
        chassis.loop("lease", lambda: renew_lease(leases, host, epoch, tools.boot_id))
        chassis.ready(f"{len(agent.workers)} containers")
        await chassis.stopping.wait()


def main() -> None:
    """Entry point of `labfleet-runtime-agent`."""
    settings = Settings()
    run_service(
        "runtime-agent", settings, lambda chassis: run(chassis, settings), HostId(settings.host)
    )


if __name__ == "__main__":
    main()
