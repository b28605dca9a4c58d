"""Section PubSub: a subscriber without a node and without a message class."""

import sys
import time

from commlib.transports.redis import ConnectionParameters, Subscriber


def sonar_data_callback(msg):
    print(f"Message: {msg}", flush=True)


if __name__ == "__main__":
    port, topic = sys.argv[1:]
    conn_params = ConnectionParameters(host="localhost", port=int(port))
    sub = Subscriber(topic=topic, on_message=sonar_data_callback, conn_params=conn_params)
    sub.run()
    print("running", flush=True)
    while True:
        time.sleep(0.001)
