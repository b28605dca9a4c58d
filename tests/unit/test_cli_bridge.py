"""`commlib bridge` as its user sees it: what it says of a file, what it runs, what signals do."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from brokers import RedisServer
from collected import Collected, eventually
from commlib.cli._bridge_file import BadFile, expand, overlaps, read_rules, unguarded_loops
from commlib.cli._valkey import ValkeyProcess
from commlib.node import Node

COMMAND = "from commlib.cli import main; main()"
WITHOUT_YAML = "import sys; sys.modules['yaml'] = None; "
LONGEST = 30.0

Start = Callable[..., "subprocess.Popen[str]"]
Write = Callable[[str], Path]

BROKERS = "brokers: {edge: 'memory://edge', cloud: 'memory://cloud'}\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of bridges."""

    def write(text: str) -> Path:
        file = tmp_path / "bridges.yaml"
        file.write_text(text)
        return file

    return write


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `commlib bridge` with the arguments given, and ends it with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path, before: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", before + COMMAND, "bridge", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    found = process.stdout.readline().rstrip("\n")
    assert found, f"it ended: {process.communicate(timeout=LONGEST)[1]}"
    return found


def errors_in(text: str, write: Write) -> list[str]:
    """What is wrong with a file, without its name."""
    file = write(text)
    with pytest.raises(BadFile) as caught:
        read_rules(file)
    return [found.removeprefix(f"{file}: ") for found in str(caught.value).splitlines()]


def rule(**changes: str) -> str:
    """A bridge as it stands in a file, with other fields."""
    fields = {
        "type": "topic",
        "from": "{broker: edge, uri: sonar}",
        "to": "{broker: cloud, uri: robot.sonar}",
        **{name.rstrip("_"): text for name, text in changes.items()},
    }
    lines = "\n    ".join(f"{name}: {text}" for name, text in fields.items() if text)
    return f"  - {lines}\n"


def bridges(*rules: str) -> str:
    return f"{BROKERS}bridges:\n{''.join(rules)}"


# ---- what is in a file ----


def test_a_file_names_brokers_and_the_bridges_between_them(write: Write) -> None:
    rules = read_rules(
        write(
            bridges(
                rule(name="front", envelope="true", max_messages="500", max_age="2.5"),
                rule(
                    type="pattern",
                    from_="{broker: edge, uri: sensors.*}",
                    to="{broker: cloud, namespace: robot}",
                    transform="[[sensors, readings], [a, b]]",
                ),
                rule(type="rpc", concurrency="8", timeout="5"),
                rule(type="action"),
            )
        )
    )
    assert [rule.type for rule in rules] == ["topic", "pattern", "rpc", "action"]
    assert [rule.name for rule in rules[:2]] == ["front", "sensors.* -> robot"]
    assert dict(rules[0].options) == {"envelope": True, "max_messages": 500, "max_age": 2.5}
    assert dict(rules[1].options) == {"transform": [("sensors", "readings"), ("a", "b")]}
    assert (str(rules[2].source), str(rules[2].sink)) == ("memory://edge", "memory://cloud")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (rule(type="topik"), "bridges[0].type: 'topik' is no type; did you mean topic?"),
        (
            rule(from_="{broker: egde, uri: a}"),
            "bridges[0].from.broker: 'egde' is no broker of this file; did you mean edge?",
        ),
        (
            rule(name="front", to="{broker: cloud, urx: a}"),
            "bridges[0] (front).to: 'urx' is not known here; did you mean uri?",
        ),
        (rule(to="{broker: cloud, uri: 5}"), "bridges[0].to.uri: a text is expected, not 5"),
        (rule(to="cloud"), "bridges[0].to: 'broker:' and 'uri:' are expected"),
        (rule(envelop="true"), "bridges[0]: 'envelop' is not known here; did you mean envelope?"),
        (rule(envelope="1"), "bridges[0].envelope: 1 is not true or false"),
        (rule(max_messages="true"), "bridges[0].max_messages: True is not a whole number"),
        (rule(max_age="soon"), "bridges[0].max_age: 'soon' is not a number"),
        (rule(max_messages="0"), "bridges[0]: there must be room for one message at least"),
        (rule(transform="[[a, b]]"), "bridges[0]: 'transform' is not known here; it has"),
        (
            rule(
                type="pattern",
                from_="{broker: edge, uri: a.*}",
                to="{broker: cloud, namespace: b}",
                transform="[[a]]",
            ),
            "bridges[0].transform: a list of pairs of texts is expected: [[from, to], ...]",
        ),
        (
            rule(type="pattern", to="{broker: cloud, namespace: b}"),
            "bridges[0]: from_uri='sonar' must hold '*'; a TopicBridge takes one topic",
        ),
        (rule(from_="{broker: edge, uri: a.*}"), "bridges[0]: 'a.*' is a pattern"),
        (
            rule(to="{broker: edge, uri: sonar}"),
            "bridges[0]: sonar -> sonar: source and sink are the same topic of the same broker",
        ),
        ("  - topic\n", "bridges[0]: 'type:', 'from:' and 'to:' are expected"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_was_meant(
    text: str, error: str, write: Write
) -> None:
    (found,) = errors_in(bridges(text), write)
    assert found.startswith(error)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "'brokers:' and 'bridges:' are expected"),
        ("brokers: {a: 'memory://'}", "bridges: at least one is needed"),
        ("bridges: []", "brokers: at least one is needed"),
        ("broker: {}\nbridges: []", "'broker' is not known here; did you mean brokers?"),
        ("brokers: {a: memory://\nbridges:", "line 2: no YAML:"),
        ("\xff", ""),
    ],
)
def test_a_file_of_another_shape_is_refused(text: str, error: str, write: Write) -> None:
    assert errors_in(text, write)[0].startswith(error)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="No such file"):
        read_rules(tmp_path / "none.yaml")


