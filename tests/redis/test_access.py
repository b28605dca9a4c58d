"""Ways into a Redis server that others do not have, and how it refuses.

What all brokers have alike is in tests/security.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from brokers import RedisServer
from collected import Collected, eventually
from commlib.exceptions import AuthError
from commlib.node import Node
from commlib.transports.redis import (
    ConnectionParameters,
    RPCClient,
    RPCService,
    UnixSocketConnectionParameters,
)
from security.access import round_trip

MakeRedis = Callable[..., RedisServer]


def test_a_password_alone_opens_the_door(make_redis: MakeRedis) -> None:
    server = make_redis(password="s3cret")
    round_trip(f"redis://:s3cret@127.0.0.1:{server.port}", "numbers")
    round_trip(
        ConnectionParameters(host="127.0.0.1", port=server.port, password="s3cret"), "numbers"
    )


def test_a_password_where_none_is_needed_is_an_error_that_says_so(make_redis: MakeRedis) -> None:
    server = make_redis()
    node = Node("n", connection_params=f"redis://:s3cret@127.0.0.1:{server.port}")
    with pytest.raises(AuthError, match="password"):
        node.run()
    node.stop()


def test_a_user_who_may_not_publish_is_counted_and_logged_once(
    make_redis: MakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_redis(users={"robot": "on >secret ~* resetchannels &allowed.* +@all"})
    url = server.url_as("robot", "secret")
    with Node("n", connection_params=url, heartbeats=False, discovery=False) as node:
        publisher = node.create_publisher("forbidden")
        for number in range(5):
            publisher.publish({"n": number})
        eventually(lambda: publisher.stats.rejected == 5)
        assert caplog.text.count("NOPERM") == 1


def test_a_node_that_may_not_beat_is_told_so_once_and_of_its_messages_all_the_same(
    make_redis: MakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_redis(users={"robot": "on >secret ~* resetchannels &allowed.* +@all"})
    url = server.url_as("robot", "secret")
    with Node(
        "n",
        connection_params=url,
        heartbeat_interval=0.005,
        remote_logger=True,
        discovery=False,
    ) as node:
        publisher = node.create_publisher("forbidden")
        eventually(lambda: publisher.stats.rejected >= 3)
        assert caplog.text.count("NOPERM") == 1
        assert "n.heartbeat" in caplog.text
        node.log.error("not heard afar")
        publisher.publish({"n": 1})
        eventually(lambda: caplog.text.count("NOPERM") == 3)
        for topic in ("n.heartbeat", "n.logs", "forbidden"):
            assert caplog.text.count(f"broker: {topic}: ") == 1


@pytest.mark.parametrize(("user", "bad"), [("robot", "forbidden"), ("keeper", "occupied")])
def test_a_service_that_may_not_be_served_leaves_its_neighbours_alone(
    make_redis: MakeRedis, caplog: pytest.LogCaptureFixture, user: str, bad: str
) -> None:
    server = make_redis(users={"robot": "on >robot ~good ~rpc-* &* +@all"})
    server.cli("SET", "occupied", "by a text")
    with Node("n", connection_params=server.url_as(user, user)) as node:
        node.create_rpc("good", lambda request: {"n": request["n"] * 2})
        client = node.create_rpc_client("good")
        assert client.call({"n": 1}, timeout=5) == {"n": 2}
        refused = node.create_rpc(bad, lambda request: request)
        for number in range(100):
            assert client.call({"n": number}, timeout=5) == {"n": 2 * number}
        eventually(lambda: refused.stats.rejected == 1)
        assert not node.health
    assert caplog.text.count(f"{bad} is not served") == 1


def test_a_right_to_a_channel_that_comes_back_brings_its_subscription_back(
    make_redis: MakeRedis,
) -> None:
    server = make_redis(users={"robot": "on >secret ~* &* +@all"})
    got = Collected()
    url = server.url_as("robot", "secret")
    with Node("n", connection_params=url, heartbeats=False, discovery=False) as node:
        subscriber = node.create_subscriber("t.x", got)
        server.cli("ACL", "SETUSER", "robot", "resetchannels")  # and its connection is cut
        eventually(lambda: subscriber.stats.rejected == 1 and node.connected)
        assert not node.health
        server.cli("ACL", "SETUSER", "robot", "allchannels")
        eventually(lambda: server.cli("PUBLISH", "t.x", "7") == 1)
        assert got.wait() == [7]
        assert node.health


def test_a_user_who_may_not_expire_keys_serves_all_the_same(
    make_redis: MakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_redis(users={"robot": "on >secret ~* &* +@all -expire"})
    with Node("n", connection_params=server.url_as("robot", "secret")) as node:
        service = node.create_rpc("double", lambda request: {"n": request["n"] * 2})
        client = node.create_rpc_client("double")
        for number in range(5):
            assert client.call({"n": number}, timeout=5) == {"n": 2 * number}
        assert service.stats.rejected == 0
    assert "None" not in caplog.text


def test_a_caller_cannot_have_a_service_delete_the_keys_of_others(make_redis: MakeRedis) -> None:
    server = make_redis()
    server.cli("HSET", "map", "room", "kitchen")
    server.cli("RPUSH", "list", "milk")
    with Node("n", connection_params=server.url) as node:
        node.create_rpc("double", lambda request: {"n": request["n"] * 2})
        client = node.create_rpc_client("double")
        for key in ("map", "list"):
            server.cli("RPUSH", "double", f'{{"header":{{"reply_to":"{key}"}},"data":{{"n":1}}}}')
        eventually(lambda: server.cli("LLEN", "list") == 2)
        assert client.call({"n": 4}, timeout=5) == {"n": 8}
    assert [server.cli("TTL", key) for key in ("map", "list")] == [-1, -1], "they stay"


def test_databases_keep_queues_apart(make_redis: MakeRedis) -> None:
    server = make_redis()
    params = [ConnectionParameters("127.0.0.1", server.port, db=db) for db in (0, 3)]
    services = [
        RPCService("which", lambda request, db=db: {"db": db}, None, params[i])
        for i, db in enumerate((0, 3))
    ]
    for service in services:
        service.run()
    clients = [RPCClient("which", None, p) for p in params]
    assert [client.call({}, timeout=5)["db"] for client in clients] == [0, 3]
    for endpoint in (*services, *clients):
        endpoint.stop()


def test_a_unix_socket_is_as_good_as_a_port(make_redis: MakeRedis) -> None:
    server = make_redis()
    round_trip(UnixSocketConnectionParameters(unix_socket=server.unix_socket), "numbers")
    round_trip(f"redis+unix://{server.unix_socket}?db=1", "numbers")
