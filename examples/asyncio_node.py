"""Two nodes in asyncio: a robot that drives and tells where it is, and a pilot who sends it.

Usage: python examples/asyncio_node.py [METRES]
"""

import asyncio
import sys
from contextlib import suppress

from commlib.aio import Node
from commlib.exceptions import CommlibError
from commlib.msg import PubSubMessage, RPCMessage


class Position(PubSubMessage):
    metres: int = 0


class Drive(RPCMessage):
    class Request(RPCMessage.Request):
        metres: int = 0

    class Response(RPCMessage.Response):
        stopped_at: int = 0


async def robot(node: Node) -> None:
    """Give a node what makes it a robot."""
    position = node.create_publisher("robot.position", msg_type=Position)

    async def drive(request: Drive.Request) -> Drive.Response:
        for metres in range(1, request.metres + 1):
            await asyncio.sleep(0.05)  # cancelled here when the robot is switched off
            await position.publish(Position(metres=metres))
        return Drive.Response(stopped_at=request.metres)

    await node.create_rpc("robot.drive", drive, msg_type=Drive).run()


async def pilot(node: Node, metres: int) -> None:
    """Send the robot somewhere, and watch it get there."""
    positions = node.create_subscriber("robot.position", msg_type=Position)
    await positions.run()  # from here on no position is missed
    client = node.create_rpc_client("robot.drive", msg_type=Drive)

    async def watch() -> None:
        async for position in positions:
            print(f"the robot is at {position.metres} m", flush=True)
            if position.metres == metres:
                break

    async with asyncio.TaskGroup() as tasks:  # if the call fails, it stops watching
        tasks.create_task(watch())
        driving = tasks.create_task(client.call(Drive.Request(metres=metres), timeout=60))
    print(f"it stopped at {driving.result().stopped_at} m")


async def main(metres: int) -> None:
    async with Node("robot") as robot_node:
        if not robot_node.connected:
            sys.exit("no broker; start one with: commlib broker")
        await robot(robot_node)
        async with Node("pilot") as pilot_node:
            await pilot(pilot_node, metres)


with suppress(KeyboardInterrupt):
    try:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
    except* CommlibError as errors:
        sys.exit(f"the call failed: {errors.exceptions[0]}")