def test_all_mistakes_are_told_at_once(write: Write) -> None:
    found = errors_in(bridges(rule(type="topik"), rule(), rule(envelope="1")), write)
    assert [error.partition(".")[0] for error in found] == ["bridges[0]", "bridges[2]"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (rule(), rule()),
        (rule(type="rpc"), rule(type="rpc", to="{broker: cloud, uri: other}")),
        (
            rule(
                type="pattern",
                from_="{broker: edge, uri: sensors.*}",
                to="{broker: cloud, namespace: robot}",
            ),
            rule(
                from_="{broker: edge, uri: sensors.front}",
                to="{broker: cloud, uri: robot.sensors.front}",
            ),
        ),
        (
            rule(
                type="pattern",
                from_="{broker: edge, uri: sensors.*}",
                to="{broker: cloud, namespace: robot}",
            ),
            rule(
                type="pattern",
                from_="{broker: edge, uri: sensors.front.*}",
                to="{broker: cloud, namespace: robot}",
            ),
        ),
    ],
)
def test_two_bridges_that_would_deliver_twice_are_refused(
    first: str, second: str, write: Write
) -> None:
    (found,) = errors_in(bridges(first, second), write)
    assert found.startswith("bridges[1]")
    assert "takes the same as bridges[0]" in found


def test_bridges_that_share_a_source_and_not_a_target_do_not_overlap(write: Write) -> None:
    pattern = rule(
        type="pattern",
        from_="{broker: edge, uri: sensors.*}",
        to="{broker: cloud, namespace: robot}",
    )
    rules = read_rules(
        write(
            bridges(
                rule(),
                rule(to="{broker: cloud, uri: other}"),
                rule(type="rpc"),
                pattern,
                pattern.replace("robot", "copy"),
                rule(from_="{broker: cloud, uri: sonar}", to="{broker: edge, uri: robot.sonar}"),
            )
        )
    )
    assert not any(overlaps(one, other) for one in rules for other in rules if one is not other)


