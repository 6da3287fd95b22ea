"""A WebSocket client of `websockets`: every kind of message there and back; then says "ready", and waits to be told that
the service restarts, in silence and in the midst of messages in fragments."""
import asyncio
import os
import sys
import traceback

import websockets

URL = sys.argv[1]
HOWS = sys.argv[2].split(",")


async def connect(deflate):
    compression = "deflate" if deflate else None
    socket = await websockets.connect(URL, compression=compression, max_size=64 << 20)
    assert ("permessage-deflate" in socket.response_headers.get("Sec-WebSocket-Extensions", "")) == deflate
    return socket


async def echoed(socket, data):
    await socket.send(data)
    assert await socket.recv() == data, f"{len(data)} come back as they were"


async def fragments(socket):
    yield "one "
    yield ""
    await (await socket.ping(b"in between"))
    yield "two " * 10000
    yield "three"


async def talk(deflate):
    socket = await connect(deflate)
    for size in [0, 1, 125, 126, 127, 65535, 65536, 1 << 20]:
        await echoed(socket, "ü" * (size // 2))
        await echoed(socket, os.urandom(size))
    await socket.send(fragments(socket))
    assert await socket.recv() == "one " + "two " * 10000 + "three"
    for number in range(200):
        await socket.send(str(number))
    for number in range(200):
        assert await socket.recv() == str(number)
    await socket.close(4001, "enough")
    assert socket.close_code == 4001
    other = await connect(deflate)
    await other.send("close 4002 bye")
    await other.wait_closed()
    assert (other.close_code, other.close_reason) == (4002, "bye")


async def endless():
    while True:
        yield os.urandom(1500).hex()
        await asyncio.sleep(0.003)


async def restarted(socket, how):
    try:
        if how == "drip":
            await socket.send("drip")
        if how == "fragments":
            await socket.send(endless())
        await socket.recv()
    except (websockets.ConnectionClosed, websockets.InvalidState):
        pass
    await socket.wait_closed()
    assert (socket.close_code, socket.close_reason) == (1012, "service restart"), (how, socket.close_code)


async def main():
    await talk(True)
    await talk(False)
    waits = []
    for deflate in [True, False]:
        for how in HOWS:
            waits.append(asyncio.create_task(restarted(await connect(deflate), how)))
    await asyncio.sleep(0.2)
    print("ready", flush=True)
    await asyncio.gather(*waits)
    print("done", flush=True)


async def run():
    # Within the loop: whatever else still waits is not waited for.
    try:
        await asyncio.wait_for(main(), 30)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(1)


asyncio.run(run())
