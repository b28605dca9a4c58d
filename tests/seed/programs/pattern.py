"""Section Pattern-based Topic Subscription: PSubscriber and MPublisher in one program."""

import sys
import time

from commlib.msg import DataClass, PubSubMessage
from commlib.transports.redis import MPublisher, PSubscriber


@DataClass
class SonarMessage(PubSubMessage):
    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0


def sensor_data_callback(msg, topic):
    print(f"Sensor Data Message: {topic}:{msg}", flush=True)


if __name__ == "__main__":
    topic = sys.argv[1]
    p1_topic = topic.split("*")[0] + "sonar.front"
    p2_topic = topic.split("*")[0] + "ir.rear"

    sub = PSubscriber(topic=topic, msg_type=SonarMessage, on_message=sensor_data_callback)
    sub.run()

    msg = SonarMessage()
    pub = MPublisher(msg_type=SonarMessage)
    while True:
        time.sleep(0.01)
        pub.publish(msg, p1_topic)
        pub.publish(msg, p2_topic)
        msg.distance += 1
