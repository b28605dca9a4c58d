"""Section Broker-to-broker bridges, second program: a typed bridge for the topics of a pattern."""

import sys

import commlib.transports.amqp as acomm  # noqa: F401 - as in the README
import commlib.transports.mqtt as mcomm
import commlib.transports.redis as rcomm
from commlib.bridges import PTopicBridge, TopicBridgeType
from commlib.msg import DataClass, PubSubMessage


@DataClass
class SonarMessage(PubSubMessage):
    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0


if __name__ == "__main__":
    """
    [Broker A] ------------> [Broker B] ---> [Consumer Endpoint]
    """
    port_a, port_b, name = sys.argv[1:]
    bA_uri = f"{name}.sensors.*"
    bB_namespace = f"{name}.myrobot"

    bA_params = rcomm.ConnectionParameters(port=int(port_a))
    bB_params = mcomm.ConnectionParameters(port=int(port_b))

    br = PTopicBridge(
        TopicBridgeType.REDIS_TO_MQTT,
        bA_uri,
        bB_namespace,
        bA_params,
        bB_params,
        msg_type=SonarMessage,
        debug=True,
    )
    br.run_forever()
