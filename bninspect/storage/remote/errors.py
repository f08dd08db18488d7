"""What to say of a request that failed: a status and a class of fault, in one sentence.

The messages of the libraries are never passed on, for they hold what was asked for, signatures
included; so what is raised here has no cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from bninspect.errors import Incomplete, NotFound, ReadProblem, Unreachable, Unsupported
from bninspect.storage.urls import scheme_of

INSTALL = "pip install 'bninspect[remote]'"

# The schemes of the packages that this installs.
_OF_EXTRA = ("abfs", "abfss", "adl", "az", "gcs", "gs", "hf", "http", "https", "s3", "s3a")

_CREDENTIALS = (
    "Set the credentials where the tools of that service look for them (environment, configuration"
    " file, role of the machine)."
)
_SIGNED = "Check that the URL is right, and that its signature or its password is still valid."
_NETWORK = "Check the URL and the network, or try again later."
_LATER = "Try again later."
# Codes of S3 and Azure, by what a person is to do about them.
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
# Classes of exceptions, by name: the libraries that have them need not be there.
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
_NEVER = {"NewConnectionError"}  # urllib3 takes it for one of its timeouts
_UNTRUSTED = {"ClientConnectorCertificateError", "SSLCertVerificationError"}
_TLS = {"ClientConnectorSSLError", "SSLError"}
_PROXY = {"ClientProxyConnectionError", "ProxyConnectionError", "ProxyError"}
_AWAY = {"TooManyRedirects", "RedirectClientError"}
_ODD = {"HttpStatus"}  # below 400, or beyond all that there are
_NO_URL = {"InvalidURL", "InvalidProxyConfigurationError"}
_NO_HTTP = "HttpProcessingError"
_CERTIFICATE = (
    "If it is one of your own, name the certificates to trust in SSL_CERT_FILE (for S3 in"
    " AWS_CA_BUNDLE)."
)


class HttpStatus(Exception):
    """An HTTP server answered with a status that brings no bytes."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"status {status}")


def refuse(url: str, error: BaseException) -> NoReturn:
    """Raise the `ReadProblem` that an exception of a library amounts to."""
    raise problem_of(url, error) from None


def is_missing(error: BaseException) -> bool:
    """Whether there is no such object; not so if its whole bucket is missing."""
    codes, statuses = _codes(error), _statuses(error)
    missing = isinstance(error, FileNotFoundError) or 404 in statuses or 410 in statuses
    return missing and not _NO_BUCKET & codes


def is_denied(error: BaseException) -> bool:
    """Whether this very request is not allowed to whoever sent it, known to the server or not."""
    codes = _codes(error)
    if (_EXPIRED | _REFUSED) & codes:
        return False
    return bool(_DENIED & codes) or 403 in _statuses(error) or type(error) is PermissionError


def problem_of(url: str, error: BaseException) -> ReadProblem:
    """What an exception of a library amounts to, for `url` as it is shown."""
    if isinstance(error, ReadProblem):
        return error
    if isinstance(error, ImportError):
        return missing_package(url, error)
    if _NO_BUCKET & _codes(error):
        return NotFound(url, "there is no such bucket", "Check the name of the bucket.")
    if is_missing(error):
        return NotFound(url, "no such object", "Check the URL.")
    return Unreachable(url, *_of_access(url, error) or _of_the_way(error))


def _of_access(url: str, error: BaseException) -> tuple[str, str] | None:
    """What is a matter of the credentials, and what to do; None if it is none."""
    codes, status = _codes(error), max(_statuses(error), default=None)
    web = url.startswith("http")
    if _EXPIRED & codes:
        return "the credentials have expired", "Get new ones, then try again."
    if _REFUSED & codes or status == 401:
        fault = f"the server refuses the credentials{_told(status)}"
        return fault, _SIGNED if web else _CREDENTIALS
    # adlfs/spec.py (do_connect) raises a plain ValueError where it was told of no account.
    no_account = type(error) is ValueError and scheme_of(url) in _AZURE
    if _NO_CREDENTIALS & _names(error) or no_account:
        return "no credentials were found for it", _CREDENTIALS
    if is_denied(error):
        fault = f"the server denies access{_told(status or 403)}"
        return fault, _SIGNED if web else "Check the URL, and what the credentials allow."
    return None