def test_a_loop_in_which_bare_messages_would_go_round_is_told(write: Write) -> None:
    there = rule(
        type="pattern", from_="{broker: edge, uri: a.*}", to="{broker: cloud, namespace: ''}"
    )
    back = rule(from_="{broker: cloud, uri: a.b}", to="{broker: edge, uri: a.b}")
    round_trip = rule(
        type="pattern", from_="{broker: cloud, uri: a.*}", to="{broker: edge, namespace: ''}"
    )
    assert len(list(unguarded_loops(read_rules(write(bridges(there, back)))))) == 1
    assert len(list(unguarded_loops(read_rules(write(bridges(there, round_trip)))))) == 1
    guarded = bridges(there, round_trip.replace("type", "envelope: true\n    type", 1))
    assert list(unguarded_loops(read_rules(write(guarded)))) == []
    assert list(unguarded_loops(read_rules(write(bridges(there, rule()))))) == []


# ---- secrets ----


def test_variables_of_the_environment_stand_for_parts_of_a_url(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "p@ss/w:rd")
    monkeypatch.setenv("HOST", "cloud.example")
    brokers = "brokers: {edge: 'memory://edge', cloud: 'redis://bot:${SECRET}@${HOST}:6380'}\n"
    (found,) = read_rules(write(f"{brokers}bridges:\n{rule()}"))
    assert str(found.sink) == "redis://cloud.example:6380/0"
    assert found.sink.credentials == ("bot", "p@ss/w:rd")  # type: ignore[attr-defined]


def test_a_variable_may_be_the_whole_url() -> None:
    url = "redis://bot:secret@host:6380"
    assert expand("${URL}", {"URL": url}) == url


@pytest.mark.parametrize(
    "url",
    [
        "redis://bot:hunter2#@host:6379",
        "redis://bot:hunter2@host:hunter2",
        "redsi://bot:hunter2@host",
        "redis://host?passwort=hunter2@",
        "redis://host:${HUNTER}",
        "bot:hunter2@host",
    ],
)
def test_no_error_shows_what_may_be_a_password(
    url: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUNTER", "hunter2")
    found = errors_in(
        f"brokers: {{edge: 'memory://edge', cloud: '{url}'}}\nbridges:\n{rule()}", write
    )
    assert found[0].startswith("brokers.cloud: ")
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    "entry",
    [
        rule(from_="{broker: 'redis://bot:hunter2@host', uri: sonar}"),
        rule(type="'redis://bot:hunter2@host'"),
        rule(from_="{broker: edge, 'redis://bot:hunter2@host': sonar}"),
        rule(to="{broker: cloud, uri: ['redis://bot:hunter2@host']}"),
        rule(from_="{broker: [edge], uri: sonar}"),
        rule(type="[topic]"),
        "  - 2026-13-45\n",
    ],
)
def test_a_url_in_a_wrong_place_and_odd_values_are_errors_that_show_no_password(
    entry: str, write: Write
) -> None:
    found = errors_in(
        f"brokers: {{edge: 'memory://a', cloud: 'memory://b'}}\nbridges:\n{entry}", write
    )
    assert found
    assert "hunter2" not in "".join(found)


def test_a_line_that_is_no_yaml_is_not_shown(write: Write) -> None:
    found = errors_in("brokers:\n  cloud: 'redis://bot:hunter2@host\n", write)
    assert "hunter2" not in "".join(found)


def test_a_variable_that_is_not_set_and_a_wrong_scheme_are_told(write: Write) -> None:
    brokers = "brokers: {edge: 'redsi://host', cloud: 'redis://${NO_SUCH_VARIABLE}'}\n"
    found = errors_in(f"{brokers}bridges:\n{rule()}", write)
    assert found[0] == "brokers.edge: no transport for redsi://; did you mean redis?"
    assert found[1] == "brokers.cloud: the environment has no variable NO_SUCH_VARIABLE"


def test_what_is_wrong_beside_the_login_is_told(write: Write) -> None:
    brokers = "brokers: {edge: 'mqtt://bot:hunter2@host?protocol=5', cloud: 'memory://'}\n"
    (found,) = errors_in(f"{brokers}bridges:\n{rule()}", write)
    assert found.startswith("brokers.edge: protocol='5': it is MQTTv311")


# ---- the command ----


