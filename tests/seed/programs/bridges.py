"""Section Broker-to-broker bridges, first program: a bridge for calls and one for a topic."""

import sys
import time

import commlib.transports.amqp as acomm  # noqa: F401 - as in the README
import commlib.transports.mqtt as mcomm
import commlib.transports.redis as rcomm
from commlib.bridges import RPCBridge, RPCBridgeType, TopicBridge, TopicBridgeType


def redis_to_mqtt_rpc_bridge():
    """
    [RPC Client] ----> [Broker A] ------> [Broker B] ---> [RPC Service]
    """
    bA_params = rcomm.ConnectionParameters(port=int(port_a))
    bB_params = mcomm.ConnectionParameters(port=int(port_b))
    bA_uri = f"{name}.ops.start_navigation"
    bB_uri = f"{name}.thing.robotA.ops.start_navigation"
    br = RPCBridge(
        RPCBridgeType.REDIS_TO_MQTT,
        from_uri=bA_uri,
        to_uri=bB_uri,
        from_broker_params=bA_params,
        to_broker_params=bB_params,
        debug=False,
    )
    br.run()


def redis_to_mqtt_topic_bridge():
    """
    [Producer Endpoint] ---> [Broker A] ---> [Broker B] ---> [Consumer Endpoint]
    """
    bA_params = rcomm.ConnectionParameters(port=int(port_a))
    bB_params = mcomm.ConnectionParameters(port=int(port_b))
    bA_uri = f"{name}.sonar.front"
    bB_uri = f"{name}.thing.robotA.sensors.sonar.font"
    br = TopicBridge(
        TopicBridgeType.REDIS_TO_MQTT,
        from_uri=bA_uri,
        to_uri=bB_uri,
        from_broker_params=bA_params,
        to_broker_params=bB_params,
        debug=False,
    )
    br.run()


if __name__ == "__main__":
    port_a, port_b, name = sys.argv[1:]
    redis_to_mqtt_rpc_bridge()
    redis_to_mqtt_topic_bridge()
    print("running", flush=True)
    time.sleep(60)
