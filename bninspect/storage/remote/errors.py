"""Errors of requests: one sentence for each, by the status and the class of the exception.

The messages of the libraries are never passed on, since they hold URLs with their signatures. For
the same reason the exceptions raised here have no cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from bninspect.errors import Incomplete, NotFound, ReadProblem, Unreachable, Unsupported
from bninspect.storage.urls import scheme_of
from bninspect.wording import install_command

# The schemes whose packages this installs.
_OF_EXTRA = ("abfs", "abfss", "adl", "az", "gcs", "gs", "hf", "http", "https", "s3", "s3a")

_CREDENTIALS = (
    "Set the credentials where the tools of that service look for them (environment, configuration"
    " file, role of the machine)."
)
_SIGNED = "Check that the URL is right, and that its signature or its password is still valid."
_NETWORK = "Check the URL and the network, or try again later."
_LATER = "Try again later."
# Error codes of S3 and Azure, by the remedy.
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_REFUSED = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "AuthFailure",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "InvalidBucketName"}
_DENIED = {"AccessDenied", "AllAccessDisabled", "AuthorizationPermissionMismatch", "403"}
# Classes of exceptions, by name: their libraries need not be installed.
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "DefaultCredentialsError",
    "ProfileNotFound",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
    "SSOTokenLoadError",
}
_AZURE = ("abfs", "abfss", "adl", "az")
_TIMEOUTS = {"TimeoutError", "FSTimeoutError", "ReadTimeoutError", "ConnectTimeoutError"}
_TIMEOUTS |= {"ServerTimeoutError", "ReadTimeout", "ConnectTimeout", "ServiceRequestTimeoutError"}
_CUT = {"ClientPayloadError", "IncompleteRead", "IncompleteReadError", "ServerDisconnectedError"}
_CUT |= {"ResponseStreamingError", "ConnectionResetError", "HTTPClientError", "RemoteProtocolError"}
_CUT |= {"ConnectionClosedError", "ClientOSError", "ResponseParserError"}
_UNREACHABLE = {"ConnectionError", "ClientConnectorError", "EndpointConnectionError"}
_UNREACHABLE |= {"ConnectionRefusedError", "gaierror", "ConnectError", "ServiceRequestError"}
_UNREACHABLE |= {"ClientConnectorDNSError", "ClientConnectorCertificateError", "SSLError"}
_NEVER = {"NewConnectionError"}  # for urllib3 a kind of timeout
_UNTRUSTED = {"ClientConnectorCertificateError", "SSLCertVerificationError"}
_TLS = {"ClientConnectorSSLError", "SSLError"}
_PROXY = {"ClientProxyConnectionError", "ProxyConnectionError", "ProxyError"}
_AWAY = {"TooManyRedirects", "RedirectClientError"}
_ODD = {"HttpStatus"}  # below 400, or beyond 599
_NO_URL = {"InvalidURL", "InvalidProxyConfigurationError"}
_NO_HTTP = "HttpProcessingError"
_CERTIFICATE = (
    "If the certificate is your own, name the file of trusted ones in SSL_CERT_FILE (for S3 in"
    " AWS_CA_BUNDLE)."
)


class HttpStatus(Exception):
    """An HTTP status without the bytes of an object."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"status {status}")


def refuse(url: str, error: BaseException) -> NoReturn:
    """Raise the `ReadProblem` for an exception of a library."""
    raise problem_of(url, error) from None


def is_missing(error: BaseException) -> bool:
    """Return whether the object is missing; a missing bucket is another error."""
    codes, statuses = _codes(error), _statuses(error)
    missing = isinstance(error, FileNotFoundError) or 404 in statuses or 410 in statuses
    return missing and not _NO_BUCKET & codes


def is_denied(error: BaseException) -> bool:
    """Return whether the server denies this request, to valid credentials or without any."""
    codes = _codes(error)
    if (_EXPIRED | _REFUSED) & codes:
        return False
    return bool(_DENIED & codes) or 403 in _statuses(error) or type(error) is PermissionError


def problem_of(url: str, error: BaseException) -> ReadProblem:
    """Return the `ReadProblem` for an exception of a library; `url` is without credentials."""
    if isinstance(error, ReadProblem):
        return error
    if isinstance(error, ImportError):
        return missing_package(url, error)
    if _NO_BUCKET & _codes(error):
        return NotFound(url, "no such bucket", "Check the name of the bucket.")
    if is_missing(error):
        return NotFound(url, "no such object", "Check the URL.")
    return Unreachable(url, *_access_fault(url, error) or _transport_fault(error))


