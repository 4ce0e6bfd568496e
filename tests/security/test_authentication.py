"""Every way to say who one is, against a real nats-server that asks for it."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import natalog
import natalog.sync
from natalog.actors.config import ServiceConfig
from natalog.actors.nats_port import NatsPort
from natalog.actors.service import running
from natalog.connection import Access
from natalog.core.errors import Forbidden, InvalidConfig, Unavailable

SECRET = "correct-horse-battery"


async def accepted(url: str, access: Access) -> None:
    """Client and service come in with this access, and nobody without."""
    client = await natalog.connect(url, access=access)
    await client.close()
    port = await NatsPort.connect(url, access=access)
    await port.api("INFO")
    await port.close()


async def refused(url: str, access: Access | None = None) -> None:
    with pytest.raises(Forbidden):
        await natalog.connect(url, access=access or Access())
    with pytest.raises(Forbidden):
        await NatsPort.connect(url, access=access)


@pytest.mark.asyncio
async def test_user_and_password(secure_server: Any) -> None:
    async with secure_server(f"authorization {{ user: ann, password: {SECRET} }}") as server:
        await accepted(server.url, Access(user="ann", password=SECRET))
        await accepted(server.url.replace("//", f"//ann:{SECRET}@"), Access())
        await refused(server.url)
        await refused(server.url, Access(user="ann", password="wrong"))


@pytest.mark.asyncio
async def test_token(secure_server: Any) -> None:
    async with secure_server(f"authorization {{ token: {SECRET} }}") as server:
        await accepted(server.url, Access(token=SECRET))
        await refused(server.url, Access(token="wrong"))


@pytest.mark.asyncio
async def test_nkey(secure_server: Any, user_key: tuple[str, str], tmp_path: Path) -> None:
    name, seed = user_key
    path = tmp_path / "user.nk"
    path.write_text(seed + "\n")
    async with secure_server(f"authorization {{ users: [ {{ nkey: {name} }} ] }}") as server:
        await accepted(server.url, Access(nkey=str(path)))
        await accepted(server.url, Access(nkey=seed))
        await refused(server.url)


@pytest.mark.asyncio
async def test_jwt_credentials(secure_server: Any, operator: Any, tmp_path: Path) -> None:
    path = tmp_path / "ann.creds"
    path.write_text(operator.creds("ann"))
    async with secure_server(operator.config) as server:
        await accepted(server.url, Access(creds=str(path)))
        await accepted(server.url, Access(creds=path.read_text()))
        lines = path.read_text().splitlines()
        await accepted(server.url, Access(user_jwt=lines[1], user_seed=lines[5]))
        await refused(server.url)


@pytest.mark.asyncio
async def test_tls_with_an_authority_of_our_own(secure_server: Any, certificates: Any) -> None:
    files = f"cert_file: {certificates.server_cert!r}, key_file: {certificates.server_key!r}"
    async with secure_server(f"tls {{ {files} }}".replace("'", '"')) as server:
        await accepted(server.url, Access(tls_ca=certificates.ca))
        await accepted(server.url.replace("nats:", "tls:"), Access(tls_ca=certificates.ca))
        for access in (Access(), Access(tls_ca=certificates.other_ca)):
            with pytest.raises(Unavailable, match=r"(?i)certificate"):
                await natalog.connect(server.url, access=access)
            with pytest.raises(Unavailable, match=r"(?i)certificate"):
                await NatsPort.connect(server.url, access=access)


@pytest.mark.asyncio
@pytest.mark.parametrize("first", [False, True])
async def test_tls_with_certificates_on_both_sides(
    secure_server: Any, certificates: Any, first: bool
) -> None:
    config = (
        f"tls {{ cert_file: '{certificates.server_cert}', key_file: '{certificates.server_key}', "
        f"ca_file: '{certificates.ca}', verify_and_map: true, handshake_first: {str(first).lower()}"
        " }\nauthorization { users: [ { user: 'ann@example.com' } ] }"
    ).replace("'", '"')
    ours = Access(
        tls_ca=certificates.ca,
        tls_cert=certificates.client_cert,
        tls_key=certificates.client_key,
        tls_first=first,
    )
    async with secure_server(config) as server:
        await accepted(server.url, ours)
        with pytest.raises((Unavailable, Forbidden)):
            await natalog.connect(
                server.url, tls_ca=certificates.ca, tls_first=first, timeout=natalog.Timeout(3)
            )


@pytest.mark.asyncio
async def test_a_secret_is_not_told_to_a_server_without_tls(
    secure_server: Any, certificates: Any
) -> None:
    said = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"X","version":"2.15.1","max_payload":1048576}\r\n')
        said.extend(await reader.read(4096))
        writer.close()

    fake = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"nats://127.0.0.1:{fake.sockets[0].getsockname()[1]}"
    access = Access(user="ann", password=SECRET, tls_ca=certificates.ca)
    with pytest.raises(Unavailable, match="TLS"):
        await natalog.connect(url, access=access)
    with pytest.raises(Unavailable, match="TLS"):
        await natalog.connect(url.replace("nats:", "tls:"), user="ann", password=SECRET)
    with pytest.raises(Unavailable):
        await NatsPort.connect(url, access=access)
    fake.close()
    await fake.wait_closed()
    assert not said


@pytest.mark.asyncio
async def test_the_service_and_its_own_server_with_users(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    include = tmp_path / "users.conf"
    include.write_text(
        f"authorization {{ users: [ {{ user: natalog, password: {SECRET} }}, "
        f"{{ user: ann, password: {SECRET}2 }} ] }}"
    )
    config = ServiceConfig.load(
        None,
        data=tmp_path / "data",
        listen="127.0.0.1:0",
        server_config=include,
        metrics_port=0,
        access={"user": "natalog", "password": SECRET},
    )
    async with running(config) as service:
        assert SECRET not in service.url
        with pytest.raises(Forbidden):
            await natalog.connect(service.url)
        async with natalog.connect(service.url, user="ann", password=f"{SECRET}2") as client:
            await client.create_database("people", schema_flexibility="read")
            await client.database("people").transact([{"name": "Ann"}])
            with pytest.raises(natalog.NatalogError) as failed:
                await client.database("nobody").db()
            assert SECRET not in repr(failed.value.data)
            assert SECRET not in repr(client.session.transport)
        reader, writer = await asyncio.open_connection("127.0.0.1", service.metrics_port)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert SECRET.encode() not in await reader.read()
        writer.close()
    assert SECRET not in repr(config)
    assert SECRET not in caplog.text
    assert not any(
        SECRET.encode() in path.read_bytes() for path in (tmp_path / "data").rglob("*.log")
    )


@pytest.mark.asyncio
async def test_errors_name_servers_without_secrets() -> None:
    url = f"nats://ann:{SECRET}@127.0.0.1:1"
    for attempt in (natalog.connect(url), NatsPort.connect(url)):
        with pytest.raises(Unavailable) as failed:
            await attempt
        shown = f"{failed.value!r} {failed.value.message} {failed.value.data}"
        assert "127.0.0.1:1" in shown
        assert SECRET not in shown


@pytest.mark.asyncio
async def test_a_new_token_in_the_file_is_taken_up(
    secure_server: Any, operator: Any, tmp_path: Path
) -> None:
    """The server ends a connection whose token expires; the file holds the next one by then."""
    path = tmp_path / "ann.creds"
    soon = int(time.time()) + 2
    path.write_text(operator.creds("ann", expires=soon))
    async with secure_server(operator.config) as server:
        port = await NatsPort.connect(server.url, access=Access(creds=str(path)))
        path.write_text(operator.creds("ann"))
        async with asyncio.timeout(20):
            while not port.disconnects:
                await asyncio.sleep(0.02)
            await port.wait_connected()
        await port.api("INFO")
        assert not port.closed.is_set()
        await port.close()


def test_the_synchronous_client_takes_the_same(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read"):
        natalog.sync.connect("nats://127.0.0.1:1", creds=str(tmp_path / "none"))
    with pytest.raises(Unavailable):
        natalog.sync.connect("nats://127.0.0.1:1", user="ann", password=SECRET)


def test_the_command_line(tmp_path: Path) -> None:
    include = tmp_path / "users.conf"
    include.write_text(f"authorization {{ user: ann, password: {SECRET} }}")
    (tmp_path / "nats" / "context").mkdir(parents=True)
    environ = {
        key: value for key, value in os.environ.items() if not key.startswith(("NATS_", "XDG_"))
    } | {"XDG_CONFIG_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "natalog"]
    service = subprocess.Popen(
        [
            *(*command, "serve", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "data")),
            *("--server-config", str(include)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ | {"NATS_USER": "ann", "NATS_PASSWORD": SECRET},
    )
    try:
        assert service.stdout is not None
        url = service.stdout.readline().split()[-1]
        assert url.startswith("nats://127.0.0.1:")
        (tmp_path / "nats" / "context" / "lab.json").write_text(
            f'{{"url": "{url}", "user": "ann", "password": "{SECRET}"}}'
        )

        def listed(*options: str, **variables: str) -> int:
            done = subprocess.run(
                [*command, "db", "list", *options],
                capture_output=True,
                text=True,
                env=environ | variables,
            )
            assert SECRET not in done.stdout + done.stderr
            return done.returncode

        assert listed("--nats", url, "--user", "ann", "--password", SECRET) == 0
        assert listed("--nats", url, f"--password={SECRET}", "--user=ann") == 0
        assert listed("--nats", url, NATS_USER="ann", NATS_PASSWORD=SECRET) == 0
        assert listed("--context", "lab") == 0
        assert listed(NATS_CONTEXT="lab") == 0
        assert listed("--nats", url) == 3
        assert listed("--context", "none") == 2
    finally:
        service.terminate()
        _, said = service.communicate(timeout=30)
    assert SECRET not in said