def test_check_tells_what_a_file_does(start: Start, write: Write) -> None:
    file = write(bridges(rule(), rule(type="rpc")))
    out, err = start("check", file).communicate(timeout=LONGEST)
    assert out.splitlines() == [
        "topic memory://edge sonar -> memory://cloud robot.sonar",
        "rpc memory://edge sonar -> memory://cloud robot.sonar",
        f"{file}: 2 bridges, nothing wrong",
    ]
    assert err == ""


@pytest.mark.parametrize("what", ["check", "run"])
def test_a_bad_file_is_told_and_ends_with_status_one(start: Start, write: Write, what: str) -> None:
    process = start(what, write(bridges(rule(type="topik"))))
    out, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 1
    assert out == ""
    assert re.search(r"^Error: .*bridges\.yaml: bridges\[0\]\.type: 'topik'", err)
    assert "Traceback" not in err


def test_without_yaml_one_line_says_what_to_install(start: Start, write: Write) -> None:
    process = start("check", write(bridges(rule())), before=WITHOUT_YAML)
    assert process.communicate(timeout=LONGEST)[1] == (
        'Error: the bridge command needs PyYAML: pip install "commlib-py[cli]"\n'
    )


def from_one_to_the_other(edge: str, cloud: str, *topics: str) -> str:
    """A file of bridges between these brokers, one for each topic."""
    rules = (
        f"  - type: topic\n    from: {{broker: edge, uri: {topic}}}\n"
        f"    to: {{broker: cloud, uri: robot.{topic}}}\n"
        for topic in topics
    )
    return f"brokers: {{edge: '{edge}', cloud: '{cloud}'}}\nbridges:\n{''.join(rules)}"


class Field:
    """Two brokers, and what arrives on the second one."""

    def __init__(self, edge: str, cloud: str) -> None:
        self.edge = Node("edge", connection_params=edge)
        self.cloud = Node("cloud", connection_params=cloud)
        self.publisher = self.edge.create_mpublisher()
        self.got = Collected()
        self.cloud.create_psubscriber("robot.*", self.got)
        self.text = partial(from_one_to_the_other, edge, cloud)

    def __enter__(self) -> Field:
        self.edge.run()
        self.cloud.run()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.edge.stop()
        self.cloud.stop()


@pytest.fixture
def two_brokers(redis_server: RedisServer, valkey_server: ValkeyProcess) -> Iterator[Field]:
    with Field(redis_server.url, valkey_server.url) as field:
        yield field


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_the_bridges_until_a_signal(
    start: Start, write: Write, two_brokers: Field, number: signal.Signals
) -> None:
    process = start("run", write(two_brokers.text("a", "b")))
    assert line(process) == "2 bridges running"
    two_brokers.publisher.publish(1, "a")
    two_brokers.publisher.publish(2, "b")
    assert sorted(two_brokers.got.wait(2)) == [(1, "robot.a"), (2, "robot.b")]

    process.send_signal(number)
    out, err = process.communicate(timeout=LONGEST)

    assert (process.returncode, out) == (0, "")
    assert "a -> robot.a: 1 received, 1 forwarded" in err
    assert "Traceback" not in err


def test_all_bridges_of_a_file_have_one_connection_to_each_broker(
    start: Start,
    write: Write,
    make_redis: Callable[[], RedisServer],
    valkey_server: ValkeyProcess,
) -> None:
    server = make_redis()
    text = from_one_to_the_other(server.url, valkey_server.url, *"abcdefgh")
    assert line(start("run", write(text))) == "8 bridges running"
    # One for commands and one for channels, beside the one that asks.
    assert server.cli("CLIENT", "LIST").count(b"\n") == 3


