"""Real nats-servers with users, certificates and tokens made for the test."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys
import pytest
import trustme

from natalog.actors.nats_server import NatsServer

SecureServer = Callable[[str], AbstractAsyncContextManager[NatsServer]]


@pytest.fixture
def secure_server(tmp_path: Path) -> SecureServer:
    """``async with secure_server(text) as server``: its configuration includes ``text``."""

    @asynccontextmanager
    async def run(text: str) -> AsyncIterator[NatsServer]:
        include = tmp_path / "include.conf"
        include.write_text(text)
        server = NatsServer(tmp_path / "server", include=include)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()

    return run


# --- certificates --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificates:
    """Files: an authority, a server's and a client's certificate and keys, another authority."""

    ca: str
    server_cert: str
    server_key: str
    client_cert: str
    client_key: str
    other_ca: str


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()

    def write(name: str, *blobs: Any) -> str:
        path = directory / name
        path.write_bytes(b"".join(blob.bytes() for blob in blobs))
        return str(path)

    server = authority.issue_cert("localhost", "127.0.0.1")
    client = authority.issue_cert("ann@example.com")
    return Certificates(
        write("ca.pem", authority.cert_pem),
        write("server.pem", *server.cert_chain_pems),
        write("server.key", server.private_key_pem),
        write("client.pem", *client.cert_chain_pems),
        write("client.key", client.private_key_pem),
        write("other.pem", trustme.CA().cert_pem),
    )


# --- keys and tokens -----------------------------------------------------------------------------


def key_pair(kind: int) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), kind))


def public(pair: nkeys.KeyPair) -> str:
    return bytes(pair.public_key).decode()


def seed(pair: nkeys.KeyPair) -> str:
    return bytes(pair.seed).decode()


def token(
    issuer: nkeys.KeyPair,
    subject: str,
    name: str,
    claims: dict[str, Any],
    expires: int | None = None,
) -> str:
    """A JWT as nats-server wants it, made by hand."""

    def text(value: Any) -> str:
        packed = json.dumps(value, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

    body: dict[str, Any] = {
        "iat": int(time.time()),
        "iss": public(issuer),
        "name": name,
        "sub": subject,
        "nats": {**claims, "version": 2},
    }
    if expires is not None:
        body["exp"] = expires
    digest = hashlib.sha256(json.dumps(body).encode()).digest()
    body["jti"] = base64.b32encode(digest).rstrip(b"=").decode()
    signed = f"{text({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{text(body)}"
    signature = base64.urlsafe_b64encode(issuer.sign(signed.encode())).rstrip(b"=").decode()
    return f"{signed}.{signature}"


@dataclass(frozen=True)
class Operator:
    """An operator with one account that has JetStream: server configuration and users."""

    config: str
    account: nkeys.KeyPair

    def creds(
        self, name: str, claims: dict[str, Any] | None = None, expires: int | None = None
    ) -> str:
        """The text of a ``.creds`` file of a new user; ``claims``: permissions and so on."""
        user = key_pair(nkeys.PREFIX_BYTE_USER)
        limits = {"subs": -1, "data": -1, "payload": -1, "type": "user"}
        jwt = token(self.account, public(user), name, {**limits, **(claims or {})}, expires)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed(user)}\n------END USER NKEY SEED------\n"
        )


@pytest.fixture
def operator() -> Operator:
    boss = key_pair(nkeys.PREFIX_BYTE_OPERATOR)
    system = key_pair(nkeys.PREFIX_BYTE_ACCOUNT)
    account = key_pair(nkeys.PREFIX_BYTE_ACCOUNT)
    unlimited = {
        **dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1),
        "wildcards": True,
    }
    storage = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    boss_jwt = token(
        boss, public(boss), "operator", {"type": "operator", "system_account": public(system)}
    )
    system_jwt = token(boss, public(system), "SYS", {"type": "account", "limits": unlimited})
    account_jwt = token(
        boss, public(account), "NATALOG", {"type": "account", "limits": {**unlimited, **storage}}
    )
    config = (
        f"operator: {boss_jwt}\n"
        f"system_account: {public(system)}\n"
        "resolver: MEMORY\n"
        "resolver_preload: {\n"
        f"  {public(system)}: {system_jwt}\n"
        f"  {public(account)}: {account_jwt}\n"
        "}\n"
    )
    return Operator(config, account)


@pytest.fixture
def user_key() -> tuple[str, str]:
    """The public key and the seed of a user."""
    pair = key_pair(nkeys.PREFIX_BYTE_USER)
    return public(pair), seed(pair)