def _of_the_way(error: BaseException) -> tuple[str, str]:
    """What is no matter of the object or the credentials, and what to do."""
    codes, status, names = _codes(error), max(_statuses(error), default=0), _names(error)
    faults = (
        (status == 429 or "SlowDown" in codes, "the server asks for fewer requests", _LATER),
        (status >= 500, f"the server failed, again and again{_told(status)}", _LATER),
        (_UNTRUSTED & names, "the server's certificate is not trusted", _CERTIFICATE),
        (_TLS & names, "the server does not speak TLS", "Is it http:// instead of https://?"),
        (_PROXY & names, "the proxy cannot be reached", "Check HTTP_PROXY and HTTPS_PROXY."),
        (_NEVER & names, "the server cannot be reached", _NETWORK),
        (_TIMEOUTS & names, "the server did not answer in time", _NETWORK),
        (_UNREACHABLE & names, "the server cannot be reached", _NETWORK),
        (_CUT & names, "the connection was cut, again and again", _LATER),
        (_NO_HTTP in names, "what the server answers is no HTTP", _NETWORK),
        (status, f"the server refuses the request{_told(status)}", "Check the URL."),
        (
            _AWAY & names,
            "the server redirects for ever, or to what is no web server",
            "Check the URL.",
        ),
        (_NO_URL & names, "no request can be made of it", "Check the URL, and HTTP_PROXY if set."),
        (_ODD & names, "the server answers with a status that brings no file", "Check the URL."),
    )
    other = f"it cannot be read from there ({type(error).__name__})", "Check the URL and try again."
    return next(((fault, hint) for holds, fault, hint in faults if holds), other)


def missing_package(url: str, error: ImportError | None = None) -> ReadProblem:
    """What to say where the library for a scheme, or without `error` fsspec, is not installed."""
    scheme = scheme_of(url)
    hint = f"Run {INSTALL}."
    if error is not None and scheme not in _OF_EXTRA:
        missing = next((name for one in _chain(error) if (name := getattr(one, "name", ""))), "")
        lacked = f" (the module {missing} is missing)" if missing else ""
        hint = f"Install what fsspec needs for it{lacked}."
    return Unsupported(url, f"reading {scheme}:// takes more packages", hint)


def replaced(url: str) -> ReadProblem:
    """Return the error for an object that was replaced while it was read."""
    return Incomplete(
        url,
        "it was replaced by another object while it was read",
        "Try again when it has been written.",
    )


def _told(status: int | None) -> str:
    return "" if status is None else f" (status {status})"


def _chain(error: BaseException | None) -> Iterator[Any]:
    for _ in range(6):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _names(error: BaseException) -> set[str]:
    """The names of the classes of an exception and of those it came from."""
    return {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}


def _codes(error: BaseException) -> set[str]:
    """The codes that S3 or Azure gave."""
    found = set()
    for one in _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            found.add(str(response.get("Error", {}).get("Code")))
        code = getattr(one, "error_code", None)
        if code is not None:
            found.add(str(getattr(code, "value", code)))
    return found


def _statuses(error: BaseException) -> set[int]:
    """The HTTP statuses of failure that an exception tells of, under one of many names."""
    found: set[Any] = set()
    for one in _chain(error):
        if _NO_HTTP in {kind.__name__ for kind in type(one).__mro__}:
            continue  # its status is the library's own
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            found.add(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
        names = ("status", "status_code", "code")  # the first there is: aiohttp warns of its `code`
        found.add(next((getattr(one, name) for name in names if hasattr(one, name)), None))
        if type(one) is OSError and str(one).startswith("Forbidden: "):
            found.add(403)  # all that gcsfs/retry.py (validate_response) leaves of it
        found.add(getattr(response, "status_code", None))
    return {int(one) for one in found if str(one).isdecimal() and 400 <= int(one) < 600}