def test_sighup_restarts_what_has_changed_and_nothing_else(
    start: Start, write: Write, two_brokers: Field
) -> None:
    process = start("run", write(two_brokers.text("kept", "old")))
    assert line(process) == "2 bridges running"
    two_brokers.publisher.publish("before", "kept")
    two_brokers.got.wait(1)

    write(two_brokers.text("kept", "new"))
    process.send_signal(signal.SIGHUP)
    assert line(process) == "2 bridges running"
    for topic in ("old", "new", "kept"):
        two_brokers.publisher.publish("after", topic)
    two_brokers.got.wait(3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=LONGEST)

    assert sorted(two_brokers.got.items[1:]) == [("after", "robot.kept"), ("after", "robot.new")]
    assert "stopped 1, started 1" in err
    assert "kept -> robot.kept: 2 received, 2 forwarded" in err, "it went on all the time"


def test_a_bad_file_changes_nothing_and_is_logged(
    start: Start, write: Write, two_brokers: Field
) -> None:
    process = start("run", write(two_brokers.text("kept")))
    assert line(process) == "1 bridge running"

    write(two_brokers.text("kept", "new").replace("type: topic", "type: topik"))
    process.send_signal(signal.SIGHUP)
    eventually(lambda: _next_error(process), lambda: "nothing was logged")
    two_brokers.publisher.publish("still", "kept")
    assert two_brokers.got.first == ("still", "robot.kept")

    write(two_brokers.text("kept", "new"))
    process.send_signal(signal.SIGHUP)
    assert line(process) == "2 bridges running"


def _next_error(process: subprocess.Popen[str]) -> bool:
    assert process.stderr is not None
    return "the file was not taken" in process.stderr.readline()


def test_a_broker_that_is_away_does_not_keep_the_others_from_running(
    start: Start, write: Write, two_brokers: Field, make_redis: Callable[..., RedisServer]
) -> None:
    server = make_redis()
    server.kill()
    text = (
        two_brokers.text("a")
        .replace(
            "bridges:",
            "bridges:\n  - {type: topic, from: {broker: away, uri: x}, "
            "to: {broker: cloud, uri: robot.x}}",
            1,
        )
        .replace("brokers: {", f"brokers: {{away: '{server.url}?connect_timeout=60', ")
    )
    process = start("run", write(text))

    def arrives() -> bool:
        two_brokers.publisher.publish("x", "a")
        return bool(two_brokers.got.items)

    eventually(arrives)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=LONGEST)
    assert process.returncode == 0


def test_a_broker_that_is_away_is_waited_for(
    start: Start, write: Write, make_redis: Callable[..., RedisServer]
) -> None:
    server = make_redis()
    server.kill()
    with Field(f"{server.url}?connect_timeout=0.2", "memory://cloud") as field:
        process = start("run", write(field.text("a")))
        assert line(process) == "0 of 1 bridge running; 1 waits for its broker"
        server.start()
        eventually(lambda: server.cli("PUBLISH", "a", "1") == 1)  # it has subscribed
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=LONGEST)
    assert process.returncode == 0


def test_a_bridge_without_traffic_says_so(start: Start, write: Write) -> None:
    process = start("run", write(bridges(rule())))
    assert line(process) == "1 bridge running"
    process.send_signal(signal.SIGTERM)
    assert "sonar -> robot.sonar: nothing received" in process.communicate(timeout=LONGEST)[1]


def refused(server: RedisServer) -> str:
    return f"redis://nobody:hunter2@{server.url.removeprefix('redis://')}"


def test_who_is_refused_everywhere_is_told_why_and_ends(
    start: Start, write: Write, redis_server: RedisServer
) -> None:
    text = bridges(rule()).replace("memory://cloud", refused(redis_server))
    process = start("run", write(text))
    out, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 1
    assert out.startswith("0 of 1 bridge running; 1 refused: redis://")
    assert "WRONGPASS" in out
    assert "hunter2" not in out + err
    assert "Traceback" not in err


def test_one_that_is_refused_does_not_keep_the_others_from_running(
    start: Start, write: Write, redis_server: RedisServer
) -> None:
    away = rule(to="{broker: edge, uri: copy}")
    text = bridges(rule(), away).replace("memory://cloud", refused(redis_server))
    process = start("run", write(text))
    assert line(process).startswith("1 of 2 bridges running; 1 refused: ")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=LONGEST)
    assert process.returncode == 0
