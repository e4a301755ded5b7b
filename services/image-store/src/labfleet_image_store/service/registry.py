"""OCI distribution 1.1 over HTTP, as a plain ASGI application: blobs are most of its traffic.

One method a route and verb of the specification.
"""

import asyncio
import contextlib
import json
import re
import time
from typing import Any, BinaryIO
from urllib.parse import parse_qs

from labfleet_chassis.caller import acting_for
from labfleet_chassis.logs import Log
from labfleet_image_store import metrics
from labfleet_image_store.adapters import sendfile
from labfleet_image_store.adapters.blob_files import BlobFiles
from labfleet_image_store.adapters.uploads import Upload
from labfleet_image_store.core import manifests, ranges, references, registry_scopes
from labfleet_image_store.service.blob_sending import send_blob
from labfleet_image_store.service.catalogue import Catalogue
from labfleet_image_store.service.door import Door
from labfleet_image_store.service.paging import page_of, reply_json
from labfleet_image_store.service.passing import Passing
from labfleet_image_store.service.receiving import Receiver
from labfleet_image_store.service.registry_request import (
    Receive,
    RegistryError,
    Request,
    Send,
    translated,
)
from labfleet_image_store.service.token_server import TokenServer, entered
from labfleet_proto.errors import (
    LabfleetError,
    NotFoundError,
)
from labfleet_proto.ids import Digest
from labfleet_proto.images import familiar_repository, is_unnamed
from labfleet_proto.registry_access import Action

_DRAIN_LIMIT_S = 10.0

