"""Which transport a URL, the environment or a third party's package leads to."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import pytest

from commlib import aio
from commlib._params import BaseParameters
from commlib.node import Node
from commlib.transports import MODULES, memory, module_for, redis, resolve
from commlib.transports.base import Transport


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets ``COMMLIB_URL``, which is not set in any other way."""
    monkeypatch.delenv("COMMLIB_URL", raising=False)
    return lambda url: monkeypatch.setenv("COMMLIB_URL", url)


Environment = Callable[[str], None]


# ---- by URL ----


@pytest.mark.parametrize(("scheme", "module"), MODULES.items())
def test_every_scheme_leads_to_the_module_that_says_so(scheme: str, module: str) -> None:
    assert module_for(scheme).__name__ == module
    assert scheme in module_for(scheme).ConnectionParameters.schemes


@pytest.mark.parametrize("module", sorted(set(MODULES.values())))
def test_every_scheme_that_a_module_names_is_known(module: str) -> None:
    schemes = __import__(module, fromlist=["x"]).ConnectionParameters.schemes
    assert [MODULES[scheme] for scheme in schemes] == [module] * len(schemes)


def test_a_url_and_parameters_are_taken_as_they_come() -> None:
    params = redis.ConnectionParameters("robot")
    assert resolve(params) is params
    assert resolve("redis://robot") == params
    assert resolve("memory://lab") == memory.ConnectionParameters("lab")
    assert resolve("Redis://robot") == params, "a scheme has no case (RFC 3986, section 3.1)"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("reddis://robot", "no transport for reddis://; did you mean redis?"),
        ("xyz://robot", "no transport for xyz://; it has redis, "),
        ("://robot", "no transport for ://"),
    ],
)
def test_an_unknown_scheme_is_refused_with_what_was_probably_meant(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        resolve(url)


@pytest.mark.parametrize("text", ["", "robot", "redis:/me:secret@robot", "redis//:secret@robot"])
def test_what_is_no_url_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="redis://host") as caught:
        resolve(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("wrong", [6379, {"host": "robot"}, object])
def test_what_is_neither_parameters_nor_a_url_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="connection parameters or a URL were expected"):
        resolve(wrong)


# ---- by the environment ----


def test_without_any_word_it_is_redis_at_its_usual_place() -> None:
    assert resolve(None) == redis.ConnectionParameters("localhost", 6379)
    assert resolve(None, "memory") == memory.ConnectionParameters()


@pytest.mark.parametrize("url", ["redis://robot:7000/2", "memory://lab", "rediss://robot"])
def test_a_node_follows_the_environment_whatever_the_scheme(
    environment: Environment, url: str
) -> None:
    environment(url)
    assert resolve(None) == resolve(url)
    assert aio.Node("n").hub.params == resolve(url)
    assert Node("n")._core.hub.params == resolve(url)


def test_a_class_of_one_transport_follows_the_environment_only_if_it_names_its_own(
    environment: Environment,
) -> None:
    environment("rediss://robot")
    assert resolve(None, "redis") == redis.ConnectionParameters("robot", ssl=True)
    assert resolve(None, "memory") == memory.ConnectionParameters()
    environment("memory://lab")
    assert resolve(None, "redis") == redis.ConnectionParameters()
    assert resolve(None, "memory") == memory.ConnectionParameters("lab")
    assert memory.Subscriber("t", print).core.hub.params == memory.ConnectionParameters("lab")
    assert redis.Subscriber("t", print).core.hub.params == redis.ConnectionParameters()


def test_what_is_wrong_with_the_environment_says_where_that_stands(
    environment: Environment,
) -> None:
    for url in ("localhost", "xyz://robot", "redis://robot?kepalive=5"):
        environment(url)
        with pytest.raises(ValueError, match=r"^COMMLIB_URL: "):
            Node("n")


def test_parameters_win_over_the_environment(environment: Environment) -> None:
    environment("memory://lab")
    assert resolve("redis://robot") == redis.ConnectionParameters("robot")
    subscriber = memory.Subscriber("t", print, conn_params="memory://other")
    assert subscriber.core.hub.params == memory.ConnectionParameters("other")


def test_an_empty_environment_says_nothing(environment: Environment) -> None:
    environment("")
    assert resolve(None) == redis.ConnectionParameters()


@pytest.mark.parametrize(
    ("url", "text"), [("reddis://robot", "did you mean redis?"), ("robot", "no URL")]
)
def test_a_wrong_url_in_the_environment_is_refused(
    environment: Environment, url: str, text: str
) -> None:
    environment(url)
    with pytest.raises(ValueError, match=text):
        resolve(None)


# ---- classes of one transport ----


def test_parameters_of_another_broker_are_refused_with_the_module_to_take() -> None:
    with pytest.raises(TypeError, match=r"memory://.*redis://.*commlib\.transports\.memory"):
        redis.Subscriber("t", print, conn_params=memory.ConnectionParameters())
    with pytest.raises(TypeError, match=r"commlib\.transports\.redis"):
        memory.Subscriber("t", print, conn_params="redis://robot")


@pytest.mark.parametrize("url", ["redis://h", "rediss://h", "redis+unix:///s", "valkey://h"])
def test_all_schemes_of_a_broker_suit_its_classes(url: str) -> None:
    assert redis.Subscriber("t", print, conn_params=url).core.hub.params == resolve(url)


def test_connection_params_is_another_name_of_conn_params() -> None:
    params = memory.ConnectionParameters("lab")
    for subscriber in (
        memory.Subscriber("t", print, conn_params=params),
        memory.Subscriber("t", print, connection_params=params),
        memory.Subscriber(params, "t", print),
        memory.Subscriber("t", print, None, params),
    ):
        assert subscriber.topic == "t"
        assert subscriber.core.hub.params is params


# ---- third parties ----


@dataclass
class CarrierPigeonParameters(BaseParameters):
    """What a third party's module has."""

    loft: str = ""

    schemes: ClassVar[tuple[str, ...]] = ("pigeon",)

    @classmethod
    def _from_url_parts(cls, parts: Any) -> dict[str, Any]:
        return {"loft": parts.netloc}

    def make_transport(self) -> Transport:
        return memory.ConnectionParameters(self.loft).make_transport()


@pytest.fixture
def pigeon(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An installed package that brings the scheme ``pigeon``."""
    module = ModuleType("carrier_pigeon")
    module.ConnectionParameters = CarrierPigeonParameters  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "carrier_pigeon", module)
    entry = importlib.metadata.EntryPoint("pigeon", "carrier_pigeon", "commlib.transports")

    def entry_points(*, group: str, name: str) -> list[importlib.metadata.EntryPoint]:
        return [entry] if (group, name) == ("commlib.transports", "pigeon") else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return module


def test_a_third_partys_scheme_leads_to_its_module(
    pigeon: ModuleType, environment: Environment
) -> None:
    assert module_for("pigeon") is pigeon
    assert resolve("pigeon://loft") == CarrierPigeonParameters("loft")
    environment("pigeon://home")
    assert resolve(None) == CarrierPigeonParameters("home")


def test_everything_works_on_a_third_partys_transport(pigeon: ModuleType) -> None:
    with Node("n", connection_params="pigeon://loft") as node:
        node.create_rpc("double", lambda number: 2 * number)
        assert node.create_rpc_client("double").call(21, timeout=10) == 42


def test_a_scheme_that_no_package_brings_is_refused(pigeon: ModuleType) -> None:
    with pytest.raises(ValueError, match="no transport for dove://"):
        resolve("dove://loft")
