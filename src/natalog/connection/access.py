"""Who connects to NATS, and how: user and password, token, nkey, JWT credentials, TLS.

Nothing of it is shown: secrets are left out of ``repr``, and `shown_url` takes them out of an
address before it gets into a log, an error or a file.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from nats.aio.client import RawCredentials

from natalog.core.errors import InvalidConfig, InvalidName

ENVIRONMENT: Final = {
    "user": "NATS_USER",
    "password": "NATS_PASSWORD",
    "token": "NATS_TOKEN",
    "creds": "NATS_CREDS",
    "nkey": "NATS_NKEY",
    "tls_ca": "NATS_CA",
    "tls_cert": "NATS_CERT",
    "tls_key": "NATS_KEY",
    "tls_first": "NATS_TLS_FIRST",
    "inbox_prefix": "NATS_INBOX_PREFIX",
    "js_api_prefix": "NATS_JS_API_PREFIX",
}
"""Variables by setting; those that the nats command line has are named as there."""

_CONTEXT: Final = {
    "user": "user",
    "password": "password",
    "token": "token",
    "creds": "creds",
    "nkey": "nkey",
    "user_jwt": "user_jwt",
    "user_seed": "user_seed",
    "ca": "tls_ca",
    "cert": "tls_cert",
    "key": "tls_key",
    "tls_first": "tls_first",
    "inbox_prefix": "inbox_prefix",
    "jetstream_api_prefix": "js_api_prefix",
}
_FILES: Final = ("creds", "nkey", "tls_ca", "tls_cert", "tls_key")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")
_SEED: Final = re.compile(r"SU[A-Z2-7]{56}\Z")
_CREDS_BEGIN: Final = "BEGIN NATS USER JWT"
_SEED_BEGIN: Final = "BEGIN USER NKEY SEED"
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("", "0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class Access:
    """How to connect; every field may be missing.

    ``user``, ``password``, ``token``: as they are.  ``creds``: a ``.creds`` file or its text;
    ``user_jwt`` with ``user_seed``: the same in two pieces.  ``nkey``: a file with a user's seed,
    or the seed.  ``tls_ca``: certificates to trust in place of the system's; ``tls_cert`` and
    ``tls_key``: our own; ``tls_first``: handshake before the server says anything.
    ``inbox_prefix``: subjects that answers come to, where the user may not receive on ``_INBOX``.
    ``js_api_prefix``: in place of ``$JS.API``, where the logs are in another account.

    >>> Access(user="ann", password="secret")
    Access(user='ann')
    """

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    creds: str | None = field(default=None, repr=False)
    nkey: str | None = field(default=None, repr=False)
    user_jwt: str | None = field(default=None, repr=False)
    user_seed: str | None = field(default=None, repr=False)
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_first: bool = False
    inbox_prefix: str | None = None
    js_api_prefix: str | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name == "tls_first":
                if not isinstance(value, bool):
                    raise InvalidConfig("tls_first is true or false.", key="tls_first")
            elif isinstance(value, Path):
                object.__setattr__(self, one.name, str(value))
            elif value is not None and not isinstance(value, str):
                raise InvalidConfig(f"{one.name} is text.", key=one.name)
        ways = {
            "user": self.user is not None or self.password is not None,
            "token": self.token is not None,
            "creds": self.creds is not None or self.user_jwt is not None,
            "nkey": self.nkey is not None,
        }
        named = [way for way, given in ways.items() if given]
        if len(named) > 1:
            raise InvalidConfig(f"There is more than one identity: {', '.join(named)}.", keys=named)
        if (self.user_jwt is None) != (self.user_seed is None):
            raise InvalidConfig("user_jwt and user_seed go together.", key="user_jwt")
        if self.tls_key is not None and self.tls_cert is None:
            raise InvalidConfig("tls_key is the key of a tls_cert.", key="tls_key")
        if self.inbox_prefix is not None:
            check_prefix(self.inbox_prefix, "inbox prefix")
        if self.js_api_prefix is not None:
            check_prefix(self.js_api_prefix.removeprefix("$"), "prefix of JetStream's API")

    def __repr__(self) -> str:
        shown = [
            f"{one.name}={getattr(self, one.name)!r}"
            for one in fields(self)
            if one.repr and getattr(self, one.name) not in (None, False)
        ]
        return f"Access({', '.join(shown)})"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Access:
        """From settings by name; `InvalidConfig` for a name that there is not."""
        known = {one.name for one in fields(cls)}
        for name in settings:
            if name not in known:
                raise InvalidConfig(
                    f"There is no setting {name} for a connection; known are "
                    f"{', '.join(sorted(known))}.",
                    key=name,
                )
        return cls(**{name: value for name, value in settings.items() if value is not None})

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Access:
        """From ``NATS_USER``, ``NATS_PASSWORD``, ``NATS_CREDS`` and so on (see `ENVIRONMENT`)."""
        source = os.environ if environ is None else environ
        found: dict[str, Any] = {}
        for name, variable in ENVIRONMENT.items():
            value = source.get(variable)
            if value:
                found[name] = _truth(variable, value) if name == "tls_first" else value
        return cls(**found)

    @classmethod
    def from_context(cls, settings: Mapping[str, Any]) -> Access:
        """From a context file of the nats command line; ``~`` stands for the home directory."""
        found = {
            ours: settings[theirs] for theirs, ours in _CONTEXT.items() if settings.get(theirs)
        }
        for name in _FILES:
            value = found.get(name)
            if isinstance(value, str) and not _is_text_of(name, value):
                found[name] = str(Path(value).expanduser())
        return cls(**found)

    def over(self, other: Access) -> Access:
        """These settings, and those of ``other`` where this one has none.

        An identity is taken as a whole: a token here leaves no user of ``other``.
        """
        identity = ("user", "password", "token", "creds", "nkey", "user_jwt", "user_seed")
        mine = {name for name in identity if getattr(self, name) is not None}
        taken: dict[str, Any] = {}
        for one in fields(self):
            value, theirs = getattr(self, one.name), getattr(other, one.name)
            if value in (None, False) and theirs not in (None, False):
                half = mine <= {"user", "password"} and one.name in ("user", "password")
                if one.name not in identity or not mine or half:
                    taken[one.name] = theirs
        return replace(self, **taken)

    @property
    def wants_tls(self) -> bool:
        """Whether a connection without TLS would not be what was asked for."""
        return self.tls_first or self.tls_ca is not None or self.tls_cert is not None

    def options(self) -> dict[str, Any]:
        """The same for nats-py's ``connect``; `InvalidConfig` for files that cannot be used."""
        made: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("user", "password", "token", "inbox_prefix")
            if getattr(self, name) is not None
        }
        if self.creds is not None:
            made["user_credentials"] = (
                RawCredentials(self.creds)
                if _is_text_of("creds", self.creds)
                else _checked_file("creds", self.creds)
            )
        elif self.user_jwt is not None:
            made["user_credentials"] = RawCredentials(
                f"-----{_CREDS_BEGIN}-----\n{self.user_jwt}\n------END NATS USER JWT------\n\n"
                f"-----{_SEED_BEGIN}-----\n{self.user_seed}\n------END USER NKEY SEED------\n"
            )
        if self.nkey is not None:
            text = _is_text_of("nkey", self.nkey)
            name = "nkeys_seed_str" if text else "nkeys_seed"
            made[name] = self.nkey if text else _checked_file("nkey", self.nkey)
        if self.wants_tls:
            made["tls"] = self._tls()
        if self.tls_first:
            made["tls_handshake_first"] = True
        return made

    def _tls(self) -> ssl.SSLContext:
        try:
            made = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert is not None:
                made.load_cert_chain(self.tls_cert, self.tls_key)
        except (OSError, ValueError) as error:
            raise InvalidConfig(
                f"The TLS files cannot be used: {error.strerror or error}."
                if isinstance(error, OSError)
                else f"The TLS files cannot be used: {error}.",
                tls_ca=self.tls_ca,
                tls_cert=self.tls_cert,
                tls_key=self.tls_key,
            ) from None
        return made


