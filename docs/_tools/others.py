"""Nodes beside the robot of the tutorial, with whose `messages.py` this is to be in one folder.

The display was not updated with the others: something to find.
"""

from commlib.msg import PubSubMessage
from commlib.node import Node
from commlib.timer import Timer
from messages import Drive, SetSpeed, Sonar


class Scan(PubSubMessage):
    ranges: list[float] = []


class Battery(PubSubMessage):
    percent: float = 100.0


class OldBattery(PubSubMessage):
    percent: str = ""


lidar = Node("lidar")
scan = lidar.create_publisher("rover.scan", Scan)
battery = lidar.create_publisher("rover.battery", Battery)
station = Node("station")
station.create_subscriber("rover.sonar", lambda msg: None, msg_type=Sonar)
station.create_psubscriber("rover.*", lambda msg, topic: None)
station.create_rpc_client("rover.set_speed", msg_type=SetSpeed)
station.create_action_client("rover.drive", Drive)
display = Node("display")
display.create_subscriber("rover.battery", lambda msg: None, msg_type=OldBattery)
with lidar, station, display:
    with Timer(0.05, lambda event: scan.publish(Scan(ranges=[1.5] * 360))):
        with Timer(1.0, lambda event: battery.publish(Battery(percent=87.5))):
            lidar.run_forever()