_ROUTES = (
    ("base", re.compile(r"/v2/?")),
    ("token", re.compile(r"/v2/token")),
    ("catalog", re.compile(r"/v2/_catalog")),
    ("tags", re.compile(r"/v2/(?P<name>.+)/tags/list")),
    ("upload", re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<upload>[^/]+)")),
    ("uploads", re.compile(r"/v2/(?P<name>.+)/blobs/uploads/?")),
    ("blob", re.compile(r"/v2/(?P<name>.+)/blobs/(?P<digest>[^/]+)")),
    ("manifest", re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")),
    ("referrers", re.compile(r"/v2/(?P<name>.+)/referrers/(?P<digest>[^/]+)")),
)


class Registry:
    """The application."""

    def __init__(
        self, files: BlobFiles, catalogue: Catalogue, door: Door, passing: Passing, log: Log
    ) -> None:
        self._files = files
        self._door = door
        self._tokens = TokenServer(door)
        self._passing = passing
        self._catalogue = catalogue
        self._receiver = Receiver(files, catalogue.quotas)
        self._log = log

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        kind, part = _route(scope["path"])
        request = Request(
            method=scope["method"],
            headers={k.decode().lower(): v.decode("latin-1") for k, v in scope["headers"]},
            query=parse_qs(scope["query_string"].decode(), keep_blank_values=True),
            part=part,
            visitor=None,
            receive=receive,
            send=send,
            send_file=(scope.get("extensions") or {}).get(sendfile.EXTENSION, _never),
            scheme=scope.get("scheme", "http"),
            server=":".join(str(each) for each in scope.get("server") or ("localhost",)),
        )
        began = time.perf_counter()
        try:
            await self._serve(kind, request)
        except RegistryError as exc:
            await self._refuse(request, exc)
        except LabfleetError as exc:
            await self._refuse(request, translated(kind, exc))
        except ConnectionError as exc:  # of a blob on its way: nobody is there to be answered
            self._log.info("registry.left", kind=kind, error=str(exc))
        except OSError as exc:
            self._log.exception("registry.failed", kind=kind)
            await self._refuse(request, RegistryError(500, "UNKNOWN", str(exc)))
        finally:
            metrics.REQUESTS.labels(kind, request.method, request.status).inc()
            metrics.DURATION.labels(kind, request.method).observe(time.perf_counter() - began)

    async def _refuse(self, request: Request, error: RegistryError) -> None:
        if request.status:
            self._log.warning("registry.cut", error=str(error))
            return
        await request.drain(_DRAIN_LIMIT_S)
        text = {"errors": [{"code": error.code, "message": str(error), "detail": None}]}
        body = json.dumps(text).encode()
        await request.reply(
            error.status,
            {"Content-Type": "application/json", **error.headers},
            b"" if request.method == "HEAD" else body,
        )

    async def _serve(self, kind: str, request: Request) -> None:
        handler = getattr(self, f"_{kind}_{request.method.lower()}", None)
        if kind == "token" and handler is not None:
            await handler(request)
            return
        name = request.part.get("name")
        need = registry_scopes.needed(kind, request.method, name)
        visitor = entered(self._door, request, (need,) if need is not None else ())
        request.visitor = visitor
        if name is not None:
            plain = familiar_repository(name) if visitor.is_exact else name
            is_good = references.is_repository(plain) or (
                visitor.is_exact and (is_unnamed(name) or references.is_stored(plain))
            )
            if not is_good:
                raise RegistryError(400, "NAME_INVALID", f"repository name {name!r} is not valid")
            request.part["name"] = references.canonical(name)
        if handler is None and request.method == "HEAD":
            handler = getattr(self, f"_{kind}_get", None)
        if handler is None:
            status = 404 if kind == "unknown" else 405
            raise RegistryError(status, "UNSUPPORTED", f"{request.method} is not supported here")
        with acting_for(visitor.tenant):
            await handler(request)

    # -- base, catalogue, tags

    async def _base_get(self, request: Request) -> None:
        await request.reply(200, {"Content-Type": "application/json"}, b"{}")

    async def _token_get(self, request: Request) -> None:
        await self._tokens.get(request)

    async def _token_post(self, request: Request) -> None:
        await self._tokens.post(request)

    async def _catalog_get(self, request: Request) -> None:
        every = self._catalogue.repositories()
        readable = [name for name in every if request.known.may(name, Action.PULL)]
        names, link = page_of(request, readable, "/v2/_catalog")
        await reply_json(request, {"repositories": names}, link)

    async def _tags_get(self, request: Request) -> None:
        name = request.part["name"]
        try:
            every = self._catalogue.tags_of(request.readable())
        except NotFoundError:
            every = await self._passing.tags(request.known, name)
        tags, link = page_of(request, every, f"/v2/{name}/tags/list")
        await reply_json(request, {"name": name, "tags": tags}, link)

    # -- blobs

    def _blob(self, request: Request) -> tuple[str, str]:
        name, digest = request.part["name"], request.part["digest"]
        if not references.is_digest(digest):
            raise RegistryError(400, "DIGEST_INVALID", f"digest {digest!r} is not valid")
        for repository in request.readable():
            if self._files.has(repository, digest):
                return repository, digest
        raise NotFoundError(f"blob {digest} is not in {name}")

    async def _fetched_blob(self, request: Request) -> tuple[str, str]:
        """The blob, wherever it must come from. Raises NotFoundError."""
        try:
            return self._blob(request)
        except NotFoundError:
            digest = request.part["digest"]
            if request.method != "HEAD":  # who only asks may be about to push it
                await self._passing.heal(request.readable(), digest)
        with contextlib.suppress(NotFoundError):
            return self._blob(request)
        return await self._passing.blob(request.known, request.part["name"], digest), digest

    async def _blob_get(self, request: Request) -> None:
        repository, digest = await self._fetched_blob(request)
        size = self._files.size(digest)
        headers = {
            "Docker-Content-Digest": digest,
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
            "ETag": f'"{digest}"',
        }
        first, last, status = 0, size - 1, 200
        try:
            wanted = ranges.parse_range(request.headers.get("range", ""), size)
        except ValueError as exc:
            raise RegistryError(416, "RANGE_INVALID", f"range {exc} of {size} bytes") from exc
        if wanted is not None:
            first, last = wanted
            status = 206
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        headers["Content-Length"] = str(last - first + 1)
        if request.method == "HEAD":
            await asyncio.to_thread(self._files.link, repository, digest)  # a push relies on it now
        await request.head(status, headers)
        if request.method == "HEAD":
            await request.send({"type": "http.response.body", "body": b""})
            return
        await send_blob(self._files, request, digest, first, last)

    async def _blob_delete(self, request: Request) -> None:
        repository, digest = self._blob(request)
        if repository != request.own:
            raise RegistryError(403, "DENIED", "a shared repository is read-only")
        await asyncio.to_thread(self._files.unlink, repository, digest)
        await request.reply(202, {})

    # -- uploads

    async def _uploads_post(self, request: Request) -> None:
        own = request.own
        mount, source = request.asked("mount"), request.asked("from")
        if mount and not references.is_digest(mount):
            raise RegistryError(400, "DIGEST_INVALID", f"digest {mount!r} is not valid")
        if mount and source:
            readable = request.mountable(references.canonical(source))
            if any(self._files.has(repository, mount) for repository in readable):
                await self._receiver.mount(own, mount)
                await self._created(request, mount)
                return
        digest = request.asked("digest")
        upload = self._receiver.begin(own, digest)
        if digest is not None:
            await self._receiver.receive(request, upload)
            await self._finish(request, upload, digest)
            return
        await self._accepted(request, upload, 202)

    def _find(self, request: Request) -> Upload:
        return self._files.uploads.find(request.own, request.part["upload"])

    async def _upload_get(self, request: Request) -> None:
        await self._accepted(request, self._find(request), 204)

    async def _upload_patch(self, request: Request) -> None:
        upload = self._find(request)
        async with upload.lock:
            self._check_range(request, upload)
            await self._receiver.receive(request, upload)
        await self._accepted(request, upload, 202)

    async def _upload_put(self, request: Request) -> None:
        digest = request.asked("digest")
        if digest is None or not references.is_digest(digest):
            raise RegistryError(400, "DIGEST_INVALID", f"digest {digest!r} is not valid")
        upload = self._find(request)
        async with upload.lock:
            self._check_range(request, upload)
            await self._receiver.receive(request, upload)
            await self._finish(request, upload, digest)

    async def _upload_delete(self, request: Request) -> None:
        self._files.uploads.cancel(self._find(request))
        await request.reply(204, {})

    def _check_range(self, request: Request, upload: Upload) -> None:
        header = request.headers.get("content-range")
        if header is None:
            return
        try:
            first, _ = ranges.parse_content_range(header)
        except ValueError as exc:
            raise RegistryError(400, "BLOB_UPLOAD_INVALID", f"Content-Range {exc}") from exc
        self._files.uploads.check_offset(upload, first)

    async def _finish(self, request: Request, upload: Upload, digest: str) -> None:
        await self._receiver.finish(upload, digest)
        await self._created(request, digest)

    async def _created(self, request: Request, digest: str) -> None:
        name = request.part["name"]
        await request.reply(
            201, {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest}
        )

    async def _accepted(self, request: Request, upload: Upload, status: int) -> None:
        headers = {
            "Location": f"/v2/{request.part['name']}/blobs/uploads/{upload.id}",
            "Range": f"0-{max(upload.size - 1, 0)}",
            "Docker-Upload-UUID": upload.id,
        }
        await request.reply(status, headers)

    # -- manifests

    async def _manifest_get(self, request: Request) -> None:
        reference = request.part["reference"]
        try:
            record = self._catalogue.first_of(request.readable(), reference)
        except NotFoundError:
            if not references.is_digest(reference) and not references.is_tag(reference):
                raise
            record = await self._passing.manifest(request.known, request.part["name"], reference)
        try:
            body = self._files.read(record.digest, manifests.MOST_BYTES)
        except NotFoundError:
            await self._passing.heal((record.repository,), record.digest)
            body = self._files.read(record.digest, manifests.MOST_BYTES)
        headers = {
            "Content-Type": record.media_type,
            "Docker-Content-Digest": record.digest,
            "ETag": f'"{record.digest}"',
            "Content-Length": str(len(body)),
        }
        await request.reply(200, headers, b"" if request.method == "HEAD" else body)

    async def _manifest_put(self, request: Request) -> None:
        name, reference = request.part["name"], request.part["reference"]
        if not references.is_digest(reference) and not references.is_tag(reference):
            raise RegistryError(400, "TAG_INVALID", f"tag {reference!r} is not valid")
        body = await request.body(manifests.MOST_BYTES)
        content_type = request.headers.get("content-type", "").partition(";")[0].strip()
        try:
            digest, manifest = await self._catalogue.put_manifest(
                request.own, reference, body, content_type
            )
        except NotFoundError as exc:
            raise RegistryError(400, "MANIFEST_BLOB_UNKNOWN", exc.message) from exc
        headers = {
            "Location": f"/v2/{name}/manifests/{digest}",
            "Docker-Content-Digest": digest,
        }
        if manifest.subject is not None:
            headers["OCI-Subject"] = manifest.subject
        await request.reply(201, headers)

    async def _manifest_delete(self, request: Request) -> None:
        own, reference = request.own, request.part["reference"]
        if references.is_digest(reference):
            await self._catalogue.drop_manifest(own, self._catalogue.record(own, reference).digest)
        else:
            await self._catalogue.untag(own, reference)
        await request.reply(202, {})

    async def _referrers_get(self, request: Request) -> None:
        digest = request.part["digest"]
        if not references.is_digest(digest):
            raise RegistryError(400, "DIGEST_INVALID", f"digest {digest!r} is not valid")
        wanted = request.asked("artifactType")
        rows = [
            {
                "mediaType": record.media_type,
                "digest": record.digest,
                "size": record.size_bytes,
                "artifactType": manifest.artifact_type,
                "annotations": manifest.annotations,
            }
            for record, manifest in self._catalogue.referrers(request.readable(), Digest(digest))
            if wanted is None or manifest.artifact_type == wanted
        ]
        index = {"schemaVersion": 2, "mediaType": manifests.OCI_INDEX, "manifests": rows}
        headers = {"Content-Type": manifests.OCI_INDEX}
        if wanted is not None:
            headers["OCI-Filters-Applied"] = "artifactType"
        await request.reply(200, headers, json.dumps(index).encode())


def _route(path: str) -> tuple[str, dict[str, str]]:
    for kind, pattern in _ROUTES:
        found = pattern.fullmatch(path)
        if found:
            return kind, found.groupdict()
    return "unknown", {}


async def _never(_file: BinaryIO, _first: int, _count: int) -> bool:
    """A server without the extension."""
    return False