def _is_text_of(name: str, value: str) -> bool:
    """Whether a setting holds the secret itself and not the path of a file."""
    return bool(_CREDS_BEGIN in value if name == "creds" else _SEED.match(value.strip()))


def _checked_file(name: str, path: str) -> str:
    """The path of a file that holds what it should."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidConfig(
            f"The {name} file {path} cannot be read: {reason}.", key=name, path=path
        ) from None
    if name == "creds" and not (_CREDS_BEGIN in text and _SEED_BEGIN in text):
        raise InvalidConfig(f"{path} holds no credentials of a user.", key=name, path=path)
    if name == "nkey" and not _SEED.match(text.strip()):
        raise InvalidConfig(f"{path} holds no seed of a user.", key=name, path=path)
    return path


def _truth(name: str, text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise InvalidConfig(f"{name} is true or false, not {text!r}.", key=name)


def check_prefix(prefix: object, what: str = "subject prefix") -> str:
    """A prefix of subjects, itself; `InvalidName` for wildcards, spaces and empty tokens."""
    if isinstance(prefix, str) and len(prefix) <= 256 and _PREFIX.match(prefix):
        return prefix
    raise InvalidName(f"{str(prefix)[:80]!r} is no {what}.", name=str(prefix)[:80])


def shown_url(url: str) -> str:
    """An address without the user, password or token that may stand in it.

    >>> shown_url("nats://ann:secret@nats.example.com:4222")
    'nats://nats.example.com:4222'
    """
    if "@" not in url:
        return url
    if "://" not in url:
        return url.rpartition("@")[2]
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


# --- contexts of the nats command line -----------------------------------------------------------


def context_directory() -> Path:
    """Where the nats command line keeps its contexts."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "nats" / "context"


def context_names() -> list[str]:
    """The contexts that there are."""
    directory = context_directory()
    return sorted(path.stem for path in directory.glob("*.json")) if directory.is_dir() else []


def read_context(name: str) -> dict[str, Any]:
    """The settings of a context; `InvalidConfig` when there is none or it cannot be read."""
    if not name or "/" in name or "\\" in name or ".." in name:
        raise InvalidConfig(f"{name[:80]!r} is no name of a NATS context.", context=name[:80])
    path = context_directory() / f"{name}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(context_names()) or "none"
        raise InvalidConfig(
            f"there is no NATS context {name} (known: {known})", context=name
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise InvalidConfig(f"cannot read the NATS context {path}: {reason}") from None
    if not isinstance(found, dict):
        raise InvalidConfig(f"cannot read the NATS context {path}: it is no JSON object")
    return found
