"""`commlib doctor`: what it finds, what it says of it, and its exit status."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner
from rich.console import Console

from announced import announced, answering_at_once
from brokers import Broker, MosquittoServer, RedisServer, free_port
from collected import DEADLINE
from commlib._discovery import EndpointInfo, Kind, NodeInfo
from commlib._hops import MAX_HOPS, place
from commlib._packet import Header, Packet, now_ms
from commlib.aio.discovery import Discovery
from commlib.cli._checks_link import check_place, judge_certificate, judge_clock, judge_times
from commlib.cli._checks_nodes import check_nodes
from commlib.cli._checks_traffic import ROUNDS, Ear, check_clocks
from commlib.cli._findings import NAMES, Finding, listed, show, summary
from commlib.cli._main import commlib
from commlib.cli._traffic import Overheard
from commlib.msg import PubSubMessage
from commlib.node import Node
from commlib.transports import resolve
from commlib.transports.base import Traits
from raw_peer import RawPeer
from talking import talking

SHARING, NOT_SHARING = Traits(), Traits(competing=False)
ADDRESS = "redis://here"
QUICK = ("--listen", "0.1", "--wait", "0.1")  # where nobody is to be heard
PATIENTLY = ("--wait", str(DEADLINE))  # until the first answer has come


class Distance(PubSubMessage):
    distance: float = 0.0


class Words(PubSubMessage):
    distance: str


@pytest.fixture(autouse=True)
def _answers_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answering_at_once(monkeypatch)


def run(url: str, *words: str) -> tuple[int, list[dict[str, str]]]:
    """The exit status and the findings of `commlib doctor --json`."""
    result = CliRunner().invoke(
        commlib, ["doctor", "--json", "--url", url, *words], catch_exceptions=False
    )
    found = json.loads(result.stdout)
    assert found["broker"] == str(resolve(url))
    return result.exit_code, found["findings"]


def only(findings: list[dict[str, str]], check: str) -> dict[str, str]:
    """The one finding of a check."""
    found = [finding for finding in findings if finding["check"] == check]
    assert len(found) == 1, findings
    return found[0]


def severities(findings: list[dict[str, str]]) -> dict[str, str]:
    """How bad each check has found it."""
    return {finding["check"]: finding["severity"] for finding in findings}


# ---- the way to the broker ----


def test_a_port_where_nothing_listens_is_an_error_with_its_cause_and_mend() -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    status, findings = run(url)
    assert status == 1
    assert [finding["check"] for finding in findings] == ["tcp"]
    assert "Connection refused" in findings[0]["text"]
    assert findings[0]["cause"].startswith("nothing listens there")
    assert "--url" in findings[0]["mend"]


def test_people_get_the_cause_and_the_mend_as_well() -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    result = CliRunner().invoke(commlib, ["doctor", "--url", url])
    words = [line.split()[0] for line in result.stdout.splitlines() if line]
    assert words == ["error", "cause:", "mend:", f"{url}/0:"]
    assert result.stdout.endswith(": 1 error\n")
    assert result.exit_code == 1


def test_a_name_that_is_none_is_told_from_a_port_that_is_closed() -> None:
    status, findings = run("redis://a..b")
    assert (status, findings[0]["check"]) == (1, "dns")


def test_a_unix_socket_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    status, findings = run(f"redis+unix://{tmp_path}/no.sock")
    assert (status, findings[0]["check"]) == (1, "socket")


def test_a_broker_that_another_one_stands_in_for_may_be_away(redis_server: RedisServer) -> None:
    url = redis_server.url_with(fallbacks=f"127.0.0.1:{free_port()}")
    status, findings = run(url, *QUICK)
    away = [finding for finding in findings if finding["severity"] == "warning"]
    assert status == 0
    assert [finding["check"] for finding in away] == ["tcp"]
    assert "another broker stands in for it" in away[0]["text"]


def test_a_wrong_password_is_an_error_of_the_login(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis(password="right")
    status, findings = run(server.url_as("", "wrong"))
    assert status == 1
    assert severities(findings) == {"tcp": "ok", "login": "error"}
    assert "wrong" not in json.dumps(findings).replace("wrong or missing", "")


def test_a_right_that_is_missing_is_named(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis(config=["user joe on >pw ~* resetchannels &commlib.discovery* +@all"])
    status, findings = run(server.url_as("joe", "pw"), *QUICK)
    denied = [finding for finding in findings if finding["check"] == "rights"]
    assert status == 1
    assert [finding["severity"] for finding in denied] == ["error", "warning"]
    assert "commlib.doctor" in denied[0]["text"]
    assert severities(findings)["nodes"] == "info"  # it goes on with what it may


# ---- TLS ----


@pytest.fixture
def make_tls(
    make_mosquitto: Callable[..., MosquittoServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., MosquittoServer]:
    """Starts a Mosquitto whose certificate holds for so many days."""
    authority = trustme.CA()

    def make(days: float, is_trusted: bool = True) -> MosquittoServer:
        ends = datetime.now(UTC) + timedelta(days=days)
        certificate = authority.issue_cert("127.0.0.1", not_after=ends)
        files = tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
        authority.cert_pem.write_to_path(files[0])
        certificate.cert_chain_pems[0].write_to_path(files[1])
        certificate.private_key_pem.write_to_path(files[2])
        if is_trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
        return make_mosquitto(certificates=files)

    return make


def test_a_certificate_of_a_stranger_is_an_error(make_tls: Callable[..., MosquittoServer]) -> None:
    status, findings = run(make_tls(90, is_trusted=False).url)
    found = only(findings, "tls")
    assert (status, found["severity"]) == (1, "error")
    assert "does not verify" in found["text"]
    assert "SSL_CERT_FILE" in found["mend"]


def test_a_certificate_that_is_trusted_is_good(make_tls: Callable[..., MosquittoServer]) -> None:
    status, findings = run(make_tls(90.5).url, *QUICK)
    found = only(findings, "tls")
    assert (status, found["severity"]) == (0, "ok")
    assert found["text"].endswith("90 more days")


def test_a_certificate_that_has_expired_is_an_error(
    make_tls: Callable[..., MosquittoServer],
) -> None:
    status, findings = run(make_tls(-1).url)
    found = only(findings, "tls")
    assert (status, found["severity"]) == (1, "error")
    assert "expired" in found["text"]


def test_a_broker_without_tls_is_told_from_a_bad_certificate(
    mosquitto_server: MosquittoServer,
) -> None:
    status, findings = run(mosquitto_server.url.replace("mqtt:", "mqtts:"))
    assert status == 1
    assert only(findings, "tls")["text"].startswith("no TLS there")


def test_a_broker_behind_websockets_is_looked_at_as_any_other(
    mqtt_websockets_server: MosquittoServer,
) -> None:
    status, findings = run(mqtt_websockets_server.url, *QUICK)
    assert status == 0
    assert only(findings, "login")["severity"] == "ok"


def test_a_port_without_websockets_is_told_from_a_broker_that_is_away(
    mosquitto_server: MosquittoServer,
) -> None:
    status, findings = run(mosquitto_server.url.replace("mqtt:", "ws:"))
    assert status == 1
    assert only(findings, "tcp")["severity"] == "ok"
    assert "is it the right port" in only(findings, "connection")["text"]


@pytest.mark.parametrize(("days", "severity"), [(22, "ok"), (20, "warning"), (0.5, "warning")])
def test_a_certificate_is_renewed_in_time(days: float, severity: str) -> None:
    until = "Jan  1 00:00:00 2030 GMT"
    now = ssl.cert_time_to_seconds(until) - days * 86_400
    found = judge_certificate({"notAfter": until}, "TLSv1.3", now)
    assert found.severity == severity
    assert "2030-01-01" in found.text


def test_a_certificate_that_nobody_looks_at_is_warned_of() -> None:
    assert "not verified" in judge_certificate({}, "TLSv1.3", 0.0).text


# ---- times ----


def test_a_slow_or_unsteady_way_is_warned_of() -> None:
    assert judge_times([1.0, 1.5, 1.0]).severity == "ok"
    assert judge_times([150.0, 151.0]).severity == "warning"
    assert judge_times([1.0, 90.0, 1.0, 90.0]).severity == "warning"


def test_a_clock_that_is_wrong_is_warned_of_with_its_direction() -> None:
    assert judge_clock(-100).severity == "ok"
    assert "1.5 s ahead of" in judge_clock(1500).text
    assert "1.5 s behind" in judge_clock(-1500).text


def test_the_clocks_of_hosts_are_compared_with_ours() -> None:
    nodes = [
        NodeInfo(name=host, id=host, host=host, process=f"p{host}") for host in ("good", "bad", "x")
    ]
    found = list(check_clocks({"pgood": 3, "pbad": -3_600_000}, nodes))
    assert [finding.severity for finding in found] == ["warning"]
    assert found[0].text.startswith("that of bad is 3600.0 s behind")
    assert [finding.severity for finding in check_clocks({"pgood": 3}, nodes)] == ["ok"]


# ---- what nodes tell ----


def node(name: str, *ports: tuple[Kind, str], id: str = "", **more: Any) -> NodeInfo:
    """What a node tells that has these ports."""
    endpoints = tuple(EndpointInfo(kind, port) for kind, port in ports)
    return NodeInfo(
        name=name, id=id or name, process=name, host="here", pid=7, endpoints=endpoints, **more
    )


def found_in(
    *nodes: NodeInfo, traits: Traits = SHARING, heard: tuple[str, ...] = ()
) -> list[Finding]:
    """What is not right with nodes."""
    return [one for one in check_nodes(nodes, traits, heard) if one.severity != "ok"]


def test_nodes_that_go_together_are_fine() -> None:
    robot = node("robot", ("publisher", "sonar"), ("service", "add"), ("action", "drive"))
    pilot = node("pilot", ("subscriber", "sonar"), ("client", "add"), ("action_client", "drive"))
    assert found_in(robot, pilot) == []


def test_two_nodes_of_one_name_are_warned_of() -> None:
    (found,) = found_in(node("robot", id="a1"), node("robot", id="b2"))
    assert (found.severity, found.check) == ("warning", "names")
    assert "id a1" in found.text
    assert "id b2" in found.text


def test_a_service_that_several_serve_is_an_error_where_the_broker_shares_nothing() -> None:
    both = node("one", ("service", "add")), node("other", ("service", "add"))
    assert found_in(*both) == []
    (found,) = found_in(*both, traits=NOT_SHARING)
    assert (found.severity, found.check) == ("error", "services")
    assert found.text.startswith("2 nodes serve add")


def test_an_action_that_several_serve_is_an_error_everywhere() -> None:
    (found,) = found_in(node("one", ("action", "drive")), node("other", ("action", "drive")))
    assert (found.severity, found.check) == ("error", "actions")


def test_a_client_without_a_service_is_warned_of() -> None:
    (found,) = found_in(node("pilot", ("client", "add")))
    assert (found.severity, found.check) == ("warning", "services")
    assert found.text == "nobody serves add, which pilot (pid 7 on here) calls"
    (found,) = found_in(node("pilot", ("action_client", "drive")))
    assert (found.severity, found.check) == ("warning", "actions")


def test_a_node_that_comes_while_it_listens_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    url = Broker.named("memory", lambda name: None).url
    late = Node("late", url, heartbeats=False)

    async def meanwhile(discovery: Discovery, nodes: list[NodeInfo]) -> list[Finding]:
        await asyncio.to_thread(late.run)
        async with asyncio.timeout(DEADLINE):
            while not discovery.nodes:
                await discovery.ask(0.1)
        return []

    monkeypatch.setattr("commlib.cli.doctor.check_pings", meanwhile)
    try:
        _, findings = run(url, "--listen", "0.01")
    finally:
        late.stop()
    assert only(findings, "nodes")["text"] == "1 node in 1 process on 1 host"


@pytest.mark.parametrize(
    ("topic", "publisher", "heard", "is_silent"),
    [
        ("sonar", "other", (), True),
        ("sonar", "other", ("sonar",), False),
        ("sonar.*", "sonar.front", (), False),
        ("sonar.*", "battery", ("sonar.back",), False),
        ("sonar.*", "battery", ("lidar.back",), True),
    ],
)
def test_a_subscriber_without_a_publisher_is_told_of(
    topic: str, publisher: str, heard: tuple[str, ...], is_silent: bool
) -> None:
    nodes = node("pilot", ("subscriber", topic)), node("robot", ("publisher", publisher))
    found = found_in(*nodes, heard=heard)
    assert [finding.severity for finding in found] == ["info"] * is_silent
    assert all(topic in finding.text for finding in found)


def test_nodes_of_several_versions_are_told_of() -> None:
    (found,) = found_in(node("old", version="1.0"), node("new", version="1.1"))
    assert (found.severity, found.check) == ("info", "versions")
    assert "1.0 (old); 1.1 (new)" in found.text


def test_another_quality_of_one_topic_is_a_warning() -> None:
    sure = NodeInfo(name="sure", id="s", endpoints=(EndpointInfo("publisher", "t", qos=1),))
    (found,) = found_in(node("quick", ("publisher", "t")), sure)
    assert (found.severity, found.check) == ("warning", "qos")


def test_no_node_at_all_is_no_fault_of_anybody() -> None:
    (found,) = found_in()
    assert found.severity == "info"


# ---- what is heard ----


def hear(
    ear: Ear, header: Header | None, topic: str = "sonar", lost: int = 0, times: int = 1
) -> None:
    """Let a message be heard."""
    for _ in range(times):
        ear.hear(Overheard(Packet(b"{}", topic), header, lost))


def wrong_in(ear: Ear, dropped: int = 0) -> list[tuple[str, str]]:
    """Severity and check of what is not right with what was heard."""
    found = ear.findings(3.0, dropped)
    return [(one.severity, one.check) for one in found if one.severity != "ok"]


@pytest.fixture
def ear() -> Ear:
    return Ear(ADDRESS, 0)


def test_good_messages_are_no_finding(ear: Ear) -> None:
    for number in range(100):
        hear(ear, Header(now_ms(), origin="a", seq=number))
    hear(ear, None, "of.a.device")
    assert wrong_in(ear) == []
    assert next(ear.findings(3.0, 0)).text == "101 messages on 2 topics in 3.0 s"


def test_numbers_that_are_missing_are_a_loss(ear: Ear) -> None:
    hear(ear, Header(origin="a", seq=9), lost=4)
    assert wrong_in(ear) == [("warning", "losses")]
    assert "sonar (4)" in next(one for one in ear.findings(3.0, 0) if one.check == "losses").text


def test_what_was_only_late_is_no_loss(ear: Ear) -> None:
    hear(ear, Header(origin="a", seq=9), lost=1)
    hear(ear, Header(origin="a", seq=8), lost=-1)
    assert wrong_in(ear) == []


def test_what_we_are_too_slow_for_is_not_blamed_on_others(ear: Ear) -> None:
    hear(ear, Header(origin="a", seq=9), lost=4)
    assert wrong_in(ear, dropped=4) == [("info", "losses")]


def test_a_message_that_has_left_this_place_before_comes_round(ear: Ear) -> None:
    hear(ear, Header(origin="a", seq=1, hops=(place(ADDRESS, "sonar"),)))
    assert wrong_in(ear) == [("error", "bridges")]


def test_a_bridged_message_is_no_loop(ear: Ear) -> None:
    hear(ear, Header(origin="a", seq=1, hops=(place("redis://there", "sonar"),)))
    assert wrong_in(ear) == []


def test_a_message_at_the_end_of_its_hops_goes_in_a_circle(ear: Ear) -> None:
    hear(ear, Header(origin="a", seq=1, hops=tuple(map(str, range(MAX_HOPS)))))
    assert wrong_in(ear) == [("error", "bridges")]


def test_a_message_that_comes_again_and_again_goes_in_a_circle(ear: Ear) -> None:
    hear(ear, Header(origin="a", seq=1), times=ROUNDS - 1)
    assert wrong_in(ear) == []  # at least once is what QoS 1 promises
    hear(ear, Header(origin="a", seq=1))
    assert wrong_in(ear) == [("error", "bridges")]


def test_a_message_that_comes_on_two_ways_is_warned_of(ear: Ear) -> None:
    hear(ear, Header(origin="a", seq=1))
    hear(ear, Header(origin="a", seq=1, hops=("12345678",)))
    assert wrong_in(ear) == [("warning", "bridges")]


def test_messages_that_are_old_when_they_come_are_warned_of(ear: Ear) -> None:
    hear(ear, Header(now_ms() - 10_000))
    assert wrong_in(ear) == [("warning", "delay")]


def test_what_the_broker_had_kept_is_not_late() -> None:
    ear = Ear(ADDRESS, now_ms())
    hear(ear, Header(now_ms() - 10_000))
    assert wrong_in(ear) == []


# ---- all of it ----


@pytest.fixture
def memory() -> str:
    """A broker in this process that no other test has."""
    return Broker.named("memory", lambda name: None).url


def test_messages_that_go_round_are_heard_while_it_listens(memory: str) -> None:
    gone = place(resolve(memory).address, "sonar")
    header = Header(now_ms(), hops=(gone,))
    with closing(RawPeer(memory)) as peer:
        with talking(lambda number: peer.publish_message("sonar", {}, header)):
            status, findings = run(memory, "--listen", "0.5", "--wait", "0.1")
    assert status == 1
    assert "in a circle: sonar" in only(findings, "bridges")["text"]


def test_messages_that_nobody_can_read_are_an_error(memory: str) -> None:
    robot, pilot = Node("robot", connection_params=memory), Node("pilot", connection_params=memory)
    robot.create_publisher("sonar", msg_type=Distance)
    pilot.create_subscriber("sonar", lambda msg: None, msg_type=Words)
    with announced(memory, robot, pilot):
        status, findings = run(memory, "--listen", "0.1", *PATIENTLY)
    found = only(findings, "schemas")
    assert (status, found["severity"]) == (1, "error")
    assert "distance" in found["text"]


@pytest.mark.parametrize("broker", ["redis", "mqtt", "amqp"], indirect=True)
def test_a_healthy_system_has_no_errors(broker: Broker) -> None:
    robot = Node(broker.unique("robot"), connection_params=broker.url)
    robot.create_publisher(broker.unique("sonar"))
    with announced(broker.url, robot):
        status, findings = run(broker.url, "--listen", "0.2", *PATIENTLY)
    assert status == 0, findings
    found = severities(findings)
    good = "tcp", "login", "nodes", "traffic"
    assert {name: found[name] for name in good} == dict.fromkeys(good, "ok")
    assert {"roundtrip", "clock", "pings", "clocks"} <= found.keys()


# ---- how it is said ----


def test_long_lists_of_names_are_cut() -> None:
    names = [f"n{number}" for number in range(NAMES + 2)]
    assert listed(names).endswith(f"n{NAMES - 1} and 2 more")
    assert listed(["a", "a", "b"]) == "a, b"


def test_the_summary_counts_what_is_wrong() -> None:
    def finding(severity: Any) -> Finding:
        return Finding(severity=severity, check="c", text="t")

    every = [finding(word) for word in ("ok", "info", "warning", "error", "error")]
    assert summary(every) == "2 errors and 1 warning"
    assert summary(every[:2]) == "nothing is wrong"


def test_what_strangers_send_does_nothing_to_the_terminal() -> None:
    screen = Console(file=StringIO(), force_terminal=False)
    show(Finding(severity="info", check="names", text="\x1b[2J[red]", cause="\x07"), screen)
    assert isinstance(screen.file, StringIO)
    assert screen.file.getvalue() == (
        "info     names      \\u001b[2J[red]\n         cause:     \\u0007\n"
    )


def test_on_a_narrow_terminal_the_text_stands_below() -> None:
    screen = Console(file=StringIO(), force_terminal=True, no_color=True, width=24)
    show(Finding(severity="info", check="names", text="word " * 6), screen)
    assert isinstance(screen.file, StringIO)
    lines = [line.rstrip() for line in screen.file.getvalue().splitlines()]
    assert lines[1:] == ["    word word word word", "    word word"]


def test_on_a_terminal_what_is_long_goes_on_below_its_beginning() -> None:
    screen = Console(file=StringIO(), force_terminal=True, no_color=True, width=60)
    show(Finding(severity="info", check="names", text="word " * 10), screen)
    assert isinstance(screen.file, StringIO)
    first, second = screen.file.getvalue().splitlines()
    assert "word" in first
    assert second.rstrip() == " " * 20 + "word word"


async def test_a_link_local_address_is_looked_at_in_its_own_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 1883, 0, 7))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
    tried: list[tuple[str, int]] = []

    async def refuse(host: str, port: int) -> None:
        tried.append((host, port))
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(asyncio, "open_connection", refuse)
    params: Any = resolve("mqtt://[fe80::1%25eth0]")
    [finding] = [each async for each in check_place(params)]
    assert tried == [("fe80::1%7", 1883)]
    assert (finding.check, finding.severity) == ("tcp", "error")
