"""Errors of object stores and file servers, each as one line: what is wrong, what to do next.

s3fs, gcsfs and adlfs raise OSError where they know the answer, and errors of the packages below them
(botocore, aiohttp, google.auth, azure) elsewhere. These packages may be missing, so errors are told
apart by the names of their classes and by the codes of the S3 protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ddiseg.errors import StoreError


@dataclass(frozen=True)
class Cause:
    """One kind of fault."""

    names: frozenset[str]  #: names of exceptions, and codes of answers
    what: str
    do: str
    is_outage: bool = False  #: the next request would wait in vain too


def _cause(names: str, what: str, do: str, *, is_outage: bool = False) -> Cause:
    return Cause(frozenset(names.split()), what, do, is_outage)


_AGAIN = "what was finished is kept: run the same command again"

#: The first one that fits an error or one of its causes counts.
CAUSES = (
    _cause(
        "NoCredentialsError PartialCredentialsError DefaultCredentialsError CredentialRetrievalError "
        "ProfileNotFound ConfigNotFound InvalidConfigError ClientAuthenticationError",
        "there are no usable credentials",
        "set those of your provider, for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile",
    ),
    _cause(
        "ExpiredToken ExpiredTokenException TokenRefreshRequired RequestExpired RefreshError "
        "UnauthorizedSSOTokenError SSOTokenLoadError TokenRetrievalError",
        "the credentials have expired",
        f"get new ones; {_AGAIN}",
    ),
    _cause(
        "InvalidAccessKeyId SignatureDoesNotMatch InvalidToken InvalidSecurity AuthFailure",
        "the server does not know this access key, or the secret does not belong to it",
        "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
    ),
    _cause(
        "RequestTimeTooSkewed RequestInTheFuture",
        "the clock of this machine differs from the server's",
        "set it right, then run the same command again",
    ),
    _cause(
        "AuthorizationHeaderMalformed PermanentRedirect IllegalLocationConstraintException "
        "InvalidRegionError NoRegionError 301 307",
        "the bucket is in another region",
        "set AWS_DEFAULT_REGION to the bucket's region",
    ),
    _cause(
        "NoSuchBucket BucketNotFound ContainerNotFound",
        "there is no such bucket",
        "make it, or correct its name or the endpoint",
    ),
    _cause(
        "InvalidBucketName ParamValidationError InvalidURI KeyTooLongError",
        "the server can't have such a name",
        "give another bucket or prefix",
    ),
    _cause(
        "QuotaExceeded XMinioStorageFull InsufficientStorage 507",
        "the store is full",
        f"free some space; {_AGAIN}",
    ),
    _cause(
        "AccessDenied AllAccessDisabled AccountProblem Forbidden PermissionError 401 403",
        "access was denied",
        "check what these credentials may do: docs/object_stores.md has the permissions",
    ),
    _cause(
        "SSLError ClientConnectorCertificateError ClientConnectorSSLError SSLCertVerificationError",
        "there is no secure connection (TLS)",
        "check the endpoint's https and certificate; AWS_CA_BUNDLE names that of your own authority",
    ),
    _cause(
        "ClientConnectorDNSError gaierror",
        "there is no server of this name",
        "check the endpoint and the network",
        is_outage=True,
    ),
    _cause(
        "SlowDown ServiceUnavailable Throttling ThrottlingException RequestLimitExceeded "
        "TooManyRequests 429 503",
        "the server asks for fewer requests and did so again after several tries",
        f"wait a while; {_AGAIN}",
        is_outage=True,
    ),
    _cause(
        "BadDigest XAmzContentSHA256Mismatch XAmzContentChecksumMismatch FlexibleChecksumError "
        "ChecksumError",
        "a file arrived with other bytes than were sent",
        f"check the network; {_AGAIN}",
    ),
    _cause(
        "ConnectTimeoutError ReadTimeoutError TimeoutError FSTimeoutError ServerTimeoutError "
        "RequestTimeout ConnectionTimeoutError SocketTimeoutError 504",
        "the server did not answer in time",
        f"check the network; {_AGAIN}",
        is_outage=True,
    ),
    _cause(
        "EndpointConnectionError ClientConnectorError ConnectionRefusedError ServiceRequestError "
        "ProxyConnectionError NoValidConnectionsError",
        "the server can't be reached",
        f"check the endpoint and the network; {_AGAIN}",
        is_outage=True,
    ),
    _cause(
        "ConnectionClosedError ClientPayloadError ServerDisconnectedError ConnectionResetError "
        "IncompleteRead IncompleteReadError ResponseStreamingError HTTPClientError ClientOSError "
        "ConnectionError BrokenPipeError IncompleteBody ServiceResponseError",
        "the connection broke off, also after several tries",
        f"check the network; {_AGAIN}",
        is_outage=True,
    ),
    _cause(
        "InternalError 500 502 OperationAborted",
        "the server has an error of its own",
        f"wait a while; {_AGAIN}",
        is_outage=True,
    ),
    _cause(
        "ResponseParserError 405 501 MethodNotAllowed NotImplemented",
        "the server does not answer as an object store does",
        "check the endpoint",
    ),
)


def explain(error: BaseException, place: str) -> StoreError:
    """Return an error of a remote place as ours.

    Args:
        place: What can't be used, as messages name it; it must hold no secret.
    """
    names = set(_names(error))
    for cause in CAUSES:
        if names & cause.names:
            return StoreError(f"{place}: {cause.what}: {cause.do}", is_outage=cause.is_outage)
    first = next(iter(str(error).strip().splitlines()), "")[:200] or type(error).__name__
    return StoreError(
        f"{place} can't be used ({first}): correct that, then run the same command again"
    )


def is_bucket_missing(error: BaseException) -> bool:
    """Return whether a FileNotFoundError is about the bucket, not about an object."""
    return bool({"NoSuchBucket", "BucketNotFound", "ContainerNotFound"} & set(_names(error)))


def is_content_broken_off(error: BaseException) -> bool:
    """Return whether an answer began well, and its content was not whole or had other bytes."""
    broken = "ClientPayloadError ResponseStreamingError IncompleteRead IncompleteReadError FlexibleChecksumError"
    return bool(set(broken.split()) & set(_names(error)))


def _names(error: BaseException) -> Iterator[str]:
    """Yield the names of the classes of an error and its causes, and the codes of answers."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield from (kind.__name__ for kind in type(each).__mro__)
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            yield str(response.get("Error", {}).get("Code", ""))
        for name in ("code", "status", "status_code", "error_code"):
            if isinstance(value := getattr(each, name, None), int | str):
                yield str(value)
        inner = getattr(each, "kwargs", None)  # botocore keeps what it wraps there
        inside = [*inner.values()] if isinstance(inner, dict) else []
        causes = [each.__cause__, getattr(each, "os_error", None), *inside]
        waiting += [cause for cause in causes if isinstance(cause, BaseException)]