def _access_fault(url: str, error: BaseException) -> tuple[str, str] | None:
    """Return a fault of the credentials and what to do; None for other faults."""
    codes, status = _codes(error), max(_statuses(error), default=None)
    web = url.startswith("http")
    if _EXPIRED & codes:
        return "the credentials have expired", "Get new ones, then try again."
    if _REFUSED & codes or status == 401:
        fault = f"the server refuses the credentials{_with_status(status)}"
        return fault, _SIGNED if web else _CREDENTIALS
    # adlfs/spec.py (do_connect) raises a plain ValueError without an account.
    no_account = type(error) is ValueError and scheme_of(url) in _AZURE
    if _NO_CREDENTIALS & _names(error) or no_account:
        return "no credentials were found", _CREDENTIALS
    if is_denied(error):
        fault = f"the server denies access{_with_status(status or 403)}"
        return fault, _SIGNED if web else "Check the URL and the permissions of the credentials."
    return None


def _transport_fault(error: BaseException) -> tuple[str, str]:
    """Return a fault of the network or the server and what to do."""
    codes, status, names = _codes(error), max(_statuses(error), default=0), _names(error)
    faults = (
        (status == 429 or "SlowDown" in codes, "the server asks for fewer requests", _LATER),
        (status >= 500, f"the server failed repeatedly{_with_status(status)}", _LATER),
        (_UNTRUSTED & names, "the server's certificate is not trusted", _CERTIFICATE),
        (_TLS & names, "the server does not support TLS", "Try http:// instead of https://."),
        (_PROXY & names, "the proxy cannot be reached", "Check HTTP_PROXY and HTTPS_PROXY."),
        (_NEVER & names, "the server cannot be reached", _NETWORK),
        (_TIMEOUTS & names, "the server did not answer in time", _NETWORK),
        (_UNREACHABLE & names, "the server cannot be reached", _NETWORK),
        (_CUT & names, "the connection was cut repeatedly", _LATER),
        (_NO_HTTP in names, "the server's reply is not valid HTTP", _NETWORK),
        (status, f"the server refuses the request{_with_status(status)}", "Check the URL."),
        (
            _AWAY & names,
            "the server redirects in a circle, or to something that is not a web server",
            "Check the URL.",
        ),
        (
            _NO_URL & names,
            "its URL, or that of the proxy, is not valid",
            "Check the URL, and HTTP_PROXY if it is set.",
        ),
        (_ODD & names, "the server's status is not one that comes with a file", "Check the URL."),
    )
    unknown_fault = f"it cannot be read ({type(error).__name__})", "Check the URL and try again."
    return next(((fault, hint) for holds, fault, hint in faults if holds), unknown_fault)


def missing_package(url: str, error: ImportError | None = None) -> ReadProblem:
    """Return the error for a missing library of a scheme, or for missing fsspec (no `error`)."""
    scheme = scheme_of(url)
    hint = f"Run {install_command('remote')}."
    if error is not None and scheme not in _OF_EXTRA:
        missing = next(
            (name for cause in _chain(error) if (name := getattr(cause, "name", ""))), ""
        )
        module = f" (the module {missing} is missing)" if missing else ""
        hint = f"Install what fsspec needs for it{module}."
    return Unsupported(url, f"reading {scheme}:// needs more packages", hint)


def replaced(url: str) -> ReadProblem:
    """Return the error for an object that was replaced while it was read."""
    return Incomplete(
        url,
        "it was replaced by another object while it was read",
        "Try again when it has been written.",
    )


def _with_status(status: int | None) -> str:
    return "" if status is None else f" (status {status})"


def _chain(error: BaseException | None) -> Iterator[Any]:
    for _ in range(6):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _names(error: BaseException) -> set[str]:
    """Return the names of the classes of an exception and of its causes."""
    return {kind.__name__ for cause in _chain(error) for kind in type(cause).__mro__}


def _codes(error: BaseException) -> set[str]:
    """Return the error codes of S3 or Azure."""
    codes = set()
    for cause in _chain(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            codes.add(str(response.get("Error", {}).get("Code")))
        code = getattr(cause, "error_code", None)
        if code is not None:
            codes.add(str(getattr(code, "value", code)))
    return codes


def _statuses(error: BaseException) -> set[int]:
    """Return the HTTP error statuses of an exception, which has them under one of many names."""
    statuses: set[Any] = set()
    for cause in _chain(error):
        if _NO_HTTP in {kind.__name__ for kind in type(cause).__mro__}:
            continue  # the status is the library's own
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            statuses.add(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
        names = ("status", "status_code", "code")  # the first one: aiohttp deprecates its `code`
        statuses.add(next((getattr(cause, name) for name in names if hasattr(cause, name)), None))
        if type(cause) is OSError and str(cause).startswith("Forbidden: "):
            statuses.add(403)  # gcsfs/retry.py (validate_response) leaves only this text
        statuses.add(getattr(response, "status_code", None))
    return {
        int(status) for status in statuses if str(status).isdecimal() and 400 <= int(status) < 600
    }
