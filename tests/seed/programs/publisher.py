"""Section PubSub: a publisher without a node; its one message is changed after each publish."""

import sys
import time

from commlib.msg import DataClass, PubSubMessage
from commlib.transports.redis import ConnectionParameters, Publisher


@DataClass
class SonarMessage(PubSubMessage):
    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0


if __name__ == "__main__":
    port, topic = sys.argv[1:]
    conn_params = ConnectionParameters(host="localhost", port=int(port))
    pub = Publisher(topic=topic, msg_type=SonarMessage, conn_params=conn_params)
    msg = SonarMessage(distance=2.0)
    while True:
        time.sleep(0.01)
        pub.publish(msg)
        msg.distance += 1
