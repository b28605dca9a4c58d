"""The limit, asking of RabbitMQ all that a call of ours asks."""

from bench import limits
from bench.wires import WIRES
from bench.wires.asking_amqp import AskingAmqpWire

if __name__ == "__main__":
    WIRES["amqp"] = AskingAmqpWire
    limits.main()
