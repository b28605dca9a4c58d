"""Section Endpoint: endpoints out of the factory, with plain data and default parameters."""

import sys
import time

from commlib.endpoints import EndpointType, TransportType, endpoint_factory


def callback(data):
    print(data, flush=True)


if __name__ == "__main__":
    topic = sys.argv[1]
    sub = endpoint_factory(EndpointType.Subscriber, TransportType.REDIS)(
        topic=topic, on_message=callback
    )
    sub.run()
    pub = endpoint_factory(EndpointType.Publisher, TransportType.REDIS)(topic=topic, debug=True)

    data = {"a": 1, "b": 2}
    while True:
        pub.publish(data)
        time.sleep(0.01)
