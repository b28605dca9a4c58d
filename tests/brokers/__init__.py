"""Real brokers for tests: on free ports of 127.0.0.1, ended by the process id they began with."""

from brokers._broker import Broker
from brokers._mqtt import MosquittoServer, NatsServer
from brokers._plain import Heard, PlainPeer
from brokers._rabbitmq import RabbitServer
from brokers._redis import RedisServer, RespConnection, running_valkey
from brokers._server import Server, find, free_port, making, missing, running

__all__ = [
    "Broker",
    "Heard",
    "MosquittoServer",
    "NatsServer",
    "PlainPeer",
    "RabbitServer",
    "RedisServer",
    "RespConnection",
    "Server",
    "find",
    "free_port",
    "making",
    "missing",
    "running",
    "running_valkey",
]
