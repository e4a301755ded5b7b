"""One build: base images come, the builder runs, the image goes to the store."""

import asyncio
import json
from typing import Any

from labfleet_chassis import frames
from labfleet_chassis.data_port import ByteStream
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.builds import (
    BUILD_REPOSITORY,
    SHELVE_BUILD,
    BuildImage,
    ShelveBuild,
    build_tag,
)
from labfleet_proto.errors import InvalidRequestError, NotFoundError
from labfleet_proto.ids import TenantId
from labfleet_proto.images import ImageDetail, familiar_repository
from labfleet_proto.upstreams import FETCH_IMAGE, FetchImage
from labfleet_runtime_agent.adapters import buildah, fetching, host_facts
from labfleet_runtime_agent.adapters.buildah import Registry, Room
from labfleet_runtime_agent.core.build_failures import BuildFailedError
from labfleet_runtime_agent.core.build_output import Translator
from labfleet_runtime_agent.core.build_words import BuildFiles, bud_words
from labfleet_runtime_agent.core.dockerfile import Recipe, source_image
from labfleet_runtime_agent.service.tools import Tools

_SETTLE_LIMIT_S = 600.0


class Building:
    """Builds one image and says how it goes."""

    def __init__(
        self,
        tools: Tools,
        tenant: TenantId,
        request: BuildImage,
        room: Room,
        registry: Registry,
        stream: ByteStream,
    ) -> None:
        self._tools = tools
        self._tenant = tenant
        self._request = request
        self._room = room
        self._registry = registry
        self._stream = stream

    async def run(self, recipe: Recipe) -> None:
        """Build. Raises BuildFailedError, UnavailableError."""
        request, room = self._request, self._room
        if recipe.failure is not None:
            raise await self._failed_at(recipe, *recipe.failure)
        bases = {name: await self._resolve(name, recipe) for name in recipe.images}
        ids = {name: image.pin.image_id.removeprefix("sha256:") for name, image in bases.items()}
        await asyncio.to_thread(room.recipe.write_text, recipe.rewritten(ids))
        pulls = [_pull_of(image) for image in bases.values()]
        await self._quietly(buildah.pull_script(pulls), "fetch base images")
        translator = Translator(
            recipe,
            ids,
            request.labels,
            key=request.build,
            is_cached=request.is_cached,
            full_id=room.full_id,
        )
        await self._all(translator.begun())
        await self._builder(translator)
        push = buildah.words(
            *("buildah", "push", "-q", translator.image),
            f"docker://{self._registry.location}/{BUILD_REPOSITORY}:{build_tag(request.build)}",
        )
        await self._quietly(push, "push the image")
        shelved = await self._tools.bus.call(
            SHELVE_BUILD,
            ShelveBuild(build=request.build, names=request.names),
            tenant=self._tenant,
            subject=request.build,
        )
        if request.is_quiet:
            await say(self._stream, {"stream": f"{shelved.image_id}\n"})
            return
        await say(self._stream, {"aux": {"ID": shelved.image_id}})
        await say(self._stream, {"stream": f"Successfully built {shelved.image_id[7:19]}\n"})
        for name in shelved.names:
            await say(self._stream, {"stream": f"Successfully tagged {name}\n"})

    async def _builder(self, translator: Translator) -> None:
        """Run the builder itself to its end. Raises BuildFailedError."""
        room = self._room
        files = BuildFiles(*map(str, (room.context, room.recipe, room.ignored, room.hosts)))
        script = buildah.words(*bud_words(self._request, files, host_facts.hard_limits()))
        runtime = self._tools.settings.runtime
        child = await buildah.start(room, script, self._registry, runtime=runtime, with_login=False)
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(self._pass_output(child, translator))
                tasks.create_task(self._pass_errors(child, translator))
            code = await child.wait()
        finally:
            await fetching.end(child)
        if code != 0:
            documents, why = translator.failed(code)
            await self._all(documents)
            raise why
        await self._all(translator.ended())
        if not translator.image:
            raise BuildFailedError("the builder ended without an image")

    async def _pass_output(self, child: asyncio.subprocess.Process, translator: Translator) -> None:
        async for data in buildah.chunks(child.stdout):
            await asyncio.sleep(0)  # what was printed on standard error before is read before
            await asyncio.sleep(0)
            await self._all(translator.said(data))

    async def _pass_errors(self, child: asyncio.subprocess.Process, translator: Translator) -> None:
        async for line in buildah.lines(child.stderr):
            await self._all(translator.complained(line))

    async def _all(self, documents: list[dict[str, Any]]) -> None:
        if not self._request.is_quiet:
            for document in documents:
                await say(self._stream, document)

    async def _quietly(self, script: str, what: str) -> None:
        """Run builder's commands that talk to the image store. Raises BuildFailedError."""
        child = await buildah.start(
            self._room.outside(),
            script,
            self._registry,
            runtime=self._tools.settings.runtime,
            with_login=True,
        )
        try:
            async with asyncio.timeout(_SETTLE_LIMIT_S):
                _, errors = await child.communicate()
        finally:
            await fetching.end(child)
        if child.returncode != 0:
            words = errors.decode(errors="replace").strip().splitlines()
            raise BuildFailedError(f"{what}: {words[-1] if words else child.returncode}")

    async def _resolve(self, name: str, recipe: Recipe) -> ImageDetail:
        try:
            return await self._tools.bus.call(
                FETCH_IMAGE, FetchImage(reference=name), tenant=self._tenant, subject=name
            )
        except (NotFoundError, InvalidRequestError) as exc:
            why = exc.message
        number, is_source = _where(recipe, name)
        if is_source:
            why = f"invalid from flag value {name}: {why}"
        raise await self._failed_at(recipe, number, why)

    async def _failed_at(self, recipe: Recipe, number: int, why: str) -> BuildFailedError:
        """Say which step it is that cannot succeed; return why."""
        step = recipe.steps[number - 1]
        title = f"Step {number}/{len(recipe.steps)} : {step.text}\n"
        await self._all([{"stream": title}])
        return BuildFailedError(why)


def _where(recipe: Recipe, image: str) -> tuple[int, bool]:
    """The step that first names an image, and whether it copies from it."""
    number = len(recipe.head)
    for stage in recipe.stages:
        for step in stage.steps:
            number += 1
            if step.name == "FROM" and stage.base == image:
                return number, False
            if source_image(step) == image:
                return number, True
    return number, False


def _pull_of(image: ImageDetail) -> tuple[str, str]:
    pin = image.pin
    repository = familiar_repository(pin.repository)
    source = f"docker://docker.io/{repository}@{pin.manifest_digest}"
    return pin.image_id, source


async def say(stream: ByteStream, document: dict[str, Any]) -> None:
    """Send one document as docker does."""
    await frames.send(stream, json.dumps(document).encode() + b"\r\n")
