"""The errors of the OCI distribution-spec 1.1, with the status each answers with."""

from typing import Any

from labfleet_proto.errors import PermanentError


class RegistryError(PermanentError):
    """An error that a registry client sees as `{"errors": [{code, message, detail}]}`."""

    code = "registry"

    def __init__(self, status: int, oci_code: str, message: str, detail: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.oci_code = oci_code
        self.detail = detail
        self.headers: dict[str, str] = {}

    def body(self) -> dict[str, Any]:
        """The JSON document of the specification."""
        error: dict[str, Any] = {"code": self.oci_code, "message": self.message}
        if self.detail is not None:
            error["detail"] = self.detail
        return {"errors": [error]}


def name_invalid(name: str) -> RegistryError:
    """The repository's name breaks the grammar."""
    return RegistryError(400, "NAME_INVALID", f"invalid repository name: {name}", {"name": name})


def name_unknown(name: str) -> RegistryError:
    """No such repository."""
    return RegistryError(404, "NAME_UNKNOWN", f"repository not known: {name}", {"name": name})


def manifest_unknown(name: str, reference: str) -> RegistryError:
    """No such manifest or tag in the repository."""
    where = f"{name}@{reference}" if ":" in reference else f"{name}:{reference}"
    return RegistryError(
        404,
        "MANIFEST_UNKNOWN",
        f"manifest unknown: {where}",
        {"name": name, "reference": reference},
    )


def manifest_invalid(message: str, detail: Any = None) -> RegistryError:
    """The manifest breaks a rule that the message names."""
    return RegistryError(400, "MANIFEST_INVALID", f"manifest invalid: {message}", detail)


def blob_unknown(name: str, digest: str) -> RegistryError:
    """The repository refers to no such blob."""
    return RegistryError(
        404, "BLOB_UNKNOWN", f"blob unknown to repository {name}: {digest}", {"digest": digest}
    )


def digest_invalid(digest: str, message: str = "") -> RegistryError:
    """The digest is malformed, of an algorithm other than sha256, or not that of the content."""
    return RegistryError(
        400, "DIGEST_INVALID", message or f"invalid digest: {digest}", {"digest": digest}
    )


def upload_unknown(upload: str) -> RegistryError:
    """No such upload in the repository."""
    return RegistryError(
        404, "BLOB_UPLOAD_UNKNOWN", f"blob upload unknown: {upload}", {"upload": upload}
    )


def range_refused(message: str, size: int) -> RegistryError:
    """A chunk out of order: 416 with the range that is there."""
    error = RegistryError(416, "BLOB_UPLOAD_INVALID", message, {"received_bytes": size})
    error.headers["range"] = f"0-{max(size - 1, 0)}"
    return error


def too_large(what: str, limit_bytes: int) -> RegistryError:
    """More bytes than the store takes."""
    return RegistryError(413, "SIZE_INVALID", f"{what} is larger than {limit_bytes} bytes")


def unsupported(message: str, status: int = 405) -> RegistryError:
    """The operation is not offered."""
    return RegistryError(status, "UNSUPPORTED", message)
